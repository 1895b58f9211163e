//! Linear layers.

use tch::{Kind, Tensor};

use crate::torch::kernels::activations::Activation;
use crate::torch::kernels::products::{half_linear, half_linear_activated, linear};
use crate::torch::{Init, Parameters, Precision, Slot};
use crate::{Error, Result};

/// x Wᵀ + b, or x Wᵀ.
#[derive(Debug)]
pub struct Linear {
    /// [out, in]
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
}

/// PyTorch's initial values, U(−1/√in, 1/√in).
fn pytorch(inputs: i64) -> Init {
    Init::Uniform { bound: 1.0 / (inputs as f64).sqrt() }
}

impl Linear {
    /// The parameters `NAME.weight` [out, in] and `NAME.bias` `[out]`, with their initial values.
    pub fn slots(name: &str, inputs: i64, outputs: i64, [weight, bias]: [Init; 2]) -> [Slot; 2] {
        [
            Slot::new(format!("{name}.weight"), &[outputs, inputs], weight),
            Slot::new(format!("{name}.bias"), &[outputs], bias),
        ]
    }

    /// A layer over `NAME.weight` and `NAME.bias`, which were declared before.
    ///
    /// # Errors
    /// If one was not.
    pub fn get(parameters: &Parameters, name: &str) -> Result<Self> {
        Self::maybe_biased(parameters, name, true)
    }

    /// A layer over `NAME.weight`, and over `NAME.bias` if it is `biased`.
    ///
    /// # Errors
    /// If one was not declared.
    pub fn maybe_biased(parameters: &Parameters, name: &str, biased: bool) -> Result<Self> {
        let bias = biased.then(|| parameters.handle(&format!("{name}.bias"))).transpose()?;
        Ok(Self { weight: parameters.handle(&format!("{name}.weight"))?, bias })
    }

    /// Declares `NAME.weight` and `NAME.bias` with PyTorch's initial values.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn declare(
        parameters: &mut Parameters,
        name: &str,
        inputs: i64,
        outputs: i64,
    ) -> Result<Self> {
        parameters.declare_all(Self::slots(name, inputs, outputs, [pytorch(inputs); 2]))?;
        Self::get(parameters, name)
    }

    /// The same with the bias before the weight. The order of parameters decides the last bits of
    /// the gradient's norm, so a system that declares its layers this way keeps doing so.
    ///
    /// # Errors
    /// As [`Self::declare`].
    pub fn bias_first(
        parameters: &mut Parameters,
        name: &str,
        inputs: i64,
        outputs: i64,
    ) -> Result<Self> {
        let [weight, bias] = Self::slots(name, inputs, outputs, [pytorch(inputs); 2]);
        parameters.declare_all([bias, weight])?;
        Self::get(parameters, name)
    }

    /// A layer without a bias, whose weight is called `name`.
    ///
    /// # Errors
    /// As [`Self::declare`].
    pub fn without_bias(
        parameters: &mut Parameters,
        name: &str,
        inputs: i64,
        outputs: i64,
    ) -> Result<Self> {
        let weight = parameters.declare(name, &[outputs, inputs], pytorch(inputs))?;
        Ok(Self { weight, bias: None })
    }

    /// [.., in] → [.., out], in 32 bits.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_in(x, Precision::Fp32)
    }

    /// [.., in] → [.., out] in the number format of `precision`.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn forward_in(&self, x: &Tensor, precision: Precision) -> Result<Tensor> {
        match precision {
            Precision::Bf16 => half_linear(x, &self.weight, self.bias.as_ref()),
            Precision::Fp32 => linear(&x.f_to_kind(Kind::Float)?, &self.weight, self.bias.as_ref()),
        }
    }

    /// The same, then a function of every element.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn forward_activated(
        &self,
        x: &Tensor,
        precision: Precision,
        function: Activation,
    ) -> Result<Tensor> {
        match precision {
            Precision::Bf16 => half_linear_activated(x, &self.weight, self.bias.as_ref(), function),
            Precision::Fp32 => function.apply(&self.forward(x)?),
        }
    }

    /// Σ over parts of x_i W_iᵀ + b, where W is cut along its inputs: the layer's value for [x_1;
    /// x_2; …] without joining them. Each x_i [rows, in_i] needs only its distinct rows; the second
    /// value says which row each result takes (`None`: its own).
    ///
    /// # Errors
    /// If the widths do not add up to the layer's.
    pub fn forward_parts(&self, parts: &[(&Tensor, Option<&Tensor>)]) -> Result<Tensor> {
        let (mut at, mut sum) = (0, None::<Tensor>);
        for (x, rows) in parts {
            let width = x.size()[1];
            let bias = if at == 0 { self.bias.as_ref() } else { None };
            let mut term = linear(x, &self.weight.f_narrow(1, at, width)?, bias)?;
            if let Some(rows) = rows {
                term = term.f_index_select(0, rows)?;
            }
            sum = Some(match sum {
                Some(sum) => sum.f_add(&term)?,
                None => term,
            });
            at += width;
        }
        sum.ok_or_else(|| Error::Bug("a linear layer over nothing".into()))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::torch::rng::Generator;

    #[test]
    fn a_layer_has_a_bias_where_asked() {
        let mut parameters = Parameters::new(1, Device::Cpu);
        let with = Linear::declare(&mut parameters, "a", 3, 2).unwrap();
        let without = Linear::without_bias(&mut parameters, "w", 3, 2).unwrap();
        let _first = Linear::bias_first(&mut parameters, "b", 3, 2).unwrap();
        let zero = Tensor::zeros([1, 3], (Kind::Float, Device::Cpu));
        assert_eq!(with.forward(&zero).unwrap().get(0), *parameters.get("a.bias").unwrap());
        assert_eq!(without.forward(&zero).unwrap().abs().max().double_value(&[]), 0.0);
        let names: Vec<&str> = parameters.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["a.weight", "a.bias", "w", "b.bias", "b.weight"]);
    }

    #[test]
    fn it_multiplies_and_leaves_fp32_gradients() {
        let mut generator = Generator::of_test(1);
        for (precision, tolerance) in [(Precision::Fp32, 1e-5), (Precision::Bf16, 0.1)] {
            let x = generator.randn([5, 8]);
            let weight = generator.randn([3, 8]).set_requires_grad(true);
            let bias = generator.randn([3]).set_requires_grad(true);
            let layer = Linear { weight, bias: Some(bias) };
            let y = layer.forward_in(&x, precision).unwrap();
            assert_eq!(y.kind(), precision.kind());
            let (weight, bias) = (&layer.weight, layer.bias.as_ref().unwrap());
            let expected =
                (x.unsqueeze(1) * weight.unsqueeze(0)).sum_dim_intlist(-1, false, Kind::Float)
                    + bias;
            assert!((y.to_kind(Kind::Float) - expected).abs().max().double_value(&[]) < tolerance);
            y.sum(Kind::Float).backward();
            assert_eq!((weight.grad().kind(), bias.grad().kind()), (Kind::Float, Kind::Float));
            assert_eq!(bias.grad(), Tensor::from_slice(&[5f32; 3]));
        }
    }
}
