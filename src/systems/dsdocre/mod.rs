//! DSDocRE: denoising pre-training for document-level relation extraction (Xiao et al. 2020;
//! docs/systems.md, "D. DSDocRE").
//!
//! Three models of one architecture, trained in sequence: the [`Ranker`] (pre-denoising), the
//! [`Pretrainer`] (three tasks, five losses) and the fine-tuned [`Dsdocre`]. Each has a source that
//! prepares micro-batches on the host from (seed, step) and an objective that turns them into loss
//! sums.

mod extractor;
mod model;
mod parity;
mod pretrainer;
mod ranker;
mod rows;
mod settings;
mod system;
#[cfg(test)]
mod tests;

pub use extractor::{Dsdocre, DsdocreLayout, DsdocreTables, PairChoice};
pub use model::{DsdocreModel, Heads, ModelConfig, Part};
pub use pretrainer::{PretrainBatch, PretrainSource, Pretrainer};
pub use ranker::{RankBatch, RankSource, Ranker};
pub use rows::{AlignmentRows, MatchRows, PairRows};
pub use settings::{
    AlignmentDistance, DsdocreSettings, HeadStart, MarkerNumbering, MentionCandidates,
};
pub use system::{DsdocreSystem, pretrain_schedule, rank_schedule};
