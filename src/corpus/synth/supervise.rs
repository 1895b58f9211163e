//! What a generated document adds to the files: distant or exact labels, the truth about them, and
//! counts.

use serde::Serialize;

use super::story::Told;
use crate::{
    Error, Result,
    corpus::{Document, Fact, formats::docred::WrittenLabel},
};

/// Counts of one split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SplitSummary {
    /// Documents.
    pub documents: usize,
    /// Words.
    pub words: usize,
    /// Entities.
    pub entities: usize,
    /// Facts that the text expresses.
    pub expressed: usize,
    /// Labels in the file.
    pub labels: usize,
    /// Labels that the text does not express; 0 outside the distant split.
    pub false_labels: usize,
    /// Expressed facts that have no label; 0 outside the distant split.
    pub missing: usize,
}

impl SplitSummary {
    /// Share of false labels among all labels; 0 where there are none.
    pub fn false_share(&self) -> f64 {
        if self.labels == 0 { 0.0 } else { self.false_labels as f64 / self.labels as f64 }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.words += other.words;
        self.entities += other.entities;
        self.expressed += other.expressed;
        self.labels += other.labels;
        self.false_labels += other.false_labels;
        self.missing += other.missing;
    }
}

/// The truth about the labels of a distant document.
#[derive(Serialize)]
struct TruthEntry<'a> {
    /// For each label row, whether the text expresses it.
    labels: &'a [bool],
    /// Expressed facts without a label.
    missing: Vec<WrittenLabel<'a>>,
}

/// A document, its line of `truth.json`, and its counts.
pub(super) type Supervised = (Document, Vec<u8>, SplitSummary);

/// A document with exactly the facts it expresses, of which there is nothing more to say.
pub(super) fn annotated(told: Told) -> Result<Supervised> {
    let document = Document { facts: Some(told.expressed), ..told.document };
    let summary = SplitSummary {
        labels: document.facts().len(),
        expressed: document.facts().len(),
        ..counts(&document)
    };
    Ok((document, Vec::new(), summary))
}

/// A document with its distant labels.
pub(super) fn distant(told: Told) -> Result<Supervised> {
    let same =
        |a: &Fact, b: &Fact| a.head == b.head && a.tail == b.tail && a.relation == b.relation;
    let is_true: Vec<bool> = told
        .labels
        .iter()
        .map(|label| told.expressed.iter().any(|fact| same(fact, label)))
        .collect();
    let missing: Vec<&Fact> = told
        .expressed
        .iter()
        .filter(|fact| !told.labels.iter().any(|label| same(fact, label)))
        .collect();
    let summary = SplitSummary {
        expressed: told.expressed.len(),
        labels: is_true.len(),
        false_labels: is_true.iter().filter(|holds| !**holds).count(),
        missing: missing.len(),
        ..counts(&told.document)
    };
    let line = truth_line(&told.document.title, &is_true, &missing)?;
    Ok((Document { facts: Some(told.labels), ..told.document }, line, summary))
}

fn counts(document: &Document) -> SplitSummary {
    SplitSummary {
        documents: 1,
        words: document.num_words(),
        entities: document.entities.len(),
        ..SplitSummary::default()
    }
}

fn truth_line(title: &str, labels: &[bool], missing: &[&Fact]) -> Result<Vec<u8>> {
    let missing = missing.iter().map(|fact| WrittenLabel::of(fact)).collect();
    let json = |error| Error::Bug(format!("the truth did not turn into JSON: {error}"));
    let mut line = serde_json::to_vec(title).map_err(json)?;
    line.extend_from_slice(b": ");
    line.extend(serde_json::to_vec(&TruthEntry { labels, missing }).map_err(json)?);
    Ok(line)
}
