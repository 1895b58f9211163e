//! Gold facts of a set of documents, keyed so that every scorer can compare them with predictions.
//! Not for: reading documents (`corpus`), names known from training data (`factset`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ahash::{AHashMap, AHashSet};

use super::FactSet;
use super::prediction::Prediction;
use crate::corpus::{Document, Entity, LabelledPair, PairLabel, Provenance};
use crate::{DataError, Result};

/// A fact of a known document: relation `relation` from entity `head` to entity `tail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FactKey<'a> {
    /// Row of the document in the gold set.
    pub document: usize,
    /// Index of the head entity.
    pub head: usize,
    /// Index of the tail entity.
    pub tail: usize,
    /// Identifier of the relation.
    pub relation: &'a str,
}

/// A set of facts.
pub type FactKeySet<'a> = BTreeSet<FactKey<'a>>;

/// Gold documents with their distinct facts.
#[derive(Clone, Debug)]
pub struct Gold<'a> {
    documents: &'a [Document],
    rows: AHashMap<&'a str, usize>,
    facts: BTreeMap<FactKey<'a>, BTreeSet<usize>>,
    evidence: usize,
    left_out: AHashSet<(usize, usize, usize)>,
}

impl<'a> Gold<'a> {
    /// Collects the facts. A repeated label counts once, with the evidence of its last row
    /// (docs/scores.md, "Facts, precision, recall").
    ///
    /// # Errors
    /// A title that occurs twice (predictions could not be told apart), or no labelled document at
    /// all.
    pub fn new(documents: &'a [Document]) -> Result<Self> {
        let mut gold = Self {
            documents,
            rows: AHashMap::new(),
            facts: BTreeMap::new(),
            evidence: 0,
            left_out: AHashSet::new(),
        };
        for (row, document) in documents.iter().enumerate() {
            if gold.rows.insert(&document.title, row).is_some() {
                return Err(at(document, "the title occurs twice")
                    .hint("gold documents need distinct titles")
                    .into());
            }
            for fact in document.facts() {
                let key = FactKey {
                    document: row,
                    head: fact.head,
                    tail: fact.tail,
                    relation: &fact.relation,
                };
                gold.facts.insert(key, fact.evidence.iter().copied().collect());
                gold.evidence += fact.evidence.len();
            }
        }
        if !documents.is_empty() && documents.iter().all(|document| document.facts.is_none()) {
            let hint = "scores need labelled documents; use `predict` here";
            return Err(DataError::new(sources(documents), "no document carries labels")
                .hint(hint)
                .into());
        }
        Ok(gold)
    }

    /// Leaves out the pairs that were filtered out of the list of each document, in the order of
    /// the documents.
    #[must_use]
    pub fn without_filtered(mut self, lists: &[Vec<LabelledPair>]) -> Self {
        for (row, pairs) in lists.iter().enumerate() {
            let filtered = pairs.iter().filter(|pair| pair.label == PairLabel::NotIncluded);
            self.left_out.extend(filtered.map(|pair| (row, pair.head, pair.tail)));
        }
        self
    }

    /// Whether a pair of a document is neither right nor wrong.
    pub fn is_left_out(&self, document: usize, head: usize, tail: usize) -> bool {
        self.left_out.contains(&(document, head, tail))
    }

    /// The documents.
    pub fn documents(&self) -> &'a [Document] {
        self.documents
    }

    /// Distinct facts with their evidence, in order.
    pub fn facts(&self) -> &BTreeMap<FactKey<'a>, BTreeSet<usize>> {
        &self.facts
    }

    /// The distinct facts alone.
    pub fn keys(&self) -> FactKeySet<'a> {
        self.facts.keys().copied().collect()
    }

    /// Evidence sentences over *all* label rows, repeated ones included: the recall denominator of
    /// evidence F1.
    pub fn evidence_total(&self) -> usize {
        self.evidence
    }

    /// Row of the document with this title.
    pub fn row(&self, title: &str) -> Option<usize> {
        self.rows.get(title).copied()
    }

    /// An entity of a document, if it exists.
    pub fn entity(&self, document: usize, entity: usize) -> Option<&'a Entity> {
        self.documents.get(document)?.entities.get(entity)
    }

    /// The distinct predicted facts of known documents.
    pub fn predicted(&self, predictions: &'a [Prediction]) -> FactKeySet<'a> {
        predictions.iter().filter_map(|prediction| self.key(prediction)).collect()
    }

    /// A predicted fact, if its document is known.
    pub fn key<'p>(&self, prediction: &'p Prediction) -> Option<FactKey<'p>> {
        let Prediction { title, h_idx: head, t_idx: tail, r: relation, .. } = prediction;
        Some(FactKey { document: self.row(title)?, head: *head, tail: *tail, relation })
    }

    /// Whether any pair of mention names of the fact occurs in the training data with its relation.
    pub fn is_known(&self, key: &FactKey<'_>, set: &FactSet) -> bool {
        let names = |entity| {
            self.entity(key.document, entity)
                .map(|entity| entity.mentions.as_slice())
                .unwrap_or_default()
        };
        let tails = names(key.tail);
        names(key.head)
            .iter()
            .any(|head| tails.iter().any(|tail| set.contains(&head.name, &tail.name, key.relation)))
    }

    /// Smallest distance in sentences between a head and a tail mention; `None` where an entity
    /// does not exist.
    pub fn distance(&self, fact: &FactKey<'_>) -> Option<usize> {
        let head = self.entity(fact.document, fact.head)?;
        let tail = self.entity(fact.document, fact.tail)?;
        let distances = head
            .mentions
            .iter()
            .flat_map(|a| tail.mentions.iter().map(|b| a.sentence.abs_diff(b.sentence)));
        distances.min()
    }

    /// Mean number of mentions of head and tail; `None` where an entity does not exist.
    pub fn mention_number(&self, fact: &FactKey<'_>) -> Option<f64> {
        let head = self.entity(fact.document, fact.head)?;
        let tail = self.entity(fact.document, fact.tail)?;
        Some((head.mentions.len() + tail.mentions.len()) as f64 / 2.0)
    }
}

/// What stands for the file of documents that came out of shards, which do not name it.
const GOLD: &str = "gold documents";

fn at(document: &Document, problem: &str) -> DataError {
    let Provenance { file, row } = &document.provenance;
    let error = if file.as_os_str().is_empty() {
        DataError::new(GOLD, problem)
    } else {
        DataError::new(file, problem).row(*row)
    };
    error.title(&document.title)
}

/// The files that documents came from, as far as they are known.
fn sources(documents: &[Document]) -> String {
    let files: BTreeSet<&Path> =
        documents.iter().map(|document| document.provenance.file.as_path()).collect();
    let named: Vec<String> = files
        .into_iter()
        .filter(|file| !file.as_os_str().is_empty())
        .map(|file| file.display().to_string())
        .collect();
    if named.is_empty() { GOLD.to_owned() } else { named.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{document, fact};
    use super::*;

    #[test]
    fn repeated_labels_count_once_but_keep_all_evidence_in_the_total() {
        let mut one = document("a", &[&[0], &[3, 1]]);
        one.facts = Some(vec![fact(0, 1, "P1", &[0, 2]), fact(0, 1, "P1", &[5])]);
        let documents = [one];
        let gold = Gold::new(&documents).unwrap();
        assert_eq!((gold.facts().len(), gold.evidence_total()), (1, 3));
        let (key, evidence) = gold.facts().iter().next().unwrap();
        assert_eq!(evidence.iter().copied().collect::<Vec<_>>(), [5]);
        assert_eq!((gold.distance(key), gold.mention_number(key)), (Some(1), Some(1.5)));
    }

    #[test]
    fn unusable_sets_are_refused() {
        let mut labelled = document("a", &[]);
        labelled.facts = Some(vec![]);
        assert!(
            Gold::new(&[labelled.clone(), labelled])
                .unwrap_err()
                .to_string()
                .contains("`a`: the title occurs twice")
        );
        assert_eq!(Gold::new(&[document("b", &[])]).unwrap_err().exit_code(), 65);
    }

    /// Documents of shards have no file, and none is made up for them.
    #[test]
    fn errors_name_the_files_that_are_known() {
        let of = |title: &str, file: &str| Document {
            provenance: Provenance { file: file.into(), row: 3 },
            ..document(title, &[])
        };
        let told = |documents: &[Document]| Gold::new(documents).unwrap_err().to_string();
        assert_eq!(told(&[of("a", ""), of("b", "")]), "gold documents: no document carries labels");
        let files = [of("a", "dev.json"), of("b", "more.json"), of("c", "dev.json")];
        assert_eq!(told(&files), "dev.json, more.json: no document carries labels");
        assert_eq!(
            told(&[of("a", ""), of("a", "")]),
            "gold documents, document `a`: the title occurs twice"
        );
        assert_eq!(
            told(&[of("a", "x"), of("a", "y")]),
            "y, row 3, document `a`: the title occurs twice"
        );
        assert!(Gold::new(&[]).is_ok());
    }
}
