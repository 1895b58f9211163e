//! What is asked of a place of files.
//!
//! Keys are names with `/` between them, relative to the place's own root. Not for what the names
//! mean.

use std::fmt::Debug;
use std::ops::Range;
use std::path::Path;

use crate::{Error, Result};

/// A place of files. A file is there whole or not at all.
pub trait Store: Debug + Send + Sync {
    /// Copies a local file to `key`; what is there is replaced.
    ///
    /// # Errors
    /// I/O errors, and those of the service.
    fn upload(&self, from: &Path, key: &str) -> Result<()>;

    /// Copies what is at `key` to a local file.
    ///
    /// # Errors
    /// As [`Self::upload`]; no such file.
    fn download(&self, key: &str, to: &Path) -> Result<()>;

    /// Reads a small file; `None` if there is none.
    ///
    /// # Errors
    /// As [`Self::upload`].
    fn read(&self, key: &str) -> Result<Option<Vec<u8>>>;

    /// Some bytes of a file.
    ///
    /// # Errors
    /// As [`Self::upload`]; a file that does not hold all of them.
    fn read_range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>>;

    /// Writes a small file.
    ///
    /// # Errors
    /// As [`Self::upload`].
    fn write(&self, key: &str, bytes: &[u8]) -> Result<()>;

    /// Names of the folders right below `key` (`""`: the root).
    ///
    /// # Errors
    /// As [`Self::upload`].
    fn folders(&self, key: &str) -> Result<Vec<String>>;

    /// Names of the files right below `key`.
    ///
    /// # Errors
    /// As [`Self::upload`].
    fn files(&self, key: &str) -> Result<Vec<String>>;

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// As [`Self::upload`].
    fn remove(&self, key: &str) -> Result<()>;
}

/// Which places there are, for hints.
const PLACES: &str = "file:///folder, such as one on a network file system; with the \
    feature `cloud` s3://bucket/prefix, gs://bucket/prefix, az://container/prefix";

/// A recipe error for a URL that names no place; `cause` follows the message.
pub(super) fn no_place(url: &str, cause: &str) -> Error {
    Error::recipe(format!("{url} is not a place of files{cause}")).with_hint(PLACES)
}
