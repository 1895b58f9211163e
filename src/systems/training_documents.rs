//! The documents that a system is fine-tuned on: the labelled ones of one or several sources, each
//! source as often as its weight says.
//!
//! Rows are numbered through over all sources. Not for: where the shards of a source lie
//! (`pipeline`).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::distant::{LabelRules, PairDecisions};
use crate::sampling::{BatchOrder, SourceVisits, VisitedRows};
use crate::shards::DocumentStore;
use crate::text::TokenizedDocument;
use crate::{DataError, Error, Result};

/// The largest weight.
const MOST_WEIGHT: f64 = 1e6;

/// Documents that are trained on, and how often.
#[derive(Clone, Copy, Debug)]
pub struct TrainingSource<'a> {
    /// What it is called in messages.
    pub name: &'a str,
    /// Its documents.
    pub store: &'a DocumentStore,
    /// How often each document is visited in an epoch, on average.
    pub weight: f64,
    /// What becomes of the labels of documents that a teacher has judged; `None`: they stay.
    pub rules: Option<&'a LabelRules>,
}

impl<'a> TrainingSource<'a> {
    /// The documents of one store, each once an epoch.
    pub fn alone(store: &'a DocumentStore) -> [Self; 1] {
        [Self { name: "train", store, weight: 1.0, rules: None }]
    }

    /// A document with the facts that are trained on.
    fn document(&self, row: usize) -> Arc<TokenizedDocument> {
        let document = self.store.get(row);
        self.rules.iter().fold(document, |document, rules| rules.apply(document))
    }

    /// Whether a document is trained on: it has a label, or rules speak of it.
    pub fn is_learnt(&self, row: usize) -> bool {
        let document = self.store.get(row);
        !document.facts.is_empty() || self.rules.is_some() && document.taught.is_some()
    }
}

/// A document of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingItem {
    /// Number of the item in the step.
    pub item: u64,
    /// Row, numbered through over all sources.
    pub row: usize,
    /// How often all documents of its source were visited before.
    pub pass: u64,
}

/// The labelled documents of all sources, and their order.
#[derive(Debug)]
pub struct TrainingDocuments<'a> {
    sources: Vec<TrainingSource<'a>>,
    /// Rows of each source with at least one label.
    labelled: Vec<VisitedRows<'a>>,
    /// Number of documents of the sources before each.
    starts: Vec<usize>,
    order: BatchOrder,
}

/// Refuses a weight that is no share of visits.
///
/// # Errors
/// [`Error::Recipe`] that begins with `name`, the key or flag.
pub fn check_weight(name: &str, weight: f64) -> Result<()> {
    if weight > 0.0 && weight <= MOST_WEIGHT {
        return Ok(());
    }
    Err(Error::recipe(format!("{name} is {weight}"))
        .with_hint("a weight is a number over 0: how often an epoch visits each document"))
}

impl<'a> TrainingDocuments<'a> {
    /// The labelled documents of sources in global batches of `batch`.
    ///
    /// # Errors
    /// A source without labelled documents, or whose weight gives it no visit; an empty batch.
    pub fn new(sources: &[TrainingSource<'a>], seed: u64, batch: usize) -> Result<Self> {
        let labelled_of = |source: &TrainingSource<'a>| {
            VisitedRows::choose(source.store, |row| source.is_learnt(row))
        };
        let labelled: Vec<VisitedRows> = sources.iter().map(labelled_of).collect();
        let mut shares = Vec::new();
        for (source, visited) in sources.iter().zip(&labelled) {
            check_weight(&format!("the weight of {}", source.name), source.weight)?;
            let documents = visited.rows().len();
            let share = SourceVisits::weighted(documents, source.weight);
            if share.visits == 0 {
                return Err(source.without_visits(documents));
            }
            shares.push(share);
        }
        let windows = labelled.iter().map(VisitedRows::windows).collect();
        let mut starts = vec![0];
        starts.extend(sources.iter().scan(0, |rows, source| {
            *rows += source.store.len();
            Some(*rows)
        }));
        Ok(Self {
            order: BatchOrder::in_windows(&shares, windows, seed, batch)?,
            sources: sources.to_vec(),
            labelled,
            starts,
        })
    }

    /// All items of a step's global batch. The stores learn which documents are needed next.
    pub fn items(&self, step: u64) -> Vec<TrainingItem> {
        let items = self.order.items(step);
        for (source, visited) in self.labelled.iter().enumerate() {
            visited.read_ahead(&self.order, source, &items);
        }
        items
            .into_iter()
            .map(|item| TrainingItem {
                item: item.item,
                row: self.starts[item.source] + self.labelled[item.source].rows().nth(item.row),
                pass: item.pass,
            })
            .collect()
    }

    /// The order of batches.
    pub fn order(&self) -> &BatchOrder {
        &self.order
    }

    /// The sources.
    pub fn sources(&self) -> &[TrainingSource<'a>] {
        &self.sources
    }

    /// The document of a row.
    pub fn get(&self, row: usize) -> Arc<TokenizedDocument> {
        let (source, row) = self.locate(row);
        source.document(row)
    }

    /// Whether some targets are soft. Then all batches have the loss over soft targets, whichever
    /// documents they hold.
    pub fn is_soft(&self) -> bool {
        self.sources.iter().any(|source| source.rules.is_some_and(|rules| rules.rule.is_soft()))
    }

    /// What soft rules decide on a row, by its labels as they were; `None` without such rules, and
    /// for a document that no teacher has judged.
    pub fn decisions(&self, row: usize) -> Option<PairDecisions> {
        let (source, row) = self.locate(row);
        let rules = source.rules.filter(|rules| rules.rule.is_soft())?;
        let document = source.store.get(row);
        document.taught.is_some().then(|| rules.decisions(&document))
    }

    /// The title of a row.
    pub fn title(&self, row: usize) -> String {
        let (source, row) = self.locate(row);
        source.store.title(row)
    }

    /// The source of a row, and its row there.
    pub fn locate(&self, row: usize) -> (&TrainingSource<'a>, usize) {
        let source = self.starts.partition_point(|&start| start <= row) - 1;
        (&self.sources[source], row - self.starts[source])
    }

    /// The folder of the shards of a row, for errors.
    pub fn folder(&self, row: usize) -> &Path {
        self.locate(row).0.store.folder()
    }

    /// The labelled documents of all sources.
    pub fn labelled(&self) -> impl Iterator<Item = Arc<TokenizedDocument>> + '_ {
        let sources = self.sources.iter().zip(&self.labelled);
        sources.flat_map(|(source, visited)| visited.rows().iter().map(|row| source.document(row)))
    }

    /// All documents of all sources with the weights of their sources.
    pub fn weighted(&self) -> impl Iterator<Item = (f64, Arc<TokenizedDocument>)> + '_ {
        self.sources.iter().flat_map(|source| {
            (0..source.store.len()).map(|row| (source.weight, source.document(row)))
        })
    }
}

impl TrainingSource<'_> {
    fn without_visits(&self, documents: usize) -> Error {
        if documents == 0 {
            let problem = format!("source {}: no document has a label to train on", self.name);
            return DataError::new(self.store.folder(), problem)
                .hint("name documents with facts, or leave the source out")
                .into();
        }
        let weight = self.weight;
        Error::recipe(format!(
            "source {}: weight {weight} leaves no visit an epoch to {documents} document(s)",
            self.name
        ))
        .with_hint(format!("give it a weight of at least {}", 0.5 / documents as f64))
    }
}

/// The sources with their documents and weights, and the visits of an epoch.
impl fmt::Display for TrainingDocuments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (source, visited) in self.sources.iter().zip(&self.labelled) {
            write!(f, "{} {} × {}, ", source.name, visited.rows().len(), source.weight)?;
        }
        write!(f, "{} visits an epoch", self.order.visits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shards::testing::{document, prepared_with};
    use crate::shards::{StoreOptions, WriteOptions};

    /// Stores of documents, the second of each without a fact.
    fn stores(counts: &[usize]) -> (tempfile::TempDir, Vec<DocumentStore>) {
        let temp = tempfile::tempdir().unwrap();
        let store = |(number, &count): (usize, &usize)| {
            let documents: Vec<_> = (0..count)
                .map(|row| {
                    let facts: &[_] = if row == 1 { &[] } else { &[(0, 1, "P17")] };
                    document(&format!("{number}-{row}"), &[&["Paris"], &["France"]], facts)
                })
                .collect();
            let options = WriteOptions { rows_per_shard: 4, row_group_rows: 2 };
            let name = format!("s{number}");
            let (folder, _) = prepared_with(temp.path(), &name, &documents, options);
            DocumentStore::open(&folder, StoreOptions::default()).unwrap()
        };
        let stores = counts.iter().enumerate().map(store).collect();
        (temp, stores)
    }

    fn source<'a>(name: &'a str, store: &'a DocumentStore, weight: f64) -> TrainingSource<'a> {
        TrainingSource { name, store, weight, rules: None }
    }

    #[test]
    fn rows_are_numbered_through_and_only_labelled_documents_are_read() {
        let (_temp, stores) = stores(&[5, 9]);
        let sources = [source("human", &stores[0], 1.0), source("llm", &stores[1], 0.5)];
        let documents = TrainingDocuments::new(&sources, 3, 4).unwrap();
        assert_eq!(documents.to_string(), "human 4 × 1, llm 8 × 0.5, 8 visits an epoch");
        assert_eq!([documents.title(4), documents.title(5)], ["0-4", "1-0"]);
        assert_eq!((documents.locate(13).0.name, documents.locate(13).1), ("llm", 8));
        assert_eq!((documents.labelled().count(), documents.weighted().count()), (12, 14));
        let mut titles: Vec<String> = Vec::new();
        for step in 0..4 {
            let items = documents.items(step);
            assert_eq!(items.iter().filter(|item| item.row >= 5).count(), 2, "{items:?}");
            titles.extend(items.iter().map(|item| documents.title(item.row)));
        }
        titles.sort_unstable();
        // Two epochs: the first source twice, the second once.
        let mut expected: Vec<String> =
            [0, 2, 3, 4].iter().flat_map(|row| vec![format!("0-{row}"); 2]).collect();
        expected.extend([0, 2, 3, 4, 5, 6, 7, 8].map(|row| format!("1-{row}")));
        assert_eq!(titles, expected);
    }

    #[test]
    fn weights_and_sources_without_a_visit_are_refused() {
        let (_temp, stores) = stores(&[5]);
        let wrong = |weight| {
            let sources = [source("llm", &stores[0], weight)];
            TrainingDocuments::new(&sources, 3, 4).unwrap_err()
        };
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = wrong(weight);
            assert!(error.to_string().contains("weight of llm"), "{error}");
            assert_eq!(error.exit_code(), 64);
        }
        let error = wrong(0.1);
        assert!(error.to_string().contains("no visit an epoch to 4 document(s)"), "{error}");
        assert!(error.hint().unwrap().contains("0.125"), "{error}");
    }
}
