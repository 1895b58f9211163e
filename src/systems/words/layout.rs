//! The host tables of a batch of documents, word after word.

use super::distance::{FirstMention, signed_bin};
use super::entities::{MentionWeights, weights};
use super::reading::{ReadDocument, Reading, WordLimits, read};
use crate::systems::{BatchWindows, Example, Foundation, LongDocuments, row_keys, windows_of};
use crate::text::{SpecialPieces, TokenizedDocument, TokenizedMention, WindowRule};
use crate::torch::kernels::bags::Bags;
use crate::{DataError, Result};

/// How the documents of a batch become word tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordOptions {
    /// What the encoder reads.
    pub reading: Reading,
    /// Where documents are cut.
    pub limits: WordLimits,
    /// Windows of documents that are too long for one pass of the encoder; `None`: one pass.
    pub windows: Option<WindowRule>,
    /// Whether all documents of a batch are filled up with `[PAD]` words to the longest one, as in
    /// the release of the CNN, where padding leaks into the logits.
    pub pad_documents: bool,
    /// Weights of entity averages.
    pub weights: MentionWeights,
    /// Which mention distances are measured from.
    pub first_mention: FirstMention,
    /// Rows of the coreference table, row 0 included: a document may have one entity fewer.
    pub coref_rows: usize,
    /// Entity types in the order of their rows, from row 1.
    pub entity_types: Vec<String>,
    /// Whether a word takes the type of its mention instead of that of the entity, as in the
    /// releases for DocRED.
    pub mention_types: bool,
    /// Special pieces of the tokenizer.
    pub pieces: SpecialPieces,
    /// Seed of dropout masks.
    pub seed: u64,
}

impl WordOptions {
    /// The plain choice for an encoder: words for a table, pieces otherwise; read in windows, or
    /// cut only where the recipe allows it.
    pub fn of(foundation: &Foundation, long_documents: LongDocuments) -> Self {
        let encoder = foundation.encoder.facts();
        let reading = if encoder.contextual { Reading::Pieces } else { Reading::Words };
        let in_windows = reading != Reading::Words && long_documents == LongDocuments::Windows;
        let windows = in_windows.then(|| windows_of(foundation, 0, 0)).flatten();
        let one_pass =
            foundation.max_pieces.or(encoder.max_positions).filter(|_| windows.is_none());
        Self {
            reading,
            limits: WordLimits {
                max_pieces: one_pass,
                max_words: None,
                truncate: foundation.truncate,
            },
            windows,
            pad_documents: false,
            weights: MentionWeights::Mean,
            first_mention: FirstMention::Listed,
            coref_rows: 512,
            entity_types: foundation.entity_types.clone(),
            mention_types: false,
            pieces: foundation.pieces.clone(),
            seed: foundation.seed,
        }
    }

    /// The row of the type of a mention, or of its entity.
    fn type_row(
        &self,
        document: &TokenizedDocument,
        entity: usize,
        mention: &TokenizedMention,
    ) -> Result<i64> {
        let own = &document.entities[entity];
        let name = if self.mention_types { own.type_of(mention) } else { &own.entity_type };
        let row =
            self.entity_types.iter().position(|known| known == name).map(|row| row as i64 + 1);
        row.ok_or_else(|| {
            let known = self.entity_types.join("`, `");
            DataError::new("shards", format!("entity type `{name}` is none of `{known}`"))
                .title(&document.title)
                .field(format!("vertexSet[{entity}]"))
                .hint("train on documents that have all entity types, or rename this one")
                .into()
        })
    }

    /// The coreference row of an entity's words.
    fn coref_row(&self, document: &TokenizedDocument, entity: usize) -> Result<i64> {
        if entity + 1 >= self.coref_rows {
            let problem = format!(
                "{} entities are more than the {} coreference rows",
                document.entities.len(),
                self.coref_rows - 1
            );
            return Err(DataError::new("shards", problem)
                .title(&document.title)
                .hint("give the system more coreference rows")
                .into());
        }
        Ok(entity as i64 + 1)
    }
}

/// Documents, words, entities and pairs of a batch; host data. Words, entities and pairs are
/// counted through all documents.
#[derive(Clone, Debug, Default)]
pub struct WordTables {
    /// Pieces for the encoder. `[T]`
    pub ids: Vec<i64>,
    /// First piece of each document, closed by T. [documents + 1]
    pub offsets: Vec<i64>,
    /// What the encoder reads where some document is too long for one pass.
    pub windows: Option<BatchWindows>,
    /// First word of each document, closed by their number W. [documents + 1]
    pub word_offsets: Vec<i64>,
    /// The piece whose state stands for each word, T for none; `None` where word *w* is piece *w*.
    /// `[W]`
    pub word_rows: Option<Vec<i64>>,
    /// 1 + index of the entity that a word belongs to, 0 for none; the later entity wins. `[W]`
    pub coref: Vec<i64>,
    /// Row of that entity's type, 0 for none. `[W]`
    pub types: Vec<i64>,
    /// First word of each sentence of all documents, closed by W; sentences behind the cut are
    /// empty. [S + 1]
    pub sentence_offsets: Vec<i64>,
    /// First sentence of each document, closed by S. [documents + 1]
    pub document_sentences: Vec<i64>,
    /// First entity of each document, closed by E. [documents + 1]
    pub entity_offsets: Vec<i64>,
    /// Averages over words, a row an entity.
    pub averages: Bags,
    /// Heads of the pairs, as entities of the batch. `[P]`
    pub heads: Vec<i64>,
    /// Tails. `[P]`
    pub tails: Vec<i64>,
    /// Signed distance bins of start(head) − start(tail). `[P]`
    pub bins: Vec<i64>,
    /// First pair of each document, closed by P. [documents + 1]
    pub pair_offsets: Vec<i64>,
    visits: Vec<u64>,
    seed: u64,
}

impl WordTables {
    /// Lays out a batch.
    ///
    /// # Errors
    /// A document over a limit that may not be cut, with more entities than coreference rows, or
    /// with an unknown entity type; each named.
    pub fn new(options: &WordOptions, examples: &[Example]) -> Result<Self> {
        let read_one = |example: &Example| {
            read(&example.document, options.reading, &options.limits, &options.pieces)
        };
        let mut documents = examples.iter().map(read_one).collect::<Result<Vec<_>>>()?;
        let longest = documents.iter().map(|document| document.states.len()).max().unwrap_or(0);
        let zero = || vec![0];
        let mut tables = Self {
            offsets: zero(),
            word_offsets: zero(),
            sentence_offsets: zero(),
            document_sentences: zero(),
            entity_offsets: zero(),
            pair_offsets: zero(),
            seed: options.seed,
            ..Self::default()
        };
        for (example, document) in examples.iter().zip(&mut documents) {
            let kept = document.states.len();
            if options.pad_documents {
                fill_up(document, longest, options);
            }
            tables.push_words(options, example, document, kept)?;
            tables.push_sentences(&example.document, kept);
            tables.push_entities(options, &example.document, kept);
            tables.push_pairs(options, example);
        }
        if options.reading != Reading::Words {
            let nowhere = tables.ids.len() as i64;
            let rows = documents.iter().zip(&tables.offsets).flat_map(|(document, first)| {
                document.states.iter().map(move |row| row.map_or(nowhere, |row| first + row))
            });
            tables.word_rows = Some(rows.collect());
        }
        let longest =
            tables.offsets.windows(2).map(|span| span[1] - span[0]).max().unwrap_or(0) as usize;
        if let Some(rule) = options.windows.as_ref().filter(|rule| longest > rule.capacity) {
            tables.windows = Some(BatchWindows::new(
                &tables.ids,
                &tables.offsets,
                rule,
                &tables.visits,
                options.seed,
            ));
        }
        Ok(tables)
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.visits.len()
    }

    /// Number of words W.
    pub fn words(&self) -> usize {
        self.coref.len()
    }

    /// Number of entities E.
    pub fn entities(&self) -> usize {
        self.averages.len()
    }

    /// Number of pairs P.
    pub fn pairs(&self) -> usize {
        self.heads.len()
    }

    /// A dropout key for each of a document's rows, whose number is given by `offsets` [documents +
    /// 1]: a function of (seed, visit, place) alone. `domain` tells the keys of words, pairs, …
    /// apart.
    pub fn keys(&self, domain: u64, offsets: &[i64]) -> Vec<i64> {
        row_keys(self.seed, domain, &self.visits, offsets)
    }

    fn push_words(
        &mut self,
        options: &WordOptions,
        example: &Example,
        read: &ReadDocument,
        kept: usize,
    ) -> Result<()> {
        let (document, base) = (&example.document, self.words());
        self.ids.extend_from_slice(&read.ids);
        self.offsets.push(self.ids.len() as i64);
        self.coref.resize(base + read.states.len(), 0);
        self.types.resize(base + read.states.len(), 0);
        for (index, entity) in document.entities.iter().enumerate() {
            let coref = options.coref_row(document, index)?;
            for mention in &entity.mentions {
                let kind = options.type_row(document, index, mention)?;
                let (start, end) =
                    ((mention.start as usize).min(kept), (mention.end as usize).min(kept));
                self.coref[base + start..base + end.max(start)].fill(coref);
                self.types[base + start..base + end.max(start)].fill(kind);
            }
        }
        self.word_offsets.push(self.words() as i64);
        self.visits.push(example.visit);
        Ok(())
    }

    /// Filled-up words belong to the last sentence.
    fn push_sentences(&mut self, document: &TokenizedDocument, kept: usize) {
        let sentences = document.sentence_starts.len().saturating_sub(1);
        let base = self.word_offsets[self.visits.len() - 1];
        let ends = document
            .sentence_starts
            .iter()
            .skip(1)
            .map(|&end| base + (end as usize).min(kept) as i64);
        self.sentence_offsets.extend(ends);
        if sentences > 0
            && let Some(last) = self.sentence_offsets.last_mut()
        {
            *last = self.coref.len() as i64;
        }
        self.document_sentences.push(self.sentence_offsets.len() as i64 - 1);
    }

    fn push_entities(&mut self, options: &WordOptions, document: &TokenizedDocument, kept: usize) {
        let base = self.word_offsets[self.visits.len() - 1];
        for entity in &document.entities {
            let entries = weights(entity, kept as u32, options.weights);
            self.averages
                .push(entries.into_iter().map(|(word, weight)| (base + i64::from(word), weight)));
        }
        self.entity_offsets.push(self.entities() as i64);
    }

    fn push_pairs(&mut self, options: &WordOptions, example: &Example) {
        let base = self.entity_offsets[self.visits.len() - 1];
        let starts: Vec<i64> = example
            .document
            .entities
            .iter()
            .map(|entity| options.first_mention.start(entity))
            .collect();
        for &(head, tail) in &example.pairs {
            self.heads.push(base + i64::from(head));
            self.tails.push(base + i64::from(tail));
            self.bins.push(signed_bin(starts[head as usize] - starts[tail as usize]));
        }
        self.pair_offsets.push(self.pairs() as i64);
    }
}

/// Appends padding words.
fn fill_up(document: &mut ReadDocument, longest: usize, options: &WordOptions) {
    let missing = longest - document.states.len();
    if options.reading == Reading::Words {
        let first = document.ids.len() as i64;
        document.ids.extend(std::iter::repeat_n(i64::from(options.pieces.pad), missing));
        document.states.extend((first..first + missing as i64).map(Some));
    } else {
        document.states.extend(std::iter::repeat_n(None, missing));
    }
}
