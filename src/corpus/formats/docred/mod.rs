//! The DocRED file format: a strict streaming reader, a writer, and the files that name relations.
//!
//! One format serves DocRED, Re-DocRED, DWIE and the generated world (docs/formats.md, "DocRED's
//! JSON"). Unknown fields are ignored, known ones are checked to the last index. Not for: other
//! formats, word pieces, or deciding which documents a stage trains on.

mod labels;
mod reader;
mod relation_file;
mod writer;

pub(crate) use labels::{RawLabel, labels};
pub use reader::Docred;
pub(super) use reader::{ABOUT, NAME, parse};
pub use relation_file::load_relations;
pub use writer::DocredWriter;
pub(crate) use writer::{WrittenLabel, to_json};

#[cfg(test)]
mod tests;
