//! HIN, the hierarchical inference network (Tang et al. 2020; SPEC §4).
//!
//! `settings` the settings; `layout` the tables of a batch; `entities` steps 3–5, from entities to pair vectors; `sentences` steps 6–9, from
//! words through sentences to documents; `reader` the BiLSTM that all of them use; `model` the whole. Not for: words and their features,
//! which the baselines share (`words`).

mod entities;
mod layout;
mod model;
mod reader;
mod sentences;
mod settings;
#[cfg(test)]
mod tests;

pub use entities::EntityLevel;
pub use layout::{HinLayout, HinTables};
pub use model::{Hin, HinStates, SentenceLevel};
pub use sentences::PairSentences;
pub use settings::HinSettings;
