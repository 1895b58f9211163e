//! The only room that touches tch and the C++ shim: parameters, encoders, layers, optimiser, devices.
//!
//! Not for: what a system computes (`systems`) or when (`train`).

mod params;

pub use params::{Init, Parameter, Parameters};
