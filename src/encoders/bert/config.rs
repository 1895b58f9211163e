//! The configuration of a BERT encoder: the keys of Hugging Face's `BertConfig`, presets, and the
//! parameters that follow from them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::encoders::checks::{check_positive, check_rates};
use crate::encoders::kind;
use crate::torch::nn::{LayerNorm, Linear};
use crate::torch::{Init, Slot};
use crate::{Error, Result};

/// Dimensions and rates, under the names that `config.json` uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::encoders) struct BertConfig {
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
    /// `gelu` (exact), `gelu_new` (tanh form) or `relu`.
    pub hidden_act: String,
    /// Dropout of hidden states.
    pub hidden_dropout_prob: f64,
    /// Dropout of attention probabilities.
    pub attention_probs_dropout_prob: f64,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// The padding piece; a row like any other here.
    pub pad_token_id: Option<i64>,
    /// Only `absolute` is known.
    pub position_embedding_type: String,
    /// Keys that this program does not read, kept for other programs.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What Hugging Face assumes for keys that a `config.json` lacks.
fn assumed() -> Value {
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

/// Presets with their numbers of layers, widths and heads: Google's BERT-tiny, BERT-mini and
/// BERT-base.
const SIZES: [(&str, [i64; 3]); 3] =
    [("tiny", [2, 128, 2]), ("mini", [4, 256, 4]), ("base", [12, 768, 12])];

/// Names that [`BertConfig::preset`] knows.
pub(super) const PRESETS: &[&str] = &[SIZES[0].0, SIZES[1].0, SIZES[2].0];

/// `model_type` of BERT.
pub(super) const BERT: &str = "bert";

/// `model_type` of RoBERTa (Liu et al. 2019).
pub(super) const ROBERTA: &str = "roberta";

impl BertConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Recipe`] for keys that are missing or of another type.
    pub fn read(config: &Value) -> Result<Self> {
        let mut keys = assumed();
        if let (Some(keys), Some(given)) = (keys.as_object_mut(), config.as_object()) {
            keys.extend(given.clone());
        }
        kind::from_json(&keys)
    }

    /// Whether positions begin after the padding piece's number, as RoBERTa's do.
    fn is_roberta(&self) -> bool {
        self.other.get("model_type").and_then(Value::as_str) == Some(ROBERTA)
    }

    /// Row of the position table that a document's first piece takes.
    pub fn first_position(&self) -> i64 {
        if self.is_roberta() { self.pad_token_id.unwrap_or(1) + 1 } else { 0 }
    }

    /// The longest document, in pieces.
    pub fn positions(&self) -> i64 {
        self.max_position_embeddings - self.first_position()
    }

    /// A preset, with 512 positions.
    ///
    /// # Errors
    /// [`Error::Recipe`] for an unknown name.
    pub fn preset(name: &str, vocab_size: i64) -> Result<Self> {
        let [layers, width, heads] = SIZES
            .iter()
            .find(|(preset, _)| *preset == name)
            .map(|(_, sizes)| *sizes)
            .ok_or_else(|| Error::recipe(format!("no BERT preset is called `{name}`")))?;
        Self::read(&json!({
            "vocab_size": vocab_size,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "max_position_embeddings": 512,
            "pad_token_id": 0,
        }))
    }

    /// The content of `config.json`; `architectures` and `model_type` say what is saved, whatever
    /// was loaded.
    pub fn to_json(&self) -> Value {
        let (architecture, model_type) =
            if self.is_roberta() { ("RobertaModel", ROBERTA) } else { ("BertModel", BERT) };
        let mut config = kind::to_json(self, architecture, model_type);
        config["torch_dtype"] = json!("float32");
        config
    }

    /// # Errors
    /// [`Error::Recipe`] naming a key whose value cannot be used.
    pub fn validate(&self) -> Result<()> {
        check_positive(
            "encoder key ",
            &[
                ("vocab_size", self.vocab_size),
                ("hidden_size", self.hidden_size),
                ("num_hidden_layers", self.num_hidden_layers),
                ("num_attention_heads", self.num_attention_heads),
                ("intermediate_size", self.intermediate_size),
                ("max_position_embeddings", self.max_position_embeddings),
                ("type_vocab_size", self.type_vocab_size),
            ],
        )?;
        check_rates(
            "encoder key ",
            &[
                ("hidden_dropout_prob", self.hidden_dropout_prob),
                ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ],
        )?;
        if self.hidden_size % self.num_attention_heads != 0 {
            let (width, heads) = (self.hidden_size, self.num_attention_heads);
            return Err(Error::recipe(format!(
                "`hidden_size` {width} is not a multiple of `num_attention_heads` {heads}"
            )));
        }
        if self.positions() < 1 {
            let rows = self.max_position_embeddings;
            return Err(Error::recipe(format!(
                "`max_position_embeddings` {rows} leaves no position after the padding piece"
            )));
        }
        if self.position_embedding_type != "absolute" {
            let kind = &self.position_embedding_type;
            return Err(Error::recipe(format!(
                "`position_embedding_type` is `{kind}`, but only `absolute` is supported"
            )));
        }
        Ok(())
    }

    /// All parameters, in Hugging Face's order and with BERT's initial values. The pooler is
    /// carried along, but never used.
    pub fn slots(&self) -> Vec<Slot> {
        let d = self.hidden_size;
        let mut slots: Vec<Slot> = ["word", "position", "token_type"]
            .into_iter()
            .zip([self.vocab_size, self.max_position_embeddings, self.type_vocab_size])
            .map(|(table, rows)| {
                Slot::new(
                    format!("embeddings.{table}_embeddings.weight"),
                    &[rows, d],
                    self.normal(),
                )
            })
            .collect();
        slots.extend(LayerNorm::slots("embeddings.LayerNorm", d));
        for layer in 0..self.num_hidden_layers {
            slots.extend(self.layer_slots(&format!("encoder.layer.{layer}")));
        }
        slots.extend(self.linear("pooler.dense", d, d).map(|slot| slot.frozen().optional()));
        slots
    }

    fn layer_slots(&self, layer: &str) -> Vec<Slot> {
        let (d, inner) = (self.hidden_size, self.intermediate_size);
        let mut slots: Vec<Slot> = ["query", "key", "value"]
            .iter()
            .flat_map(|part| self.linear(&format!("{layer}.attention.self.{part}"), d, d))
            .collect();
        slots.extend(self.linear(&format!("{layer}.attention.output.dense"), d, d));
        slots.extend(LayerNorm::slots(&format!("{layer}.attention.output.LayerNorm"), d));
        slots.extend(self.linear(&format!("{layer}.intermediate.dense"), d, inner));
        slots.extend(self.linear(&format!("{layer}.output.dense"), inner, d));
        slots.extend(LayerNorm::slots(&format!("{layer}.output.LayerNorm"), d));
        slots
    }

    fn normal(&self) -> Init {
        Init::Normal { std: self.initializer_range }
    }

    fn linear(&self, name: &str, inputs: i64, outputs: i64) -> [Slot; 2] {
        Linear::slots(name, inputs, outputs, [self.normal(), Init::Zeros])
    }
}
