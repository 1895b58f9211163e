//! Files that appear whole or not at all: written under a temporary name in the same folder and
//! renamed when finished. A device or a pipe, such as `/dev/stdout`, is written directly, because a
//! rename would replace it.
//!
//! Not for: folders of many files that belong together (a checkpoint seals itself).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::{Error, Result};

/// Bytes gathered before they go to the disk.
const BUFFER_BYTES: usize = 1 << 20;

/// A file being written. Dropped before [`AtomicFile::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicFile {
    writer: BufWriter<File>,
    /// The temporary file; `None` for a device or pipe.
    temporary: Option<TempPath>,
    target: PathBuf,
}

impl AtomicFile {
    /// Opens a temporary file beside `target`, whose folder is made if it is missing, or the device
    /// or pipe that `target` is.
    ///
    /// # Errors
    /// I/O errors; a recipe error if `target` is a folder.
    pub fn create(target: &Path) -> Result<Self> {
        let writer = |file| BufWriter::with_capacity(BUFFER_BYTES, file);
        if std::fs::metadata(target).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            let file = fs_err::OpenOptions::new().write(true).open(target)?.into_parts().0;
            return Ok(Self { writer: writer(file), temporary: None, target: target.to_owned() });
        }
        let target = plain_target(target)?;
        let folder = folder_of(&target);
        fs_err::create_dir_all(folder)?;
        let (file, temporary) = builder().tempfile_in(folder)?.into_parts();
        Ok(Self { writer: writer(file), temporary: Some(temporary), target })
    }

    /// Flushes to the disk and gives the file its name.
    ///
    /// # Errors
    /// I/O errors; the old file is then untouched.
    pub fn finish(self) -> Result<()> {
        let Self { writer, temporary, target } = self;
        let named = |error| named(&target, &error);
        let file = writer.into_inner().map_err(|error| named(error.into_error()))?;
        let Some(temporary) = temporary else { return Ok(()) };
        file.sync_all().map_err(named)?;
        temporary.persist(&target).map_err(|error| named(error.error))?;
        Ok(())
    }
}

/// An error that says which file was being written.
fn named(target: &Path, error: &std::io::Error) -> std::io::Error {
    let problem = format!("failed to write file `{}`: {error}", target.display());
    std::io::Error::new(error.kind(), problem)
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.writer.write(bytes).map_err(|error| named(&self.target, &error))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush().map_err(|error| named(&self.target, &error))
    }
}

/// The folder that a path lies in; that of a bare name is `.`.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Names and paths of what lies in a folder, in no order.
///
/// # Errors
/// I/O errors.
pub fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    fs_err::read_dir(folder)?
        .map(|entry| {
            let entry = entry?;
            Ok((entry.file_name().to_string_lossy().into_owned(), entry.path()))
        })
        .collect()
}

/// The file that a rename to `target` may replace: `target` itself or what it links to.
///
/// # Errors
/// A recipe error if that is a folder, a device or a pipe.
pub(crate) fn plain_target(target: &Path) -> Result<PathBuf> {
    let place = fs_err::canonicalize(target).unwrap_or_else(|_| target.to_owned());
    match std::fs::metadata(&place) {
        Ok(found) if !found.is_file() => {
            let kind = if found.is_dir() { "a folder" } else { "a device or pipe" };
            Err(Error::recipe(format!("{} is {kind}, not a file", target.display()))
                .with_hint("give the name of a file"))
        }
        _ => Ok(place),
    }
}

/// Writes a file with `fill`: readers see the old file or the whole new one, never a part.
///
/// # Errors
/// I/O errors and those of `fill`, with the name of the file; the old file is then untouched.
pub fn write_atomic(
    target: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let mut file = AtomicFile::create(target)?;
    fill(&mut file.writer).map_err(|error| named(target, &error))?;
    file.finish()
}

/// Writes bytes as [`write_atomic`] does.
///
/// # Errors
/// Those of [`write_atomic`].
pub fn write_whole(target: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(target, |file| file.write_all(bytes))
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
    fn links_are_followed_and_folders_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("a.json"), folder.path().join("link.json"));
        fs_err::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_whole(&link, b"new").unwrap();
        assert!(fs_err::read_to_string(&target).unwrap() == "new" && link.is_symlink());
        let error = AtomicFile::create(folder.path()).err().unwrap();
        assert!(error.exit_code() == 64 && error.to_string().contains("is a folder"), "{error}");
        let error = plain_target(Path::new("/dev/null")).unwrap_err();
        assert!(error.to_string().contains("is a device"), "{error}");
    }

    /// Also through a link, as `/dev/stdout` is one; root may rename over it.
    #[test]
    fn a_pipe_is_written_and_not_replaced() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let (pipe, link) = (folder.path().join("pipe"), folder.path().join("link"));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for target in [&pipe, &link] {
            let reader = std::thread::spawn({
                let pipe = pipe.clone();
                move || fs_err::read_to_string(pipe).unwrap()
            });
            write_atomic(target, |out| out.write_all(b"one ").and_then(|()| out.write_all(b"two")))
                .unwrap();
            assert_eq!(reader.join().unwrap(), "one two");
        }
        assert!(link.is_symlink() && fs_err::metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 2);
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
