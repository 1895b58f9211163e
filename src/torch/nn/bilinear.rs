//! Bilinear layers over pairs of entities.

use tch::Tensor;

use crate::Result;
use crate::torch::kernels::pairs::relation_vectors;
use crate::torch::{Init, Parameters};

/// headᵀ W tail + b.
#[derive(Debug)]
pub struct Bilinear {
    /// [out, d, d]
    pub weight: Tensor,
    /// `[out]`
    pub bias: Tensor,
}

impl Bilinear {
    /// Declares `NAME.weight` and `NAME.bias` ~ U(−bound, bound).
    ///
    /// # Errors
    /// If a name is taken.
    pub fn declare(
        parameters: &mut Parameters,
        name: &str,
        width: i64,
        outputs: i64,
        bound: f64,
    ) -> Result<Self> {
        let init = Init::Uniform { bound };
        Ok(Self {
            weight: parameters.declare(format!("{name}.weight"), &[outputs, width, width], init)?,
            bias: parameters.declare(format!("{name}.bias"), &[outputs], init)?,
        })
    }

    /// The layer's value for pairs of rows of `entities` [E, d]; [P, out].
    ///
    /// # Errors
    /// If a row does not exist or the widths differ.
    pub fn forward(&self, entities: &Tensor, heads: &[i64], tails: &[i64]) -> Result<Tensor> {
        relation_vectors(entities, heads, tails, &self.weight, &self.bias)
    }
}
