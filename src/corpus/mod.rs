//! Documents and where they come from: the types, the readers, distant labelling and the generated world.
//!
//! Not for: word pieces (`text`), shards on disk (`shards`) or anything with tensors.

mod annotated;
pub(crate) mod atomic;
pub(crate) mod check;
mod chemdisgene;
pub mod docred;
mod document;
pub mod eog;
mod format;
mod hypernyms;
pub(crate) mod json_stream;
pub mod jsonl;
pub mod label;
pub(crate) mod ordered;
mod pair_types;
pub mod pubtator;
mod reading;
mod records;
mod relations;
mod segment;
pub mod split;
pub mod survey;
mod textfile;
pub mod world;

pub use docred::{DocredWriter, load_relations, read_all, read_documents, read_gold};
pub use document::{Candidate, Document, Entity, Fact, Mention, Provenance};
pub use eog::{EogDocument, EogLosses, EogSummary, EogWriter, LabelledPair, PairLabel, read_all_eog, read_eog};
pub use format::Format;
pub use hypernyms::{MeshTree, filter_hypernyms};
pub use jsonl::JsonlWriter;
pub use label::{FactBase, LabelOptions, LabelReport, label_file};
pub use pair_types::PairTypes;
pub use reading::{ReadOptions, ReadSummary, TitleKey, title_key};
pub use relations::{Relation, RelationSet};
pub use split::title_position;
pub use survey::{FileSurvey, Survey, SurveyReport};
