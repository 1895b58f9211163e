//! Affine maps that systems put on an encoder, with PyTorch's initial values (docs/systems.md,
//! "Initial values").
//!
//! Not for: the layers inside encoders, which follow the pass's number format.

use tch::{Kind, Tensor};

use crate::Result;
use crate::torch::kernels::products::linear;
use crate::torch::{Init, Parameters};

/// x Wᵀ + b, in 32 bits.
#[derive(Debug)]
pub struct Affine {
    /// [out, in]
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
}

impl Affine {
    /// Declares `NAME.weight` and `NAME.bias` ~ U(−1/√in, 1/√in).
    ///
    /// # Errors
    /// If a name is taken.
    pub fn declare(parameters: &mut Parameters, name: &str, out: i64, width: i64) -> Result<Self> {
        let init = Init::Uniform { bound: 1.0 / (width as f64).sqrt() };
        let bias = parameters.declare(format!("{name}.bias"), &[out], init)?;
        Ok(Self {
            bias: Some(bias),
            ..Self::without_bias(parameters, &format!("{name}.weight"), out, width)?
        })
    }

    /// Declares a matrix called `name`, without a bias.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn without_bias(
        parameters: &mut Parameters,
        name: &str,
        out: i64,
        width: i64,
    ) -> Result<Self> {
        let init = Init::Uniform { bound: 1.0 / (width as f64).sqrt() };
        Ok(Self { weight: parameters.declare(name, &[out, width], init)?, bias: None })
    }

    /// [rows, in] → [rows, out]
    ///
    /// # Errors
    /// If the widths differ.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear(&x.f_to_kind(Kind::Float)?, &self.weight, self.bias.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn an_affine_map_has_a_bias_where_asked() {
        let mut parameters = Parameters::new(1, Device::Cpu);
        let with = Affine::declare(&mut parameters, "a", 2, 3).unwrap();
        let without = Affine::without_bias(&mut parameters, "w", 2, 3).unwrap();
        let zero = Tensor::zeros([1, 3], (Kind::Float, Device::Cpu));
        assert_eq!(with.forward(&zero).unwrap().get(0), *parameters.get("a.bias").unwrap());
        assert_eq!(without.forward(&zero).unwrap().abs().max().double_value(&[]), 0.0);
        assert!(parameters.get("w").is_some());
    }
}
