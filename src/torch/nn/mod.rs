//! The kit of layers and losses that encoders and systems are built from.
//!
//! Not for: kernels without parameters (`torch::kernels`).

pub mod encoder_layers;
pub mod layers;
pub mod losses;
pub mod lstm;
pub mod reading_layers;

pub use lstm::{InitialStates, LstmShape, LstmStates, PackedLstm, Packing, lstm_layer};
pub use reading_layers::{LayerNorm, Linear};
