//! The systems of the papers: what each computes and what its losses are. One folder a system; all
//! fit [`Extractor`].
//!
//! Not for: schedules, optimisers or ranks (`train`), nor for how a kernel works (`torch`).

pub mod atlop;
pub mod baselines;
pub mod docre_ii;
mod documents;
pub mod dsdocre;
mod encoder_mode;
pub mod evidence;
mod extraction;
mod extractor;
pub mod glre;
pub mod hin;
mod profile;
pub mod reading;
mod schedules;
mod settings;
#[cfg(test)]
pub(crate) mod testing;
mod windows;
pub mod words;

pub use documents::{DocumentViews, PackedDocuments, on, visit};
pub use encoder_mode::BertMode;
pub use extraction::ExtractionSource;
pub use extractor::{
    Classes, DecisionRule, Example, Extraction, Extractor, Foundation, Layout, NaClass, Pair,
    RelationBatch, RelationLoss, Tables, relation_loss_sum, tables,
};
pub use profile::Profile;
pub use schedules::{
    finetune_schedule, glre_schedule, inference_schedule, pretrain_schedule, rank_schedule,
};
pub use settings::{SYSTEMS, Settings, SystemInfo};
pub use windows::{BatchWindows, LongDocuments, windows_of};
