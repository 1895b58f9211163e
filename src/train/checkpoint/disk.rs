//! The operations on files that a checkpoint is made of, as a trait, so that a test can end the
//! process at any one of them.
//!
//! Not for reading, and not for single files: `base::write_whole` writes those.

use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::Result;

/// What saving and pruning do to the disk, step by step.
pub trait Disk {
    /// Creates a folder and those above it.
    fn create_folder(&self, path: &Path) -> Result<()>;

    /// Lets `write` put files into `folder`.
    fn write(&self, folder: &Path, write: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()>;

    /// Returns once a file or a folder is on the disk.
    fn sync(&self, path: &Path) -> Result<()>;

    /// Renames a folder to a name that is free.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Exchanges two folders at once. Returns false if the file system cannot; then nothing has
    /// happened.
    fn exchange(&self, one: &Path, other: &Path) -> Result<bool>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> Result<()>;

    /// Removes a folder and its content, if it is there.
    fn remove_folder(&self, path: &Path) -> Result<()>;
}

/// The local disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn create_folder(&self, path: &Path) -> Result<()> {
        Ok(fs_err::create_dir_all(path)?)
    }

    fn write(&self, folder: &Path, write: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
        write(folder)
    }

    fn sync(&self, path: &Path) -> Result<()> {
        Ok(fs_err::File::open(path)?.sync_all()?)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        Ok(fs_err::rename(from, to)?)
    }

    fn exchange(&self, one: &Path, other: &Path) -> Result<bool> {
        match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(false),
            Err(error) => {
                let cause = std::io::Error::from(error);
                Err(std::io::Error::new(
                    cause.kind(),
                    format!(
                        "failed to exchange `{}` and `{}`: {cause}",
                        one.display(),
                        other.display()
                    ),
                )
                .into())
            }
        }
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        Ok(fs_err::remove_file(path)?)
    }

    fn remove_folder(&self, path: &Path) -> Result<()> {
        match fs_err::remove_dir_all(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}
