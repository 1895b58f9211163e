//! DSDocRE: denoising pre-training for document-level relation extraction (papers/dsdocre; SPEC §3).
//!
//! Three models of one architecture, trained in sequence: the [`Ranker`] (pre-denoising), the [`Pretrainer`] (three tasks, five losses)
//! and the [`Finetuner`]. Each has a source that prepares micro-batches on the host from (seed, step) and an objective that turns them
//! into loss sums.

mod finetuner;
mod model;
mod pretrainer;
mod ranker;
mod rows;

pub use finetuner::{FinetuneBatch, FinetuneSource, Finetuner, PairChoice, paired_view};
pub use model::{DsdocreModel, Heads, ModelConfig, Part};
pub use pretrainer::{PretrainBatch, PretrainSource, Pretrainer};
pub use ranker::{RankBatch, RankSource, Ranker};
pub use rows::{AlignmentRows, MatchRows, PairRows};
