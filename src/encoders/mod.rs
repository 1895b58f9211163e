//! Encoders: a packed token stream in, one state per token out.
//!
//! Three kinds fit the trait: BERT (from a preset or a Hugging Face folder), a BiLSTM over word
//! vectors, and the plain table of word vectors. Not for: cutting documents into pieces (`text`),
//! pooling mentions into entities (`systems`), writing weights to disk (`torch::hf`).

mod attended;
mod bert;
mod bilstm;
mod spec;
#[cfg(test)]
mod tests;
mod word_vectors;
mod words;

use std::path::Path;

use tch::Tensor;

pub use crate::torch::kernels::Segments;
pub use crate::torch::{Dropout, Precision};
pub use attended::{Attended, Attending};
pub use bert::{Bert, BertConfig, start_local};
pub use bilstm::{BiLstm, BiLstmConfig};
pub use spec::EncoderSpec;
pub use word_vectors::{WordVectors, embed_projected};
pub use words::{Words, WordsConfig};

use crate::torch::Parameters;
use crate::torch::hf;
use crate::{Error, Result};

/// Packed documents: T tokens, one document after the other, without padding.
#[derive(Debug)]
pub struct TokenStream {
    /// Vocabulary rows; `[T]` of 64-bit integers.
    pub ids: Tensor,
    /// Position of each token inside its document, from 0; `[T]` of 64-bit integers.
    pub positions: Tensor,
    /// Where each document starts.
    pub segments: Segments,
}

/// How one forward pass runs.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// Whether gradients will be asked for.
    pub train: bool,
    /// Dropout of hidden states; `None` leaves them alone.
    pub hidden_dropout: Option<&'a Dropout>,
    /// Dropout of attention probabilities.
    pub attention_dropout: Option<&'a Dropout>,
    /// Number format of the matrix products.
    pub precision: Precision,
}

impl Pass<'_> {
    /// A pass without gradients and without dropout.
    pub fn inference(precision: Precision) -> Self {
        Self { train: false, hidden_dropout: None, attention_dropout: None, precision }
    }
}

/// A network that gives every token of a stream a state.
pub trait Encoder {
    /// Width d of a state.
    fn width(&self) -> i64;

    /// Number of vocabulary rows.
    fn vocab_size(&self) -> i64;

    /// The longest document it can take, in tokens; `None` where any length will do.
    fn max_positions(&self) -> Option<i64>;

    /// Dropout rates of (hidden states, attention probabilities), as its configuration asks for in
    /// training.
    fn dropout_rates(&self) -> (f64, f64);

    /// Whether a token's state depends on its neighbours and on `[CLS]` and `[SEP]` around them. A
    /// plain table of vectors says no; then documents are given to it without those.
    fn contextual(&self) -> bool {
        true
    }

    /// States of all tokens; [T, d], 32 bits.
    ///
    /// # Errors
    /// [`crate::Error::Recipe`] naming both lengths where a document is too long (the caller knows
    /// its title).
    fn encode(&self, stream: &TokenStream, pass: &Pass) -> Result<Tensor>;

    /// Attention heads a layer; `None` for an encoder without attention.
    fn attention_heads(&self) -> Option<i64> {
        None
    }

    /// Means over the last layers: states, and attention of entities.
    ///
    /// # Errors
    /// As [`Self::encode`]; [`crate::Error::Recipe`] where the encoder has no such layers.
    fn encode_attended(
        &self,
        stream: &TokenStream,
        asked: &Attending,
        pass: &Pass,
    ) -> Result<Attended> {
        if asked.plan.is_some() || asked.layers > 1 {
            return Err(Error::recipe("this encoder has no attention layers that could be read")
                .with_hint("take a BERT, or turn off context pooling and averaged layers"));
        }
        Ok(Attended { states: self.encode(stream, pass)?, attention: None })
    }

    /// Makes three times as many positions of those there are (DocRE-II), unless that was done
    /// before.
    ///
    /// # Errors
    /// [`crate::Error::Recipe`] where the encoder has no position table.
    fn extend_positions(&mut self, _alpha: f64, _parameters: &mut Parameters) -> Result<()> {
        Err(Error::recipe("this encoder has no positions that could be extended")
            .with_hint("encode long documents in windows"))
    }

    /// The content of `config.json`, complete with `model_type` and `architectures`.
    fn config(&self) -> serde_json::Value;

    /// Names of its parameters in the [`Parameters`] it was built in: what [`hf::write_folder`] has
    /// to save.
    fn parameter_names(&self) -> &[String];

    /// What the user should hear about how it was loaded: rows that were added, tensors that were
    /// not used.
    fn notes(&self) -> &[String];

    /// Writes what a folder needs beyond `config.json` and the weights. Nothing, for the encoders
    /// of this room.
    ///
    /// # Errors
    /// If the disk fails.
    fn write_extra_files(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }
}

/// Builds an encoder and declares its parameters in `params`, under Hugging Face names without a
/// prefix.
///
/// `vocab_size` is the number of pieces of the tokenizer. Weights from a folder overwrite the
/// initial values.
///
/// # Errors
/// [`crate::Error::Recipe`] for an unusable configuration, [`crate::Error::Data`] for a folder that
/// cannot be read.
pub fn build(
    spec: &EncoderSpec,
    vocab_size: i64,
    params: &mut Parameters,
) -> Result<Box<dyn Encoder>> {
    match spec {
        EncoderSpec::Preset { name, overrides } => {
            let config = BertConfig::preset(name, vocab_size)?.with_overrides(overrides)?;
            Ok(Box::new(Bert::declare(config, params)?))
        }
        EncoderSpec::BiLstm { config, vectors } => {
            let config = BiLstmConfig { vocab_size, ..config.clone() };
            Ok(Box::new(BiLstm::declare(config, vectors.as_ref(), params)?))
        }
        EncoderSpec::Words { config, vectors } => {
            let config = WordsConfig { vocab_size, ..config.clone() };
            Ok(Box::new(Words::declare(config, vectors.as_ref(), params)?))
        }
        EncoderSpec::Folder(dir) => from_folder(dir, vocab_size, params),
    }
}

fn from_folder(dir: &Path, vocab_size: i64, params: &mut Parameters) -> Result<Box<dyn Encoder>> {
    let folder = hf::read_folder(dir)?;
    match folder.model_type() {
        // Configurations written before 2020 do not name their type.
        Some("bert" | bert::ROBERTA) | None => {
            Ok(Box::new(Bert::from_folder(&folder, vocab_size, params)?))
        }
        Some(bilstm::MODEL_TYPE) => Ok(Box::new(BiLstm::from_folder(&folder, vocab_size, params)?)),
        Some(words::MODEL_TYPE) => Ok(Box::new(Words::from_folder(&folder, vocab_size, params)?)),
        Some(other) => Err(folder
            .error(format!("`model_type` is `{other}`, which cannot be loaded"))
            .hint(format!(
                "the encoders that can be loaded are `bert`, `roberta`, `{}` and `{}`",
                bilstm::MODEL_TYPE,
                words::MODEL_TYPE
            ))
            .into()),
    }
}
