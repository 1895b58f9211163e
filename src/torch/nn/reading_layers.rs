//! Linear layers of heads, with PyTorch's initial values.

use tch::{Kind, Tensor};

use crate::Result;
use crate::torch::HEADS;
use crate::torch::kernels::products::linear;
use crate::torch::{Init, Parameters};

/// x Wᵀ + b, or without b.
#[derive(Debug)]
pub struct Linear {
    /// [out, in]
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
}

impl Linear {
    /// Declares `heads.NAME.weight` and `heads.NAME.bias`, ~ U(−1/√in, 1/√in).
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn declare(
        parameters: &mut Parameters,
        name: &str,
        inputs: i64,
        outputs: i64,
        bias: bool,
    ) -> Result<Self> {
        let init = Init::Uniform { bound: 1.0 / (inputs as f64).sqrt() };
        let weight =
            parameters.declare(format!("{HEADS}{name}.weight"), &[outputs, inputs], init)?;
        let bias = bias
            .then(|| parameters.declare(format!("{HEADS}{name}.bias"), &[outputs], init))
            .transpose()?;
        Ok(Self { weight, bias })
    }

    /// [.., in] → [.., out]
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear(x, &self.weight, self.bias.as_ref())
    }

    /// Σ over parts of x_i W_iᵀ + b, where W is cut along its inputs: a linear layer over [x_1;
    /// x_2; …] whose inputs need not lie side by side, with each x_i already as long as it has
    /// distinct rows. `parts`: (x `[rows, in_i]`, which row each result takes; `None`: its own).
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn forward_parts(&self, parts: &[(&Tensor, Option<&Tensor>)]) -> Result<Tensor> {
        let (mut at, mut sum) = (0, None::<Tensor>);
        for (x, rows) in parts {
            let width = x.size()[1];
            let bias = if at == 0 { self.bias.as_ref() } else { None };
            let term = linear(x, &self.weight.f_narrow(1, at, width)?, bias)?;
            let term =
                rows.map_or_else(|| Ok(term.shallow_clone()), |rows| term.f_index_select(0, rows))?;
            sum = Some(match sum {
                Some(sum) => sum.f_add(&term)?,
                None => term,
            });
            at += width;
        }
        sum.ok_or_else(|| crate::Error::Bug("a linear layer over nothing".into()))
    }
}

/// Layer normalisation over the last axis, in 32 bits.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Declares `heads.NAME.weight`, ones, and `heads.NAME.bias`, zeros.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn declare(parameters: &mut Parameters, name: &str, width: i64, eps: f64) -> Result<Self> {
        let weight = parameters.declare(format!("{HEADS}{name}.weight"), &[width], Init::Ones)?;
        let bias = parameters.declare(format!("{HEADS}{name}.bias"), &[width], Init::Zeros)?;
        Ok(Self { weight, bias, eps })
    }

    /// [.., width] → [.., width]
    ///
    /// # Errors
    /// If libtorch rejects an operation.
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
