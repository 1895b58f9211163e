//! Predicted facts with the documents that they stand in.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::corpus::formats::ReadOptions;
use crate::corpus::{Document, Format};
use crate::eval::{Prediction, read_predictions};
use crate::{DataError, Result};

/// A predicted fact of a document. What several files predict alike is one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SourcedFact {
    /// Index of the document among those that have facts.
    pub document: usize,
    /// Index of the head among the document's entities.
    pub head: usize,
    /// Index of the tail.
    pub tail: usize,
    /// Identifier of the relation.
    pub relation: String,
    /// The system's score; the best of several files.
    pub score: Option<f64>,
    /// The calibrated probability, likewise.
    pub confidence: Option<f64>,
    /// Sentences that were predicted as evidence, by number.
    pub evidence: Vec<usize>,
}

impl SourcedFact {
    /// How sure the system is: the calibrated probability, or else the score.
    pub fn weight(&self) -> Option<f64> {
        self.confidence.or(self.score)
    }
}

/// An entity of a document, as far as a graph needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NamedEntity {
    /// Identifier in a knowledge base.
    pub id: Option<String>,
    /// Names by mention, in their order; none where the document is not at hand.
    pub names: Vec<String>,
    /// Its type; empty where none is known.
    pub entity_type: String,
    /// Sentences of the mentions.
    pub sentences: Vec<usize>,
}

/// A document that has facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FactDocument {
    /// The title.
    pub title: String,
    /// Its entities; empty where the document is not at hand.
    pub entities: Vec<NamedEntity>,
    /// Its sentences, words joined by blanks.
    pub sentences: Vec<String>,
}

/// Facts and their documents.
#[derive(Debug, Default)]
pub(super) struct PredictedFacts {
    /// In the order of the predictions.
    pub facts: Vec<SourcedFact>,
    /// In the order in which the predictions name them.
    pub documents: Vec<FactDocument>,
    /// Predictions that were left out because they are not certain enough.
    pub below: usize,
    /// Whether the documents were given.
    pub named: bool,
}

/// Key of a fact in a document.
type PredictedPlace = (usize, usize, usize, String);

impl PredictedFacts {
    /// Reads predictions, and the documents that they are about. `least` is the smallest calibrated
    /// probability that counts.
    ///
    /// # Errors
    /// Files that cannot be read; a title without a document, two documents of one title, an entity
    /// that its document does not have; a prediction without a calibrated probability where one is
    /// asked for.
    pub fn read(
        predictions: &[PathBuf],
        documents: &[PathBuf],
        format: Format,
        least: Option<f64>,
    ) -> Result<Self> {
        let mut read = Self { named: !documents.is_empty(), ..Self::default() };
        let mut places: BTreeMap<PredictedPlace, usize> = BTreeMap::new();
        let mut titles: HashMap<String, usize> = HashMap::new();
        // The first prediction of each document, for errors.
        let mut first: Vec<(usize, usize)> = Vec::new();
        for (file, path) in predictions.iter().enumerate() {
            for (row, prediction) in read_predictions(path)?.into_iter().enumerate() {
                if !certain_enough(&prediction, least, path, row)? {
                    read.below += 1;
                    continue;
                }
                let document = *titles.entry(prediction.title.clone()).or_insert_with(|| {
                    let title = prediction.title.clone();
                    read.documents.push(FactDocument { title, ..FactDocument::default() });
                    first.push((file, row));
                    read.documents.len() - 1
                });
                read.add(document, prediction, &mut places);
            }
        }
        if read.named {
            read.read_documents(documents, format, &titles)?;
            read.check(predictions, &first)?;
        }
        Ok(read)
    }

    fn add(
        &mut self,
        document: usize,
        prediction: Prediction,
        places: &mut BTreeMap<PredictedPlace, usize>,
    ) {
        let Prediction { h_idx: head, t_idx: tail, r: relation, score, confidence, .. } =
            prediction;
        let mut evidence = prediction.evidence;
        evidence.sort_unstable();
        evidence.dedup();
        let place = (document, head, tail, relation.clone());
        if let Some(&index) = places.get(&place) {
            let known = &mut self.facts[index];
            known.score = larger(known.score, score);
            known.confidence = larger(known.confidence, confidence);
            known.evidence.extend(evidence);
            known.evidence.sort_unstable();
            known.evidence.dedup();
            return;
        }
        places.insert(place, self.facts.len());
        self.facts.push(SourcedFact {
            document,
            head,
            tail,
            relation,
            score,
            confidence,
            evidence,
        });
    }

    fn read_documents(
        &mut self,
        files: &[PathBuf],
        format: Format,
        titles: &HashMap<String, usize>,
    ) -> Result<()> {
        for path in files {
            let mut row = 0;
            format.read(path, &ReadOptions::default(), &mut |document| {
                row += 1;
                let Some(&index) = titles.get(&document.title) else { return Ok(()) };
                if !self.documents[index].entities.is_empty() {
                    let problem = "another document has this title: predictions cannot tell them \
                                   apart";
                    let error = DataError::new(path, problem).row(row - 1);
                    return Err(error.title(&document.title).into());
                }
                self.documents[index] = kept(document);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Makes sure that every prediction is about an entity of a document that was read.
    fn check(&self, predictions: &[PathBuf], first: &[(usize, usize)]) -> Result<()> {
        for (document, &(file, row)) in self.documents.iter().zip(first) {
            if document.entities.is_empty() {
                let error = DataError::new(&predictions[file], "no document has this title");
                return Err(error
                    .row(row)
                    .title(&document.title)
                    .hint("name all files of documents that were predicted, as --documents")
                    .into());
            }
        }
        for fact in &self.facts {
            let document = &self.documents[fact.document];
            let (entities, sentences) = (document.entities.len(), document.sentences.len());
            let far = [("h_idx", fact.head), ("t_idx", fact.tail)]
                .into_iter()
                .find(|&(_, entity)| entity >= entities);
            let problem = match (far, fact.evidence.last()) {
                (Some((field, entity)), _) => {
                    Some((field, format!("{entity}, but the document has {entities} entities")))
                }
                (_, Some(&last)) if last >= sentences => Some((
                    "evidence",
                    format!("{last}, but the document has {sentences} sentences"),
                )),
                _ => None,
            };
            if let Some((field, problem)) = problem {
                let (file, _) = first[fact.document];
                return Err(DataError::new(&predictions[file], problem)
                    .title(&document.title)
                    .field(field)
                    .hint("were these predictions made from these documents?")
                    .into());
            }
        }
        Ok(())
    }
}

fn certain_enough(
    prediction: &Prediction,
    least: Option<f64>,
    path: &Path,
    row: usize,
) -> Result<bool> {
    let Some(least) = least else { return Ok(true) };
    let Some(confidence) = prediction.confidence else {
        return Err(DataError::new(path, "has no calibrated probability")
            .row(row)
            .title(&prediction.title)
            .field("confidence")
            .hint("leave out --min-confidence, or predict with a checkpoint that was calibrated")
            .into());
    };
    Ok(confidence >= least)
}

fn larger(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    [one, other].into_iter().flatten().reduce(f64::max)
}

/// What a graph needs of a document.
fn kept(document: Document) -> FactDocument {
    let entity = |entity: &crate::corpus::Entity| NamedEntity {
        id: entity.knowledge_base_id.clone(),
        names: entity.mentions.iter().map(|mention| mention.name.clone()).collect(),
        entity_type: entity.entity_type().to_owned(),
        sentences: entity.mentions.iter().map(|mention| mention.sentence).collect(),
    };
    FactDocument {
        entities: document.entities.iter().map(entity).collect(),
        sentences: document.sentences.iter().map(|words| words.join(" ")).collect(),
        title: document.title,
    }
}
