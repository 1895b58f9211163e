//! A second home for checkpoints: a folder elsewhere or an object store, written after the checkpoint is sealed on the local disk.
//!
//! A checkpoint is there once its seal is, which is uploaded last and removed first, so that what a broken upload left is never taken for one.
//! Layout: `PREFIX/STAGE/step-NNNNNNNN/FILE`. Not for training's own safety: a checkpoint that cannot be uploaded is a warning, and the next one
//! tries again.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::buffered::BufWriter;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, parse_url_opts};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;
use url::Url;

use super::checkpoint::{Checkpoint, Retention, SEAL, folder_of_step, steps_in};
use super::progress::say;
use crate::{Error, Result};

/// Bytes that travel in one request.
const PART: usize = 8 << 20;

/// How often a checkpoint is tried, with growing pauses.
const TRIES: u32 = 3;

/// The pause after the first failure.
const PAUSE: Duration = Duration::from_millis(500);

/// The recipe that the mirror belongs to.
const RECIPE: &str = "recipe.toml";

/// No file takes longer: a connection that hangs must not keep the run from its end.
const LONGEST: Duration = Duration::from_secs(1800);

/// A place for checkpoints outside of the run folder.
#[derive(Debug)]
pub struct Mirror {
    url: String,
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    runtime: Runtime,
    pause: Duration,
    failures: AtomicU64,
}

impl Mirror {
    /// A mirror at a URL: `file:///folder/…`, and in a build with the feature `object-stores` `s3://bucket/…`, `gs://bucket/…` and
    /// `az://container/…` too. Credentials and endpoints come from the environment (`AWS_ACCESS_KEY_ID`, `GOOGLE_SERVICE_ACCOUNT`,
    /// `AZURE_STORAGE_ACCOUNT_NAME` …). Nothing is asked of the store yet.
    ///
    /// # Errors
    /// A recipe error for what is no URL, or one of a store that this build does not know.
    pub fn open(url: &str) -> Result<Self> {
        let refused = |cause: &dyn std::fmt::Display| {
            let hint = "file:///folder, or s3://bucket/prefix, gs://… or az://… in a build with `--features object-stores`";
            Error::recipe(format!("checkpoint_mirror = \"{url}\": {cause}")).with_hint(hint)
        };
        let parsed = Url::parse(url).map_err(|cause| refused(&cause))?;
        let settings = std::env::vars().map(|(name, value)| (name.to_lowercase(), value));
        let (store, prefix) = parse_url_opts(&parsed, settings).map_err(|cause| refused(&cause))?;
        Self::over(url, Arc::from(store), prefix)
    }

    fn over(url: &str, store: Arc<dyn ObjectStore>, prefix: Key) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { url: url.to_owned(), store, prefix, runtime, pause: PAUSE, failures: AtomicU64::new(0) })
    }

    /// Checkpoints that could not be uploaded, since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Makes this the mirror of the run in `run_folder`. With `resume`, a run folder without any checkpoint of a stage gets the newest of the
    /// mirror; what was fetched is returned, see [`Self::restore`].
    ///
    /// # Errors
    /// A recipe error where the mirror belongs to a run with another recipe, or to one that could be resumed and should not be; the store's.
    pub fn attach(&self, run_folder: &Path, recipe: &str, resume: bool) -> Result<Vec<String>> {
        let key = self.prefix.clone().join(RECIPE);
        let taken = |what: &str, hint: &str| Err(Error::recipe(format!("{} {what}", self.url)).with_hint(hint));
        match self.ask(async { self.store.get(&key).await?.bytes().await }) {
            Ok(bytes) if bytes != recipe.as_bytes() => return taken("belongs to a run with another recipe", "name another checkpoint_mirror"),
            Ok(_) | Err(Error::Io(_)) if !resume && !self.folders(&self.prefix)?.is_empty() && !has_checkpoints(run_folder)? => {
                return taken("holds checkpoints of this recipe already", "add --resume to go on from them, or name another checkpoint_mirror");
            }
            Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound => {
                self.ask(self.store.put(&key, recipe.as_bytes().to_vec().into())).map(drop)?;
            }
            answer => drop(answer?),
        }
        if resume { self.restore(&run_folder.join("checkpoints")) } else { Ok(Vec::new()) }
    }

    /// Uploads the newest checkpoint of a stage's local folder and removes those before it that nothing keeps. What goes wrong is said and
    /// counted, and is not the end of the run.
    pub fn follow(&self, stage_folder: &Path, retention: Retention) {
        let mut pause = self.pause;
        for left in (0..TRIES).rev() {
            let Err(error) = self.try_follow(stage_folder, retention) else { return };
            if left == 0 {
                self.failures.fetch_add(1, Ordering::Relaxed);
                say(format!("warning: the newest checkpoint of {} is not at {}: {error}", stage_folder.display(), self.url));
            } else {
                std::thread::sleep(pause);
                pause *= 4;
            }
        }
    }

    fn try_follow(&self, stage_folder: &Path, retention: Retention) -> Result<()> {
        let stage = self.prefix.clone().join(name_of(stage_folder).as_str());
        let Some(newest) = steps_in(stage_folder)?.pop() else { return Ok(()) };
        let folder = folder_of_step(stage_folder, newest);
        let mut names: Vec<String> = Checkpoint::open(&folder)?.files()?.into_keys().collect();
        names.push(SEAL.to_owned());
        // An older upload of this step must not look whole while it is replaced.
        let target = stage.clone().join(name_of(&folder).as_str());
        self.remove(&target.clone().join(SEAL))?;
        for name in names {
            self.upload(&folder.join(&name), target.clone().join(name.as_str()))?;
        }
        // Later steps are of a start that was lost and is being repeated.
        let steps: Vec<u64> = self.steps(&stage)?.into_iter().filter(|&step| step <= newest).collect();
        retention.outdated(&steps).try_for_each(|step| self.remove_folder(&stage.clone().join(step_name(step).as_str())))
    }

    /// Gives a run folder without any checkpoint the newest of each stage, and the best where a stage has one; returns what was fetched, as
    /// `STAGE/step-NNNNNNNN`. A checkpoint that arrives damaged is left out with a warning, and the one before it is taken.
    ///
    /// # Errors
    /// The store's, and the disk's.
    fn restore(&self, checkpoints: &Path) -> Result<Vec<String>> {
        let mut fetched = Vec::new();
        for stage in self.folders(&self.prefix)? {
            let folder = checkpoints.join(&stage);
            let key = self.prefix.clone().join(stage.as_str());
            if !steps_in(&folder)?.is_empty() {
                continue;
            }
            for step in self.steps(&key)?.into_iter().rev() {
                let Some(newest) = self.fetch(&key, step, &folder)? else { continue };
                fetched.push(format!("{stage}/{}", step_name(step)));
                // What the mirror lacks of the best one is said by whoever needs it.
                if let Some((_, best)) = newest.trainer()?.best.filter(|(_, best)| *best != step)
                    && self.fetch(&key, best, &folder)?.is_some()
                {
                    fetched.push(format!("{stage}/{}", step_name(best)));
                }
                break;
            }
        }
        Ok(fetched)
    }

    /// Fetches a checkpoint; `None` where it is not whole.
    fn fetch(&self, stage: &Key, step: u64, folder: &Path) -> Result<Option<Checkpoint>> {
        let (key, place) = (stage.clone().join(step_name(step).as_str()), folder_of_step(folder, step));
        fs_err::create_dir_all(folder)?;
        let work = tempfile::Builder::new().prefix(".saving-").tempdir_in(folder)?;
        let listed = self.ask(self.store.list_with_delimiter(Some(&key)))?;
        for object in listed.objects {
            // A name is the last part of a key, so it cannot lead out of the folder.
            if let Some(name) = object.location.filename() {
                self.download(&object.location, object.size, &work.path().join(name))?;
            }
        }
        match Checkpoint::open(work.path()) {
            Ok(_) => {
                fs_err::rename(work.keep(), &place)?;
                Checkpoint::open(&place).map(Some)
            }
            Err(error @ Error::Data(_)) => {
                say(format!("warning: {} of {} is left out: {error}", key, self.url));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Steps with a seal, in rising order.
    fn steps(&self, stage: &Key) -> Result<Vec<u64>> {
        let mut steps = Vec::new();
        for name in self.folders(stage)? {
            let Some(step) = name.strip_prefix("step-").and_then(|digits| digits.parse().ok()) else { continue };
            match self.ask(self.store.head(&stage.clone().join(name.as_str()).join(SEAL))) {
                Ok(_) => steps.push(step),
                Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        steps.sort_unstable();
        Ok(steps)
    }

    fn folders(&self, key: &Key) -> Result<Vec<String>> {
        let listed = self.ask(self.store.list_with_delimiter(Some(key)))?;
        Ok(listed.common_prefixes.iter().filter_map(|prefix| prefix.filename().map(str::to_owned)).collect())
    }

    fn upload(&self, from: &Path, to: Key) -> Result<()> {
        let mut file = fs_err::File::open(from)?;
        let mut writer = BufWriter::with_capacity(self.store.clone(), to, PART);
        self.ask(async {
            loop {
                let mut part = Vec::with_capacity(PART);
                file.by_ref().take(PART as u64).read_to_end(&mut part).map_err(generic)?;
                if part.is_empty() {
                    return writer.shutdown().await.map_err(generic);
                }
                writer.put(Bytes::from(part)).await?;
            }
        })
    }

    fn download(&self, from: &Key, bytes: u64, to: &Path) -> Result<()> {
        let mut file = fs_err::File::create(to)?;
        for start in (0..bytes).step_by(PART) {
            file.write_all(&self.ask(self.store.get_range(from, start..bytes.min(start + PART as u64)))?)?;
        }
        Ok(file.sync_all()?)
    }

    /// Removes a checkpoint, its seal first.
    fn remove_folder(&self, folder: &Key) -> Result<()> {
        self.remove(&folder.clone().join(SEAL))?;
        let listed = self.ask(self.store.list_with_delimiter(Some(folder)))?;
        listed.objects.iter().try_for_each(|object| self.remove(&object.location))
    }

    fn remove(&self, key: &Key) -> Result<()> {
        match self.ask(self.store.delete(key)) {
            Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Waits for an answer of the store.
    fn ask<T>(&self, question: impl Future<Output = object_store::Result<T>>) -> Result<T> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(LONGEST, question).await });
        answer.map_err(|_| Error::Io(ErrorKind::TimedOut.into()))?.map_err(|error| {
            let kind = match &error {
                object_store::Error::NotFound { .. } => ErrorKind::NotFound,
                object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                    ErrorKind::PermissionDenied
                }
                _ => ErrorKind::Other,
            };
            Error::Io(std::io::Error::new(kind, format!("{}: {error}", self.url)))
        })
    }
}

fn generic(error: std::io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "checkpoint mirror", source: Box::new(error) }
}

fn has_checkpoints(run_folder: &Path) -> Result<bool> {
    let folder = run_folder.join("checkpoints");
    Ok(folder.is_dir() && fs_err::read_dir(folder)?.next().is_some())
}

fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn step_name(step: u64) -> String {
    name_of(&folder_of_step(Path::new(""), step))
}

#[cfg(test)]
mod tests;
