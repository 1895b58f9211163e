//! XLNet (Yang et al. 2019): its content stream, which reads a document in both directions.
//! Memories, permutations and the query stream play no part in encoding, and no token types are
//! given.

mod config;

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::transformer::{
    AttentionScores, Dimensions, EncoderNetwork, Family, HiddenAct, Layer, LayerScores, kind,
};
use super::{EncoderKind, Pass, TokenStream};
use crate::Result;
use crate::torch::dropout::dropout;
use crate::torch::kernels::products::linear;
use crate::torch::kernels::scores::{DistanceIndex, ScoreTerms};
use crate::torch::nn::{LayerNorm, Linear};
use crate::torch::{Parameters, Slot};
use config::XlNetKeys;

/// XLNet.
pub(super) enum XlNet {}

/// The registry's entry.
pub(super) const XLNET: EncoderKind = kind::<XlNet>(&["xlnet-tiny", "xlnet-mini", "xlnet-base"]);

/// Numbers of masks beyond those that layers have in common: of the distances, and of the inside of
/// feed-forward networks.
const DISTANCE_SALT: u64 = 1 << 20;
const INNER_SALT: u64 = 1 << 21;

impl Family for XlNet {
    type Keys = XlNetKeys;
    const MODEL_TYPE: &'static str = "xlnet";
    const ARCHITECTURE: &'static str = "XLNetModel";
    const COUNTS: &'static [&'static str] = &["d_model", "n_layer", "n_head", "d_inner"];
    const RATES: &'static [&'static str] = &["dropout"];

    fn assumed() -> Value {
        json!({
            "ff_activation": "gelu",
            "attn_type": "bi",
            "bi_data": false,
            "clamp_len": -1,
            "dropout": 0.1,
            "initializer_range": 0.02,
            "layer_norm_eps": 1e-12,
        })
    }

    fn preset([layers, width, heads]: [i64; 3], pieces: i64) -> Value {
        json!({
            "vocab_size": pieces,
            "d_model": width,
            "n_layer": layers,
            "n_head": heads,
            "d_inner": 4 * width,
            "pad_token_id": 5,
        })
    }

    fn dimensions(keys: &XlNetKeys) -> Dimensions {
        keys.dimensions()
    }

    fn check(keys: &XlNetKeys) -> Result<()> {
        keys.check()
    }

    fn slots(keys: &XlNetKeys) -> Result<Vec<Slot>> {
        Ok(keys.slots())
    }

    fn network(keys: &XlNetKeys, params: &Parameters) -> Result<EncoderNetwork> {
        let mut layers: Vec<Box<dyn Layer>> = Vec::new();
        let mut distances = Vec::new();
        for layer in keys.layer_names() {
            layers.push(Box::new(XlNetLayer::get(keys, params, &layer)?));
            let part = |part: &str| params.handle(&format!("{layer}.rel_attn.{part}"));
            distances.push([part("r")?, part("r_r_bias")?, part("r_w_bias")?]);
        }
        Ok(EncoderNetwork {
            embeddings: keys.embeddings().get(params)?,
            layers,
            scores: Box::new(Distances { keys: keys.clone(), layers: distances }),
            norm: None,
            drops_output: true,
        })
    }

    fn flops(keys: &XlNetKeys, length: f64) -> f64 {
        let of = Self::dimensions(keys);
        let (layers, width) = (of.layers as f64, of.width as f64);
        // Distances are projected once for all documents of a pass, and queries meet as many of
        // them as keys.
        of.flops(length, 2.0, length)
            + layers * (4.0 * length * width * width + 2.0 * length * length * width)
    }
}

/// score(i, j) = ((q_i + w)·k_j + (q_i + r)·R e_{i−j}) / √d (Yang et al. 2019, section 2.2, after
/// Transformer-XL).
///
/// Queries already hold w, so the second product is q_i·R e + (r − w)·R e, of which the second part
/// is a bias by distance.
#[derive(Debug)]
struct Distances {
    keys: XlNetKeys,
    /// For each layer R [d, heads, width], r and w [heads, width].
    layers: Vec<[Tensor; 3]>,
}

impl AttentionScores for Distances {
    fn of_pass<'a>(&'a self, stream: &'a TokenStream, pass: &'a Pass) -> Result<LayerScores<'a>> {
        let (keys, longest) = (&self.keys, stream.segments.longest.max(1));
        let index = DistanceIndex::new(longest, |distance| distance + longest - 1)?;
        let distances = keys.sinusoids(longest, stream.ids.device())?;
        let masks = pass.hidden_dropout.as_ref().map(|masks| masks.of_rows(2 * longest - 1));
        let distances = dropout(&distances, masks.transpose()?.as_ref(), DISTANCE_SALT)?;
        let terms = ScoreTerms::plain(keys.head_width());
        let scale = terms.scale;
        Ok(Box::new(move |layer| {
            let [map, rows, words] = &self.layers[layer];
            let kind = pass.precision.kind();
            let weight = as_linear(map)?.f_to_kind(kind)?;
            let table = linear(&distances.f_to_kind(kind)?, &weight, None)?
                .f_to_kind(Kind::Float)?
                .f_view([2 * longest - 1, keys.n_head, keys.head_width()])?;
            let bias = table.f_mul(&rows.f_sub(words)?)?;
            let bias = bias.f_sum_dim_intlist(2, false, Kind::Float)?.f_mul_scalar(scale)?;
            Ok(ScoreTerms {
                index: Some(index.shallow_clone()),
                key_table: Some(table),
                bias: Some(bias.f_contiguous()?),
                ..ScoreTerms::plain(keys.head_width())
            })
        }))
    }
}

/// A map that is stored as [d, heads, width], as the weight [heads · width, d] of a linear layer.
fn as_linear(map: &Tensor) -> Result<Tensor> {
    Ok(map.f_flatten(1, 2)?.f_transpose(0, 1)?.f_contiguous()?)
}

/// A layer.
#[derive(Debug)]
struct XlNetLayer {
    /// To queries, keys and values; [d, heads, width] each.
    maps: [Tensor; 3],
    /// What is added to queries; [heads, width].
    query_bias: Tensor,
    /// Back to the states; [d, heads, width].
    output: Tensor,
    attention_norm: LayerNorm,
    inner: Linear,
    outer: Linear,
    norm: LayerNorm,
    activation: HiddenAct,
}

impl XlNetLayer {
    fn get(keys: &XlNetKeys, params: &Parameters, layer: &str) -> Result<Self> {
        let map = |part: &str| params.handle(&format!("{layer}.rel_attn.{part}"));
        let norm = |part: &str| {
            LayerNorm::get(params, &format!("{layer}.{part}.layer_norm"), keys.layer_norm_eps)
        };
        Ok(Self {
            maps: [map("q")?, map("k")?, map("v")?],
            query_bias: map("r_w_bias")?,
            output: map("o")?,
            attention_norm: norm("rel_attn")?,
            inner: Linear::get(params, &format!("{layer}.ff.layer_1"))?,
            outer: Linear::get(params, &format!("{layer}.ff.layer_2"))?,
            norm: norm("ff")?,
            activation: HiddenAct::named("ff_activation", &keys.ff_activation)?,
        })
    }
}

impl Layer for XlNetLayer {
    fn qkv(&self, states: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (_, heads, width) = self.maps[0].size3()?;
        let kind = pass.precision.kind();
        let bias = self.query_bias.f_view([-1])?;
        let bias = Tensor::f_cat(&[&bias, &bias.f_zeros_like()?, &bias.f_zeros_like()?], 0)?;
        let maps = self.maps.each_ref().map(|map| map.f_flatten(1, 2));
        let [q, k, v] = maps;
        let weight = Tensor::f_cat(&[q?, k?, v?], 1)?.f_transpose(0, 1)?.f_contiguous()?;

        let qkv = linear(&states.f_to_kind(kind)?, &weight, Some(&bias))?;
        Ok(qkv.f_view([-1, 3, heads, width])?)
    }

    fn finish(
        &self,
        states: &Tensor,
        context: &Tensor,
        _stream: &TokenStream,
        pass: &Pass,
        salt: u64,
    ) -> Result<Tensor> {
        let (kind, masks) = (pass.precision.kind(), pass.hidden_dropout.as_ref());
        let output = self.output.f_flatten(1, 2)?.f_to_kind(kind)?;
        let attended = linear(&context.f_to_kind(kind)?, &output, None)?;
        let x = self.attention_norm.forward_sum(states, &attended, masks, salt + 1)?;
        let inner = self.activation.of_linear(&self.inner, &x, pass.precision)?;
        let inner = dropout(&inner, masks, INNER_SALT + salt)?;
        let output = self.outer.forward_in(&inner, pass.precision)?;
        self.norm.forward_sum(&x, &output, masks, salt + 2)
    }
}
