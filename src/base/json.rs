//! Whole files of JSON.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{DataError, Error, Result};

/// Reads a file.
///
/// # Errors
/// I/O errors; a data error that names a file which holds something else.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let read = serde_json::from_slice(&fs_err::read(path)?);
    Ok(read.map_err(|error| DataError::new(path, error.to_string()))?)
}

/// A value as a line of JSON without its end.
///
/// # Errors
/// A bug error for what JSON cannot hold.
pub fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Bug(error.to_string()))
}

/// A value as JSON on lines of its own.
///
/// # Errors
/// As [`to_json`].
pub fn to_pretty_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|error| Error::Bug(error.to_string()))
}
