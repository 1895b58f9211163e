//! Tensors: devices, parameters, optimiser, random numbers, layers, kernels, weights on disk.
//!
//! Encoders and systems compute with tensors too; what is general is here. Not for: what an encoder
//! or a system computes, or when.

pub mod device;
pub mod dropout;
pub mod gradients;
pub mod hf;
pub mod hooks;
pub mod kernels;
pub mod nn;
pub mod optimizer;
mod params;
pub mod precision;
pub mod rng;
mod shim;

pub use device::{DeviceChoice, SideStream};
pub use dropout::Dropout;
pub use gradients::GradientBuckets;
pub use optimizer::{Adam, AdamSettings, ParameterGroup};
pub use params::{HEADS, Init, Parameter, Parameters, Slot};
pub use precision::Precision;
