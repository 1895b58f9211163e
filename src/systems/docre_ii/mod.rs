//! DocRE-II (Zhang et al. 2022; docs/systems.md, "I. DocRE-II"): iterative inference over an ATLOP
//! base.
//!
//! Two stages: the base module alone, then an inference module on top of it, trained with noisy
//! relation inputs and a contrastive loss. At test the inference module is applied K times to its
//! own predictions. Layers are named as in the release (`CCA` is the inference module).

mod base;
mod contrast;
mod eca;
mod grid;
mod inference;
mod layout;
mod model;
mod noise;
mod parity;
mod settings;
mod stage2;
mod system;

#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;

pub use base::BasePairs;
pub use layout::DocreIiTables;
pub use model::DocreIi;
pub use noise::{Noise, NoisyRelations, RelationSource};
pub use settings::{DocreIiSettings, Preset, Stage};
pub use system::DOCRE_II;
