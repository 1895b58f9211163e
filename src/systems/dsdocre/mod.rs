//! DSDocRE: denoising pre-training for document-level relation extraction (Xiao et al. 2020;
//! docs/systems.md, "D. DSDocRE").
//!
//! Three models of one architecture, trained in sequence: the [`Ranker`] (pre-denoising), the
//! [`Pretrainer`] (three tasks, five losses) and the fine-tuned [`Dsdocre`]. Each has a source that
//! prepares micro-batches on the host from (seed, step) and an objective that turns them into loss
//! sums.

mod extractor;
mod instances;
mod model;
mod parity;
mod pools;
mod pretrain_tables;
mod pretrainer;
mod ranker;
mod rows;
mod sampler;
mod settings;
mod system;
#[cfg(test)]
mod tests;

pub use extractor::{Dsdocre, DsdocreTables};
pub use model::DsdocreModel;
pub use pools::Documents;
pub use pretrainer::{PretrainBatch, PretrainSource, Pretrainer};
pub use ranker::{RankBatch, RankSource, Ranker};
pub use rows::{AlignmentRows, MatchRows, PairRows};
pub use sampler::PretrainSampler;
pub use settings::{
    AlignmentDistance, DsdocreSettings, KEYS_OF_FINETUNING, KEYS_OF_PRETRAINING, MarkerNumbering,
    MentionVectors, ModelKind,
};
pub use system::{DSDOCRE, pretrain_schedule, rank_schedule};
