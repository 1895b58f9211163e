//! Files in a folder, for example on a network file system.

use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::store::Store;
use crate::base::{entries, write_whole};
use crate::{Error, Result};

/// Starts the name of a file that is being written.
const UPLOADING: &str = ".uploading-";

/// Files below a folder.
#[derive(Debug)]
pub(super) struct FolderStore(PathBuf);

impl FolderStore {
    /// The store in a folder, which need not exist. What killed uploads have left there is removed.
    pub fn open(path: &str) -> Self {
        let folder = Self(path.into());
        folder.sweep();
        folder
    }

    /// The place of a key, with the folder for it.
    fn place(&self, key: &str) -> Result<PathBuf> {
        let path = self.0.join(key);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        Ok(path)
    }

    /// Removes what killed uploads have left; a mirror belongs to one run at a time.
    fn sweep(&self) {
        let inside = |folder: &Path| entries(folder).into_iter().flatten();
        let stages = inside(&self.0);
        let steps = stages.flat_map(|(_, stage)| inside(&stage));
        for (name, path) in steps.flat_map(|(_, step)| inside(&step)) {
            if name.starts_with(UPLOADING) {
                let _ = fs_err::remove_file(path);
            }
        }
    }

    fn names(&self, key: &str, folders: bool) -> Result<Vec<String>> {
        let path = self.0.join(key);
        if !path.exists() {
            return Ok(Vec::new());
        }
        // A name with a dot is a file that is being written.
        let is_wanted =
            |name: &str, path: &Path| path.is_dir() == folders && !name.starts_with('.');
        let found = entries(&path)?.into_iter().filter(|(name, path)| is_wanted(name, path));
        Ok(found.map(|(name, _)| name).collect())
    }
}

impl Store for FolderStore {
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

    fn read_range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let mut file = fs_err::File::open(self.0.join(key))?;
        file.seek(SeekFrom::Start(range.start))?;
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX)];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
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
