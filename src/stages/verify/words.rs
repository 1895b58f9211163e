//! What the word-level cases share: documents over `word2id.json` or a vocabulary, a foundation to build systems on, dense forms of tables.

use std::sync::Arc;

use tch::{Device, Tensor};

use super::Case;
use crate::Result;
use crate::corpus::RelationSet;
use crate::systems::words::WordTables;
use crate::systems::{Example, Extractor, Forward, Foundation, Layout, RelationBatch};
use crate::text::{EncodedDocument, Tokenizer};
use crate::torch::Parameters;
use crate::torch::encoder::{BertConfig, Encoder, EncoderSpec, WordsConfig, build};
use crate::torch::precision::Precision;

/// A forward pass without dropout.
pub(super) const EVALUATION: Forward = Forward { train: false, precision: Precision::Fp32 };

/// DocRED's entity types in the order of their rows, from row 1.
const ENTITY_TYPES: [&str; 6] = ["ORG", "LOC", "TIME", "PER", "MISC", "NUM"];

/// The documents of a word-level case.
pub(super) struct WordCase {
    /// Encoded documents, in the order of the file.
    pub documents: Vec<Arc<EncodedDocument>>,
    /// Relations in class order.
    pub relations: RelationSet,
    tokenizer: Tokenizer,
}

impl WordCase {
    /// A case with `word2id.json`.
    ///
    /// # Errors
    /// Malformed files.
    pub fn open(case: &Case) -> Result<Self> {
        let relations = case.relations()?;
        let (documents, tokenizer) = case.word_documents(&relations)?;
        Ok(Self { documents: documents.into_iter().map(Arc::new).collect(), relations, tokenizer })
    }

    /// A case over the fixtures' word pieces.
    ///
    /// # Errors
    /// Malformed files.
    pub fn open_pieces(case: &Case) -> Result<Self> {
        let relations = case.relations()?;
        let (documents, tokenizer) = case.documents(&relations)?;
        Ok(Self { documents: documents.into_iter().map(Arc::new).collect(), relations, tokenizer })
    }

    /// The documents of these titles, in this order.
    ///
    /// # Errors
    /// A title that no document has.
    pub fn ordered(&self, case: &Case, titles: &[String]) -> Result<Vec<Arc<EncodedDocument>>> {
        let find = |title: &String| self.documents.iter().find(|document| document.title == *title).cloned();
        titles.iter().map(|title| find(title).ok_or_else(|| case.error(format!("no document is called `{title}`")))).collect()
    }

    /// A training visit with the layout's own pairs.
    ///
    /// # Errors
    /// As [`Layout::training_pairs`].
    pub fn example(&self, layout: &dyn Layout, document: &Arc<EncodedDocument>) -> Result<Example> {
        let pairs = layout.training_pairs(document, 0, 0, 0)?;
        Ok(Example { document: Arc::clone(document), pairs, visit: 0, train: true })
    }

    /// A table of word vectors of width `width` to build on.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn table(&self, width: i64) -> Result<Foundation> {
        let config = WordsConfig { embedding_size: width, frozen_vectors: Some(true), ..WordsConfig::default() };
        self.foundation(&EncoderSpec::Words { config, vectors: None })
    }

    /// A small BERT of the case's dimensions `bert_hidden`, `bert_layers`, … to build on.
    ///
    /// # Errors
    /// A dimension that the case does not state; what libtorch refuses.
    pub fn bert(&self, case: &Case) -> Result<Foundation> {
        let dims = |key: &str| case.number(&format!("/dims/{key}"));
        let config = serde_json::json!({
            "hidden_size": dims("bert_hidden")?,
            "num_hidden_layers": dims("bert_layers")?,
            "num_attention_heads": dims("bert_heads")?,
            "intermediate_size": dims("bert_intermediate")?,
            "max_position_embeddings": dims("max_position")?,
            "hidden_act": "gelu",
            "layer_norm_eps": case.at("/dims/layer_norm_eps").as_f64().unwrap_or(1e-12),
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        });
        let overrides = config.as_object().cloned().unwrap_or_default();
        self.foundation(&EncoderSpec::Preset { name: BertConfig::PRESETS[0].to_owned(), overrides })
    }

    fn foundation(&self, spec: &EncoderSpec) -> Result<Foundation> {
        let mut parameters = Parameters::new(0, Device::Cpu);
        let encoder: Box<dyn Encoder> = build(spec, self.tokenizer.vocab_size() as i64, &mut parameters)?;
        Ok(Foundation {
            encoder,
            parameters,
            relations: self.relations.len(),
            entity_types: ENTITY_TYPES.map(str::to_owned).to_vec(),
            pieces: self.tokenizer.special().clone(),
            max_pieces: None,
            truncate: false,
            dropout: None,
            seed: 0,
            twin: None,
        })
    }
}

/// The loss of a batch, divided by its count.
///
/// # Errors
/// What libtorch refuses.
pub(super) fn batch_loss(extractor: &dyn Extractor, batch: &RelationBatch) -> Result<Tensor> {
    use crate::systems::MicroBatch;
    let sums = extractor.losses(batch, EVALUATION)?;
    let terms = sums.iter().zip(batch.counts()).filter(|(_, count)| **count > 0.0);
    let terms = terms.map(|(sum, &count)| Ok(sum.f_div_scalar(count)?)).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::f_stack(&terms, 0)?.f_sum(tch::Kind::Float)?)
}

/// Values of words as rows of `width`, a row a document, filled up with 0.
pub(super) fn padded_words(values: &[i64], offsets: &[i64], width: usize) -> Vec<i64> {
    let row = |span: &[i64]| {
        let values = &values[span[0] as usize..span[1] as usize];
        values.iter().copied().chain(std::iter::repeat(0)).take(width).collect::<Vec<_>>()
    };
    offsets.windows(2).flat_map(row).collect()
}

/// Averaging rows [documents, entities, words] as the references give them.
pub(super) fn dense_averages(tables: &WordTables, entities: usize, words: usize) -> Vec<f32> {
    let mut dense = vec![0.0; tables.documents() * entities * words];
    for (document, span) in tables.entity_offsets.windows(2).enumerate() {
        for (row, entity) in (span[0] as usize..span[1] as usize).enumerate() {
            let entries = tables.averages.offsets[entity] as usize..tables.averages.offsets[entity + 1] as usize;
            for entry in entries {
                let word = (tables.averages.words[entry] - tables.word_offsets[document]) as usize;
                dense[(document * entities + row) * words + word] = tables.averages.weights[entry];
            }
        }
    }
    dense
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::stages::verify_case;

    /// Computes a case and prints what differs.
    fn holds(name: &str) {
        let Some(shared) = std::env::var_os("DOCRE_SHARED").map(PathBuf::from) else {
            eprintln!("skipped: DOCRE_SHARED is not set");
            return;
        };
        let outcome = verify_case(&shared.join("parity").join(name)).unwrap();
        println!("{outcome}");
        assert!(!outcome.tensors.is_empty() && !outcome.failed(), "{outcome}");
    }

    #[test]
    fn cnn_is_the_releases() {
        holds("baseline-cnn");
    }

    #[test]
    fn lstm_is_the_releases() {
        holds("baseline-lstm");
    }

    #[test]
    fn bilstm_is_the_releases() {
        holds("baseline-bilstm");
    }

    #[test]
    fn context_aware_is_the_releases() {
        holds("baseline-contextaware");
    }

    #[test]
    fn lstm_sp_is_the_releases() {
        holds("baseline-lstm-sp");
    }

    #[test]
    fn bert_re_is_the_releases() {
        holds("bert-re");
    }
}
