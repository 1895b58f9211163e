//! HIN, the hierarchical inference network (Tang et al. 2020; docs/systems.md, "H. HIN").
//!
//! `settings` the settings; `layout` the tables of a batch; `entities` H.4–H.6, from entities to
//! pair vectors; `sentences` H.7–H.11, from words through sentences to documents; `reader` the
//! BiLSTM that all of them use; `model` the whole. Not for: words and their features, which the
//! baselines share (`words`).

mod entities;
mod layout;
mod model;
mod parity;
mod reader;
mod sentences;
mod settings;
mod system;
#[cfg(test)]
mod tests;

pub use layout::HinTables;
pub use model::{Hin, HinStates};
pub use sentences::PairSentences;
pub use settings::HinSettings;
pub use system::HIN;
