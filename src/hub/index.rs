//! The index of weights that are split over several files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::base::text_file;
use crate::{DataError, Result};

/// What an index says; other keys do not tell where a tensor lies.
#[derive(Debug, Deserialize)]
pub struct WeightIndex {
    /// The file of each tensor, beside the index.
    pub weight_map: BTreeMap<String, String>,
}

impl WeightIndex {
    /// What to do about an index that does not fit.
    pub const HINT: &str =
        "the index and all of its files belong together: copy or download them again";

    /// Reads an index.
    ///
    /// # Errors
    /// [`crate::Error::Data`] for an index that is no such JSON, names no tensors, or names
    /// something else than files beside it.
    pub fn read(path: &Path) -> Result<Self> {
        let index: Self =
            serde_json::from_slice(&text_file::read_whole(path)?).map_err(|cause| {
                DataError::new(path, format!("is not an index of weights: {cause}"))
                    .hint(Self::HINT)
            })?;
        let refuse =
            |problem: String| DataError::new(path, problem).field("weight_map").hint(Self::HINT);
        let outside = |file: &&String| Path::new(file).file_name() != Some(file.as_ref());
        if let Some(file) = index.weight_map.values().find(outside) {
            return Err(refuse(format!("names `{file}`, which is not a file beside it")).into());
        }
        if index.weight_map.is_empty() {
            return Err(refuse("names no tensors".to_owned()).into());
        }
        Ok(index)
    }

    /// The files that hold the tensors, in order.
    pub fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}
