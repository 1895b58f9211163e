//! Documents and where they come from: the types, the readers, distant labelling and the generated world.
//!
//! Not for: word pieces (`text`), shards on disk (`shards`) or anything with tensors.

pub(crate) mod atomic;
pub mod docred;
mod document;
pub mod eog;
pub(crate) mod json_stream;
pub mod label;
pub(crate) mod ordered;
mod relations;
pub mod split;
pub mod survey;
pub mod world;

pub use docred::{DocredWriter, ReadOptions, ReadSummary, load_relations, read_all, read_documents, read_gold};
pub use document::{Document, Entity, Fact, Mention, Provenance};
pub use eog::{EogDocument, EogSummary, LabelledPair, PairLabel, read_all_eog, read_eog};
pub use label::{FactBase, LabelOptions, LabelReport, label_file};
pub use relations::{Relation, RelationSet};
pub use split::title_position;
pub use survey::{FileSurvey, Survey, SurveyReport};
