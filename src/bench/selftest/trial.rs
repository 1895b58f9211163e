//! Holding one operation against its formula: the same numbers go through both, and results and
//! gradients are compared.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::torch::plain::{double, far};
use crate::torch::rng::Generator;
use crate::torch::{Dropout, Precision, cuda};
use crate::{Error, Result};

/// What products on the device are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    /// 32 bits.
    Fp32,
    /// 32 bits whose products round their factors to TF32; CUDA alone has them.
    Tf32,
    /// 16 bits.
    Bf16,
}

impl Numbers {
    /// How far results may be from the formula, relative to the largest number.
    pub fn tolerance(self) -> f64 {
        match self {
            Self::Fp32 => 1e-5,
            Self::Tf32 => 2e-3,
            Self::Bf16 => 2e-2,
        }
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }

    /// The precision of a model that computes with them.
    pub fn precision(self) -> Precision {
        if self == Self::Bf16 { Precision::Bf16 } else { Precision::Fp32 }
    }
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct CheckRow {
    /// The operation.
    pub name: String,
    /// What it was computed with; absent where that makes no difference.
    pub numbers: Option<Numbers>,
    /// The largest difference of a result, and of a gradient where there is one, relative to the
    /// largest number; or what else was measured.
    pub difference: Option<f64>,
    /// What is allowed.
    pub tolerance: Option<f64>,
    /// Whether it is within.
    pub passed: bool,
    /// What went wrong, where it was no difference.
    pub problem: Option<String>,
}

/// The checks of one seed.
pub(super) struct Trial {
    /// Where operations run.
    pub device: Device,
    /// What they are computed with.
    pub numbers: Numbers,
    seed: u64,
    /// Drawn from so far.
    draws: u64,
    /// The outcomes.
    pub rows: Vec<CheckRow>,
}

impl Trial {
    /// No check yet.
    pub fn new(device: Device, seed: u64) -> Self {
        Self { device, numbers: Numbers::Fp32, seed, draws: 0, rows: Vec::new() }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Computes with these numbers from now on.
    pub fn with(&mut self, numbers: Numbers) -> Result<()> {
        self.numbers = numbers;
        if self.device.is_cuda() {
            cuda::allow_tf32(numbers == Numbers::Tf32)?;
        }
        Ok(())
    }

    /// N(0, 1) on the CPU; of 32 bits, or of 16 where operations are computed with those.
    pub fn normal(&mut self, shape: &[i64]) -> Result<Tensor> {
        let drawn = self.generator()?.normal(shape)?;
        self.rounded(&drawn)
    }

    /// Numbers as an operation gets them: 16 bits have to represent them.
    fn rounded(&self, drawn: &Tensor) -> Result<Tensor> {
        if self.numbers != Numbers::Bf16 {
            return Ok(drawn.shallow_clone());
        }
        Ok(drawn.f_to_kind(Kind::BFloat16)?.f_to_kind(Kind::Float)?)
    }

    /// A generator that no other draw shares.
    pub fn generator(&mut self) -> Result<Generator> {
        self.draws += 1;
        Generator::new(Dropout::token_key(self.seed, self.draws, 0, 0).cast_unsigned())
    }

    /// Runs a check whose outcome is a difference; what fails or panics in it has failed.
    pub fn check(
        &mut self,
        name: impl Into<String>,
        tolerance: f64,
        check: impl FnOnce(&mut Self) -> Result<f64>,
    ) {
        let numbers = Some(self.numbers);
        let (difference, problem) = match catch_unwind(AssertUnwindSafe(|| check(self))) {
            Ok(Ok(difference)) => (Some(difference), None),
            Ok(Err(error)) => (None, Some(error.to_string())),
            Err(_told) => (None, Some("the computation panicked".to_owned())),
        };
        // Written so that NaN is outside.
        let passed = difference.is_some_and(|difference| difference <= tolerance);
        self.rows.push(CheckRow {
            name: name.into(),
            numbers,
            difference,
            tolerance: Some(tolerance),
            passed,
            problem,
        });
    }

    /// Runs a check that holds or does not, whatever numbers are computed with.
    pub fn that(
        &mut self,
        name: impl Into<String>,
        check: impl FnOnce(&mut Self) -> Result<std::result::Result<(), String>>,
    ) {
        let problem = match catch_unwind(AssertUnwindSafe(|| check(self))) {
            Ok(Ok(held)) => held.err(),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_told) => Some("the computation panicked".to_owned()),
        };
        self.rows.push(CheckRow {
            name: name.into(),
            numbers: None,
            difference: None,
            tolerance: None,
            passed: problem.is_none(),
            problem,
        });
    }

    /// Holds an operation, forward and backward, against its formula. Both get the same `inputs`,
    /// the operation as leaves of 32 bits on the device, the formula as leaves in doubles on the
    /// CPU; every number of the results weighs in with a random factor.
    pub fn hold(
        &mut self,
        name: impl Into<String>,
        inputs: &[Tensor],
        ours: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
        plain: impl FnOnce(&[Tensor]) -> Vec<Tensor>,
    ) {
        let tolerance = self.numbers.tolerance();
        self.check(name, tolerance, |trial| {
            let leaves = |of: &dyn Fn(&Tensor) -> Tensor| -> Vec<Tensor> {
                inputs
                    .iter()
                    .map(|input| of(input).detach().copy().set_requires_grad(true))
                    .collect()
            };
            let (own, doubles) = (leaves(&|input| input.to_device(trial.device)), leaves(&double));
            let (ours, plain) = (ours(&own)?, plain(&doubles));
            if ours.len() != plain.len() {
                return Err(Error::Bug(format!("{} results, not {}", ours.len(), plain.len())));
            }
            let mut worst = 0f64;
            let mut losses = [Vec::new(), Vec::new()];
            for (a, b) in ours.iter().zip(&plain) {
                worst = worst.max(far(a, b));
                let factor = trial.normal(&b.size())?;
                let weighted = |result: &Tensor, kind| {
                    let factor = factor.f_to_device(result.device())?.f_to_kind(kind)?;
                    result.f_to_kind(kind)?.f_mul(&factor)?.f_sum(kind)
                };
                losses[0].push(weighted(a, Kind::Float)?);
                losses[1].push(weighted(b, Kind::Double)?);
            }
            for losses in losses {
                Tensor::f_stack(&losses, 0)?.f_sum(losses[0].kind())?.f_backward()?;
            }
            for (a, b) in own.iter().zip(&doubles) {
                worst = worst.max(far(&gradient(a), &gradient(b)));
            }
            Ok(worst)
        });
    }
}

/// The gradient of a leaf; zeros for one that took no part.
fn gradient(leaf: &Tensor) -> Tensor {
    let gradient = leaf.grad();
    if gradient.defined() { gradient } else { leaf.zeros_like() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial() -> Trial {
        Trial::new(Device::Cpu, 3)
    }

    /// The outcome of holding `ours` against x².
    fn held(ours: impl FnOnce(&Tensor) -> Result<Tensor>) -> CheckRow {
        let mut trial = trial();
        let x = trial.normal(&[7, 3]).unwrap();
        let plain = |leaves: &[Tensor]| vec![leaves[0].square()];
        trial.hold("square", &[x], |leaves| Ok(vec![ours(&leaves[0])?]), plain);
        trial.rows.remove(0)
    }

    #[test]
    fn a_wrong_result_a_wrong_gradient_and_a_failure_are_found() {
        let right = held(|x| Ok(x * x));
        assert!(right.passed && right.difference.unwrap() < 1e-6, "{right:?}");
        assert!(!held(|x| Ok(x * x + 1e-3)).passed);
        let blind = held(|x| Ok(x.square() + x.detach() * 0.0 + (x - x.detach())));
        assert!(!blind.passed, "its values are right, its gradient is not: {blind:?}");
        let failed = held(|_| Err(Error::Bug("a reason".into())));
        assert!(!failed.passed && failed.problem.unwrap().contains("a reason"));
        let panicked = held(|x| Ok(x.matmul(x)));
        assert!(!panicked.passed && panicked.problem.unwrap().contains("panicked"));
        assert!(!held(|x| Ok(x * f64::NAN)).passed);
    }

    #[test]
    fn numbers_of_16_bits_are_rounded_for_both_sides_and_seeds_differ() {
        let mut trial = trial();
        let first = trial.normal(&[5]).unwrap();
        assert_ne!(first, trial.normal(&[5]).unwrap());
        assert_eq!(first, Trial::new(Device::Cpu, 3).normal(&[5]).unwrap());
        assert_ne!(first, Trial::new(Device::Cpu, 4).normal(&[5]).unwrap());
        trial.with(Numbers::Bf16).unwrap();
        let few = trial.normal(&[50]).unwrap();
        assert_eq!(few, few.to_kind(Kind::BFloat16).to_kind(Kind::Float));
    }
}
