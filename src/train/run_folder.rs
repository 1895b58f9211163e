//! The run folder: resolved recipe, identity, metrics, checkpoints. One run at a time writes to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::mirror::{Mirror, RunRecipe};
use crate::base::{FileLock, entries, run_files, say, write_whole};
use crate::ranks::failure::Verdict;
use crate::{Error, Result};

/// The folder of this run. The lock lasts as long as the value.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    mirror: Option<Arc<Mirror>>,
    lock_file: Option<FileLock>,
}

/// Who and what made the run (`run.json`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunIdentity {
    /// Kept when the run is resumed.
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
        for part in [run_files::CHECKPOINTS, run_files::PREDICTIONS, run_files::LOG] {
            fs_err::create_dir_all(path.join(part))?;
        }
        let mut lock = FileLock::take(&path.join(run_files::LOCK))?.map_err(|holder| {
            Error::recipe(format!("{} is in use by {holder}", path.display()))
                .with_hint("wait for that run, or name another folder with --run-dir")
        })?;
        Verdict::forget(path);
        sweep_unfinished(path);
        lock.sign()?;
        for (_, stage) in entries(&path.join(run_files::CHECKPOINTS))? {
            if stage.is_dir() {
                Checkpoint::sweep(&stage)?;
            }
        }
        Ok(Self { path: path.to_owned(), mirror: None, lock_file: Some(lock) })
    }

    /// Copies checkpoints to the mirror at `url` too; with `resume`, stages without a checkpoint
    /// here get theirs from there.
    ///
    /// # Errors
    /// As [`Mirror::open`] and [`Mirror::attach`].
    pub fn mirrored(
        mut self,
        url: Option<&str>,
        recipe: &RunRecipe<'_>,
        resume: bool,
    ) -> Result<Self> {
        if let Some(url) = url {
            let inside =
                url.strip_prefix("file://").and_then(|place| fs_err::canonicalize(place).ok());
            if let (Some(place), Ok(own)) = (inside, fs_err::canonicalize(&self.path))
                && place.starts_with(&own)
            {
                let message = format!("checkpoint_mirror = \"{url}\" lies inside the run folder");
                return Err(Error::recipe(message)
                    .with_hint("name a place outside of it, best on another disk"));
            }
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
        Self { path: path.to_owned(), mirror: None, lock_file: None }
    }

    /// The run's identity as this rank sees it; a text that says so if there is none. Ranks compare
    /// it to notice that they look at different folders.
    pub fn identity(&self) -> String {
        let path = self.path.join(run_files::IDENTITY);
        // A network file system may take a while to show what another machine has written.
        for _ in 0..50 {
            if let Some(run) = fs_err::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<RunIdentity>(&bytes).ok())
            {
                return run.id;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        format!("nothing at {}", self.path.display())
    }

    /// Whether the folder is still the one that was claimed.
    ///
    /// # Errors
    /// An I/O error if it was removed or renamed meanwhile.
    pub fn still_there(&self) -> Result<()> {
        let Some(lock) = &self.lock_file else { return Ok(()) };
        if lock.is_at(&self.path.join(run_files::LOCK)) {
            return Ok(());
        }
        let message = format!(
            "{} was removed or renamed while the run was writing to it",
            self.path.display()
        );
        Err(std::io::Error::new(std::io::ErrorKind::NotFound, message).into())
    }

    /// Whether this process holds the lock.
    pub fn is_claimed(&self) -> bool {
        self.lock_file.is_some()
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checkpoints of a stage.
    pub fn checkpoints(&self, stage: &str) -> PathBuf {
        self.path.join(run_files::CHECKPOINTS).join(stage)
    }

    /// Reads or creates `run.json` and counts the start.
    ///
    /// # Errors
    /// I/O errors.
    pub fn identify(&self, world_size: usize, seed: u64) -> Result<RunIdentity> {
        let path = self.path.join(run_files::IDENTITY);
        let old: Option<RunIdentity> =
            fs_err::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let starts = old.as_ref().map_or(0, |old| old.starts) + 1;
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos());
        let fresh = || {
            blake3::hash(format!("{now} {} {}", std::process::id(), self.path.display()).as_bytes())
                .to_hex()[..12]
                .to_owned()
        };
        let identity = RunIdentity {
            id: old.map_or_else(fresh, |old| old.id),
            version: env!("CARGO_PKG_VERSION").into(),
            libtorch: env!("DOCRE_LIBTORCH").into(),
            world_size,
            seed,
            starts,
        };
        write_whole(
            &path,
            &serde_json::to_vec_pretty(&identity).map_err(|error| Error::Bug(error.to_string()))?,
        )?;
        Ok(identity)
    }
}

/// Removes unfinished files and folders that a killed start has left; no other process writes while
/// the lock is held.
fn sweep_unfinished(run: &Path) {
    let folders =
        ["", run_files::DATA, run_files::SHARDS, run_files::SCORED].map(|part| run.join(part));
    for (name, path) in folders.iter().filter_map(|folder| entries(folder).ok()).flatten() {
        if name.starts_with(".unfinished-") || (name.starts_with('.') && name.ends_with(".partial"))
        {
            let _ = if path.is_dir() {
                fs_err::remove_dir_all(&path)
            } else {
                fs_err::remove_file(&path)
            };
        }
    }
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
