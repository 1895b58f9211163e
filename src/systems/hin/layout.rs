//! The host half of HIN: words, entities and pairs of a batch, and a row for every (pair,
//! sentence).

use super::{HinSettings, PairSentences};
use crate::Result;
use crate::systems::words::{WordOptions, WordTables};
use crate::systems::{Example, Foundation, Layout, Tables};
use crate::text::TokenizedDocument;

/// How HIN lays documents out.
#[derive(Debug)]
pub struct HinLayout {
    words: WordOptions,
    /// Whether every pair has rows of its own (H.9); otherwise sentences are read once a document.
    rows_of_pairs: bool,
    hierarchy: bool,
}

/// A batch of documents; host data.
#[derive(Clone, Debug, Default)]
pub struct HinTables {
    /// Words, sentences, entities, pairs.
    pub words: WordTables,
    /// Rows of (pair, sentence); of (document, sentence) where sentences do not depend on pairs.
    pub rows: PairSentences,
    /// First row of each document, closed by their number. [documents + 1]
    pub row_offsets: Vec<i64>,
    /// First sequence of rows of each document, closed by their number. [documents + 1]
    pub sequence_offsets: Vec<i64>,
    /// Document of each pair. `[P]`
    pub documents: Vec<i64>,
}

impl HinLayout {
    /// The layout for an encoder and settings.
    pub(super) fn new(foundation: &Foundation, settings: &HinSettings) -> Self {
        let mut words = WordOptions::of(foundation, settings.long_documents);
        words.coref_rows = settings.coreference_rows as usize;
        words.limits.max_words = settings.max_words;
        words.limits.truncate |= settings.max_words.is_some();
        let rows_of_pairs = settings.hierarchy && settings.sentence_inference;
        Self { words, rows_of_pairs, hierarchy: settings.hierarchy }
    }
}

impl Layout for HinLayout {
    /// A row of a pair and a sentence costs about as much as a word: both pass a BiLSTM of the same
    /// width.
    fn cost(&self, document: &TokenizedDocument, pairs: usize) -> usize {
        let sentences = document.sentence_starts.len().saturating_sub(1);
        let rows = if self.rows_of_pairs { pairs * sentences } else { sentences };
        document.pieces.len() + rows
    }

    fn tables(&self, examples: &[Example]) -> Result<Tables> {
        let words = WordTables::new(&self.words, examples)?;
        let mut tables =
            HinTables { row_offsets: vec![0], sequence_offsets: vec![0], ..HinTables::default() };
        for document in 0..words.documents() {
            let pairs = words.pair_offsets[document]..words.pair_offsets[document + 1];
            tables.documents.extend(pairs.clone().map(|_| document as i64));
            // Those that have a word in range.
            let all = words.document_sentences[document]..words.document_sentences[document + 1];
            let sentences: Vec<i64> = all
                .filter(|&at| {
                    let at = at as usize;
                    words.sentence_offsets[at] < words.sentence_offsets[at + 1]
                })
                .collect();
            if self.rows_of_pairs {
                pairs.for_each(|pair| tables.rows.push(pair, &sentences));
            } else if self.hierarchy {
                tables.rows.push(document as i64, &sentences);
            }
            tables.row_offsets.push(tables.rows.pairs.len() as i64);
            tables.sequence_offsets.push(tables.rows.offsets.len() as i64 - 1);
        }
        Ok(Box::new(HinTables { words, ..tables }))
    }
}
