//! A network made of parts: embeddings, layers, and what is added to attention scores.

use std::fmt::Debug;

use tch::Tensor;

use super::embeddings::Embeddings;
use crate::Result;
use crate::encoders::{Pass, TokenStream};
use crate::torch::kernels::scores::ScoreTerms;
use crate::torch::nn::LayerNorm;

/// All parts of an encoder.
#[derive(Debug)]
pub(in crate::encoders) struct EncoderNetwork {
    /// From pieces to the input of the first layer.
    pub embeddings: Embeddings,
    /// The layers, in order.
    pub layers: Vec<Box<dyn Layer>>,
    /// What their attention scores hold beside products.
    pub scores: Box<dyn AttentionScores>,
    /// What the last layer's states go through.
    pub norm: Option<LayerNorm>,
    /// Whether they are dropped out at the end.
    pub drops_output: bool,
}

/// A layer around its attention. Masks are drawn with `salt` (attention probabilities) and the two
/// numbers after it.
pub(in crate::encoders) trait Layer: Debug {
    /// Queries, keys and values of the states [T, d]; [T, 3, heads, d / heads].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    fn qkv(&self, states: &Tensor, pass: &Pass) -> Result<Tensor>;

    /// The layer's result from its states and what they attended to, both [T, d].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    fn finish(
        &self,
        states: &Tensor,
        context: &Tensor,
        stream: &TokenStream,
        pass: &Pass,
        salt: u64,
    ) -> Result<Tensor>;
}

/// The terms of the scores of a layer, by its number.
pub(in crate::encoders) type LayerScores<'a> = Box<dyn Fn(usize) -> Result<ScoreTerms> + 'a>;

/// What a family adds to attention scores.
pub(in crate::encoders) trait AttentionScores: Debug {
    /// Computes once a pass what layers share.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    fn of_pass<'a>(&'a self, stream: &'a TokenStream, pass: &'a Pass) -> Result<LayerScores<'a>>;
}

/// Nothing is added.
#[derive(Debug)]
pub(in crate::encoders) struct Plain {
    /// Width of a head.
    pub head_width: i64,
}

impl AttentionScores for Plain {
    fn of_pass<'a>(&'a self, _stream: &'a TokenStream, _pass: &'a Pass) -> Result<LayerScores<'a>> {
        Ok(Box::new(|_| Ok(ScoreTerms::plain(self.head_width))))
    }
}
