//! The seal of a checkpoint: hashes of all files, written last.
//!
//! A folder without a seal is not a checkpoint. Files that are not in the seal are passed over, and
//! so are changes of the card, which people edit. Not for shards, which have a manifest of their
//! own.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::Disk;
use crate::base::{entries, fingerprint, run_files, write_whole};
use crate::{DataError, Error, Result};

/// Version of the folder's layout; a reader rejects a newer one. 2: GLRE's `corpus` and
/// `classifier_width`, LSTM-SP.
const FORMAT_VERSION: u32 = 2;

/// The file.
pub(in crate::train) const SEAL: &str = run_files::CHECKPOINT_SEAL;

/// The card of an export.
pub(in crate::train) const CARD: &str = run_files::CARD;

/// The hashes of all files.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seal {
    format_version: u32,
    program: String,
    pub files: BTreeMap<String, FileSeal>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FileSeal {
    bytes: u64,
    pub blake3: String,
}

impl Seal {
    /// Reads the seal of a folder and checks every file against it.
    pub fn check(folder: &Path) -> Result<Self> {
        let path = folder.join(SEAL);
        let text = fs_err::read(&path).map_err(|error| {
            DataError::new(folder, format!("is not a complete checkpoint: {error}"))
        })?;
        let seal: Self = serde_json::from_slice(&text)
            .map_err(|error| DataError::new(&path, error.to_string()))?;
        if seal.format_version > FORMAT_VERSION {
            let problem = format!(
                "has format version {}, this program reads up to {FORMAT_VERSION}",
                seal.format_version
            );
            return Err(DataError::new(&path, problem)
                .hint(format!("use docre-pretrain {} or newer", seal.program))
                .into());
        }
        for (name, expected) in &seal.files {
            if !is_inside(name) {
                let problem = format!("names a file outside the checkpoint: {name}");
                return Err(DataError::new(&path, problem).into());
            }
            if name == CARD {
                continue;
            }
            let found = FileSeal::of(&folder.join(name)).map_err(|error| {
                DataError::new(folder, format!("{name} cannot be read: {error}"))
            })?;
            if found != *expected {
                let problem = format!("differs from the hash in {SEAL}");
                return Err(DataError::new(folder.join(name), problem)
                    .hint("the file was changed or cut off; name another checkpoint")
                    .into());
            }
        }
        Ok(seal)
    }
}

/// Whether a name is that of a file in the folder or in a folder inside it.
fn is_inside(name: &str) -> bool {
    let parts: Vec<Component> = Path::new(name).components().collect();
    let plain = |part: &Component| matches!(part, Component::Normal(_));
    !name.starts_with('.') && (1..=2).contains(&parts.len()) && parts.iter().all(plain)
}

/// Names and paths of the files in a folder and in the folders inside it.
fn files_in(disk: &dyn Disk, folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for (name, path) in entries(folder)? {
        if path.is_dir() {
            disk.sync(&path)?;
            let inner = entries(&path)?.into_iter();
            files.extend(inner.map(|(file, path)| (format!("{name}/{file}"), path)));
        } else {
            files.push((name, path));
        }
    }
    Ok(files)
}

/// Flushes all files of a folder and seals it.
pub(super) fn seal(disk: &dyn Disk, folder: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    for (name, path) in files_in(disk, folder)? {
        disk.sync(&path)?;
        files.insert(name, FileSeal::of(&path)?);
    }
    let seal =
        Seal { format_version: FORMAT_VERSION, program: env!("CARGO_PKG_VERSION").into(), files };
    let bytes = serde_json::to_vec_pretty(&seal).map_err(|error| Error::Bug(error.to_string()))?;
    disk.write(folder, &mut |folder| write_whole(&folder.join(SEAL), &bytes))?;
    disk.sync(folder)
}

impl FileSeal {
    fn of(path: &Path) -> Result<Self> {
        fingerprint(path).map(|(bytes, blake3)| Self { bytes, blake3 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_lists_files_of_the_folder_and_of_folders_inside_it() {
        for name in ["docre.json", "self-test/expected.json"] {
            assert!(is_inside(name), "{name}");
        }
        for name in ["", ".", "..", "../a", "a/../b", "/a", ".hidden", "a/b/c"] {
            assert!(!is_inside(name), "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b/c"] {
            write_whole(&folder.path().join(name), name.as_bytes()).unwrap();
        }
        seal(&super::super::disk::LocalDisk, folder.path()).unwrap();
        let sealed = Seal::check(folder.path()).unwrap();
        assert_eq!(sealed.files.keys().collect::<Vec<_>>(), ["a", "b/c"]);
        fs_err::write(folder.path().join("b/c"), "other").unwrap();
        let error = Seal::check(folder.path()).unwrap_err();
        assert!(error.to_string().contains("b/c"), "{error}");
    }
}
