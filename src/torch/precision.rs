//! Which kind of number the matrix products of a model use.
//!
//! Weights are kept in fp32 and cast where they are used: no autocast, so that every cast can be
//! read in the code.

use std::time::{Duration, Instant};

use tch::{Cuda, Device, Kind};

use super::rng::Generator;
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
}
