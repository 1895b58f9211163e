//! Documents and where they come from: the types, the readers, distant labelling and the generated world.
//!
//! Not for: word pieces (`text`), shards on disk (`shards`) or anything with tensors.

mod document;
mod relations;

pub use document::{Document, Entity, Fact, Mention, Provenance};
pub use relations::{Relation, RelationSet};
