//! What the operations of this room compute, written out with libtorch's plain operations in
//! doubles on the CPU. Tests and the self-test of a device hold the operations against it.
//!
//! Not for: models. Nothing here is fast, and a wrong shape panics.

pub mod adam;
pub mod attention;
pub mod contexts;
pub mod losses;
pub mod pairs;
pub mod recurrent;

use tch::{Device, Kind, Tensor};

/// Differences are taken relative to the largest number of a tensor, or to this one.
const SMALLEST_SCALE: f64 = 1e-2;

/// A copy in doubles on the CPU.
pub fn double(tensor: &Tensor) -> Tensor {
    tensor.to_device(Device::Cpu).to_kind(Kind::Double)
}

/// The largest difference relative to the largest number of `plain`; infinite where the shapes
/// differ or a number of one of them is not finite.
pub fn far(ours: &Tensor, plain: &Tensor) -> f64 {
    if ours.size() != plain.size() {
        return f64::INFINITY;
    }
    if plain.numel() == 0 {
        return 0.0;
    }
    let (ours, plain) = (double(&ours.detach()), double(&plain.detach()));
    let scale = plain.abs().max().double_value(&[]).max(SMALLEST_SCALE);
    let far = (ours - plain).abs().max().double_value(&[]) / scale;
    if far.is_finite() { far } else { f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_largest_number() {
        let plain = Tensor::from_slice(&[1.0, -4.0, 0.0]);
        assert_eq!(far(&Tensor::from_slice(&[1.0f32, -4.0, 1.0]), &plain), 0.25);
        assert_eq!(far(&plain, &plain), 0.0);
        assert_eq!(far(&Tensor::from_slice(&[1.0, f64::NAN, 0.0]), &plain), f64::INFINITY);
        assert_eq!(far(&plain.narrow(0, 0, 2), &plain), f64::INFINITY);
        assert_eq!(far(&plain.narrow(0, 0, 0), &plain.narrow(0, 0, 0)), 0.0);
        let tiny = Tensor::from_slice(&[0.0, 1e-9]);
        assert!(far(&tiny, &tiny.zeros_like()) < 1e-6);
    }
}
