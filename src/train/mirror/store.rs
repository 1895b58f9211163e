//! What a mirror asks of the place that holds it.
//!
//! Keys are names with `/` between them, relative to the mirror's own root. Not for what the names
//! mean (`mirror`).

use std::fmt::Debug;
use std::path::Path;

use crate::{Error, Result};

/// Where a mirror is kept. A file is there whole or not at all.
pub(super) trait Store: Debug + Send + Sync {
    /// Copies a local file to `key`; what is there is replaced.
    fn upload(&self, from: &Path, key: &str) -> Result<()>;

    /// Copies what is at `key` to a local file.
    fn download(&self, key: &str, to: &Path) -> Result<()>;

    /// Reads a small file; `None` if there is none.
    fn read(&self, key: &str) -> Result<Option<Vec<u8>>>;

    /// Writes a small file.
    fn write(&self, key: &str, bytes: &[u8]) -> Result<()>;

    /// Names of the folders right below `key` (`""`: the root).
    fn folders(&self, key: &str) -> Result<Vec<String>>;

    /// Names of the files right below `key`.
    fn files(&self, key: &str) -> Result<Vec<String>>;

    /// Removes a file, if it is there.
    fn remove(&self, key: &str) -> Result<()>;
}

/// Where a mirror may be kept, for hints.
const PLACES: &str = "file:///folder, such as one on a network file system; with the \
    feature `cloud` s3://bucket/prefix, gs://bucket/prefix, az://container/prefix";

/// A recipe error for a URL that is not the place of a store; `cause` follows the message.
pub(super) fn no_place(url: &str, cause: &str) -> Error {
    Error::recipe(format!("checkpoint_mirror = \"{url}\" is not a place for checkpoints{cause}"))
        .with_hint(PLACES)
}
