//! Scoring predictions against gold documents.

use std::path::Path;

use crate::corpus::{Candidate, Document, Entity, Fact, Mention, Provenance, ReadOptions, read_all};
use crate::eval::{self, EvaluateOptions, FactSet, FactSets, Gold, Scorer, Scores, read_predictions};
use crate::shards::DocumentStore;
use crate::text::{EncodedCandidate, EncodedDocument};
use crate::{DataError, Result};

/// Files of `evaluate`.
pub struct EvaluateFiles<'a> {
    /// Labelled documents.
    pub gold: &'a Path,
    /// `result.json`.
    pub predictions: &'a Path,
    /// Facts that Ign F1 ignores.
    pub train_facts: Option<&'a Path>,
    /// Distant facts, for the second Ign F1.
    pub distant_facts: Option<&'a Path>,
    /// The script to follow.
    pub scorer: Scorer,
}

/// Scores a prediction file.
///
/// # Errors
/// Files that cannot be read; gold without labels.
pub fn evaluate(files: &EvaluateFiles) -> Result<Scores> {
    let (documents, _) = read_all(files.gold, &ReadOptions::default())?;
    if documents.iter().all(|document| document.facts.is_none()) {
        return Err(DataError::new(files.gold, "no document has labels").hint("gold must be a labelled file").into());
    }
    let predictions = read_predictions(files.predictions)?;
    let annotated = files.train_facts.map(FactSet::load).transpose()?;
    let distant = files.distant_facts.map(FactSet::load).transpose()?;
    let facts = FactSets { annotated: annotated.as_ref(), distant: distant.as_ref() };
    let options = EvaluateOptions { facts, scorer: files.scorer, ..EvaluateOptions::default() };
    let name = files.gold.file_stem().unwrap_or_default().to_string_lossy();
    Ok(eval::evaluate(&name, &Gold::new(&documents)?, &predictions, &options))
}

/// The documents of a store as gold: names, spans and facts; sentences hold words only if the store was opened with them.
pub fn gold_of(store: &DocumentStore) -> Vec<Document> {
    (0..store.len()).map(|row| decode(&store.get(row), store)).collect()
}

fn decode(encoded: &EncodedDocument, store: &DocumentStore) -> Document {
    let relations = store.relations();
    let starts = &encoded.sentence_starts;
    let word = |at: u32| encoded.words.get(at as usize).cloned().unwrap_or_default();
    let mention = |mention: &crate::text::EncodedMention, entity_type: &str| {
        let base = starts.get(mention.sentence as usize).copied().unwrap_or_default();
        Mention {
            name: mention.name.clone(),
            sentence: mention.sentence as usize,
            start: (mention.start - base) as usize,
            end: (mention.end - base) as usize,
            entity_type: entity_type.to_owned(),
        }
    };
    let entities = encoded.entities.iter().map(|entity| Entity {
        mentions: entity.mentions.iter().map(|inner| mention(inner, &entity.entity_type)).collect(),
        knowledge_base_id: None,
    });
    let facts = encoded.facts.iter().map(|fact| Fact {
        head: fact.head as usize,
        tail: fact.tail as usize,
        relation: relations.get(fact.relation as usize).map_or_else(String::new, |relation| relation.id.clone()),
        evidence: fact.evidence.iter().map(|&sentence| sentence as usize).collect(),
    });
    let candidate = |pair: &EncodedCandidate| Candidate { head: pair.head as usize, tail: pair.tail as usize, excluded: pair.excluded };
    Document {
        title: encoded.title.clone(),
        sentences: starts.windows(2).map(|pair| (pair[0]..pair[1]).map(word).collect()).collect(),
        entities: entities.collect(),
        facts: encoded.labelled.then(|| facts.collect()),
        candidates: encoded.candidates.as_ref().map(|pairs| pairs.iter().map(candidate).collect()),
        provenance: Provenance::default(),
    }
}
