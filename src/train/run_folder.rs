//! The run folder: resolved recipe, identity, metrics, checkpoints; one run at a time writes to it.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Checkpoint, Mirror, say};
use crate::{Error, Result};

/// A folder that belongs to this run. The lock lasts as long as the value.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    mirror: Option<Arc<Mirror>>,
    _lock: Option<std::fs::File>,
}

/// Who and what made the run (`run.json`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunIdentity {
    /// Stays the same over every resume.
    pub id: String,
    /// Version of this program.
    pub version: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// Number of ranks at the last start.
    pub world_size: usize,
    /// The seed.
    pub seed: u64,
    /// How often the run was started.
    pub starts: u32,
}

impl RunFolder {
    /// Creates or reopens the folder and takes its lock (rank 0 only).
    ///
    /// # Errors
    /// [`Error::Recipe`] if another live run holds it; I/O errors.
    pub fn claim(path: &Path) -> Result<Self> {
        for part in ["checkpoints", "predictions", "log"] {
            fs_err::create_dir_all(path.join(part))?;
        }
        let lock_path = path.join("lock");
        let mut lock = fs_err::OpenOptions::new().create(true).write(true).truncate(false).read(true).open(&lock_path)?.into_parts().0;
        if let Err(error) = lock.try_lock() {
            let holder = fs_err::read_to_string(&lock_path).unwrap_or_default();
            let message = format!("{} is in use by {} ({error})", path.display(), holder.trim());
            return Err(Error::recipe(message).with_hint("wait for that run, or name another folder with --run-dir"));
        }
        lock.set_len(0)?;
        writeln!(lock, "process {} on {}", std::process::id(), host_name())?;
        for stage in fs_err::read_dir(path.join("checkpoints"))? {
            let stage = stage?.path();
            if stage.is_dir() {
                Checkpoint::sweep(&stage)?;
            }
        }
        Ok(Self { path: path.to_owned(), mirror: None, _lock: Some(lock) })
    }

    /// Lets checkpoints go to the mirror at `url` too; with `resume`, stages without a checkpoint here get theirs from there.
    ///
    /// # Errors
    /// As [`Mirror::open`] and [`Mirror::attach`].
    pub fn mirrored(mut self, url: Option<&str>, recipe: &str, resume: bool) -> Result<Self> {
        if let Some(url) = url {
            let mirror = Mirror::open(url)?;
            for name in mirror.attach(&self.path, recipe, resume)? {
                say(format!("{name} comes from {url}"));
            }
            self.mirror = Some(Arc::new(mirror));
        }
        Ok(self)
    }

    /// The mirror of its checkpoints, on the rank that writes them.
    pub fn mirror(&self) -> Option<Arc<Mirror>> {
        self.mirror.clone()
    }

    /// The folder on a rank that does not write to it.
    pub fn shared(path: &Path) -> Self {
        Self { path: path.to_owned(), mirror: None, _lock: None }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checkpoints of a stage.
    pub fn checkpoints(&self, stage: &str) -> PathBuf {
        self.path.join("checkpoints").join(stage)
    }

    /// Reads or makes `run.json`, counting the start.
    ///
    /// # Errors
    /// I/O errors.
    pub fn identify(&self, world_size: usize, seed: u64) -> Result<RunIdentity> {
        let path = self.path.join("run.json");
        let old: Option<RunIdentity> = fs_err::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let starts = old.as_ref().map_or(0, |old| old.starts) + 1;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let fresh = || blake3::hash(format!("{now} {} {}", std::process::id(), self.path.display()).as_bytes()).to_hex()[..12].to_owned();
        let identity = RunIdentity {
            id: old.map_or_else(fresh, |old| old.id),
            version: env!("CARGO_PKG_VERSION").into(),
            libtorch: env!("DOCRE_LIBTORCH").into(),
            world_size,
            seed,
            starts,
        };
        write_whole(&path, &serde_json::to_vec_pretty(&identity).map_err(|error| Error::Bug(error.to_string()))?)?;
        Ok(identity)
    }
}

/// Name of this machine, for the lock.
pub fn host_name() -> String {
    fs_err::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "this machine".into(), |name| name.trim().to_owned())
}

/// Writes a file so that it is either the old or the new one, never a part: temporary file, flush to disk, rename.
///
/// # Errors
/// I/O errors.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| Error::Io(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_cannot_share_a_folder_and_a_resume_keeps_the_identity() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::claim(folder.path()).unwrap();
        let error = RunFolder::claim(folder.path()).unwrap_err();
        assert_eq!(error.exit_code(), 64);
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        let first = run.identify(2, 7).unwrap();
        drop(run);
        let second = RunFolder::claim(folder.path()).unwrap().identify(1, 7).unwrap();
        assert_eq!((first.id, second.starts), (second.id, 2));
    }
}
