//! DocRED's evidence predictor (LSTM-SP; Yao et al. 2019; docs/systems.md, B.10–B.12): which
//! sentences support a fact.
//!
//! Its items are (document, fact), not pairs: head and tail words are marked, a BiLSTM reads the
//! document once an item, and each sentence is judged by the states at its two ends and the
//! relation's row. It is trained on labelled facts and then fills the evidence of facts that
//! another system has predicted. Not for: writing predictions (`pipeline::evidence`).

mod layout;
mod model;
mod parity;
mod sentences;
mod settings;
mod source;
mod system;

#[cfg(test)]
mod tests;

pub use layout::{EvidenceBatch, EvidenceItem, EvidenceLayout};
pub use model::EvidencePredictor;
pub use sentences::{
    ScoredSentence, best_threshold, evidence, f1_at, rank_sentences, sentences_of,
};
pub use settings::EvidenceSettings;
pub use source::EvidenceSource;
pub use system::LSTM_SP;
