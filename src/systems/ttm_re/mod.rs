//! TTM-RE (Gao et al. 2024; docs/systems.md, "T. TTM-RE"): ATLOP's reading, pairs that read from
//! learned memory tokens, and SSR-PU's losses.
//!
//! Layers are named as in the release (`mu_encoder`).

mod memory;
mod model;
mod parity;
mod settings;
mod system;

#[cfg(test)]
mod tests;

pub use model::TtmRe;
pub use settings::{MemoryAttention, TtmReSettings};
pub use system::TTM_RE;
