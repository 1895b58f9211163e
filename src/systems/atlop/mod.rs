//! ATLOP (Zhou et al. 2021; docs/systems.md, "A. ATLOP"): localized context pooling, a grouped
//! bilinear classifier, an adaptive threshold.
//!
//! Layers are named as in the release (`head_extractor`, `tail_extractor`, `bilinear`).

mod model;
mod parity;
mod risk_parity;
mod settings;
mod system;

#[cfg(test)]
mod tests;

pub(crate) use model::reading_options;
pub use model::{Atlop, AtlopPairs};
pub use settings::AtlopSettings;
pub(crate) use settings::check_blocks;
pub(crate) use system::schedule;
pub use system::{ATLOP, SSR_PU};
