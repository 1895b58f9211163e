//! Safetensors files to tensors and back.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Device, Kind, Tensor};

use crate::base::foreign::explain;
use crate::{DataError, Error, Result};

/// Reads all tensors of a file, in the kinds in which it stores them, on the CPU.
///
/// # Errors
/// [`Error::Data`] where the header does not fit the file or names a kind that tch does not know;
/// [`Error::Io`] where it cannot be read.
pub fn read_safetensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bytes = fs_err::read(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|cause| {
        let broken = DataError::new(path, format!("is not a safetensors file: {cause}"))
            .hint("it may be cut short: compare its size with the original's, and copy it again");
        explain(path, broken)
    })?;
    file.tensors()
        .into_iter()
        .map(|(name, view)| Ok((name.clone(), to_tensor(path, &name, &view)?)))
        .collect()
}

fn to_tensor(path: &Path, name: &str, view: &TensorView) -> Result<Tensor> {
    let kind = match view.dtype() {
        Dtype::BOOL => Kind::Bool,
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        other => {
            return Err(DataError::new(
                path,
                format!("tensor `{name}` has the unsupported type {other}"),
            )
            .into());
        }
    };
    let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
    Ok(Tensor::f_from_data_size(view.data(), &shape, kind)?)
}

/// Writes tensors of 32- or 64-bit floats, 64-bit integers or bytes, with the metadata (`format:
/// pt`) that transformers asks for.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn write_safetensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<()> {
    Ok(fs_err::write(path, safetensors_bytes(tensors)?)?)
}

/// The content of such a file.
///
/// # Errors
/// [`Error::Bug`] for tensors of other kinds.
pub fn safetensors_bytes<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<Vec<u8>> {
    let copies = tensors
        .into_iter()
        .map(|(name, tensor)| Ok((name, HostCopy::new(name, tensor)?)))
        .collect::<Result<Vec<_>>>()?;
    let wrong = |cause| Error::Bug(format!("safetensors: {cause}"));
    let views = copies
        .iter()
        .map(|(name, copy)| {
            let view = TensorView::new(copy.dtype, copy.shape.clone(), &copy.bytes);
            Ok((name, view.map_err(wrong)?))
        })
        .collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(wrong)
}

/// A tensor's bytes in host memory.
struct HostCopy {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl HostCopy {
    fn new(name: &str, tensor: &Tensor) -> Result<Self> {
        let host = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
        let (dtype, bytes) = match host.kind() {
            Kind::Float => (Dtype::F32, copy::<f32>(&host)?),
            Kind::Double => (Dtype::F64, copy::<f64>(&host)?),
            Kind::Int64 => (Dtype::I64, copy::<i64>(&host)?),
            Kind::Uint8 => (Dtype::U8, copy::<u8>(&host)?),
            other => {
                return Err(Error::Bug(format!(
                    "tensor `{name}` of kind {other:?} cannot be saved"
                )));
            }
        };
        Ok(Self { dtype, shape: host.size().iter().map(|&size| size as usize).collect(), bytes })
    }
}

/// The numbers of a tensor as little-endian bytes (all machines that libtorch supports are
/// little-endian).
fn copy<T: tch::kind::Element + bytemuck::Pod>(tensor: &Tensor) -> Result<Vec<u8>> {
    let mut numbers = vec![T::zeroed(); tensor.numel()];
    tensor.f_copy_data(&mut numbers, tensor.numel())?;
    Ok(bytemuck::cast_slice(&numbers).to_vec())
}
