//! Files that appear whole or not at all: written under a temporary name in the same folder,
//! renamed when finished.
//!
//! Not for: folders of many files that belong together (a checkpoint seals itself).

use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// Bytes gathered before they go to the disk.
const BUFFER_BYTES: usize = 1 << 20;

/// A file in the making. Dropped before [`AtomicFile::finish`], it leaves nothing behind.
pub struct AtomicFile {
    writer: BufWriter<NamedTempFile>,
    target: PathBuf,
}

impl AtomicFile {
    /// Opens a temporary file beside `target`, whose folder is made if it is missing.
    pub fn create(target: &Path) -> Result<Self> {
        let target = &place_of(target)?;
        let folder = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs_err::create_dir_all(folder)?;
        let file = builder().tempfile_in(folder)?;
        Ok(Self { writer: BufWriter::with_capacity(BUFFER_BYTES, file), target: target.to_owned() })
    }

    /// Flushes to the disk and gives the file its name.
    pub fn finish(self) -> Result<()> {
        let file = self.writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(&self.target).map_err(|error| {
            std::io::Error::new(
                error.error.kind(),
                format!("failed to rename to `{}`: {}", self.target.display(), error.error),
            )
        })?;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

/// Where a file of this name really goes: what a link points to. Only plain files are replaced; a
/// device such as `/dev/stdout` would be gone.
pub(crate) fn place_of(target: &Path) -> Result<PathBuf> {
    let place = fs_err::canonicalize(target).unwrap_or_else(|_| target.to_owned());
    match std::fs::metadata(&place) {
        Ok(found) if !found.is_file() => {
            let kind = if found.is_dir() { "a folder" } else { "no plain file" };
            Err(Error::recipe(format!(
                "{} is {kind}, and cannot be written as a file",
                target.display()
            ))
            .with_hint("name a file"))
        }
        _ => Ok(place),
    }
}

/// Writes a small file in one go.
pub fn write_whole(target: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::metadata(target).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        // A device or a pipe, such as /dev/stdout: there is nothing to replace.
        fs_err::OpenOptions::new().write(true).open(target)?.write_all(bytes)?;
        return Ok(());
    }
    let mut file = AtomicFile::create(target)?;
    file.write_all(bytes)?;
    file.finish()
}

/// Writes a file with `fill`: readers see the old file or the whole new one, never a part.
///
/// # Errors
/// Whatever the disk or `fill` reports, with the name of the file; the old file is then untouched.
pub fn write_atomic(
    target: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let mut file = AtomicFile::create(target)?;
    fill(&mut file).map_err(|error| naming(target, &error))?;
    file.finish()
}

fn naming(path: &Path, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("failed to write file `{}`: {error}", path.display()))
}

/// Temporary files are private by default; a finished file follows the user's umask like any other.
fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".unfinished-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.json");
        let mut file = AtomicFile::create(&target).unwrap();
        file.write_all(b"[1, 2").unwrap();
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_are_followed_and_what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("a.json"), folder.path().join("link.json"));
        fs_err::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_whole(&link, b"new").unwrap();
        assert!(fs_err::read_to_string(&target).unwrap() == "new" && link.is_symlink());
        write_whole(Path::new("/dev/null"), b"nothing").unwrap();
        for (refused, said) in
            [(Path::new("/dev/null"), "no plain file"), (folder.path(), "is a folder")]
        {
            let error = AtomicFile::create(refused).err().unwrap();
            assert!(error.exit_code() == 64 && error.to_string().contains(said), "{error}");
        }
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn failure_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/result.json");
        write_atomic(&path, |out| out.write_all(b"old")).unwrap();
        let failed = write_atomic(&path, |out| {
            out.write_all(b"half")?;
            Err(std::io::Error::other("disk full"))
        });
        let message = failed.unwrap_err().to_string();
        assert!(message.contains("result.json") && message.contains("disk full"), "{message}");
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "old");
        assert_eq!(
            fs_err::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn a_finished_file_replaces_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("deep/er/a.json");
        write_whole(&target, b"old").unwrap();
        write_whole(&target, b"new").unwrap();
        assert_eq!(fs_err::read_to_string(&target).unwrap(), "new");
    }
}
