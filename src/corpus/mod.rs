//! Documents and where they come from: the types, the file formats, distant labelling and the
//! generated world.
//!
//! Not for: word pieces (`text`), shards on disk (`shards`) or anything with tensors.

pub(crate) mod check;
mod document;
pub mod formats;
mod hypernyms;
pub mod label;
mod listed_pairs;
pub mod mentions;
mod pair_types;
pub(crate) mod place;
mod relations;
mod spans;
pub mod split;
pub mod survey;
pub mod synth;

pub use document::{Candidate, Document, Entity, Fact, Mention, Provenance};
pub use formats::Format;
pub use hypernyms::{MeshTree, filter_hypernyms};
pub use label::{FactBase, LabelOptions, label_file};
pub use listed_pairs::{LabelledPair, PairLabel};
pub use pair_types::PairTypes;
pub use relations::{Relation, RelationSet, is_no_relation};
pub use split::title_position;
pub use survey::{FileSurvey, Survey, SurveyReport};
