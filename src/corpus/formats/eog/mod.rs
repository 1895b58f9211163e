//! The tab-separated format of edge-oriented-graph (EoG), in which CDR, GDA and BioRED are passed
//! around (docs/formats.md, "EoG's table").
//!
//! A line is a document: its id, its sentences joined by `|` with blanks between words, then 17
//! columns for every pair of arguments. Entities are found in the pairs alone, and a pair that the
//! hypernym filter took out is labelled `not_include`, which is not the same as "no relation": it
//! is neither trained on nor scored. Not for: PubTator, and the filter itself.

mod line;
mod writer;

use std::path::Path;

use super::format::{DocumentFormat, DocumentWriter, GoldDocuments};
use super::reading::{Intake, ReadOptions, ReadSummary, check_relations};
use crate::Result;
use crate::base::records::{Record, Unit, read_all_records};
use crate::corpus::check::OtherRows;
use crate::corpus::{Document, LabelledPair};
use writer::EogWriter;

/// A document with the pairs that its corpus asks about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EogDocument {
    /// The document; entities in the order in which the pairs name them, facts for the pairs with a
    /// relation.
    pub document: Document,
    /// All pairs of the line, in its order.
    pub pairs: Vec<LabelledPair>,
}

/// EoG's table.
#[derive(Debug)]
pub(super) struct Eog;

impl DocumentFormat for Eog {
    fn names(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("cdr", "CDR as edge-oriented-graph's table"),
            ("gda", "GDA as edge-oriented-graph's table"),
            ("biored", "BioRED as edge-oriented-graph's table"),
        ]
    }

    fn read(
        &self,
        path: &Path,
        options: &ReadOptions,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<ReadSummary> {
        read(path, options, &mut |document, _| each(document))
    }

    fn read_gold(&self, path: &Path) -> Result<GoldDocuments> {
        let (documents, pairs) =
            read_eog(path)?.into_iter().map(|read| (read.document, read.pairs)).unzip();
        Ok(GoldDocuments { documents, pairs: Some(pairs), warnings: Vec::new() })
    }

    fn create(&self, path: &Path) -> Option<Result<Box<dyn DocumentWriter>>> {
        Some(EogWriter::create(path).map(|writer| Box::new(writer) as _))
    }
}

fn read(
    path: &Path,
    options: &ReadOptions,
    each: &mut dyn FnMut(Document, Vec<LabelledPair>) -> Result<()>,
) -> Result<ReadSummary> {
    let mut intake = Intake::new(options);
    let work = |Record { text, row, .. }: Record<'_>| {
        let read = line::parse(path, row, text)?;
        check_relations(&read.document, options.relations.as_ref())?;
        Ok(read)
    };
    let outcome = read_all_records(path, Unit::Line, &work, &mut |read| {
        let mut pairs = Vec::new();
        let read = read.map(|read: EogDocument| {
            pairs = read.pairs;
            (read.document, OtherRows::default())
        });
        intake.take(read, &mut |document| each(document, std::mem::take(&mut pairs)))
    });
    intake.finish(outcome)
}

/// All documents of a file, with their pairs.
///
/// # Errors
/// Those of [`DocumentFormat::read`].
pub fn read_eog(path: &Path) -> Result<Vec<EogDocument>> {
    let mut documents = Vec::new();
    read(path, &ReadOptions::default(), &mut |document, pairs| {
        documents.push(EogDocument { document, pairs });
        Ok(())
    })?;
    Ok(documents)
}

#[cfg(test)]
mod tests;
