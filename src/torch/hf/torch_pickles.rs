//! `pytorch_model.bin` as `torch.save` wrote it before PyTorch 1.6: a magic number, the version of
//! the form, facts about the machine, the state dictionary and the keys of its storages, each a
//! pickle, and then the storages in the order of the keys, each its number of elements (64 bits)
//! and its bytes.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

use super::pickle::{self, Storage};
use super::storages::views;
use crate::{DataError, Result};

/// The first pickle: 0x1950a86a20f9469cfc6c as a number of ten bytes.
const MAGIC: [u8; 15] =
    [0x80, 0x02, 0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, b'.'];
/// The second pickle: version 1001, the only one there was.
const VERSION: [u8; 6] = [0x80, 0x02, b'M', 0xE9, 0x03, b'.'];

/// Whether a file that begins with `start` has this form.
pub(super) fn is_such(start: &[u8]) -> bool {
    start.starts_with(&MAGIC)
}

/// Reads all tensors of a file, on the CPU.
///
/// # Errors
/// [`crate::Error::Data`] for a file that is cut short, a pickle with anything but tensors, or
/// sizes that do not fit the file.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bytes = fs_err::read(path)?;
    let broken = |problem: String| DataError::new(path, format!("is not read: {problem}"));
    let mut rest = bytes
        .strip_prefix(&MAGIC)
        .and_then(|rest| rest.strip_prefix(&VERSION))
        .ok_or_else(|| broken("its version is not 1001".into()))?;
    let machine = pickle::run(rest).map_err(broken)?;
    if machine.number("little_endian") != Some(1) {
        return Err(broken("it was written on a big-endian machine".into()).into());
    }
    rest = &rest[machine.length()..];
    let state = pickle::run(rest).map_err(broken)?;
    let described = state.tensors().map_err(broken)?;
    rest = &rest[state.length()..];
    let keys = pickle::run(rest).map_err(broken)?;
    let names = keys.texts().map_err(broken)?;
    rest = &rest[keys.length()..];
    let widths: BTreeMap<&str, usize> = described
        .values()
        .map(|tensor| (tensor.storage.key.as_str(), tensor.storage.kind.elt_size_in_bytes()))
        .collect();
    let mut storages = BTreeMap::new();
    for name in &names {
        // A storage that no tensor views has no known width, and what follows it no known place.
        let width = widths.get(name.as_str());
        let width = width.ok_or_else(|| broken(format!("storage `{name}` has no tensor")))?;
        let (count, values) = rest
            .split_first_chunk::<8>()
            .ok_or_else(|| broken(format!("it ends before storage `{name}`")))?;
        let length = usize::try_from(i64::from_le_bytes(*count))
            .ok()
            .and_then(|count| count.checked_mul(*width))
            .filter(|length| *length <= values.len())
            .ok_or_else(|| broken(format!("it ends inside storage `{name}`")))?;
        let (own, following) = values.split_at(length);
        storages.insert(name.as_str(), own);
        rest = following;
    }
    views(path, described.clone(), &mut |storage: &Storage| {
        let found = storages.get(storage.key.as_str());
        found
            .map(|bytes| bytes.to_vec())
            .ok_or_else(|| broken(format!("storage `{}` is not in the file", storage.key)).into())
    })
}
