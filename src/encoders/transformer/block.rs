//! The layer of BERT and of the families that changed its names or scores alone: attention, then
//! the feed-forward network, each with a residual connection and a norm behind it.

use tch::Tensor;

use super::activation::HiddenAct;
use super::network::Layer;
use crate::Result;
use crate::encoders::{Pass, TokenStream};
use crate::torch::nn::{LayerNorm, Linear, SelfAttention};
use crate::torch::{Init, Parameters, Slot};

/// What a family calls the parts of a layer.
#[derive(Clone, Copy, Debug)]
pub(in crate::encoders) struct BlockNames {
    /// The projections to queries, keys and values.
    pub projections: [&'static str; 3],
    /// The linear map of what was attended to.
    pub attention_output: &'static str,
    /// The norm after it.
    pub attention_norm: &'static str,
    /// The first map of the feed-forward network.
    pub inner: &'static str,
    /// The second one.
    pub output: &'static str,
    /// The norm after it.
    pub norm: &'static str,
}

/// BERT's names.
pub(in crate::encoders) const BERT_NAMES: BlockNames = BlockNames {
    projections: ["attention.self.query", "attention.self.key", "attention.self.value"],
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    inner: "intermediate.dense",
    output: "output.dense",
    norm: "output.LayerNorm",
};

/// The sizes of a layer and what its parts are called.
#[derive(Clone, Copy, Debug)]
pub(in crate::encoders) struct PostNormPlan {
    /// Names of the parts.
    pub names: BlockNames,
    /// Width d of a state.
    pub width: i64,
    /// Attention heads.
    pub heads: i64,
    /// Width of the feed-forward network.
    pub inner: i64,
    /// ε of the norms.
    pub eps: f64,
    /// Standard deviation of initial weights.
    pub std: f64,
    /// The activation of the feed-forward network.
    pub activation: HiddenAct,
    /// Whether dropout acts on the results of attention and of the feed-forward network.
    pub drops: [bool; 2],
}

impl PostNormPlan {
    /// All parameters of the layer called `layer`, with BERT's initial values.
    pub fn slots(&self, layer: &str) -> Vec<Slot> {
        let (names, d) = (&self.names, self.width);
        let name = |part: &str| format!("{layer}.{part}");
        let linear = |part: &str, inputs: i64, outputs: i64| {
            let normal = Init::Normal { std: self.std };
            Linear::slots(&name(part), inputs, outputs, [normal, Init::Zeros])
        };
        let mut slots: Vec<Slot> =
            names.projections.iter().flat_map(|part| linear(part, d, d)).collect();
        slots.extend(linear(names.attention_output, d, d));
        slots.extend(LayerNorm::slots(&name(names.attention_norm), d));
        slots.extend(linear(names.inner, d, self.inner));
        slots.extend(linear(names.output, self.inner, d));
        slots.extend(LayerNorm::slots(&name(names.norm), d));
        slots
    }

    /// The layer over parameters that were declared.
    ///
    /// # Errors
    /// If one was not.
    pub fn get(&self, params: &Parameters, layer: &str) -> Result<PostNorm> {
        let names = &self.names;
        let name = |part: &str| format!("{layer}.{part}");
        let [query, key, value] = names.projections.map(name);
        let norm = |part: &str| LayerNorm::get(params, &name(part), self.eps);
        Ok(PostNorm {
            attention: SelfAttention::get(params, [&query, &key, &value], self.heads)?,
            attention_output: Linear::get(params, &name(names.attention_output))?,
            attention_norm: norm(names.attention_norm)?,
            inner: Linear::get(params, &name(names.inner))?,
            activation: self.activation,
            output: Linear::get(params, &name(names.output))?,
            norm: norm(names.norm)?,
            drops: self.drops,
        })
    }
}

/// Such a layer.
#[derive(Debug)]
pub(in crate::encoders) struct PostNorm {
    attention: SelfAttention,
    attention_output: Linear,
    attention_norm: LayerNorm,
    inner: Linear,
    activation: HiddenAct,
    output: Linear,
    norm: LayerNorm,
    drops: [bool; 2],
}

impl Layer for PostNorm {
    fn qkv(&self, states: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.attention.qkv(states, pass.precision)
    }

    fn finish(
        &self,
        states: &Tensor,
        context: &Tensor,
        _stream: &TokenStream,
        pass: &Pass,
        salt: u64,
    ) -> Result<Tensor> {
        let [drops_attention, drops_output] =
            self.drops.map(|drops| pass.hidden_dropout.as_ref().filter(|_| drops));
        let attended = self.attention_output.forward_in(context, pass.precision)?;
        let x = self.attention_norm.forward_sum(states, &attended, drops_attention, salt + 1)?;
        let inner = self.activation.of_linear(&self.inner, &x, pass.precision)?;
        let output = self.output.forward_in(&inner, pass.precision)?;
        self.norm.forward_sum(&x, &output, drops_output, salt + 2)
    }
}
