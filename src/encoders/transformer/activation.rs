//! The activations that configurations name.

use tch::Tensor;

use crate::torch::Precision;
use crate::torch::kernels::activations::Activation;
use crate::torch::nn::Linear;
use crate::{Error, Result};

/// An activation of a feed-forward network.
#[derive(Clone, Copy, Debug)]
pub(in crate::encoders) enum HiddenAct {
    /// One that has a kernel.
    Kernel(Activation),
    /// max(x, 0).
    Relu,
    /// x · sigmoid(x).
    Silu,
}

impl HiddenAct {
    /// The activation of that name. `key` is the key that names it.
    ///
    /// # Errors
    /// [`Error::Recipe`] for an unknown name.
    pub fn named(key: &str, name: &str) -> Result<Self> {
        match name {
            "gelu" => Ok(Self::Kernel(Activation::Gelu)),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Self::Kernel(Activation::GeluTanh)),
            "tanh" => Ok(Self::Kernel(Activation::Tanh)),
            "relu" => Ok(Self::Relu),
            "silu" | "swish" => Ok(Self::Silu),
            _ => Err(Error::recipe(format!("`{key}` is `{name}`")).with_hint(
                "the known activations are gelu, gelu_new, gelu_pytorch_tanh, relu, silu and tanh",
            )),
        }
    }

    /// A linear layer, then the function of every element.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn of_linear(self, map: &Linear, x: &Tensor, precision: Precision) -> Result<Tensor> {
        match self {
            Self::Kernel(activation) => map.forward_activated(x, precision, activation),
            _ => self.apply(&map.forward_in(x, precision)?),
        }
    }

    /// Applies it element by element.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Kernel(activation) => activation.apply(x),
            Self::Relu => Ok(x.f_relu()?),
            Self::Silu => Ok(x.f_mul(&Activation::Sigmoid.apply(x)?)?),
        }
    }
}
