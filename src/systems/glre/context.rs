//! Context relation representations (docs/systems.md, G.12; Wang et al. 2020, eq. 7): every pair of
//! a document attends to all of them.
//!
//! The score of pair r for pair i is o_i · W o_r, so that this is self-attention with one head
//! whose keys and values are the pairs themselves: the variable-length kernel of the encoders does
//! it without a matrix over the pairs of different documents. The release's second term w · o_r is
//! the same for all i and leaves the softmax as it is; it is not computed.

use tch::Tensor;

use super::{ContextMatrix, GlreSettings};
use crate::Result;
use crate::torch::kernels::Segments;
use crate::torch::kernels::attention::varlen_attention;
use crate::torch::kernels::products::linear;
use crate::torch::{Init, Parameters};

/// W, or its diagonal.
#[derive(Debug)]
pub(super) struct PairContext {
    matrix: Tensor,
    kind: ContextMatrix,
}

impl PairContext {
    /// A diagonal s ~ U(1/√d_r, 1), or a full matrix that starts as such a diagonal.
    pub fn declare(
        parameters: &mut Parameters,
        settings: &GlreSettings,
        width: i64,
    ) -> Result<Self> {
        let lowest = (width as f64).sqrt().recip();
        let init = Init::Uniform { bound: (1.0 - lowest) / 2.0 };
        let kind = settings.context_matrix;
        let (name, shape) = match kind {
            ContextMatrix::Diagonal => ("heads.self_att.dot_scale", vec![width]),
            ContextMatrix::Full => ("heads.self_att.weight", vec![width, width]),
        };
        let matrix = parameters.declare(name, &shape, init)?;
        let centre = (1.0 + lowest) / 2.0;
        let start = tch::no_grad(|| -> Result<Tensor> {
            let shifted = matrix.f_add_scalar(centre)?;
            Ok(if kind == ContextMatrix::Full {
                shifted.f_diagonal(0, 0, 1)?.f_diag(0)?
            } else {
                shifted
            })
        });
        parameters.assign(name, &start?)?;
        Ok(Self { matrix, kind })
    }

    /// Pairs o_r [P, w] of documents given by `segments` → context o_c [P, w].
    pub fn forward(&self, pairs: &Tensor, segments: &Segments) -> Result<Tensor> {
        let width = pairs.size()[1];
        let queries = match self.kind {
            ContextMatrix::Diagonal => pairs.f_mul(&self.matrix)?,
            ContextMatrix::Full => linear(pairs, &self.matrix, None)?,
        };
        // The kernel divides scores by √width.
        let queries = queries.f_mul_scalar((width as f64).sqrt())?;
        // [P, 3, 1, w]
        let stacked = Tensor::f_stack(&[&queries, pairs, pairs], 1)?.f_unsqueeze(2)?;
        varlen_attention(&stacked.f_contiguous()?, segments, None, 0)
    }
}
