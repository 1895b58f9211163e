//! Layer normalisation (Ba et al. 2016).

use tch::{Kind, Tensor};

use crate::Result;
use crate::torch::dropout::Dropout;
use crate::torch::kernels::norms::{Added, sum_norm};
use crate::torch::{Init, Parameters, Slot};

/// Layer normalisation over the last axis, always in 32 bits.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    eps: f64,
}

impl LayerNorm {
    /// The parameters `NAME.weight`, ones, and `NAME.bias`, zeros; `[width]` each.
    pub fn slots(name: &str, width: i64) -> [Slot; 2] {
        [
            Slot::new(format!("{name}.weight"), &[width], Init::Ones),
            Slot::new(format!("{name}.bias"), &[width], Init::Zeros),
        ]
    }

    /// A layer over `NAME.weight` and `NAME.bias`, which were declared before.
    ///
    /// # Errors
    /// If one was not.
    pub fn get(parameters: &Parameters, name: &str, eps: f64) -> Result<Self> {
        Self::maybe_biased(parameters, name, eps, true)
    }

    /// A norm over `NAME.weight`, and over `NAME.bias` if it is `biased`.
    ///
    /// # Errors
    /// If one was not declared.
    pub fn maybe_biased(
        parameters: &Parameters,
        name: &str,
        eps: f64,
        biased: bool,
    ) -> Result<Self> {
        let bias = biased.then(|| parameters.handle(&format!("{name}.bias"))).transpose()?;
        Ok(Self { weight: parameters.handle(&format!("{name}.weight"))?, bias, eps })
    }

    /// Declares the parameters.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn declare(parameters: &mut Parameters, name: &str, width: i64, eps: f64) -> Result<Self> {
        parameters.declare_all(Self::slots(name, width))?;
        Self::get(parameters, name, eps)
    }

    /// [.., width] → [.., width]
    ///
    /// # Errors
    /// If the widths differ.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        sum_norm(&x.f_to_kind(Kind::Float)?, None, &self.weight, self.bias.as_ref(), self.eps)
    }

    /// The norm of x + dropout(y); all are [tokens, width]. `salt` names the place of the mask in
    /// the network.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn forward_sum(
        &self,
        x: &Tensor,
        y: &Tensor,
        dropout: Option<&Dropout>,
        salt: u64,
    ) -> Result<Tensor> {
        let added = Some(Added { y, dropout, salt });
        sum_norm(&x.f_to_kind(Kind::Float)?, added, &self.weight, self.bias.as_ref(), self.eps)
    }
}
