//! PubTator: paragraphs of `id|t|title`, `id|a|abstract`, lines of mentions and lines of relations
//! (CDR, GDA, ChemDisGene's texts).
//!
//! Sentences and words are our own (`segment`). Which pairs are asked about follows from the types
//! of the entities. Not for: the same corpora in EoG's form (`eog`).

mod paragraph;

use std::path::Path;

use super::reading::{Intake, check_relations};
use super::{ReadOptions, ReadSummary};
use crate::Result;
use crate::base::records::{Unit, read_records};
use crate::corpus::{Document, PairTypes};

pub(super) use paragraph::parse;

/// Reads `path` (gzip if it ends in `.gz`) on all cores and hands every checked document to `each`,
/// in file order. A document without relation lines is one without facts: the format cannot say
/// that labels are hidden.
///
/// # Errors
/// A [`DataError`](crate::DataError) naming file, row (of the paragraph), document and line for
/// everything that breaks the format; an I/O error for an unreadable file; whatever `each` returns.
pub fn read_pubtator(
    path: &Path,
    options: &ReadOptions,
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<ReadSummary> {
    let usual = PairTypes::listed(&[("Chemical", "Disease"), ("Gene", "Disease")]);
    let types = options.pair_types.as_ref().unwrap_or(&usual);
    let mut intake = Intake::default();
    let work = |record: crate::base::records::Record<'_>| {
        let (annotated, place) = parse(path, record)?;
        let (mut document, others) = annotated.document(&place, types)?;
        if let Some(tree) = &options.mesh {
            tree.exclude(&mut document);
        }
        check_relations(&document, options.relations.as_ref())?;
        Ok((document, others.repeated))
    };
    read_records(path, Unit::Paragraph, &work, &mut |(document, repeated)| {
        intake.take(path, &document, repeated)?;
        each(document)
    })?;
    Ok(intake.summary)
}

#[cfg(test)]
mod tests;
