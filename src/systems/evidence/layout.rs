//! Items of the evidence predictor and their tables.

use std::sync::Arc;

use super::EvidenceSettings;
use crate::systems::words::{WordOptions, WordTables};
use crate::systems::{Example, Foundation};
use crate::text::{TokenizedDocument, TokenizedFact};
use crate::train::MicroBatch;
use crate::{DataError, Result};

const HEAD: i64 = 1;
const TAIL: i64 = 2;

/// A fact of a document, whose sentences are to be judged.
#[derive(Clone, Debug)]
pub struct EvidenceItem {
    /// The document.
    pub document: Arc<TokenizedDocument>,
    /// The fact; its evidence is the answer in training, and not read elsewhere.
    pub fact: TokenizedFact,
    /// Identifies this visit among all of the stage.
    pub visit: u64,
}

/// Lays items out; host data.
#[derive(Clone, Debug)]
pub struct EvidenceLayout {
    words: WordOptions,
    relations: usize,
}

/// Items of the evidence predictor with their sentences; host data.
#[derive(Default)]
pub struct EvidenceBatch {
    /// One document an item; coreference ids are 1 for head words, 2 for tail words (the tail
    /// wins).
    pub tables: WordTables,
    /// Row of each item's relation, from 1. `[items]`
    pub relations: Vec<i64>,
    /// Item of each sentence. `[S]`
    pub items: Vec<i64>,
    /// Index of each sentence in its document. `[S]`
    pub sentences: Vec<usize>,
    /// First word of each sentence. `[S]`
    pub firsts: Vec<i64>,
    /// Last word of each sentence. `[S]`
    pub lasts: Vec<i64>,
    /// 1 where the sentence is evidence. `[S]`
    pub targets: Vec<f32>,
    counts: [f64; 1],
}

impl EvidenceLayout {
    pub(super) fn new(foundation: &Foundation, settings: &EvidenceSettings) -> Self {
        let mut words = WordOptions::of(foundation, settings.long_documents);
        words.mention_types = true;
        // Coreference ids are replaced by positions, so that the number of entities does not
        // matter.
        words.coref_rows = usize::MAX;
        if settings.max_words > 0 {
            words.limits.max_words = Some(settings.max_words);
            words.limits.truncate = true;
        }
        Self { words, relations: foundation.relations }
    }

    /// Lays items out.
    ///
    /// # Errors
    /// A document that cannot be laid out, or a fact about entities or a relation that are not
    /// there; each named.
    pub fn batch(&self, items: &[EvidenceItem]) -> Result<EvidenceBatch> {
        items.iter().try_for_each(|item| self.check(item))?;
        let example = |item: &EvidenceItem| Example {
            document: Arc::clone(&item.document),
            pairs: vec![(item.fact.head, item.fact.tail)],
            visit: item.visit,
            train: false,
        };
        let examples: Vec<Example> = items.iter().map(example).collect();
        let mut tables = WordTables::new(&self.words, &examples)?;
        tables.coref.fill(0);
        for (index, item) in items.iter().enumerate() {
            mark(&mut tables, index, &item.document, item.fact.head, HEAD);
            mark(&mut tables, index, &item.document, item.fact.tail, TAIL);
        }
        let relations = items.iter().map(|item| i64::from(item.fact.relation) + 1).collect();
        let mut batch = EvidenceBatch { tables, relations, ..EvidenceBatch::default() };
        items.iter().enumerate().for_each(|(index, item)| batch.push_sentences(index, item));
        batch.counts = [batch.targets.len() as f64];
        Ok(batch)
    }

    fn check(&self, item: &EvidenceItem) -> Result<()> {
        let (entities, fact) = (item.document.entities.len(), &item.fact);
        if (fact.head as usize) < entities
            && (fact.tail as usize) < entities
            && (fact.relation as usize) < self.relations
        {
            return Ok(());
        }
        let problem = format!(
            "fact ({}, {}, {}) names an entity or a relation that is not there",
            fact.head, fact.tail, fact.relation
        );
        Err(DataError::new("shards", problem).title(&item.document.title).into())
    }
}

/// Writes the id of an entity's words.
fn mark(tables: &mut WordTables, index: usize, document: &TokenizedDocument, entity: u32, id: i64) {
    let (base, end) =
        (tables.word_offsets[index] as usize, tables.word_offsets[index + 1] as usize);
    for mention in &document.entities[entity as usize].mentions {
        let (from, to) =
            ((base + mention.start as usize).min(end), (base + mention.end as usize).min(end));
        tables.coref[from..to.max(from)].fill(id);
    }
}

impl EvidenceBatch {
    /// The sentences of an item that have a word before the cut.
    fn push_sentences(&mut self, index: usize, item: &EvidenceItem) {
        let first = self.tables.document_sentences[index] as usize;
        let last = self.tables.document_sentences[index + 1] as usize;
        for (sentence, span) in self.tables.sentence_offsets[first..=last]
            .windows(2)
            .enumerate()
            .filter(|(_, span)| span[0] < span[1])
        {
            self.items.push(index as i64);
            self.sentences.push(sentence);
            self.firsts.push(span[0]);
            self.lasts.push(span[1] - 1);
            self.targets.push(f32::from(u8::from(item.fact.evidence.contains(&(sentence as u32)))));
        }
    }
}

impl MicroBatch for EvidenceBatch {
    fn counts(&self) -> &[f64] {
        &self.counts
    }
    fn documents(&self) -> usize {
        self.tables.documents()
    }
    fn tokens(&self) -> usize {
        self.tables.ids.len()
    }
}
