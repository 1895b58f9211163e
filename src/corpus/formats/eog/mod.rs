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

use super::reading::{Intake, check_relations};
use super::{ReadOptions, ReadSummary};
use crate::Result;
use crate::base::records::{Record, Unit, read_records};
use crate::corpus::Document;

pub use writer::{EogLosses, EogWriter};

/// What a line says of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PairLabel {
    /// A relation holds, such as `CID`.
    Relation(String),
    /// None holds (`NR`).
    NoRelation,
    /// The pair was filtered out: neither trained on nor scored.
    NotIncluded,
}

/// A pair of arguments of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledPair {
    /// Index of the head entity.
    pub head: usize,
    /// Index of the tail entity.
    pub tail: usize,
    /// The label.
    pub label: PairLabel,
    /// Whether no two mentions of the arguments share a sentence (`CROSS`).
    pub crosses_sentences: bool,
}

/// A document with the pairs that its corpus asks about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EogDocument {
    /// The document; entities in the order in which the pairs name them, facts for the pairs with a
    /// relation.
    pub document: Document,
    /// All pairs of the line, in its order.
    pub pairs: Vec<LabelledPair>,
}

/// What was in a file; compare it with the table of docs/formats.md, "CDR and GDA".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EogSummary {
    /// Documents.
    pub documents: usize,
    /// Pairs of each relation, sorted by name.
    pub relations: std::collections::BTreeMap<String, usize>,
    /// Pairs without a relation.
    pub no_relation: usize,
    /// Pairs that were filtered out.
    pub not_included: usize,
    /// Pairs with a relation whose arguments share a sentence.
    pub intra: usize,
    /// Pairs with a relation whose arguments do not.
    pub inter: usize,
    /// Most entities of a document.
    pub most_entities: usize,
    /// Most words of a document.
    pub most_words: usize,
}

impl EogSummary {
    fn add(&mut self, read: &EogDocument) {
        self.documents += 1;
        self.most_entities = self.most_entities.max(read.document.entities.len());
        self.most_words = self.most_words.max(read.document.num_words());
        for pair in &read.pairs {
            match &pair.label {
                PairLabel::NoRelation => self.no_relation += 1,
                PairLabel::NotIncluded => self.not_included += 1,
                PairLabel::Relation(name) => {
                    *self.relations.entry(name.clone()).or_default() += 1;
                    *(if pair.crosses_sentences { &mut self.inter } else { &mut self.intra }) += 1;
                }
            }
        }
    }
}

/// Reads `path` (a document a line, gzip if it ends in `.gz`) on all cores and hands every checked
/// document to `each`, in file order.
///
/// # Errors
/// A [`DataError`](crate::DataError) naming file, row, document and column for everything that
/// breaks the format; an I/O error for an unreadable file; whatever `each` returns.
pub fn read_eog(
    path: &Path,
    each: &mut dyn FnMut(EogDocument) -> Result<()>,
) -> Result<EogSummary> {
    let mut summary = EogSummary::default();
    let mut intake = Intake::default();
    read_records(
        path,
        Unit::Line,
        &|Record { text, row, .. }| line::parse(path, row, text),
        &mut |read| {
            intake.take(path, &read.document, 0)?;
            summary.add(&read);
            each(read)
        },
    )?;
    Ok(summary)
}

/// As [`read_eog`], for those who need documents alone: the pairs are their candidates.
///
/// # Errors
/// As [`read_eog`]; a relation that `options` do not know.
pub fn read_eog_documents(
    path: &Path,
    options: &ReadOptions,
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<ReadSummary> {
    let mut intake = Intake::default();
    let work = |Record { text, row, .. }: Record<'_>| {
        let document = line::parse(path, row, text)?.document;
        check_relations(&document, options.relations.as_ref())?;
        Ok(document)
    };
    read_records(path, Unit::Line, &work, &mut |document| {
        intake.take(path, &document, 0)?;
        each(document)
    })?;
    Ok(intake.summary)
}

/// All documents of a file at once.
///
/// # Errors
/// Those of [`read_eog`].
pub fn read_all_eog(path: &Path) -> Result<(Vec<EogDocument>, EogSummary)> {
    let mut documents = Vec::new();
    let summary = read_eog(path, &mut |read| {
        documents.push(read);
        Ok(())
    })?;
    Ok((documents, summary))
}

#[cfg(test)]
mod tests;
