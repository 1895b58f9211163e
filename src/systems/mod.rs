//! The systems of the papers: what each computes and what its losses are. One folder a system; all fit [`Objective`].
//!
//! Not for: schedules, optimisers or ranks (`train`), nor for how a kernel works (`torch`).

pub mod dsdocre;
mod objective;
mod source;

pub use objective::{Forward, MicroBatch, Objective};
pub use source::{BatchSource, Share, StepBatches};
