//! The only room that touches tch and the C++ shim: parameters, encoders, layers, optimiser, devices.
//!
//! Not for: what a system computes (`systems`) or when (`train`).

pub mod activations;
pub mod bags;
pub mod context;
pub mod device;
pub mod dropout;
pub mod encoder;
pub mod gradients;
pub mod grouped;
pub mod hf;
pub mod hooks;
pub mod layers;
pub mod losses;
pub mod ops;
pub mod optimizer;
pub mod pairs;
mod params;
pub mod precision;
pub mod products;
pub mod rng;
pub mod segments;
mod shim;

pub use device::{DeviceChoice, SideStream};
pub use dropout::Dropout;
pub use gradients::GradientBuckets;
pub use optimizer::{Adam, AdamSettings, ParameterGroup};
pub use params::{Init, Parameter, Parameters};
pub use precision::Precision;
pub use segments::Segments;
