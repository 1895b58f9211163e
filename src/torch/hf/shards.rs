//! Weights split over several files, with an index that says which tensor lies where.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

use crate::hub::WeightIndex;
use crate::{DataError, Result};

/// Reads all tensors that an index names with `read`, each file once.
///
/// # Errors
/// [`crate::Error::Data`] for a bad index, a file that is missing, and a tensor that is not in its
/// file; as `read`.
pub(super) fn read(
    path: &Path,
    read: impl Fn(&Path) -> Result<BTreeMap<String, Tensor>>,
) -> Result<BTreeMap<String, Tensor>> {
    let index = WeightIndex::read(path)?;
    let error = |problem: String| DataError::new(path, problem).hint(WeightIndex::HINT);
    let files = index.files();
    let mut missing = files.iter().filter(|file| !path.with_file_name(file).is_file());
    if let Some(first) = missing.next() {
        let (count, all) = (missing.count() + 1, files.len());
        return Err(
            error(format!("{count} of its {all} files are missing, `{first}` first")).into()
        );
    }
    let mut tensors = BTreeMap::new();
    for file in &files {
        let of_file = read(&path.with_file_name(file))?;
        // A tensor that lies in several files is read from its own.
        let own = |name: &str| index.weight_map.get(name).is_none_or(|place| place == file);
        tensors.extend(of_file.into_iter().filter(|(name, _)| own(name)));
    }
    match index.weight_map.iter().find(|(name, _)| !tensors.contains_key(*name)) {
        Some((name, file)) => {
            Err(error(format!("tensor `{name}` should be in `{file}`, but is not there")).into())
        }
        None => Ok(tensors),
    }
}
