//! The keys of Hugging Face's `XLNetConfig`.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::encoders::transformer::{Dimensions, EmbeddingPlan, HiddenAct, Limit};
use crate::torch::nn::{LayerNorm, Linear};
use crate::torch::{Init, Slot};
use crate::{Error, Result};

/// The keys that decide about numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::encoders) struct XlNetKeys {
    pub vocab_size: i64,
    pub d_model: i64,
    pub n_layer: i64,
    pub n_head: i64,
    pub d_inner: i64,
    pub ff_activation: String,
    /// Only `bi`, which sees both directions, is known.
    pub attn_type: String,
    /// Only false is known.
    pub bi_data: bool,
    /// Longest distance that is told from longer ones; not above 0: none.
    pub clamp_len: i64,
    pub dropout: f64,
    pub initializer_range: f64,
    pub layer_norm_eps: f64,
}

impl XlNetKeys {
    pub fn dimensions(&self) -> Dimensions {
        Dimensions {
            pieces: self.vocab_size,
            width: self.d_model,
            layers: self.n_layer,
            heads: self.n_head,
            inner: self.d_inner,
            dropout_rates: (self.dropout, self.dropout),
            initializer_range: self.initializer_range,
            limit: Limit::None,
        }
    }

    pub fn check(&self) -> Result<()> {
        HiddenAct::named("ff_activation", &self.ff_activation)?;
        if self.attn_type != "bi" || self.bi_data {
            return Err(Error::recipe(format!(
                "`attn_type` is `{}` and `bi_data` is {}, but only `bi` and false are supported",
                self.attn_type, self.bi_data
            )));
        }
        if self.d_model % 2 == 1 {
            return Err(Error::recipe(format!("`d_model` is {}, but must be even", self.d_model)));
        }
        Ok(())
    }

    pub fn head_width(&self) -> i64 {
        self.d_model / self.n_head
    }

    pub fn layer_names(&self) -> impl Iterator<Item = String> {
        (0..self.n_layer).map(|layer| format!("layer.{layer}"))
    }

    pub fn embeddings(&self) -> EmbeddingPlan {
        EmbeddingPlan {
            words: "word_embedding.weight",
            pieces: self.vocab_size,
            width: self.d_model,
            positions: None,
            token_types: None,
            norm: None,
            eps: self.layer_norm_eps,
            projection: None,
            std: self.initializer_range,
        }
    }

    /// All parameters. Those of token types and of masked pieces are carried along, but never used.
    pub fn slots(&self) -> Vec<Slot> {
        let (d, heads, width) = (self.d_model, self.n_head, self.head_width());
        let normal = Init::Normal { std: self.initializer_range };
        let mut slots = self.embeddings().slots();
        slots.push(Slot::new("mask_emb", &[1, 1, d], normal).frozen().optional());
        for layer in self.layer_names() {
            let part = |part: &str, shape: &[i64]| {
                Slot::new(format!("{layer}.rel_attn.{part}"), shape, normal)
            };
            slots.extend(["q", "k", "v", "o", "r"].map(|name| part(name, &[d, heads, width])));
            slots.extend(["r_r_bias", "r_w_bias"].map(|name| part(name, &[heads, width])));
            slots.push(part("r_s_bias", &[heads, width]).frozen().optional());
            slots.push(part("seg_embed", &[2, heads, width]).frozen().optional());
            slots.extend(LayerNorm::slots(&format!("{layer}.rel_attn.layer_norm"), d));
            slots.extend(LayerNorm::slots(&format!("{layer}.ff.layer_norm"), d));
            for (name, [inputs, outputs]) in
                [("layer_1", [d, self.d_inner]), ("layer_2", [self.d_inner, d])]
            {
                let name = format!("{layer}.ff.{name}");
                slots.extend(Linear::slots(&name, inputs, outputs, [normal, Init::Zeros]));
            }
        }
        slots
    }

    /// What stands for the distances (key − query) from 1 − `longest` to `longest` − 1: sines of
    /// query − key, then cosines; [2 · longest − 1, d], 32 bits.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn sinusoids(&self, longest: i64, device: Device) -> Result<Tensor> {
        let single = (Kind::Float, device);
        let mut places = Tensor::f_arange_start_step(longest - 1, -longest, -1, single)?;
        if self.clamp_len > 0 {
            places = places.f_clamp(-self.clamp_len, self.clamp_len)?;
        }
        let powers = Tensor::f_arange_start_step(0, self.d_model, 2, single)?
            .f_div_scalar(self.d_model as f64)?;
        let frequencies = Tensor::f_full([1], 10000, single)?.f_pow(&powers)?.f_reciprocal()?;
        let angles = places.f_unsqueeze(1)?.f_mul(&frequencies)?;
        Ok(Tensor::f_cat(&[angles.f_sin()?, angles.f_cos()?], 1)?)
    }
}
