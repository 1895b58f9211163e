//! The keys of Hugging Face's `DebertaV2Config`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::encoders::transformer::{
    BERT_NAMES, BlockNames, Dimensions, EmbeddingPlan, HiddenAct, Limit, PositionTable,
    PostNormPlan, Projection,
};
use crate::torch::nn::{LayerNorm, Linear};
use crate::torch::{Init, Slot};
use crate::{Error, Result};

/// Name of the table of relative positions.
pub(super) const RELATIVE: &str = "encoder.rel_embeddings.weight";
/// Name of the norm of that table.
pub(super) const RELATIVE_NORM: &str = "encoder.LayerNorm";
/// Names of the projections of that table, where they are not those of queries and keys.
pub(super) const OWN_PROJECTIONS: [&str; 2] =
    ["attention.self.pos_key_proj", "attention.self.pos_query_proj"];

/// Names of the parts of a layer.
pub(super) const NAMES: BlockNames = BlockNames {
    projections: [
        "attention.self.query_proj",
        "attention.self.key_proj",
        "attention.self.value_proj",
    ],
    ..BERT_NAMES
};

/// The kinds of terms, as a list or joined by bars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(in crate::encoders) enum TermNames {
    Joined(String),
    Listed(Vec<String>),
}

/// The keys that decide about numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::encoders) struct DebertaKeys {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub intermediate_size: i64,
    pub max_position_embeddings: i64,
    pub type_vocab_size: i64,
    pub hidden_act: String,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub initializer_range: f64,
    pub layer_norm_eps: f64,
    /// Whether the scores have terms of relative positions.
    pub relative_attention: bool,
    /// Distances from which buckets end; −1: `max_position_embeddings`.
    pub max_relative_positions: i64,
    /// Buckets of distances on one side; not above 0: a row for each distance.
    pub position_buckets: i64,
    /// Which terms scores have: `c2p` and `p2c`.
    pub pos_att_type: Option<TermNames>,
    /// Whether the table is projected like queries and keys.
    pub share_att_key: bool,
    /// `layer_norm` if the table goes through a norm.
    pub norm_rel_ebd: String,
    /// Whether positions are added to the embeddings.
    pub position_biased_input: bool,
    /// Width of the embeddings; that of the states if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_size: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_head_size: Option<i64>,
    /// Width of the convolution beside the first layer; 0: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conv_kernel_size: Option<i64>,
    pub conv_act: String,
    pub conv_groups: i64,
}

/// What Hugging Face assumes for keys that a `config.json` lacks.
pub(super) fn assumed() -> Value {
    json!({
        "max_position_embeddings": 512,
        "type_vocab_size": 0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-7,
        "relative_attention": false,
        "max_relative_positions": -1,
        "position_buckets": -1,
        "share_att_key": false,
        "norm_rel_ebd": "none",
        "position_biased_input": true,
        "conv_act": "tanh",
        "conv_groups": 1,
    })
}

impl DebertaKeys {
    pub fn dimensions(&self) -> Dimensions {
        let positions = self.max_position_embeddings;
        Dimensions {
            pieces: self.vocab_size,
            width: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            inner: self.intermediate_size,
            dropout_rates: (self.hidden_dropout_prob, self.attention_probs_dropout_prob),
            initializer_range: self.initializer_range,
            limit: match self.position_biased_input {
                true => Limit::Table(positions),
                // Far distances share the last bucket, whatever the length.
                false if self.relative_attention && self.position_buckets > 0 => Limit::None,
                false => Limit::Trained(positions),
            },
        }
    }

    pub fn check(&self) -> Result<()> {
        HiddenAct::named("hidden_act", &self.hidden_act)?;
        HiddenAct::named("conv_act", &self.conv_act)?;
        let head = self.head_width();
        if self.attention_head_size.is_some_and(|size| size != head) {
            return Err(Error::recipe(format!(
                "`attention_head_size` is not {head}, the width by the number of heads, which is \
                 the only size that is supported"
            )));
        }
        if let Some(TermNames::Listed(names)) = &self.pos_att_type {
            check_terms(names.iter().map(String::as_str))?;
        } else if let Some(TermNames::Joined(names)) = &self.pos_att_type {
            check_terms(names.split('|').map(str::trim).filter(|name| !name.is_empty()))?;
        }
        if let Some(kernel) = self.kernel()
            && (kernel % 2 == 0 || self.hidden_size % self.conv_groups != 0)
        {
            return Err(Error::recipe(format!(
                "a convolution of width {kernel} in {} groups is not supported",
                self.conv_groups
            ))
            .with_hint("the width must be odd, and the groups must divide `hidden_size`"));
        }
        Ok(())
    }

    pub fn head_width(&self) -> i64 {
        self.hidden_size / self.num_attention_heads
    }

    pub fn embedding_width(&self) -> i64 {
        self.embedding_size.unwrap_or(self.hidden_size)
    }

    /// Width of the convolution, if there is one.
    pub fn kernel(&self) -> Option<i64> {
        self.conv_kernel_size.filter(|&size| size > 0)
    }

    /// Whether scores have the term of queries and the table (`c2p`), and that of keys and the
    /// table (`p2c`).
    pub fn has_terms(&self) -> [bool; 2] {
        ["c2p", "p2c"].map(|term| {
            self.relative_attention
                && match &self.pos_att_type {
                    Some(TermNames::Joined(names)) => {
                        names.split('|').any(|name| name.trim().eq_ignore_ascii_case(term))
                    }
                    Some(TermNames::Listed(names)) => {
                        names.iter().any(|name| name.trim().eq_ignore_ascii_case(term))
                    }
                    None => false,
                }
        })
    }

    /// The number of terms.
    pub fn terms(&self) -> usize {
        self.has_terms().into_iter().filter(|has| *has).count()
    }

    /// Distance from which all pieces share the last bucket.
    pub fn farthest(&self) -> i64 {
        if self.max_relative_positions < 1 {
            self.max_position_embeddings
        } else {
            self.max_relative_positions
        }
    }

    /// Rows of the table on one side.
    pub fn span(&self) -> i64 {
        if self.position_buckets > 0 { self.position_buckets } else { self.farthest() }
    }

    /// The row of a distance (key − query), in the order of distances: the reverse of the table.
    ///
    /// The reference buckets query − key, keeps distances up to half the span and spreads the
    /// others by their logarithm, in 32 bits.
    pub fn row(&self, distance: i64) -> i64 {
        let (span, steps, middle) = (self.span(), distance.abs(), self.span() / 2);
        let bucket = if self.position_buckets <= 0 || steps <= middle {
            steps
        } else {
            let log = |steps: f64| (steps / middle as f64) as f32;
            let share = log(steps as f64).ln() / log((self.farthest() - 1) as f64).ln();
            (share * (middle - 1) as f32).ceil() as i64 + middle
        };
        2 * span - 1 - (span - distance.signum() * bucket).clamp(0, 2 * span - 1)
    }

    /// How many rows a document of so many pieces reaches.
    pub fn reached_rows(&self, length: i64) -> i64 {
        let far = (length - 1).max(0);
        self.row(far) - self.row(-far) + 1
    }

    /// The embedding.
    pub fn embeddings(&self) -> EmbeddingPlan {
        let width = self.embedding_width();
        EmbeddingPlan {
            words: "embeddings.word_embeddings.weight",
            pieces: self.vocab_size,
            width,
            positions: self.position_biased_input.then_some(PositionTable {
                name: "embeddings.position_embeddings.weight",
                rows: self.max_position_embeddings,
                padding: None,
            }),
            token_types: (self.type_vocab_size > 0)
                .then_some(("embeddings.token_type_embeddings.weight", self.type_vocab_size)),
            norm: Some(("embeddings.LayerNorm", true)),
            eps: self.layer_norm_eps,
            projection: (width != self.hidden_size).then_some(Projection {
                name: "embeddings.embed_proj",
                outputs: self.hidden_size,
                biased: false,
                before_norm: true,
            }),
            std: self.initializer_range,
        }
    }

    /// A layer without its scores.
    pub fn layer(&self) -> Result<PostNormPlan> {
        Ok(PostNormPlan {
            names: NAMES,
            width: self.hidden_size,
            heads: self.num_attention_heads,
            inner: self.intermediate_size,
            eps: self.layer_norm_eps,
            std: self.initializer_range,
            activation: HiddenAct::named("hidden_act", &self.hidden_act)?,
            drops: [true, true],
        })
    }

    pub fn layer_names(&self) -> impl Iterator<Item = String> {
        (0..self.num_hidden_layers).map(|layer| format!("encoder.layer.{layer}"))
    }

    /// All parameters.
    pub fn slots(&self) -> Result<Vec<Slot>> {
        let (mut slots, layer, d) = (self.embeddings().slots(), self.layer()?, self.hidden_size);
        let normal = Init::Normal { std: self.initializer_range };
        let own = OWN_PROJECTIONS.into_iter().zip(self.has_terms());
        let own: Vec<&str> =
            own.filter(|(_, has)| *has && !self.share_att_key).map(|(name, _)| name).collect();
        for name in self.layer_names() {
            slots.extend(layer.slots(&name));
            for part in &own {
                let part = format!("{name}.{part}");
                slots.extend(Linear::slots(&part, d, d, [normal, Init::Zeros]));
            }
        }
        if self.relative_attention {
            let mut table = vec![Slot::new(RELATIVE, &[2 * self.span(), d], normal)];
            if self.norms_table() {
                table.extend(LayerNorm::slots(RELATIVE_NORM, d));
            }
            // Without terms the table is carried along, but never used.
            let unused = self.terms() == 0;
            slots.extend(table.into_iter().map(|slot| if unused { slot.frozen() } else { slot }));
        }
        if let Some(kernel) = self.kernel() {
            let shape = [d, d / self.conv_groups, kernel];
            slots.push(Slot::new("encoder.conv.conv.weight", &shape, normal));
            slots.push(Slot::new("encoder.conv.conv.bias", &[d], Init::Zeros));
            slots.extend(LayerNorm::slots("encoder.conv.LayerNorm", d));
        }
        Ok(slots)
    }

    /// Whether the table goes through a norm.
    pub fn norms_table(&self) -> bool {
        self.norm_rel_ebd.split('|').any(|name| name.trim().eq_ignore_ascii_case("layer_norm"))
    }
}

fn check_terms<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<()> {
    let known = |name: &str| name.eq_ignore_ascii_case("c2p") || name.eq_ignore_ascii_case("p2c");
    match names.find(|name| !known(name)) {
        Some(name) => Err(Error::recipe(format!("`pos_att_type` names `{name}`"))
            .with_hint("the known terms are c2p and p2c")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as `make_log_bucket_position` of transformers and the clamp behind it give them, in the
    /// order of distances.
    #[test]
    fn far_distances_have_the_rows_of_the_reference_at_any_length() {
        let distances =
            [-5000, -700, -511, -300, -129, -1, 0, 1, 128, 129, 300, 400, 511, 512, 5000];
        for (buckets, farthest, rows) in [
            (256, 512, [0, 0, 0, 48, 126, 254, 255, 256, 383, 384, 462, 488, 510, 511, 511]),
            (16, 512, [0, 0, 0, 0, 2, 14, 15, 16, 28, 28, 30, 30, 30, 31, 31]),
        ] {
            let mut keys = assumed();
            for key in ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"] {
                keys[key] = json!(1);
            }
            keys["intermediate_size"] = json!(1);
            keys["position_buckets"] = json!(buckets);
            keys["max_relative_positions"] = json!(farthest);
            let keys: DebertaKeys = serde_json::from_value(keys).unwrap();
            assert_eq!(distances.map(|distance| keys.row(distance)), rows, "{buckets}");
        }
    }
}
