//! A layer of ModernBERT: x + attention(norm(x)), then x + gated network(norm(x)).

use tch::{Kind, Tensor};

use super::config::ModernBertKeys;
use crate::Result;
use crate::encoders::transformer::{HiddenAct, Layer};
use crate::encoders::{Pass, TokenStream};
use crate::torch::Parameters;
use crate::torch::dropout::dropout;
use crate::torch::nn::{LayerNorm, Linear};

/// A layer.
#[derive(Debug)]
pub(super) struct PreNorm {
    /// The first layer has none, since the embedding ends with a norm.
    attention_norm: Option<LayerNorm>,
    qkv: Linear,
    attention_output: Linear,
    norm: LayerNorm,
    /// To the gated half, then the gates.
    inner: Linear,
    output: Linear,
    activation: HiddenAct,
    heads: i64,
}

impl PreNorm {
    /// The layer of that number over parameters that were declared.
    ///
    /// # Errors
    /// If one was not.
    pub fn get(keys: &ModernBertKeys, params: &Parameters, layer: i64) -> Result<Self> {
        let name = |part: &str| format!("layers.{layer}.{part}");
        let norm = |part: &str| {
            LayerNorm::maybe_biased(params, &name(part), keys.norm_eps, keys.norm_bias)
        };
        let linear = |part: &str, biased: bool| Linear::maybe_biased(params, &name(part), biased);
        Ok(Self {
            attention_norm: (layer > 0).then(|| norm("attn_norm")).transpose()?,
            qkv: linear("attn.Wqkv", keys.attention_bias)?,
            attention_output: linear("attn.Wo", keys.attention_bias)?,
            norm: norm("mlp_norm")?,
            inner: linear("mlp.Wi", keys.mlp_bias)?,
            output: linear("mlp.Wo", keys.mlp_bias)?,
            activation: HiddenAct::named("hidden_activation", &keys.hidden_activation)?,
            heads: keys.num_attention_heads,
        })
    }
}

impl Layer for PreNorm {
    fn qkv(&self, states: &Tensor, pass: &Pass) -> Result<Tensor> {
        let width = states.size()[1];
        let qkv = match &self.attention_norm {
            Some(norm) => self.qkv.forward_in(&norm.forward(states)?, pass.precision)?,
            None => self.qkv.forward_in(states, pass.precision)?,
        };
        Ok(qkv.f_view([-1, 3, self.heads, width / self.heads])?)
    }

    fn finish(
        &self,
        states: &Tensor,
        context: &Tensor,
        _stream: &TokenStream,
        pass: &Pass,
        salt: u64,
    ) -> Result<Tensor> {
        let attended = self.attention_output.forward_in(context, pass.precision)?;
        let attended = dropout(&attended, pass.attention_dropout.as_ref(), salt + 1)?;
        let x = states.f_add(&attended.f_to_kind(Kind::Float)?)?;
        let both = self.inner.forward_in(&self.norm.forward(&x)?, pass.precision)?;
        let half = both.size()[1] / 2;
        let gated = self.activation.apply(&both.f_narrow(1, 0, half)?.f_contiguous()?)?;
        let gated = gated.f_mul(&both.f_narrow(1, half, half)?)?;
        let gated = dropout(&gated, pass.hidden_dropout.as_ref(), salt + 2)?;
        let output = self.output.forward_in(&gated, pass.precision)?;
        Ok(x.f_add(&output.f_to_kind(Kind::Float)?)?)
    }
}
