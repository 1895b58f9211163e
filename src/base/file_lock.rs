//! A lock that one process at a time holds. The kernel frees it when the process ends, however that
//! comes about. Not for: several threads of one process.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::host_name;
use crate::Result;

/// The lock of a file; it lasts as long as the value.
#[derive(Debug)]
pub struct FileLock(std::fs::File);

impl FileLock {
    /// Takes the lock; where another process holds it, says who does.
    ///
    /// # Errors
    /// I/O errors.
    pub fn take(path: &Path) -> Result<Result<Self, String>> {
        let file = fs_err::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .read(true)
            .open(path)?
            .into_parts()
            .0;
        if let Err(error) = file.try_lock() {
            let holder = fs_err::read_to_string(path).unwrap_or_default();
            return Ok(Err(format!("{} ({error})", holder.trim())));
        }
        Ok(Ok(Self(file)))
    }

    /// Whether the file at `path` is still the one that is locked, and not another in its place.
    pub fn is_at(&self, path: &Path) -> bool {
        let place = |found: &std::fs::Metadata| (found.dev(), found.ino());
        let (held, found) = (self.0.metadata(), std::fs::metadata(path));
        matches!((&held, &found), (Ok(held), Ok(found)) if place(held) == place(found))
    }

    /// Writes into the file which process holds the lock.
    ///
    /// # Errors
    /// I/O errors.
    pub fn sign(&mut self) -> Result<()> {
        self.0.set_len(0)?;
        Ok(writeln!(self.0, "process {} on {}", std::process::id(), host_name())?)
    }
}
