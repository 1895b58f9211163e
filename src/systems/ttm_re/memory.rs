//! Reading from memory tokens (docs/systems.md, T.2 and T.3), and the Transformer over what was
//! read (T.4).

use tch::{Kind, Tensor};

use super::settings::{MemoryAttention, TtmReSettings};
use crate::Result;
use crate::torch::kernels::Segments;
use crate::torch::kernels::activations::Activation;
use crate::torch::kernels::attention::varlen_attention;
use crate::torch::kernels::scores::ScoreTerms;
use crate::torch::nn::{LayerNorm, Linear};
use crate::torch::{Init, Parameters, Precision};

/// ε of the layer norms.
const NORM_EPS: f64 = 1e-5;
/// Vectors that a pair reads: one for its head, one for its tail.
const OUTPUTS: i64 = 2;
/// What is known of the initial memory: nothing. Small, as other tables of embeddings.
const MEMORY_STD: f64 = 0.02;

/// The memory, and how a pair reads from it.
pub(super) struct Memory {
    /// [memory, E]
    tokens: Tensor,
    norm: LayerNorm,
    inner: Linear,
    outer: Linear,
    layers: Vec<MemoryLayer>,
    attention: MemoryAttention,
    chunk: i64,
}

impl Memory {
    /// Declares everything below `name`.
    pub(super) fn declare(
        parameters: &mut Parameters,
        name: &str,
        settings: &TtmReSettings,
    ) -> Result<Self> {
        let (width, unit) = (settings.emb_size, format!("{name}.token_turing_machine_unit"));
        let learner = format!("{unit}.token_learner_model");
        let shape = [settings.memory_size, width];
        let init = Init::Normal { std: MEMORY_STD };
        let tokens = parameters.declare(format!("{name}.memory_tokens"), &shape, init)?;
        let inner = Linear::declare(parameters, &format!("{learner}.mlp1.linear_1"), width, width)?;
        let outer =
            Linear::declare(parameters, &format!("{learner}.mlp1.linear_2"), width, OUTPUTS)?;
        let norm = format!("{learner}.layernorm");
        let norm = LayerNorm::declare(parameters, &norm, width, NORM_EPS)?;
        let layers = (0..settings.memory_layers).map(|index| {
            let own = format!("{unit}.vit_encoder.layers.{index}");
            MemoryLayer::declare(parameters, &own, width, settings.memory_heads)
        });
        Ok(Self {
            tokens,
            norm,
            inner,
            outer,
            layers: layers.collect::<Result<_>>()?,
            attention: settings.memory_attention,
            chunk: settings.pair_chunk as i64,
        })
    }

    /// The scores of tokens for each output; [rows, E] → [rows, 2].
    fn scores(&self, tokens: &Tensor) -> Result<Tensor> {
        let inner = self.inner.forward(&self.norm.forward(tokens)?)?;
        self.outer.forward(&Activation::Gelu.apply(&inner)?)
    }

    /// What pairs read from the memory and their own two vectors [P, E]; [P, 2, E].
    ///
    /// Tokens are shared by all pairs, so that one softmax over them is computed once: each pair
    /// then weighs three vectors, the mean of the memory with the mass of its scores, and its own.
    pub(super) fn read(&self, heads: &Tensor, tails: &Tensor) -> Result<Tensor> {
        let of_memory = self.scores(&self.tokens)?; // [memory, 2]
        let shares = of_memory.f_softmax(0, Kind::Float)?;
        let mean = shares.f_transpose(0, 1)?.f_matmul(&self.tokens)?; // [2, E]
        let mass = of_memory.f_logsumexp([0], false)?; // [2]
        let (of_heads, of_tails) = (self.scores(heads)?, self.scores(tails)?);
        let mass = mass.f_unsqueeze(0)?.f_expand_as(&of_heads)?;
        let shares =
            Tensor::f_stack(&[&mass, &of_heads, &of_tails], -1)?.f_softmax(-1, Kind::Float)?;
        let parts = [mean.f_unsqueeze(0)?, heads.f_unsqueeze(1)?, tails.f_unsqueeze(1)?];
        let weighed = |(index, part): (i64, &Tensor)| -> Result<Tensor> {
            Ok(shares.f_narrow(2, index, 1)?.f_mul(part)?)
        };
        let [memory, head, tail] = [0, 1, 2].map(|index| (index, &parts[index as usize]));
        Ok(weighed(memory)?.f_add(&weighed(head)?)?.f_add(&weighed(tail)?)?)
    }

    /// The Transformer over what pairs have read; [P, 2, E] → head and tail, [P, E] each.
    pub(super) fn mix(&self, read: &Tensor, precision: Precision) -> Result<[Tensor; 2]> {
        let (pairs, outputs, width) = read.size3()?;
        let by_pair = self.attention == MemoryAttention::Outputs;
        let offsets = self.offsets(pairs);
        let segments = Segments::new(&offsets, read.device())?;
        let rows = if by_pair { read.shallow_clone() } else { read.f_transpose(0, 1)? };
        let mut rows = rows.f_reshape([-1, width])?;
        for layer in &self.layers {
            rows = layer.forward(&rows, &segments, precision)?;
        }
        let shape = if by_pair { [pairs, outputs, width] } else { [outputs, pairs, width] };
        let (mixed, axis) = (rows.f_view(shape)?, i64::from(by_pair));
        Ok([mixed.f_select(axis, 0)?, mixed.f_select(axis, 1)?])
    }

    /// Which rows see each other: those of a pair, or those of a chunk of pairs in each output.
    fn offsets(&self, pairs: i64) -> Vec<i64> {
        match self.attention {
            MemoryAttention::Outputs => (0..=pairs).map(|pair| pair * OUTPUTS).collect(),
            MemoryAttention::Pairs => {
                let chunks = (pairs + self.chunk - 1) / self.chunk;
                let of_output =
                    |output: i64| (0..chunks).map(move |chunk| output * pairs + chunk * self.chunk);
                (0..OUTPUTS).flat_map(of_output).chain([OUTPUTS * pairs]).collect()
            }
        }
    }
}

/// A layer of the Transformer: norms behind, ReLU inside.
struct MemoryLayer {
    projection: Linear,
    output: Linear,
    first: Linear,
    second: Linear,
    norms: [LayerNorm; 2],
    heads: i64,
}

impl MemoryLayer {
    fn declare(parameters: &mut Parameters, name: &str, width: i64, heads: i64) -> Result<Self> {
        let uniform = Init::Uniform { bound: (6.0 / (4 * width) as f64).sqrt() };
        let own = format!("{name}.self_attn");
        let projection = Linear {
            weight: parameters.declare(
                format!("{own}.in_proj_weight"),
                &[3 * width, width],
                uniform,
            )?,
            bias: Some(parameters.declare(
                format!("{own}.in_proj_bias"),
                &[3 * width],
                Init::Zeros,
            )?),
        };
        let mut linear = |name: String| Linear::declare(parameters, &name, width, width);
        let output = linear(format!("{own}.out_proj"))?;
        let (first, second) =
            (linear(format!("{name}.linear1"))?, linear(format!("{name}.linear2"))?);
        let mut norm = |number: usize| {
            LayerNorm::declare(parameters, &format!("{name}.norm{number}"), width, NORM_EPS)
        };
        Ok(Self { projection, output, first, second, norms: [norm(1)?, norm(2)?], heads })
    }

    /// [rows, E] → [rows, E]
    fn forward(&self, x: &Tensor, segments: &Segments, precision: Precision) -> Result<Tensor> {
        let width = x.size()[1] / self.heads;
        let qkv = self.projection.forward_in(x, precision)?.f_view([-1, 3, self.heads, width])?;
        let mixed = varlen_attention(&qkv, segments, &ScoreTerms::plain(width), None, 0)?;
        let attended = self.output.forward_in(&mixed, precision)?;
        let x = self.norms[0].forward_sum(x, &attended, None, 0)?;
        let inner = self.first.forward_in(&x, precision)?.f_relu()?;
        let outer = self.second.forward_in(&inner, precision)?;
        self.norms[1].forward_sum(&x, &outer, None, 0)
    }
}
