//! ContextAware's attention of each pair to all pairs of its document (Sorokin and Gurevych 2017,
//! as in DocRED's release; docs/systems.md, B.7 and B.8).
//!
//! score(i, j) = w·rᵢ + Σ_c rᵢ\[c\] s\[c\] rⱼ\[c\]. The first term is the same for all j and so
//! changes nothing; its parameter (`input_linear` in the release, whose gradient is zero) is left
//! out.

use tch::Tensor;

use crate::Result;
use crate::systems::words::{PairAttention, WordTables};
use crate::torch::Parameters;
use crate::torch::kernels::Segments;
use crate::torch::nn::Linear;

/// Attention over pair vectors, and the classifier of [r; attended r].
#[derive(Debug)]
pub(super) struct ContextAttention {
    attention: PairAttention,
    /// Class logits [P, C] of what [`Self::attend`] gives.
    pub output: Linear,
}

impl ContextAttention {
    /// Declares `heads.self_att.dot_scale` and `heads.linear_output`.
    pub fn declare(parameters: &mut Parameters, width: i64, classes: i64) -> Result<Self> {
        let attention = PairAttention::diagonal(parameters, width)?;
        let output = Linear::bias_first(parameters, "heads.linear_output", 2 * width, classes)?;
        Ok(Self { attention, output })
    }

    /// [r; Σⱼ aⱼ rⱼ] of all pairs; `r`: [P, width], the result [P, 2 · width].
    pub fn attend(&self, r: &Tensor, tables: &WordTables) -> Result<Tensor> {
        if r.size()[0] == 0 {
            return Ok(Tensor::f_cat(&[r, r], 1)?);
        }
        let documents = Segments::new(&tables.pair_offsets, r.device())?;
        Ok(Tensor::f_cat(&[r, &self.attention.forward(r, &documents)?], 1)?)
    }
}
