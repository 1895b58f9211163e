//! ModernBERT (Warner et al. 2024): norms before attention and feed-forward network, rotated
//! queries and keys, gated feed-forward networks, and layers that see a window of neighbours
//! between those that see the whole document.

mod config;
mod layer;

use serde_json::{Map, Value, json};
use tch::Tensor;

use super::transformer::{
    AttentionScores, Dimensions, EncoderNetwork, Family, Layer, LayerScores, kind,
};
use super::{EncoderKind, Pass, TokenStream};
use crate::Result;
use crate::torch::kernels::scores::{ScoreTerms, rotary_angles};
use crate::torch::nn::LayerNorm;
use crate::torch::{Parameters, Slot};
use config::ModernBertKeys;
use layer::PreNorm;

/// ModernBERT.
pub(super) enum ModernBert {}

/// The registry's entry.
pub(super) const MODERNBERT: EncoderKind =
    kind::<ModernBert>(&["modernbert-tiny", "modernbert-mini", "modernbert-base"]);

impl Family for ModernBert {
    type Keys = ModernBertKeys;
    const MODEL_TYPE: &'static str = "modernbert";
    const ARCHITECTURE: &'static str = "ModernBertModel";
    const COUNTS: &'static [&'static str] = &["global_attn_every_n_layers", "local_attention"];
    const RATES: &'static [&'static str] =
        &["attention_dropout", "embedding_dropout", "mlp_dropout"];
    const OPTIONAL: &'static [&'static str] = &["layer_types"];

    fn assumed() -> Value {
        config::assumed()
    }

    fn preset([layers, width, heads]: [i64; 3], pieces: i64) -> Value {
        json!({
            "vocab_size": pieces,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 3 * width / 2,
        })
    }

    fn adapt(keys: &mut ModernBertKeys, other: &mut Map<String, Value>) -> Result<()> {
        keys.adapt(other)
    }

    fn dimensions(keys: &ModernBertKeys) -> Dimensions {
        keys.dimensions()
    }

    fn check(keys: &ModernBertKeys) -> Result<()> {
        keys.check()
    }

    fn slots(keys: &ModernBertKeys) -> Result<Vec<Slot>> {
        keys.slots()
    }

    fn network(keys: &ModernBertKeys, params: &Parameters) -> Result<EncoderNetwork> {
        let layers = (0..keys.num_hidden_layers)
            .map(|layer| Ok(Box::new(PreNorm::get(keys, params, layer)?) as Box<dyn Layer>));
        let norm = LayerNorm::maybe_biased(params, "final_norm", keys.norm_eps, keys.norm_bias)?;
        Ok(EncoderNetwork {
            embeddings: keys.embeddings().get(params)?,
            layers: layers.collect::<Result<_>>()?,
            scores: Box::new(Rotated { keys: keys.clone() }),
            norm: Some(norm),
            drops_output: false,
        })
    }

    fn flops(keys: &ModernBertKeys, length: f64) -> f64 {
        let of = Self::dimensions(keys);
        let far = (0..of.layers).filter(|&layer| keys.is_global(layer)).count() as f64;
        let near = of.layers as f64 - far;
        let seen = 2.0 * keys.side() as f64 + 1.0;
        let all = of.layers as f64;
        (far * of.flops(length, 3.0, length) + near * of.flops(length, 3.0, seen)) / all
    }
}

/// Rotations, with one base for layers that see the whole document and one for the others.
#[derive(Debug)]
struct Rotated {
    keys: ModernBertKeys,
}

impl AttentionScores for Rotated {
    fn of_pass<'a>(&'a self, stream: &'a TokenStream, _pass: &'a Pass) -> Result<LayerScores<'a>> {
        let (keys, device) = (&self.keys, stream.ids.device());
        let width = keys.hidden_size / keys.num_attention_heads;
        let angles = |theta: f64| rotary_angles(theta, stream.segments.longest, width, device);
        let far: Tensor = angles(keys.global_rope_theta)?;
        let near = match keys.local_rope_theta {
            Some(theta) => angles(theta)?,
            None => far.shallow_clone(),
        };
        Ok(Box::new(move |layer| {
            let global = keys.is_global(layer as i64);
            Ok(ScoreTerms {
                window: (!global).then(|| keys.side()),
                rotary: Some(if global { far.shallow_clone() } else { near.shallow_clone() }),
                ..ScoreTerms::plain(width)
            })
        }))
    }
}
