//! Which kind of number the matrix products of a model use.
//!
//! Weights are kept in fp32 and cast where they are used: no autocast, so that every cast can be
//! read in the code.

use std::ffi::c_int;
use std::time::{Duration, Instant};

use tch::{Cuda, Device, Kind};

use super::rng::Generator;
use super::shim::{check, docre_exact_gpu_recurrence, docre_gpu_products};
use crate::Result;

/// The kind of the matrix products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Single precision throughout.
    #[default]
    Fp32,
    /// Products and activations in bfloat16 over fp32 master weights.
    Bf16,
}

impl Precision {
    /// The kind activations have.
    pub fn kind(self) -> Kind {
        match self {
            Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

/// How GPUs multiply the numbers that have 32 bits from here on, in the whole process: the layers
/// above a bf16 encoder in TF32, which keeps three bits more than bf16 does; those of an fp32 model
/// exactly. Without a call (as in `verify`) products are exact.
///
/// # Errors
/// If libtorch rejects the choice.
pub fn choose_gpu_products(precision: Precision) -> Result<()> {
    // SAFETY: a plain call with a number.
    check(unsafe { docre_gpu_products(c_int::from(precision == Precision::Bf16)) })
}

/// Makes the LSTMs of GPUs multiply in 32 bits exactly; libtorch's own choice is TF32.
///
/// # Errors
/// If libtorch rejects the choice.
pub fn make_gpu_recurrence_exact() -> Result<()> {
    // SAFETY: a plain call.
    check(unsafe { docre_exact_gpu_recurrence() })
}

/// The FLOP/s of a large matrix product, the best of several within about a quarter of a second.
///
/// # Errors
/// If libtorch rejects an operation.
pub fn matmul_rate(device: Device, precision: Precision) -> Result<f64> {
    let side: i64 = if device.is_cuda() { 8192 } else { 1024 };
    let a = Generator::new(0)?
        .normal(&[side, side])?
        .f_to_device(device)?
        .f_to_kind(precision.kind())?;
    let (deadline, mut best) = (Instant::now() + Duration::from_millis(250), f64::MAX);
    for round in 0.. {
        let start = Instant::now();
        let _product = a.f_matmul(&a)?;
        if let Device::Cuda(index) = device {
            Cuda::synchronize(index as i64);
        }
        if round > 0 {
            best = best.min(start.elapsed().as_secs_f64());
        }
        if round > 1 && start > deadline {
            break;
        }
    }
    Ok(2.0 * (side as f64).powi(3) / best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_measured() {
        // Any processor of this century lies between these.
        let rate = matmul_rate(Device::Cpu, Precision::Fp32).unwrap();
        assert!((1e8..1e15).contains(&rate), "{rate}");
    }

    #[test]
    fn only_the_heads_of_a_bf16_model_are_rounded_to_tf32() {
        use crate::torch::shim::{docre_gpu_products_are_tf32, docre_gpu_recurrence_is_tf32};
        let asked = |ask: unsafe extern "C" fn(*mut c_int) -> c_int| {
            let mut tf32 = -1;
            // SAFETY: the number is ours.
            check(unsafe { ask(&raw mut tf32) }).unwrap();
            tf32
        };
        for (precision, tf32) in [(Precision::Bf16, 1), (Precision::Fp32, 0)] {
            choose_gpu_products(precision).unwrap();
            make_gpu_recurrence_exact().unwrap();
            assert_eq!(asked(docre_gpu_products_are_tf32), tf32);
            assert_eq!(asked(docre_gpu_recurrence_is_tf32), 0);
        }
    }
}
