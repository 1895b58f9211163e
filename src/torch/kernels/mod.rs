//! Operations that libtorch does not have, or not in the form that packed documents need: the Rust
//! faces of the C++ in `shim/`.
//!
//! Not for: layers with parameters (`torch::nn`).

pub mod activations;
pub mod bags;
pub mod context;
pub mod grouped;
pub mod ops;
pub mod pairs;
pub mod products;
mod segments;

pub use segments::Segments;
