//! DocRED's evidence predictor (LSTM-SP; Yao et al. 2019; docs/systems.md, B.10–B.12): which
//! sentences support a fact.
//!
//! Its items are (document, fact), not pairs: head and tail words are marked, a BiLSTM reads the
//! document once an item, and each sentence is judged by the states at its two ends and the
//! relation's row. It is trained on labelled facts and then fills the evidence of facts that
//! another system has predicted. Not for: choosing the threshold and writing predictions
//! (`pipeline::evidence`).

mod layout;
mod model;
mod settings;
mod source;

#[cfg(test)]
mod tests;

pub use layout::{EvidenceBatch, EvidenceItem, EvidenceLayout};
pub use model::EvidencePredictor;
pub use settings::EvidenceSettings;
pub use source::EvidenceSource;
