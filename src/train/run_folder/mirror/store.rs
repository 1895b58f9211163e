//! Where a mirror lies: a folder, or a bucket of an object store (`cloud`).
//!
//! Keys are names with `/` between, relative to the mirror's own root. Not for what the names mean
//! (`mirror`).

use std::fmt::Debug;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::base::write_whole;
use crate::{Error, Result};

/// What a mirror asks of the place where it lies. A file is there whole or not at all.
pub(super) trait Store: Debug + Send + Sync {
    /// Copies a local file to `key`, over what is there.
    fn upload(&self, from: &Path, key: &str) -> Result<()>;

    /// Copies what is at `key` to a local file.
    fn download(&self, key: &str, to: &Path) -> Result<()>;

    /// A small file; `None` where there is none.
    fn read(&self, key: &str) -> Result<Option<Vec<u8>>>;

    /// Writes a small file.
    fn write(&self, key: &str, bytes: &[u8]) -> Result<()>;

    /// Names of the folders right below `key` (`""`: the root).
    fn folders(&self, key: &str) -> Result<Vec<String>>;

    /// Names of the files right below `key`.
    fn files(&self, key: &str) -> Result<Vec<String>>;

    /// Removes a file; one that is not there is no error.
    fn remove(&self, key: &str) -> Result<()>;
}

/// Where a mirror may lie, for hints.
pub(super) const PLACES: &str = "file:///folder, such as one on a network file system; with the \
    feature `cloud` s3://bucket/prefix, gs://bucket/prefix, az://container/prefix";

/// How URLs of object stores begin.
const OBJECT_STORES: [&str; 9] =
    ["s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "https"];

/// The store that a URL names.
///
/// # Errors
/// A recipe error for what is no URL of a store that this build knows; as [`open_bucket`].
pub(super) fn open(url: &str) -> Result<Box<dyn Store>> {
    if let Some(path) = url.strip_prefix("file://").filter(|path| path.starts_with('/')) {
        let folder = Folder(path.into());
        folder.sweep();
        return Ok(Box::new(folder));
    }
    if url.split_once("://").is_some_and(|(scheme, _)| OBJECT_STORES.contains(&scheme)) {
        return open_bucket(url);
    }
    Err(Error::recipe(format!("checkpoint_mirror = \"{url}\" is no place for checkpoints"))
        .with_hint(PLACES))
}

#[cfg(feature = "cloud")]
fn open_bucket(url: &str) -> Result<Box<dyn Store>> {
    Ok(Box::new(super::cloud::open(url)?))
}

#[cfg(not(feature = "cloud"))]
fn open_bucket(url: &str) -> Result<Box<dyn Store>> {
    let error = Error::recipe(format!(
        "checkpoint_mirror = \"{url}\" is in an object store, which this build cannot reach"
    ));
    Err(error.with_hint("build it with `cargo build --release --locked --features cloud`"))
}

/// How files in the making begin.
const UPLOADING: &str = ".uploading-";

/// A folder, mostly on a network file system.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    /// The place of a key, with the folder for it.
    fn place(&self, key: &str) -> Result<PathBuf> {
        let path = self.0.join(key);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        Ok(path)
    }

    /// Removes what uploads that were killed have left; a mirror belongs to one run at a time.
    fn sweep(&self) {
        let inside = |folder: PathBuf| {
            fs_err::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
        };
        for path in inside(self.0.clone()).flat_map(inside).flat_map(inside) {
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UPLOADING)) {
                let _ = fs_err::remove_file(path);
            }
        }
    }

    fn names(&self, key: &str, folders: bool) -> Result<Vec<String>> {
        let path = self.0.join(key);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in fs_err::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // A name with a dot is a file in the making.
            if entry.path().is_dir() == folders && !name.starts_with('.') {
                names.push(name);
            }
        }
        Ok(names)
    }
}

impl Store for Folder {
    fn upload(&self, from: &Path, key: &str) -> Result<()> {
        let path = self.place(key)?;
        let work = tempfile::Builder::new()
            .prefix(UPLOADING)
            .tempfile_in(path.parent().unwrap_or(Path::new("/")))?;
        fs_err::copy(from, work.path())?;
        work.as_file().sync_all()?;
        work.persist(path).map_err(|error| Error::Io(error.error))?;
        Ok(())
    }

    fn download(&self, key: &str, to: &Path) -> Result<()> {
        fs_err::copy(self.0.join(key), to)?;
        Ok(())
    }

    fn read(&self, key: &str) -> Result<Option<Vec<u8>>> {
        absent_is_none(fs_err::read(self.0.join(key)))
    }

    fn write(&self, key: &str, bytes: &[u8]) -> Result<()> {
        write_whole(&self.place(key)?, bytes)
    }

    fn folders(&self, key: &str) -> Result<Vec<String>> {
        self.names(key, true)
    }

    fn files(&self, key: &str) -> Result<Vec<String>> {
        self.names(key, false)
    }

    fn remove(&self, key: &str) -> Result<()> {
        let path = self.0.join(key);
        absent_is_none(fs_err::remove_file(&path))?;
        // The last file of a checkpoint takes its folder along; one that is not empty stays.
        if let Some(parent) = path.parent() {
            let _ = fs_err::remove_dir(parent);
        }
        Ok(())
    }
}

fn absent_is_none<T>(outcome: std::io::Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
