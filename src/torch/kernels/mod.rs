//! Operations that libtorch does not have, or not in the form that packed documents need.
//!
//! On the CPU a row's result has the same bits alone and in a batch, for any number of threads.
//! Most functions are the Rust faces of the C++ in `shim/`; shapes and the equations of
//! docs/systems.md stand with each. Not for: layers with parameters (`torch::nn`).

pub mod activations;
pub mod attention;
pub mod bags;
pub mod context;
pub mod grouped;
pub mod norms;
mod padded;
pub mod pairs;
pub mod products;
pub mod scores;
mod segments;

pub use segments::Segments;
