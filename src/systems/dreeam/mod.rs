//! DREEAM (Ma et al. 2023; docs/systems.md, "E. DREEAM"): ATLOP whose pair attention is trained to
//! lie on the evidence sentences, and a student that learns a teacher's attention on distant
//! documents.
//!
//! The network is ATLOP's, with the mean of the last layers. Not for: the second run over pseudo
//! documents (`systems::fusion`), or where a teacher's attention is kept.

mod labels;
mod layout;
mod losses;
mod model;
mod parity;
mod settings;
mod system;

#[cfg(test)]
mod tests;

pub use model::Dreeam;
pub use settings::{DreeamSettings, DreeamStage, EvidenceNorm};
pub use system::DREEAM;
