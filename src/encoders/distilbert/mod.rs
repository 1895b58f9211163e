//! DistilBERT (Sanh et al. 2019): BERT's layers under other names, without token types and pooler.
//! Dropout does not act on the result of attention.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::EncoderKind;
use super::bert::POSITION_TABLE;
use super::transformer::{
    BlockNames, Dimensions, EmbeddingPlan, EncoderNetwork, Family, HiddenAct, Limit, PositionTable,
    PostNormPlan, Stack, kind,
};
use crate::Result;
use crate::torch::{Parameters, Slot};

/// DistilBERT.
pub(super) enum DistilBert {}

/// The registry's entry.
pub(super) const DISTILBERT: EncoderKind =
    kind::<DistilBert>(&["distilbert-tiny", "distilbert-mini", "distilbert-base"]);

/// ε of the layer norms, which no key sets.
const EPS: f64 = 1e-12;

const NAMES: BlockNames = BlockNames {
    projections: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    inner: "ffn.lin1",
    output: "ffn.lin2",
    norm: "output_layer_norm",
};

/// The keys of Hugging Face's `DistilBertConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct DistilBertKeys {
    vocab_size: i64,
    /// Width d of a state.
    dim: i64,
    n_layers: i64,
    n_heads: i64,
    /// Width of the feed-forward layer.
    hidden_dim: i64,
    max_position_embeddings: i64,
    activation: String,
    /// Dropout of hidden states.
    dropout: f64,
    /// Dropout of attention probabilities.
    attention_dropout: f64,
    initializer_range: f64,
    pad_token_id: Option<i64>,
}

impl DistilBertKeys {
    fn embeddings(&self) -> EmbeddingPlan {
        EmbeddingPlan {
            words: "embeddings.word_embeddings.weight",
            pieces: self.vocab_size,
            width: self.dim,
            positions: Some(PositionTable {
                name: POSITION_TABLE,
                rows: self.max_position_embeddings,
                padding: None,
            }),
            token_types: None,
            norm: Some(("embeddings.LayerNorm", true)),
            eps: EPS,
            projection: None,
            std: self.initializer_range,
        }
    }

    fn stack(&self) -> Result<Stack> {
        let layer = PostNormPlan {
            names: NAMES,
            width: self.dim,
            heads: self.n_heads,
            inner: self.hidden_dim,
            eps: EPS,
            std: self.initializer_range,
            activation: HiddenAct::named("activation", &self.activation)?,
            drops: [false, true],
        };
        let names = (0..self.n_layers).map(|layer| format!("transformer.layer.{layer}"));
        Ok(Stack { embeddings: self.embeddings(), layer, names: names.collect() })
    }
}

impl Family for DistilBert {
    type Keys = DistilBertKeys;
    const MODEL_TYPE: &'static str = "distilbert";
    const ARCHITECTURE: &'static str = "DistilBertModel";
    const COUNTS: &'static [&'static str] = &["dim", "n_layers", "n_heads", "hidden_dim"];
    const RATES: &'static [&'static str] = &["dropout", "attention_dropout"];

    fn assumed() -> Value {
        json!({
            "dim": 768,
            "n_layers": 6,
            "n_heads": 12,
            "hidden_dim": 3072,
            "max_position_embeddings": 512,
            "activation": "gelu",
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "initializer_range": 0.02,
        })
    }

    fn preset([layers, width, heads]: [i64; 3], pieces: i64) -> Value {
        json!({
            "vocab_size": pieces,
            "dim": width,
            "n_layers": layers,
            "n_heads": heads,
            "hidden_dim": 4 * width,
            "pad_token_id": 0,
        })
    }

    fn dimensions(keys: &DistilBertKeys) -> Dimensions {
        Dimensions {
            pieces: keys.vocab_size,
            width: keys.dim,
            layers: keys.n_layers,
            heads: keys.n_heads,
            inner: keys.hidden_dim,
            dropout_rates: (keys.dropout, keys.attention_dropout),
            initializer_range: keys.initializer_range,
            limit: Limit::Table(keys.max_position_embeddings),
        }
    }

    fn check(keys: &DistilBertKeys) -> Result<()> {
        keys.stack().map(drop)
    }

    fn set_positions(keys: &mut DistilBertKeys, rows: i64) {
        keys.max_position_embeddings = rows;
    }

    fn slots(keys: &DistilBertKeys) -> Result<Vec<Slot>> {
        Ok(keys.stack()?.slots())
    }

    fn network(keys: &DistilBertKeys, params: &Parameters) -> Result<EncoderNetwork> {
        keys.stack()?.plain_network(params)
    }

    fn start_local(keys: &DistilBertKeys, params: &Parameters) -> Result<bool> {
        keys.stack()?.start_local(params)
    }
}
