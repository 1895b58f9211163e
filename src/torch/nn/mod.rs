//! The kit of layers and losses that encoders and heads are built from: one file a layer.
//!
//! A layer declares its parameters (`declare`), or finds those declared before (`get`, after
//! `slots` named them), and computes (`forward`). Not for: kernels without parameters
//! (`torch::kernels`).

mod attention;
mod bilinear;
mod embedding;
mod layer_norm;
mod linear;
pub mod losses;
mod lstm;

pub use attention::SelfAttention;
pub use bilinear::Bilinear;
pub use embedding::lookup;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use lstm::{LstmShape, LstmStates, PackedLstm, Packing, lstm_layer};
