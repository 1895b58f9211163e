//! ContextAware's attention of each pair to all pairs of its document (Sorokin and Gurevych 2017,
//! as in DocRED's release; docs/systems.md, B.7 and B.8).
//!
//! score(i, j) = w·rᵢ + Σ_c rᵢ\[c\] s\[c\] rⱼ\[c\]. The first term is the same for all j and so
//! changes nothing; its parameter (`input_linear` in the release, whose gradient is zero) is left
//! out.

use tch::Tensor;

use crate::Result;
use crate::systems::words::WordTables;
use crate::torch::HEADS;
use crate::torch::kernels::Segments;
use crate::torch::kernels::attention::varlen_attention;
use crate::torch::nn::Linear;
use crate::torch::{Init, Parameters};

/// Attention over pair vectors, and the classifier of [r; attended r].
#[derive(Debug)]
pub(super) struct ContextAttention {
    /// s, `[width]`.
    scale: Tensor,
    output: Linear,
}

impl ContextAttention {
    /// Declares `heads.self_att.dot_scale` ~ U(1/√width, 1) and `heads.linear_output`.
    pub fn declare(parameters: &mut Parameters, width: i64, classes: i64) -> Result<Self> {
        let low = 1.0 / (width as f64).sqrt();
        let init = Init::Uniform { bound: (1.0 - low) / 2.0 };
        let scale = parameters.declare(format!("{HEADS}self_att.dot_scale"), &[width], init)?;
        let _ = tch::no_grad(|| scale.shallow_clone().f_add_scalar_((1.0 + low) / 2.0))?;
        let output =
            Linear::bias_first(parameters, &format!("{HEADS}linear_output"), 2 * width, classes)?;
        Ok(Self { scale, output })
    }

    /// [r; Σⱼ aⱼ rⱼ] of all pairs; `r`: [P, width], the result [P, 2 · width].
    pub fn attend(&self, r: &Tensor, tables: &WordTables) -> Result<Tensor> {
        let (pairs, width) = r.size2()?;
        if pairs == 0 {
            return Ok(Tensor::f_cat(&[r, r], 1)?);
        }
        // The kernel divides scores by √width.
        let query = r.f_mul(&self.scale)?.f_mul_scalar((width as f64).sqrt())?;
        let qkv = Tensor::f_stack(&[&query, r, r], 1)?.f_view([pairs, 3, 1, width])?;
        let attended =
            varlen_attention(&qkv, &Segments::new(&tables.pair_offsets, r.device())?, None, 0)?;
        Ok(Tensor::f_cat(&[r, &attended], 1)?)
    }

    /// Class logits [P, C].
    pub fn classify(&self, attended: &Tensor) -> Result<Tensor> {
        self.output.forward(attended)
    }
}
