//! KD-DocRE (Tan et al. 2022; docs/systems.md, "K. KD-DocRE"): ATLOP's reading, axial attention
//! over the matrix of entity pairs, an adaptive focal loss, and distillation of a teacher's logits.
//!
//! Layers are named as in the release (`axial_transformer`, `projection`, `classifier`).

mod axial;
mod grid;
mod layout;
mod model;
mod parity;
mod settings;
mod system;

#[cfg(test)]
mod tests;

pub use model::KdDocre;
pub use settings::{FocalKind, KdDocreSettings, KdDocreStage};
pub use system::KD_DOCRE;
