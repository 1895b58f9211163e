//! What tests share to show that a bad disk does no harm: damaged files, and a disk that is full.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Damages a file in every way that is one flipped bit or one cut, calls `look` after each with a
/// name for it, and mends the file. `usual` places of the file are visited; with `DOCRE_DAMAGE=all`
/// every byte.
pub fn damage(path: &Path, usual: usize, mut look: impl FnMut(&str)) {
    let good = fs_err::read(path).unwrap();
    let all = std::env::var("DOCRE_DAMAGE").is_ok_and(|value| value == "all");
    // An odd stride meets all residues of the sizes that formats are made of.
    let stride = if all { 1 } else { (good.len() / usual).max(1) | 1 };
    for at in (0..good.len()).step_by(stride) {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        for (what, broken) in [("a bit flipped", &flipped[..]), ("cut", &good[..at])] {
            fs_err::write(path, broken).unwrap();
            look(&format!("{}: {what} at {at}", path.display()));
        }
    }
    fs_err::write(path, good).unwrap();
}

/// A file system in memory with room for so many bytes.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts it, which needs root.
    pub fn new(bytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={bytes}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder.path())
            .output()
            .unwrap();
        assert!(mount.status.success(), "{}", String::from_utf8_lossy(&mount.stderr));
        Self(folder)
    }

    /// Its root.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills it but for `left` bytes; room comes back when the file that is returned is removed.
    pub fn fill(&self, left: usize) -> PathBuf {
        let statistics = rustix::fs::statvfs(self.path()).unwrap();
        let free = (statistics.f_bavail * statistics.f_frsize) as usize;
        let ballast = self.path().join("ballast");
        match fs_err::write(&ballast, vec![0; free.saturating_sub(left)]) {
            // Somebody else is writing too: full all the same.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {}
            other => other.unwrap(),
        }
        ballast
    }

    /// Takes all rights to write away, or gives them back.
    pub fn set_read_only(&self, read_only: bool) {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        assert!(
            Command::new("mount")
                .args(["-o", options])
                .arg(self.path())
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that was killed may still hold a file open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
