//! x Wᵀ + b as the systems' heads use it, started as PyTorch starts it.

use tch::Tensor;

use crate::Result;
use crate::torch::products::linear;
use crate::torch::{Init, Parameters};

/// A linear layer.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Declares `name.weight` [out, in] and `name.bias` ~ U(−1/√in, 1/√in).
    pub fn declare(parameters: &mut Parameters, name: &str, input: i64, out: i64) -> Result<Self> {
        let init = Init::Uniform { bound: 1.0 / (input as f64).sqrt() };
        Ok(Self {
            weight: parameters.declare(format!("{name}.weight"), &[out, input], init)?,
            bias: parameters.declare(format!("{name}.bias"), &[out], init)?,
        })
    }

    /// [R, in] → [R, out]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear(x, &self.weight, Some(&self.bias))
    }
}
