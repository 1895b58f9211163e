//! `pytorch_model.bin`: a zip archive with a pickle that describes tensors, and one record for each
//! storage.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

use fs_err::File;
use tch::Tensor;
use zip::{CompressionMethod, ZipArchive};

use super::pickle;
use super::storages::views;
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
        DataError::new(path, format!("is not a torch archive: {cause}"))
            .hint("it may be cut short: compare its size with the original's, and copy it again")
    })?;
    let mut records = Records { path, length, archive, prefix: String::new() };
    records.find_prefix()?;
    let pickle = records.record("data.pkl", LONGEST_PICKLE_BYTES)?;
    let described = pickle::run(&pickle)
        .and_then(|pickled| pickled.tensors())
        .map_err(|problem| records.error(format!("is not read: {problem}")))?;
    views(path, described, &mut |storage| records.record(&format!("data/{}", storage.key), length))
}

struct Records<'a> {
    path: &'a Path,
    /// Length of the whole file in bytes, the bound on every record.
    length: u64,
    archive: ZipArchive<BufReader<File>>,
    prefix: String,
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
