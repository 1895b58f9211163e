//! The convolution beside the first layer of DeBERTa-v2: its input is the embedding, and its result
//! is added to that of the layer.

use tch::{Kind, Tensor};

use super::config::DebertaKeys;
use crate::Result;
use crate::encoders::transformer::{HiddenAct, Layer, PostNorm};
use crate::encoders::{Pass, TokenStream};
use crate::torch::dropout::dropout;
use crate::torch::kernels::products::linear;
use crate::torch::nn::LayerNorm;
use crate::torch::{Parameters, on};

/// Number of its mask, beyond those of layers.
const SALT: u64 = (1 << 20) - 1;

/// The convolution.
#[derive(Debug)]
pub(super) struct Convolved {
    /// [d, d / groups, width]
    weight: Tensor,
    bias: Tensor,
    norm: LayerNorm,
    activation: HiddenAct,
    groups: i64,
}

/// A layer with the convolution beside it.
#[derive(Debug)]
pub(super) struct WithConvolution {
    layer: PostNorm,
    convolution: Convolved,
}

impl Convolved {
    /// The convolution over parameters that were declared, if the configuration has one.
    ///
    /// # Errors
    /// If one was not declared.
    pub fn get(keys: &DebertaKeys, params: &Parameters) -> Result<Option<Self>> {
        if keys.kernel().is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            weight: params.handle("encoder.conv.conv.weight")?,
            bias: params.handle("encoder.conv.conv.bias")?,
            norm: LayerNorm::get(params, "encoder.conv.LayerNorm", keys.layer_norm_eps)?,
            activation: HiddenAct::named("conv_act", &keys.conv_act)?,
            groups: keys.conv_groups,
        }))
    }

    /// Puts it beside a layer.
    pub fn around(self, layer: PostNorm) -> WithConvolution {
        WithConvolution { layer, convolution: self }
    }

    /// The convolution over each document, with zeros beyond its ends: [T, d] → [T, d].
    fn forward(&self, x: &Tensor, stream: &TokenStream, pass: &Pass) -> Result<Tensor> {
        let (width, kind) = (self.weight.size()[2], pass.precision.kind());
        let x = x.f_to_kind(kind)?;
        let shifted = (0..width)
            .map(|tap| shifted(&x, stream, tap - width / 2))
            .collect::<Result<Vec<_>>>()?;
        let size = x.size()[1] / self.groups;
        let groups = (0..self.groups).map(|group| {
            let part = |x: &Tensor| x.f_narrow(1, group * size, size);
            let inputs = shifted.iter().map(part).collect::<std::result::Result<Vec<_>, _>>()?;
            // [out, in, width] → [out, width · in]
            let weight = self.weight.f_narrow(0, group * size, size)?.f_to_kind(kind)?;
            let weight = weight.f_permute([0, 2, 1])?.f_reshape([size, width * size])?;
            let bias = self.bias.f_narrow(0, group * size, size)?.f_to_kind(kind)?;
            linear(&Tensor::f_cat(&inputs, 1)?, &weight, Some(&bias))
        });
        let out = Tensor::f_cat(&groups.collect::<Result<Vec<_>>>()?, 1)?.f_to_kind(Kind::Float)?;
        self.activation.apply(&dropout(&out, pass.hidden_dropout.as_ref(), SALT)?)
    }
}

/// Each token's neighbour `by` places on, or zeros beyond the ends of its document.
fn shifted(x: &Tensor, stream: &TokenStream, by: i64) -> Result<Tensor> {
    let mut rows = Vec::new();
    for range in stream.segments.offsets.windows(2) {
        let inside = |at: &i64| (range[0]..range[1]).contains(at);
        rows.extend((range[0]..range[1]).map(|at| Some(at + by).filter(inside).unwrap_or(-1)));
    }
    let rows = on(&rows, x.device())?;
    let present = rows.f_ge(0)?.f_unsqueeze(1)?.f_to_kind(x.kind())?;
    Ok(x.f_index_select(0, &rows.f_clamp_min(0)?)?.f_mul(&present)?)
}

impl Layer for WithConvolution {
    fn qkv(&self, states: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.layer.qkv(states, pass)
    }

    fn finish(
        &self,
        states: &Tensor,
        context: &Tensor,
        stream: &TokenStream,
        pass: &Pass,
        salt: u64,
    ) -> Result<Tensor> {
        let own = self.layer.finish(states, context, stream, pass, salt)?;
        let beside = self.convolution.forward(states, stream, pass)?;
        self.convolution.norm.forward_sum(&own, &beside, None, 0)
    }
}
