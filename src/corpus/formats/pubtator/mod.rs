//! PubTator: paragraphs of `id|t|title`, `id|a|abstract`, lines of mentions and lines of relations
//! (CDR, GDA, ChemDisGene's texts).
//!
//! Sentences and words are our own (`segment`). Which pairs are asked about follows from the types
//! of the entities. Not for: the same corpora in EoG's form (`eog`).

mod paragraph;

use std::path::Path;

use super::annotated::Unmentioned;
use super::format::DocumentFormat;
use super::reading::{OnError, ReadOptions, ReadSummary, check_relations, read_documents};
use crate::Result;
use crate::base::records::{Record, Unit};
use crate::corpus::{Document, PairTypes};

pub(super) use paragraph::parse;

/// PubTator's text. A document without relation lines is one without facts: the format cannot say
/// that labels are hidden.
#[derive(Debug)]
pub(super) struct Pubtator;

impl DocumentFormat for Pubtator {
    fn names(&self) -> &'static [(&'static str, &'static str)] {
        &[("pubtator", "PubTator text")]
    }

    fn read(
        &self,
        path: &Path,
        options: &ReadOptions,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<ReadSummary> {
        let usual = PairTypes::listed(&[("Chemical", "Disease"), ("Gene", "Disease")]);
        let types = options.pair_types.as_ref().unwrap_or(&usual);
        let parse = |record: Record<'_>| {
            let mut annotated = paragraph::parse(path, record)?;
            annotated.unmentioned = match options.on_error {
                OnError::Stop => Unmentioned::Refuse,
                OnError::Skip => Unmentioned::List,
            };
            let (mut document, others) = annotated.document(path, record.row, types)?;
            if let Some(tree) = &options.mesh {
                tree.exclude(&mut document);
            }
            check_relations(&document, options.relations.as_ref())?;
            Ok((document, others))
        };
        read_documents(path, Unit::Paragraph, options, &parse, each)
    }
}

#[cfg(test)]
mod tests;
