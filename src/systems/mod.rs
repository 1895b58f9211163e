//! The systems of the papers: one folder each, with everything that knows the system.
//!
//! A folder holds settings with three profiles, model, default schedule, parity case, citation and
//! published scores. It implements [`System`], and `registry` lists it in one line. Models that
//! extract relations are an [`Extractor`].
//!
//! Not for: optimisers or ranks (`train`), nor for how a kernel works (`torch`).

pub mod atlop;
mod attention_targets;
pub mod baselines;
pub(crate) mod cases;
mod classes;
pub mod docre_ii;
mod documents;
pub mod dreeam;
pub mod dsdocre;
mod encoder_mode;
pub mod evidence;
mod extraction;
mod extractor;
pub mod fusion;
pub mod glre;
pub mod hin;
mod info;
pub mod kd_docre;
mod positive_unlabelled;
pub mod reading;
mod registry;
mod relation_start;
mod schedules;
mod scored;
mod system;
#[cfg(test)]
pub(crate) mod testing;
mod training_documents;
pub mod ttm_re;
mod windows;
pub mod words;

pub use crate::torch::on;
pub use attention_targets::{AttentionTargets, PairTarget};
pub use classes::{Classes, NaClass};
pub use documents::{DocumentTables, DocumentViews, PackedDocuments, row_dropout, row_keys, visit};
pub use encoder_mode::BertMode;
pub use extraction::ExtractionSource;
pub use extractor::{
    DecisionRule, Example, Extraction, Extractor, Foundation, Layout, Model, Pair, RelationBatch,
    RelationLoss, Tables, relation_loss_sum, tables,
};
pub use info::{Profile, PublishedScores, Reads, SystemInfo, Variant};
pub use positive_unlabelled::{NegativeRisk, RiskKind, RiskRule};
pub use registry::{default_system, find, parity_cases, register, systems};
pub use relation_start::{RelationStart, start_from_names};
pub(crate) use schedules::adam_schedule;
pub use scored::{EvidenceRule, EvidenceWeights, ScoredBatch};
pub use system::{Settings, System, SystemSettings, TeacherColumn, Values, WeightPart};
pub use training_documents::{TrainingDocuments, TrainingItem, TrainingSource, check_weight};
pub use windows::{BatchWindows, LongDocuments, windows_of};
