//! The keys of Hugging Face's `ModernBertConfig`, in the two ways in which its releases write them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::encoders::transformer::{Dimensions, EmbeddingPlan, HiddenAct, Limit};
use crate::torch::nn::{LayerNorm, Linear};
use crate::torch::{Init, Slot};
use crate::{Error, Result};

/// The keys that decide about numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::encoders) struct ModernBertKeys {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    /// Width of the gated product; the first map of the feed-forward network is twice as wide.
    pub intermediate_size: i64,
    pub max_position_embeddings: i64,
    pub hidden_activation: String,
    pub initializer_range: f64,
    /// ε of the norms; `layer_norm_eps` in the same file has no effect.
    pub norm_eps: f64,
    pub norm_bias: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    pub attention_dropout: f64,
    pub embedding_dropout: f64,
    pub mlp_dropout: f64,
    /// Every so many layers, from the first on, one sees the whole document.
    pub global_attn_every_n_layers: i64,
    /// Width of the window of the others, the token itself in its middle.
    pub local_attention: i64,
    /// Base of the rotations of layers that see the whole document.
    pub global_rope_theta: f64,
    /// Base of the others; the same if not set.
    pub local_rope_theta: Option<f64>,
    /// The kind of each layer, as newer releases write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<String>>,
}

/// What Hugging Face assumes for keys that a `config.json` lacks.
pub(super) fn assumed() -> Value {
    json!({
        "max_position_embeddings": 8192,
        "hidden_activation": "gelu",
        "initializer_range": 0.02,
        "norm_eps": 1e-5,
        "norm_bias": false,
        "attention_bias": false,
        "mlp_bias": false,
        "attention_dropout": 0.0,
        "embedding_dropout": 0.0,
        "mlp_dropout": 0.0,
        "global_attn_every_n_layers": 3,
        "local_attention": 128,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
    })
}

/// Kinds of layers, as newer releases call them.
const GLOBAL: &str = "full_attention";
const LOCAL: &str = "sliding_attention";

impl ModernBertKeys {
    /// Takes the bases of rotations from where newer releases write them.
    pub fn adapt(&mut self, other: &mut Map<String, Value>) -> Result<()> {
        let Some(rotations) = other.get("rope_parameters") else { return Ok(()) };
        let of = |kind: &str| -> Result<Option<f64>> {
            let Some(of) = rotations.get(kind) else { return Ok(None) };
            match of.get("rope_type").and_then(Value::as_str) {
                None | Some("default") => Ok(of.get("rope_theta").and_then(Value::as_f64)),
                Some(other) => Err(Error::recipe(format!(
                    "`rope_type` is `{other}`, but only `default` is supported"
                ))),
            }
        };
        if let Some(theta) = of(GLOBAL)? {
            self.global_rope_theta = theta;
        }
        if let Some(theta) = of(LOCAL)? {
            self.local_rope_theta = Some(theta);
        }
        Ok(())
    }

    pub fn dimensions(&self) -> Dimensions {
        Dimensions {
            pieces: self.vocab_size,
            width: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            inner: self.intermediate_size,
            dropout_rates: (self.mlp_dropout, self.attention_dropout),
            initializer_range: self.initializer_range,
            limit: Limit::Trained(self.max_position_embeddings),
        }
    }

    pub fn check(&self) -> Result<()> {
        HiddenAct::named("hidden_activation", &self.hidden_activation)?;
        if (self.hidden_size / self.num_attention_heads) % 2 == 1 {
            return Err(Error::recipe("heads of an odd width cannot be rotated"));
        }
        if self.embedding_dropout != self.mlp_dropout {
            return Err(Error::recipe(format!(
                "`embedding_dropout` is {}, but `mlp_dropout` {}: only equal rates are supported",
                self.embedding_dropout, self.mlp_dropout
            )));
        }
        let Some(kinds) = &self.layer_types else { return Ok(()) };
        if let Some(kind) = kinds.iter().find(|kind| ![GLOBAL, LOCAL].contains(&kind.as_str())) {
            return Err(Error::recipe(format!("`layer_types` names `{kind}`"))
                .with_hint(format!("the known kinds are {GLOBAL} and {LOCAL}")));
        }
        if kinds.len() as i64 != self.num_hidden_layers {
            return Err(Error::recipe(format!(
                "`layer_types` has {} entries for {} layers",
                kinds.len(),
                self.num_hidden_layers
            )));
        }
        Ok(())
    }

    /// Whether a layer sees the whole document.
    pub fn is_global(&self, layer: i64) -> bool {
        match &self.layer_types {
            Some(kinds) => kinds.get(layer as usize).is_some_and(|kind| kind == GLOBAL),
            None => layer % self.global_attn_every_n_layers == 0,
        }
    }

    /// Neighbours that other layers see on each side.
    pub fn side(&self) -> i64 {
        self.local_attention / 2
    }

    pub fn embeddings(&self) -> EmbeddingPlan {
        EmbeddingPlan {
            words: "embeddings.tok_embeddings.weight",
            pieces: self.vocab_size,
            width: self.hidden_size,
            positions: None,
            token_types: None,
            norm: Some(("embeddings.norm", self.norm_bias)),
            eps: self.norm_eps,
            projection: None,
            std: self.initializer_range,
        }
    }

    /// All parameters.
    pub fn slots(&self) -> Result<Vec<Slot>> {
        let (d, inner) = (self.hidden_size, self.intermediate_size);
        let mut slots = self.embeddings().slots();
        for layer in 0..self.num_hidden_layers {
            let name = |part: &str| format!("layers.{layer}.{part}");
            if layer > 0 {
                slots.extend(self.norm(&name("attn_norm")));
            }
            slots.extend(self.linear(&name("attn.Wqkv"), d, 3 * d, self.attention_bias));
            slots.extend(self.linear(&name("attn.Wo"), d, d, self.attention_bias));
            slots.extend(self.norm(&name("mlp_norm")));
            slots.extend(self.linear(&name("mlp.Wi"), d, 2 * inner, self.mlp_bias));
            slots.extend(self.linear(&name("mlp.Wo"), inner, d, self.mlp_bias));
        }
        slots.extend(self.norm("final_norm"));
        Ok(slots)
    }

    fn norm(&self, name: &str) -> impl Iterator<Item = Slot> {
        let slots = LayerNorm::slots(name, self.hidden_size);
        slots.into_iter().take(1 + usize::from(self.norm_bias))
    }

    fn linear(
        &self,
        name: &str,
        inputs: i64,
        outputs: i64,
        biased: bool,
    ) -> impl Iterator<Item = Slot> {
        let normal = Init::Normal { std: self.initializer_range };
        let slots = Linear::slots(name, inputs, outputs, [normal, Init::Zeros]);
        slots.into_iter().take(1 + usize::from(biased))
    }
}
