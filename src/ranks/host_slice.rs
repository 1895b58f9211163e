//! A tensor's values as a slice of host memory, for libraries that know numbers and not tensors.
//!
//! Not for NCCL, which reads the GPU's memory itself.

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// The values to sum in place.
pub(super) enum HostSlice<'a> {
    /// f32, also for the half-precision kinds.
    F32(&'a mut [f32]),
    /// f64.
    F64(&'a mut [f64]),
}

/// Lets `reduce` change the values of a contiguous tensor. f32 and f64 on the CPU are changed in
/// place; everything else is copied, half precisions as f32, so that a sum over ranks is rounded
/// once and not once for each rank.
pub(super) fn on_host(
    tensor: &Tensor,
    reduce: impl FnOnce(HostSlice<'_>) -> Result<()>,
) -> Result<()> {
    let kind = tensor.f_kind()?;
    let wide = match kind {
        Kind::Float | Kind::Half | Kind::BFloat16 => Kind::Float,
        Kind::Double => Kind::Double,
        other => return Err(Error::Bug(format!("all-reduce of a tensor of kind {other:?}"))),
    };
    if !tensor.is_contiguous() {
        return Err(Error::Bug(format!(
            "all-reduce of a tensor that is not contiguous, of shape {:?}",
            tensor.size()
        )));
    }
    if tensor.device() == Device::Cpu && wide == kind {
        return reduce(slice(tensor));
    }
    let copy = tensor.f_to_device(Device::Cpu)?.f_to_kind(wide)?;
    reduce(slice(&copy))?;
    tch::no_grad(|| tensor.shallow_clone().f_copy_(&copy))?;
    Ok(())
}

/// The memory of a contiguous CPU tensor of f32 or f64.
fn slice(tensor: &Tensor) -> HostSlice<'_> {
    let (start, count) = (tensor.data_ptr(), tensor.numel());
    if count == 0 {
        return HostSlice::F32(&mut []);
    }
    // SAFETY: `on_host` has checked kind, device and contiguity, so `count` values start at
    // `start`; the storage lives as long as the tensor, and the communicator's contract gives this
    // thread sole use of it.
    unsafe {
        match tensor.kind() {
            Kind::Double => HostSlice::F64(std::slice::from_raw_parts_mut(start.cast(), count)),
            _ => HostSlice::F32(std::slice::from_raw_parts_mut(start.cast(), count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(values: HostSlice<'_>) -> Result<()> {
        match values {
            HostSlice::F32(values) => values.iter_mut().for_each(|value| *value *= 2.0),
            HostSlice::F64(values) => values.iter_mut().for_each(|value| *value *= 2.0),
        }
        Ok(())
    }

    #[test]
    fn every_floating_kind_is_changed_in_place() {
        for kind in [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Half] {
            let tensor = Tensor::from_slice(&[1f32, -0.5, 3.0]).to_kind(kind);
            on_host(&tensor, double).unwrap();
            assert_eq!(tensor.kind(), kind);
            assert_eq!(
                Vec::<f64>::try_from(tensor.to_kind(Kind::Double)).unwrap(),
                [2.0, -1.0, 6.0],
                "{kind:?}"
            );
        }
        on_host(&Tensor::zeros([0], (Kind::Double, Device::Cpu)), double).unwrap();
    }

    #[test]
    fn other_kinds_and_strided_tensors_are_refused() {
        assert_eq!(on_host(&Tensor::from_slice(&[1i64]), double).unwrap_err().exit_code(), 70);
        let strided = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)).transpose(0, 1);
        assert!(on_host(&strided, double).unwrap_err().to_string().contains("[3, 2]"));
    }
}
