//! Files of a shard folder: written under a hash, published as a whole, checked before they are
//! read.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::FileEntry;
use crate::base::{fingerprint, folder_of};
use crate::{DataError, Error, Result};

/// A file that hashes and counts what is written to it.
#[derive(Debug)]
pub(super) struct HashingFile {
    file: fs_err::File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl HashingFile {
    /// Creates the file.
    pub(super) fn create(path: &Path) -> Result<Self> {
        Ok(Self { file: fs_err::File::create(path)?, hasher: blake3::Hasher::new(), bytes: 0 })
    }

    /// Forces the file to disk and gives (bytes, hash in hexadecimal digits).
    pub(super) fn seal(&self) -> Result<(u64, String)> {
        self.file.sync_all()?;
        Ok((self.bytes, self.hasher.finalize().to_hex().to_string()))
    }
}

impl Write for HashingFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.file.write(data)?;
        self.hasher.update(&data[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Compares a file with its entry in the manifest: length always, hash if `hash` is set.
///
/// Errors: a data error for a file that is missing, cut or changed.
pub(super) fn check(folder: &Path, entry: &FileEntry, hash: bool) -> Result<()> {
    const HINT: &str =
        "the file was damaged or replaced after it was written; prepare the shards again";
    let path = folder.join(&entry.file);
    let length = match fs_err::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(DataError::new(
                &path,
                "the file is named by the manifest and does not exist",
            )
            .hint(HINT)
            .into());
        }
        Err(error) => return Err(error.into()),
    };
    if length != entry.bytes {
        return Err(DataError::new(
            &path,
            format!("{length} bytes, but the manifest says {}", entry.bytes),
        )
        .hint(HINT)
        .into());
    }
    if hash && fingerprint(&path)?.1 != entry.blake3 {
        return Err(DataError::new(&path, "its hash is not the one in the manifest")
            .hint(HINT)
            .into());
    }
    Ok(())
}

/// A folder under construction beside its final place; removed again unless published.
#[derive(Debug)]
pub(super) struct Staging {
    folder: TempDir,
    output: PathBuf,
}

impl Staging {
    /// Makes the temporary folder. `output` must not exist or be empty.
    pub(super) fn new(output: &Path) -> Result<Self> {
        if output.exists() && !is_empty_folder(output)? {
            return Err(Error::recipe(format!("the output {} exists already", output.display()))
                .with_hint("remove it or name another folder"));
        }
        let parent = folder_of(output);
        fs_err::create_dir_all(parent)?;
        let name =
            output.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // The folder is renamed to its final place, so it gets the rights that the umask allows
        // instead of tempfile's 0700.
        let rights = Permissions::from_mode(0o777);
        let folder = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".partial")
            .permissions(rights)
            .tempdir_in(parent)?;
        Ok(Self { folder, output: output.to_owned() })
    }

    /// The temporary folder.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Renames the folder to its final place.
    pub(super) fn publish(self) -> Result<()> {
        if self.output.is_dir() {
            fs_err::remove_dir(&self.output)?;
        }
        fs_err::rename(self.folder.path(), &self.output)?;
        // Nothing is left under the temporary name to remove.
        let _ = self.folder.keep();
        Ok(())
    }
}

fn is_empty_folder(path: &Path) -> Result<bool> {
    Ok(path.is_dir() && fs_err::read_dir(path)?.next().is_none())
}

/// A broken Parquet file, for readers.
pub(super) fn read_error(path: &Path, problem: impl std::fmt::Display) -> DataError {
    DataError::new(path, problem.to_string())
        .hint("the file is damaged or was not written by docre-pretrain; prepare the shards again")
}
