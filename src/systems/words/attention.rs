//! Attention of every pair of a document to all of them (docs/systems.md, B.7 and G.12; Sorokin and
//! Gurevych 2017; Wang et al. 2020, eq. 7).
//!
//! The score of pair r for pair i is o_i · W o_r, so that this is self-attention with one head
//! whose keys and values are the pairs themselves: the variable-length kernel of the encoders does
//! it without a matrix over the pairs of different documents. The releases' second term w · o_r is
//! the same for all i and leaves the softmax as it is; it is not computed.

use tch::{Kind, Tensor};

use crate::Result;
use crate::torch::kernels::Segments;
use crate::torch::kernels::attention::varlen_attention;
use crate::torch::kernels::products::linear;
use crate::torch::kernels::scores::ScoreTerms;
use crate::torch::{Init, Parameters};

/// W, or its diagonal.
#[derive(Debug)]
pub enum PairAttention {
    /// s, `[width]`.
    Diagonal(Tensor),
    /// W, [width, width].
    Full(Tensor),
}

/// Declares numbers ~ U(1/√width, 1).
fn declare(parameters: &mut Parameters, name: &str, shape: &[i64]) -> Result<Tensor> {
    let lowest = (shape[0] as f64).sqrt().recip();
    let matrix = parameters.declare(name, shape, Init::Uniform { bound: (1.0 - lowest) / 2.0 })?;
    let _ = tch::no_grad(|| matrix.shallow_clone().f_add_scalar_((1.0 + lowest) / 2.0))?;
    Ok(matrix)
}

impl PairAttention {
    /// A diagonal s ~ U(1/√width, 1), named `heads.self_att.dot_scale`.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn diagonal(parameters: &mut Parameters, width: i64) -> Result<Self> {
        Ok(Self::Diagonal(declare(parameters, "heads.self_att.dot_scale", &[width])?))
    }

    /// A full matrix that starts as such a diagonal, named `heads.self_att.weight`.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn full(parameters: &mut Parameters, width: i64) -> Result<Self> {
        let matrix = declare(parameters, "heads.self_att.weight", &[width, width])?;
        let identity = Tensor::f_eye(width, (Kind::Float, matrix.device()))?;
        let _ = tch::no_grad(|| matrix.shallow_clone().f_mul_(&identity))?;
        Ok(Self::Full(matrix))
    }

    /// Pairs [P, width] of documents given by `segments` → what each attends to [P, width].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn forward(&self, pairs: &Tensor, segments: &Segments) -> Result<Tensor> {
        let width = pairs.size()[1];
        let queries = match self {
            Self::Diagonal(scale) => pairs.f_mul(scale)?,
            Self::Full(matrix) => linear(pairs, matrix, None)?,
        };
        // The kernel divides scores by √width.
        let queries = queries.f_mul_scalar((width as f64).sqrt())?;
        // [P, 3, 1, w]
        let stacked = Tensor::f_stack(&[&queries, pairs, pairs], 1)?.f_unsqueeze(2)?;
        varlen_attention(&stacked.f_contiguous()?, segments, &ScoreTerms::plain(width), None, 0)
    }
}
