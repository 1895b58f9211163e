//! Inference-stage fusion (Ma et al. 2023; docs/systems.md, E.6–E.8): documents that are cut down
//! to their evidence are scored again, and the facts of both runs are put together.
//!
//! Host code without tensors. Not for: running a model over the documents (`pipeline::fusion`).

mod facts;
mod pseudo;

pub use facts::{FusedFacts, FusionForm, relative_scores, top_classes};
pub use pseudo::{PseudoDocument, pseudo_documents};
