//! `pytorch_model.bin`: a zip archive with a pickle that describes tensors, and one record for each
//! storage.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

use fs_err::File;
use tch::{Kind, Tensor};
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, Storage, TensorDescription};
use crate::{DataError, Result};

/// Pickles of state dictionaries take about 150 bytes a tensor; beyond this one describes something
/// else.
const LONGEST_PICKLE_BYTES: u64 = 8 << 20;

/// Reads all tensors of an archive, on the CPU. Tensors that share a storage in the file share it
/// in memory.
///
/// # Errors
/// [`crate::Error::Data`] for a damaged archive, a pickle with anything but tensors, or sizes that
/// do not fit the file.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let archive = ZipArchive::new(BufReader::new(file)).map_err(|cause| {
        DataError::new(path, format!("is not a torch archive: {cause}")).hint(
            "files from before PyTorch 1.6 or cut short cannot be read; save the model again \
                as model.safetensors",
        )
    })?;
    let mut records =
        Records { path, length, archive, prefix: String::new(), storages: BTreeMap::new() };
    records.find_prefix()?;
    records.tensors()
}

struct Records<'a> {
    path: &'a Path,
    /// Length of the whole file in bytes, the bound on every record.
    length: u64,
    archive: ZipArchive<BufReader<File>>,
    prefix: String,
    storages: BTreeMap<String, (Storage, Tensor)>,
}

impl Records<'_> {
    /// All records lie in one folder of any name.
    fn find_prefix(&mut self) -> Result<()> {
        let prefixes: Vec<String> = self
            .archive
            .file_names()
            .filter_map(|name| name.strip_suffix("data.pkl"))
            .map(str::to_owned)
            .collect();
        let [prefix] = &prefixes[..] else {
            return Err(self
                .error(format!("holds {} records called data.pkl instead of one", prefixes.len()))
                .into());
        };
        self.prefix.clone_from(prefix);
        let order = format!("{prefix}byteorder");
        if self.archive.file_names().any(|name| name == order)
            && self.record("byteorder", self.length)? != b"little"
        {
            return Err(self.error("was written on a big-endian machine".into()).into());
        }
        Ok(())
    }

    fn tensors(&mut self) -> Result<BTreeMap<String, Tensor>> {
        let pickle = self.record("data.pkl", LONGEST_PICKLE_BYTES)?;
        let described = pickle::read(&pickle)
            .map_err(|problem| self.error(format!("is not read: {problem}")))?;
        described
            .into_iter()
            .map(|(name, description)| Ok((name.clone(), self.tensor(&name, &description)?)))
            .collect()
    }

    fn tensor(&mut self, name: &str, description: &TensorDescription) -> Result<Tensor> {
        let storage = &description.storage;
        if !self.storages.contains_key(&storage.key) {
            let values = self.storage(name, storage)?;
            self.storages.insert(storage.key.clone(), (storage.clone(), values));
        }
        let (known, values) = &self.storages[&storage.key];
        if known != storage {
            return Err(self
                .error(format!(
                    "tensor `{name}` describes its storage differently from another tensor"
                ))
                .into());
        }
        let signed = |sizes: &[u64]| sizes.iter().map(|&size| size as i64).collect::<Vec<_>>();
        Ok(values.f_as_strided(
            signed(&description.size),
            signed(&description.stride),
            description.offset as i64,
        )?)
    }

    /// The numbers of a storage, floats in 32 bits; `[numel]`.
    fn storage(&mut self, name: &str, storage: &Storage) -> Result<Tensor> {
        let bytes = self.record(&format!("data/{}", storage.key), self.length)?;
        let expected = storage.numel.checked_mul(storage.kind.elt_size_in_bytes() as u64);
        if expected != Some(bytes.len() as u64) {
            let (numel, kind, length) = (storage.numel, storage.kind, bytes.len());
            return Err(self
                .error(format!(
                    "tensor `{name}` has {numel} numbers of kind {kind:?}, \
                but its record {length} bytes"
                ))
                .into());
        }
        let values = Tensor::f_from_data_size(&bytes, &[storage.numel as i64], storage.kind)?;
        let floats = matches!(storage.kind, Kind::Half | Kind::BFloat16 | Kind::Double);
        Ok(if floats { values.f_to_kind(Kind::Float)? } else { values })
    }

    /// The bytes of a record. torch never compresses, so no record can be longer than the file,
    /// whatever the archive claims.
    fn record(&mut self, name: &str, longest: u64) -> Result<Vec<u8>> {
        let path = self.path;
        let record = self.archive.by_name(&format!("{}{name}", self.prefix));
        let record =
            record.map_err(|cause| DataError::new(path, format!("record `{name}`: {cause}")))?;
        let size = record.size();
        if record.compression() != CompressionMethod::Stored || size > longest.min(self.length) {
            return Err(DataError::new(
                path,
                format!("record `{name}` of {size} bytes is compressed or too long"),
            )
            .into());
        }
        let mut bytes = Vec::with_capacity(size as usize);
        let read = record.take(size).read_to_end(&mut bytes);
        read.map_err(|cause| DataError::new(path, format!("record `{name}`: {cause}")))?;
        Ok(bytes)
    }

    fn error(&self, problem: String) -> DataError {
        DataError::new(self.path, problem)
    }
}
