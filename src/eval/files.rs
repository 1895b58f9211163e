//! Writing a file so that a reader sees the old one or the whole new one, never a part. Not for: checkpoints, which are folders.

use std::io::{BufWriter, Write};
use std::path::Path;

use crate::Result;

/// Writes `path` through a temporary file in the same folder, which is created if needed.
///
/// # Errors
/// Whatever the disk or `fill` reports; the file at `path` is then untouched.
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs_err::create_dir_all(folder)?;
    let file = temporary(folder).map_err(|error| naming(path, &error))?;
    let mut writer = BufWriter::new(file);
    fill(&mut writer).and_then(|()| writer.flush()).map_err(|error| naming(path, &error))?;
    let file = writer.into_inner().map_err(|error| naming(path, error.error()))?;
    file.as_file().sync_all().map_err(|error| naming(path, &error))?;
    file.persist(path).map_err(|error| naming(path, &error.error))?;
    Ok(())
}

/// A temporary file with the permissions an ordinary file would get, not the private ones of temporary files.
fn temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

fn naming(path: &Path, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("failed to write file `{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(fs_err::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }
}
