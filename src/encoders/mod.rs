//! Encoders: a packed token stream in, one state per token out.
//!
//! An encoder is a folder or a file and a line in `registry.rs`: BERT and the other Transformers,
//! which share `transformer`, a BiLSTM over word vectors, the plain table of word vectors. Not for:
//! cutting documents into pieces (`text`), pooling mentions into entities (`systems`), writing
//! weights to disk (`torch::hf`).

mod albert;
mod attended;
mod bert;
mod bilstm;
pub(crate) mod checks;
mod deberta;
mod distilbert;
mod electra;
mod kind;
mod modernbert;
mod mpnet;
mod registry;
mod roberta;
mod spec;
#[cfg(test)]
mod tests;
mod transformer;
mod word_table;
mod word_vectors;
mod words;
mod xlnet;

use tch::{Device, Tensor};

pub use crate::torch::kernels::Segments;
pub use crate::torch::{Dropout, Precision};
pub use attended::{Attended, Attending};
pub use kind::{EncoderKind, NewEncoder, WordStart};
pub use registry::{encoder_flops, encoder_size};
pub use spec::{EncoderSpec, build};
pub use word_vectors::WordVectors;

use crate::torch::{Parameters, Table, Uploaded, on};
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

impl TokenStream {
    /// A stream of host values; `offsets` are the first tokens of the documents, closed by T.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn new(ids: &[i64], positions: &[i64], offsets: &[i64], device: Device) -> Result<Self> {
        let (ids, positions) = (on(ids, device)?, on(positions, device)?);
        Ok(Self { ids, positions, segments: Segments::new(offsets, device)? })
    }

    /// A stream of tables that reached the device in one copy.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn uploaded(
        [ids, positions, device_offsets]: [Table; 3],
        offsets: &[i64],
        tables: &Uploaded,
    ) -> Result<Self> {
        let segments = Segments::uploaded(offsets, tables.table_of_32_bits(device_offsets)?)?;
        Ok(Self { ids: tables.table(ids)?, positions: tables.table(positions)?, segments })
    }
}

/// How one forward pass runs.
#[derive(Debug)]
pub struct Pass {
    /// Whether gradients will be asked for.
    pub train: bool,
    /// Dropout of hidden states; `None` leaves them alone.
    pub hidden_dropout: Option<Dropout>,
    /// Dropout of attention probabilities.
    pub attention_dropout: Option<Dropout>,
    /// Number format of the matrix products.
    pub precision: Precision,
}

impl Pass {
    /// A pass without gradients and without dropout.
    pub fn inference(precision: Precision) -> Self {
        Self { train: false, hidden_dropout: None, attention_dropout: None, precision }
    }

    /// A pass through `encoder` with its own dropout rates, or with `rate` in place of both. `mask`
    /// gives the dropout of a rate.
    ///
    /// # Errors
    /// Those of `mask`.
    pub fn new(
        encoder: &dyn Encoder,
        rate: Option<f64>,
        (train, precision): (bool, Precision),
        mask: impl Fn(f64) -> Result<Option<Dropout>>,
    ) -> Result<Self> {
        let (hidden, attention) = rate.map_or_else(|| encoder.facts().dropout_rates, |p| (p, p));
        let (hidden_dropout, attention_dropout) = (mask(hidden)?, mask(attention)?);
        Ok(Self { train, hidden_dropout, attention_dropout, precision })
    }
}

/// Properties of an encoder that was built.
#[derive(Clone, Debug)]
pub struct EncoderFacts {
    /// Width d of a state.
    pub width: i64,
    /// The longest document it can take, in tokens; `None` where any length will do.
    pub max_positions: Option<usize>,
    /// Dropout rates of (hidden states, attention probabilities), as its configuration asks for in
    /// training.
    pub dropout_rates: (f64, f64),
    /// Attention heads a layer; `None` for an encoder without attention.
    pub attention_heads: Option<i64>,
    /// Layers whose states can be averaged; `None` where no mean can be asked for.
    pub layers: Option<usize>,
    /// Whether a token's state depends on its neighbours and on `[CLS]` and `[SEP]` around them.
    /// Documents are given to a plain table of vectors without those.
    pub contextual: bool,
    /// Remarks on how it was loaded: rows that were added, tensors that were not used.
    pub notes: Vec<String>,
}

impl EncoderFacts {
    /// A contextual encoder without attention, dropout or a limit of length.
    fn new(width: i64, notes: Vec<String>) -> Self {
        Self {
            width,
            max_positions: None,
            dropout_rates: (0.0, 0.0),
            attention_heads: None,
            layers: None,
            contextual: true,
            notes,
        }
    }
}

/// The states of every layer; [T, d] each.
#[derive(Debug)]
pub struct LayerStates {
    /// The input of the first layer.
    pub embedding: Tensor,
    /// The results of the layers, in order, before a norm that stands behind the last one.
    pub layers: Vec<Tensor>,
    /// What the encoder gives.
    pub last: Tensor,
}

/// A network that gives every token of a stream a state.
pub trait Encoder {
    /// Its properties.
    fn facts(&self) -> &EncoderFacts;

    /// States of all tokens; [T, d], 32 bits.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming both lengths where a document is too long (the caller knows its
    /// title).
    fn encode(&self, stream: &TokenStream, pass: &Pass) -> Result<Tensor>;

    /// Means over the last layers: states, and attention of entities.
    ///
    /// # Errors
    /// As [`Self::encode`]; [`Error::Recipe`] where the encoder has no such layers.
    fn encode_attended(
        &self,
        stream: &TokenStream,
        asked: &Attending,
        pass: &Pass,
    ) -> Result<Attended> {
        if asked.plan.is_some() || asked.layers > 1 {
            return Err(Error::recipe("this encoder has no attention layers that could be read")
                .with_hint(
                    "set encoder.name to a Transformer (a BERT, or `tiny`), or take a system that \
                     reads no attention; `docre-pretrain systems` lists them",
                ));
        }
        Ok(Attended { states: self.encode(stream, pass)?, attention: None })
    }

    /// The states of every layer, for comparisons.
    ///
    /// # Errors
    /// As [`Self::encode`]; [`Error::Recipe`] where the encoder has no such layers.
    fn layer_states(&self, _stream: &TokenStream, _pass: &Pass) -> Result<LayerStates> {
        Err(Error::recipe("this encoder has no layers whose states could be shown"))
    }

    /// Makes three times as many positions of those there are (DocRE-II), unless that was done
    /// before. An encoder without a table of positions reads three times as long documents in one
    /// go.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a table that cannot be extended.
    fn extend_positions(&mut self, _alpha: f64, _parameters: &mut Parameters) -> Result<()> {
        Err(Error::recipe("this encoder has no positions that could be extended")
            .with_hint("encode long documents in windows"))
    }

    /// The content of `config.json`, complete with `model_type` and `architectures`.
    fn config(&self) -> serde_json::Value;
}
