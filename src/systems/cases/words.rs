//! What the word-level cases share: documents over `word2id.json` or a vocabulary, a foundation to
//! build systems on, dense forms of tables.

use std::sync::Arc;

use serde_json::json;
use tch::{Device, Tensor};

use crate::Result;
use crate::corpus::RelationSet;
use crate::encoders::EncoderSpec;
use crate::parity::Case;
use crate::systems::cases::foundation::{BertSizes, DOCRED_TYPES, bert, foundation};
use crate::systems::cases::total_loss;
use crate::systems::words::WordTables;
use crate::systems::{Example, Extractor, Foundation, Layout, RelationBatch};
use crate::text::{TokenizedDocument, Tokenizer};
use crate::train::{Forward, MicroBatch};

/// The documents of a word-level case.
pub(crate) struct WordCase {
    /// Encoded documents, in the order of the file.
    pub documents: Vec<Arc<TokenizedDocument>>,
    /// Relations in class order.
    pub relations: RelationSet,
    tokenizer: Tokenizer,
    device: Device,
}

impl WordCase {
    /// A case with `word2id.json`.
    ///
    /// # Errors
    /// Malformed files.
    pub fn open(case: &Case) -> Result<Self> {
        let relations = case.relations()?;
        Ok(Self::of(case, case.word_documents(&relations)?, relations))
    }

    /// A case over the fixtures' word pieces.
    ///
    /// # Errors
    /// Malformed files.
    pub fn open_pieces(case: &Case) -> Result<Self> {
        let relations = case.relations()?;
        Ok(Self::of(case, case.documents(&relations)?, relations))
    }

    fn of(
        case: &Case,
        (documents, tokenizer): (Vec<TokenizedDocument>, Tokenizer),
        relations: RelationSet,
    ) -> Self {
        let documents = documents.into_iter().map(Arc::new).collect();
        Self { documents, relations, tokenizer, device: case.device() }
    }

    /// The documents of these titles, in this order.
    ///
    /// # Errors
    /// A title that no document has.
    pub fn ordered(&self, case: &Case, titles: &[String]) -> Result<Vec<Arc<TokenizedDocument>>> {
        let find = |title: &String| {
            self.documents.iter().find(|document| document.title == *title).cloned()
        };
        titles
            .iter()
            .map(|title| {
                find(title).ok_or_else(|| case.error(format!("no document is called `{title}`")))
            })
            .collect()
    }

    /// A training visit with the layout's own pairs.
    ///
    /// # Errors
    /// As [`Layout::training_pairs`].
    pub fn example(
        &self,
        layout: &dyn Layout,
        document: &Arc<TokenizedDocument>,
    ) -> Result<Example> {
        let pairs = layout.training_pairs(document, 0, 0, 0)?;
        Ok(Example { document: Arc::clone(document), pairs, visit: 0, train: true })
    }

    /// A table of word vectors of width `width` to build on.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn table(&self, width: i64) -> Result<Foundation> {
        let config = json!({ "embedding_size": width, "frozen_vectors": true });
        self.foundation(&EncoderSpec::preset("words", config))
    }

    /// A small BERT of the case's dimensions `bert_hidden`, `bert_layers`, … to build on.
    ///
    /// # Errors
    /// If the case does not state a dimension, or libtorch rejects an operation.
    pub fn bert(&self, case: &Case) -> Result<Foundation> {
        let positions = case.number("/dims/max_position")? as usize;
        self.foundation(&bert(
            case,
            &BertSizes { prefix: "/dims/bert_", positions, epsilon: "/dims/layer_norm_eps" },
        )?)
    }

    fn foundation(&self, spec: &EncoderSpec) -> Result<Foundation> {
        let rows = self.tokenizer.vocab_size() as i64;
        let (relations, pieces) = (self.relations.len(), self.tokenizer.special());
        foundation(self.device, spec, rows, relations, &DOCRED_TYPES, pieces)
    }
}

/// The loss of a batch, divided by its count.
///
/// # Errors
/// If libtorch rejects an operation.
pub(crate) fn batch_loss(
    extractor: &dyn Extractor,
    batch: &RelationBatch,
    forward: Forward,
) -> Result<Tensor> {
    total_loss(&extractor.losses(batch, forward)?, batch.counts())
}

/// Averaging rows [documents, entities, words] as the references give them.
pub(crate) fn dense_averages(tables: &WordTables, entities: usize, words: usize) -> Vec<f32> {
    let mut dense = vec![0.0; tables.documents() * entities * words];
    for (document, span) in tables.entity_offsets.windows(2).enumerate() {
        for (row, entity) in (span[0] as usize..span[1] as usize).enumerate() {
            let entries = tables.averages.offsets[entity] as usize
                ..tables.averages.offsets[entity + 1] as usize;
            for entry in entries {
                let word = (tables.averages.rows[entry] - tables.word_offsets[document]) as usize;
                dense[(document * entities + row) * words + word] = tables.averages.weights[entry];
            }
        }
    }
    dense
}
