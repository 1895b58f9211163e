//! DeBERTa-v2 and -v3 (He et al. 2021, 2023): BERT's layers with disentangled attention, in which
//! queries and keys are also multiplied with a table of relative positions.

mod config;
mod convolution;
mod scores;

use serde_json::{Value, json};

use super::EncoderKind;
use super::transformer::{Dimensions, EncoderNetwork, Family, Layer, Plain, kind};
use crate::Result;
use crate::torch::{Parameters, Slot};
use config::DebertaKeys;
use convolution::Convolved;
use scores::Disentangled;

/// DeBERTa-v2, of which v3 is a setting.
pub(super) enum Deberta {}

/// The registry's entry.
pub(super) const DEBERTA: EncoderKind =
    kind::<Deberta>(&["deberta-tiny", "deberta-mini", "deberta-base"]);

impl Family for Deberta {
    type Keys = DebertaKeys;
    const MODEL_TYPE: &'static str = "deberta-v2";
    const ARCHITECTURE: &'static str = "DebertaV2Model";
    const COUNTS: &'static [&'static str] = &["embedding_size", "conv_groups"];
    const OPTIONAL: &'static [&'static str] =
        &["embedding_size", "attention_head_size", "conv_kernel_size"];

    fn assumed() -> Value {
        config::assumed()
    }

    /// The settings of v3.
    fn preset([layers, width, heads]: [i64; 3], pieces: i64) -> Value {
        json!({
            "vocab_size": pieces,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "max_position_embeddings": 512,
            "relative_attention": true,
            "position_buckets": 256,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": true,
            "pos_att_type": "p2c|c2p",
            "position_biased_input": false,
            "pad_token_id": 0,
        })
    }

    fn dimensions(keys: &DebertaKeys) -> Dimensions {
        keys.dimensions()
    }

    fn check(keys: &DebertaKeys) -> Result<()> {
        keys.check()
    }

    /// The rows of distances stay those of the positions that there were.
    fn set_positions(keys: &mut DebertaKeys, rows: i64) {
        keys.max_relative_positions = keys.farthest();
        keys.max_position_embeddings = rows;
    }

    fn slots(keys: &DebertaKeys) -> Result<Vec<Slot>> {
        keys.slots()
    }

    fn network(keys: &DebertaKeys, params: &Parameters) -> Result<EncoderNetwork> {
        let plan = keys.layer()?;
        let mut layers: Vec<Box<dyn Layer>> = Vec::new();
        for (index, name) in keys.layer_names().enumerate() {
            let layer = plan.get(params, &name)?;
            layers.push(match Convolved::get(keys, params)?.filter(|_| index == 0) {
                Some(convolution) => Box::new(convolution.around(layer)),
                None => Box::new(layer),
            });
        }
        Ok(EncoderNetwork {
            embeddings: keys.embeddings().get(params)?,
            layers,
            scores: match Disentangled::get(keys, params)? {
                Some(scores) => Box::new(scores),
                None => Box::new(Plain { head_width: keys.head_width() }),
            },
            norm: None,
            drops_output: false,
        })
    }

    fn flops(keys: &DebertaKeys, length: f64) -> f64 {
        let of = Self::dimensions(keys);
        let (layers, width) = (of.layers as f64, of.width as f64);
        let rows = keys.reached_rows(length as i64) as f64;
        // Each term projects the table once and multiplies queries or keys with it.
        let term = 2.0 * rows * width * width + 2.0 * length * rows * width;
        of.flops(length, 2.0, length) + layers * keys.terms() as f64 * term
    }
}
