//! From the storages of a PyTorch file to the tensors that view them.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Kind, Tensor};

use super::pickle::{Storage, TensorDescription};
use crate::{DataError, Result};

/// Makes the tensors that a pickle describes, on the CPU, floats in 32 bits. `bytes` gives the
/// bytes of a storage and is asked once for each; tensors that share a storage in the file share it
/// in memory.
///
/// # Errors
/// [`crate::Error::Data`] for storages whose bytes do not fit what the pickle says.
pub(super) fn views(
    path: &Path,
    described: BTreeMap<String, TensorDescription>,
    bytes: &mut dyn FnMut(&Storage) -> Result<Vec<u8>>,
) -> Result<BTreeMap<String, Tensor>> {
    let mut storages: BTreeMap<String, (Storage, Tensor)> = BTreeMap::new();
    let mut tensors = BTreeMap::new();
    for (name, description) in described {
        let storage = &description.storage;
        if !storages.contains_key(&storage.key) {
            let values = numbers(path, &name, storage, &bytes(storage)?)?;
            storages.insert(storage.key.clone(), (storage.clone(), values));
        }
        let (known, values) = &storages[&storage.key];
        if known != storage {
            let problem =
                format!("tensor `{name}` describes its storage differently from another tensor");
            return Err(DataError::new(path, problem).into());
        }
        let signed = |sizes: &[u64]| sizes.iter().map(|&size| size as i64).collect::<Vec<_>>();
        let tensor = values.f_as_strided(
            signed(&description.size),
            signed(&description.stride),
            description.offset as i64,
        )?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// The numbers of a storage, floats in 32 bits; `[numel]`.
fn numbers(path: &Path, name: &str, storage: &Storage, bytes: &[u8]) -> Result<Tensor> {
    let expected = storage.numel.checked_mul(storage.kind.elt_size_in_bytes() as u64);
    if expected != Some(bytes.len() as u64) {
        let (numel, kind, length) = (storage.numel, storage.kind, bytes.len());
        let problem = format!(
            "tensor `{name}` has {numel} numbers of kind {kind:?}, but its record {length} bytes"
        );
        return Err(DataError::new(path, problem).into());
    }
    let values = Tensor::f_from_data_size(bytes, &[storage.numel as i64], storage.kind)?;
    let floats = matches!(storage.kind, Kind::Half | Kind::BFloat16 | Kind::Double);
    Ok(if floats { values.f_to_kind(Kind::Float)? } else { values })
}
