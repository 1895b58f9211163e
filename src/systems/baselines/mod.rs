//! The baselines: one network over word states, entity averages, and a bilinear layer over pairs
//! with their distance.
//!
//! * `cnn`, `lstm`, `bilstm`, `context-aware`: DocRED's own (Yao et al. 2019; docs/systems.md,
//!   B.1–B.8), over word vectors, coreference and type rows;
//! * `bert-re` (Wang et al. 2019; docs/systems.md, B.4–B.6): a linear map of BERT's first-piece
//!   states;
//! * `bert-ts` (docs/systems.md, B.9): the same network twice, first for "related or not", then for
//!   relations; both in one [`TwoStep`].
//!
//! All fit any encoder. Not for: the evidence predictor (`systems::evidence`), which classifies
//! sentences.

mod attention;
mod convolution;
mod layout;
mod model;
mod network;
mod pairs;
mod parity;
mod parity_bert;
mod settings;
mod system;
mod two_step;

#[cfg(test)]
mod tests;

pub use layout::BaselineLayout;
pub use model::Baseline;
pub use network::Probe;
pub use pairs::PairBilinear;
pub use settings::{BaselineSettings, Labels, Network};
pub use system::{BERT_RE, BERT_TS, BILSTM, CNN, CONTEXT_AWARE, LSTM};
pub use two_step::{TwoStep, UNRELATED, two_step_logits};
