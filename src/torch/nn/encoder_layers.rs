//! The two layers that encoders are made of: linear maps and layer norms over [T, d], with
//! parameters looked up by name.

use tch::{Kind, Tensor};

use crate::torch::Parameters;
use crate::torch::Precision;
use crate::torch::precision::linear;
use crate::{Error, Result};

/// A handle on a declared parameter.
pub fn handle(params: &Parameters, name: &str) -> Result<Tensor> {
    params
        .get(name)
        .map(Tensor::shallow_clone)
        .ok_or_else(|| Error::Bug(format!("parameter `{name}` was never declared")))
}

/// x Wᵀ + b.
#[derive(Debug)]
pub struct Linear {
    /// [out, in]
    pub weight: Tensor,
    /// `[out]`
    pub bias: Tensor,
}

impl Linear {
    /// The layer whose parameters are `name.weight` and `name.bias`.
    pub fn get(params: &Parameters, name: &str) -> Result<Self> {
        Ok(Self {
            weight: handle(params, &format!("{name}.weight"))?,
            bias: handle(params, &format!("{name}.bias"))?,
        })
    }

    /// [T, in] → [T, out], in the number format of the products.
    pub fn forward(&self, x: &Tensor, precision: Precision) -> Result<Tensor> {
        linear(x, &self.weight, Some(&self.bias), precision)
    }
}

/// Layer normalisation over the last axis, always in 32 bits.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// The layer whose parameters are `name.weight` and `name.bias`.
    pub fn get(params: &Parameters, name: &str, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: handle(params, &format!("{name}.weight"))?,
            bias: handle(params, &format!("{name}.bias"))?,
            eps,
        })
    }

    /// [T, d] → [T, d]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_to_kind(Kind::Float)?.f_layer_norm(
            self.weight.size(),
            Some(&self.weight),
            Some(&self.bias),
            self.eps,
            false,
        )?)
    }
}
