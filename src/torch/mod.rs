//! What encoders and systems compute with: devices, parameters, gradients, the optimiser, random
//! numbers, dropout, layers (`nn`), kernels, the C++ shim under them, and weights on disk (`hf`).
//!
//! Not for: what an encoder or a system computes, or when (`encoders`, `systems`, `train`).

pub mod c10d;
pub mod cuda;
pub mod device;
pub mod dropout;
mod fresh_gradients;
pub mod gradients;
pub mod hf;
pub mod hooks;
pub mod kernels;
#[cfg(test)]
pub(crate) mod mock_gpu;
pub mod nn;
pub mod optimizer;
mod params;
mod peak_rate;
pub mod plain;
pub mod precision;
pub mod rng;
mod shim;
mod upload;

pub use device::{DeviceChoice, SideStream};
pub use dropout::{Dropout, SharedRows};
pub use fresh_gradients::FreshGradients;
pub use gradients::GradientBuckets;
pub use optimizer::{Adam, AdamSettings, ParameterGroup};
pub use params::{HEADS, Init, Parameter, Parameters, Slot};
pub use peak_rate::peak_rate;
pub use precision::Precision;
pub use upload::{Arena, Table, Uploaded, on};
