//! The configuration that BERT shares with RoBERTa, XLM-RoBERTa and ELECTRA: the keys of Hugging
//! Face's `BertConfig`, and the parts of the network that follow from them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::encoders::transformer::{
    BERT_NAMES, Dimensions, EmbeddingPlan, HiddenAct, Limit, PositionTable, PostNormPlan, Stack,
};
use crate::torch::nn::Linear;
use crate::torch::{Init, Slot};
use crate::{Error, Result};

/// Name of the position table.
pub(in crate::encoders) const POSITION_TABLE: &str = "embeddings.position_embeddings.weight";

/// Dimensions and rates, under the names that `config.json` uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::encoders) struct BertKeys {
    /// Rows of the word-piece table.
    pub vocab_size: i64,
    /// Width d of a state.
    pub hidden_size: i64,
    /// Number of layers.
    pub num_hidden_layers: i64,
    /// Attention heads a layer; divides `hidden_size`.
    pub num_attention_heads: i64,
    /// Width of the feed-forward layer.
    pub intermediate_size: i64,
    /// Rows of the position table: the longest document, in pieces; RoBERTa has two more.
    pub max_position_embeddings: i64,
    /// Rows of the token-type table; only row 0 is used.
    pub type_vocab_size: i64,
    /// The activation; see [`HiddenAct::named`].
    pub hidden_act: String,
    /// Dropout of hidden states.
    pub hidden_dropout_prob: f64,
    /// Dropout of attention probabilities.
    pub attention_probs_dropout_prob: f64,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// The padding piece; a row like any other here, but RoBERTa counts positions without it.
    pub pad_token_id: Option<i64>,
    /// Only `absolute` is known.
    pub position_embedding_type: String,
}

/// What Hugging Face assumes for keys that a `config.json` lacks.
pub(in crate::encoders) fn assumed() -> Value {
    json!({
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "position_embedding_type": "absolute",
    })
}

/// A configuration of these numbers of layers, width and heads, with 512 positions.
pub(in crate::encoders) fn preset([layers, width, heads]: [i64; 3], pieces: i64) -> Value {
    json!({
        "vocab_size": pieces,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 512,
    })
}

impl BertKeys {
    /// The numbers in general terms, where positions are counted without the piece `padding` (see
    /// [`PositionTable`]).
    pub fn dimensions(&self, padding: Option<i64>) -> Dimensions {
        Dimensions {
            pieces: self.vocab_size,
            width: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            inner: self.intermediate_size,
            dropout_rates: (self.hidden_dropout_prob, self.attention_probs_dropout_prob),
            initializer_range: self.initializer_range,
            limit: Limit::Table(
                self.max_position_embeddings - padding.map_or(0, |piece| piece + 1),
            ),
        }
    }

    /// # Errors
    /// [`Error::Recipe`] for positions of another kind, or an unknown activation.
    pub fn check(&self) -> Result<()> {
        HiddenAct::named("hidden_act", &self.hidden_act)?;
        absolute(&self.position_embedding_type)
    }

    /// The embedding, with positions as in [`Self::dimensions`].
    pub fn embeddings(&self, padding: Option<i64>) -> EmbeddingPlan {
        EmbeddingPlan {
            words: "embeddings.word_embeddings.weight",
            pieces: self.vocab_size,
            width: self.hidden_size,
            positions: Some(PositionTable {
                name: POSITION_TABLE,
                rows: self.max_position_embeddings,
                padding,
            }),
            token_types: Some(("embeddings.token_type_embeddings.weight", self.type_vocab_size)),
            norm: Some(("embeddings.LayerNorm", true)),
            eps: self.layer_norm_eps,
            projection: None,
            std: self.initializer_range,
        }
    }

    /// The network's plan, over these embeddings.
    ///
    /// # Errors
    /// [`Error::Recipe`] for an unknown activation.
    pub fn stack(&self, embeddings: EmbeddingPlan) -> Result<Stack> {
        let layer = PostNormPlan {
            names: BERT_NAMES,
            width: self.hidden_size,
            heads: self.num_attention_heads,
            inner: self.intermediate_size,
            eps: self.layer_norm_eps,
            std: self.initializer_range,
            activation: HiddenAct::named("hidden_act", &self.hidden_act)?,
            drops: [true, true],
        };
        let names = (0..self.num_hidden_layers).map(|layer| format!("encoder.layer.{layer}"));
        Ok(Stack { embeddings, layer, names: names.collect() })
    }

    /// The pooler, which is carried along but never used.
    pub fn pooler(&self) -> impl Iterator<Item = Slot> {
        let normal = Init::Normal { std: self.initializer_range };
        let width = self.hidden_size;
        Linear::slots("pooler.dense", width, width, [normal, Init::Zeros])
            .into_iter()
            .map(|slot| slot.frozen().optional())
    }
}

/// Refuses positions that are not rows of a table.
fn absolute(kind: &str) -> Result<()> {
    if kind == "absolute" {
        return Ok(());
    }
    Err(Error::recipe(format!(
        "`position_embedding_type` is `{kind}`, but only `absolute` is supported"
    )))
}
