//! A second home for checkpoints, written after a checkpoint is sealed on the local disk.
//!
//! The seal of a checkpoint is uploaded last and removed first, so that a broken upload is never
//! taken for a checkpoint. Layout: `recipe.toml` and `STAGE/step-NNNNNNNN/FILE`. Training does not
//! depend on it: a checkpoint that cannot be uploaded is a warning, and the next one tries again.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::checkpoint::{Checkpoint, Retention, SAVING, SEAL, folder_of_step, step_of, steps_in};
use crate::base::{run_files, say};
use crate::objects::{Store, open_place};
use crate::{Error, Result};

/// Attempts to upload a checkpoint, with growing pauses.
const TRIES: u32 = 3;

/// The pause after the first failure.
const PAUSE: Duration = Duration::from_millis(500);

/// The recipe of a run, as its folder and its mirror keep it.
#[derive(Clone, Copy)]
pub struct RunRecipe<'a> {
    /// The recipe as TOML.
    pub text: &'a str,
    /// Whether another recipe, as TOML, gives the same results.
    pub same: &'a dyn Fn(&str) -> bool,
}

/// The recipe that the mirror belongs to.
const RECIPE: &str = run_files::RECIPE;

/// A place for checkpoints outside the run folder.
#[derive(Debug)]
pub struct Mirror {
    url: String,
    store: Box<dyn Store>,
    pause: Duration,
    failures: AtomicU64,
    away: AtomicBool,
}

impl Mirror {
    /// A mirror at a URL: `file:///folder/…` or, with the feature `cloud`, `s3://bucket/…`,
    /// `gs://bucket/…`, `az://container/…`. No request is made yet.
    ///
    /// # Errors
    /// A recipe error if this build knows no such store; the store's own, if its settings do not
    /// fit together.
    pub fn open(url: &str) -> Result<Self> {
        Ok(Self {
            url: url.to_owned(),
            store: open(url)?,
            pause: PAUSE,
            failures: AtomicU64::new(0),
            away: AtomicBool::new(false),
        })
    }

    /// Checkpoints that could not be uploaded, since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Makes this the mirror of the run in `run_folder`. With `resume`, a stage without a
    /// checkpoint there gets its newest one from the mirror, and its best one if there is one.
    /// Returns what was fetched, as `STAGE/step-NNNNNNNN`.
    ///
    /// # Errors
    /// A recipe error if the mirror belongs to a run with another recipe, or to one that could be
    /// resumed although `resume` is not set; the store's own.
    pub fn attach(
        &self,
        run_folder: &Path,
        recipe: &RunRecipe<'_>,
        resume: bool,
    ) -> Result<Vec<String>> {
        let taken = |what: &str, hint: &str| {
            Err(Error::recipe(format!("{} {what}", self.url)).with_hint(hint))
        };
        let checkpoints = run_folder.join(run_files::CHECKPOINTS);
        match self.store.read(RECIPE)? {
            Some(old) if !(recipe.same)(&String::from_utf8_lossy(&old)) => {
                return taken(
                    "belongs to a run with another recipe",
                    "name another checkpoint_mirror",
                );
            }
            Some(_)
                if !resume
                    && !self.store.folders("")?.is_empty()
                    && !has_folders(&checkpoints)? =>
            {
                return taken(
                    "holds checkpoints of this recipe already",
                    "add --resume to go on from them, or name another checkpoint_mirror",
                );
            }
            Some(_) => {}
            None => self.store.write(RECIPE, recipe.text.as_bytes())?,
        }
        if resume { self.restore(&checkpoints) } else { Ok(Vec::new()) }
    }

    /// Uploads the newest checkpoint of a stage's local folder and removes earlier ones that
    /// nothing keeps. A failure is printed and counted; it does not end the run.
    pub fn follow(&self, stage_folder: &Path, retention: Retention) {
        // A mirror that cannot be reached must not delay every checkpoint as long as the first.
        let tries = if self.away.load(Ordering::Relaxed) { 1 } else { TRIES };
        let mut pause = self.pause;
        for left in (0..tries).rev() {
            let outcome = self.try_follow(stage_folder, retention);
            self.away.store(outcome.is_err(), Ordering::Relaxed);
            let Err(error) = outcome else { return };
            if left == 0 {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let hint = error.hint().map_or_else(String::new, |hint| format!("\nhint: {hint}"));
                say(format!(
                    "warning: the newest checkpoint of {} is not at {}: {error}{hint}",
                    stage_folder.display(),
                    self.url
                ));
            } else {
                std::thread::sleep(pause);
                pause *= 4;
            }
        }
    }

    fn try_follow(&self, stage_folder: &Path, retention: Retention) -> Result<()> {
        let stage = name_of(stage_folder);
        let Some(newest) = steps_in(stage_folder)?.pop() else { return Ok(()) };
        let folder = folder_of_step(stage_folder, newest);
        let target = key_of(&stage, newest);
        // An older upload of this step must not look whole while it is replaced.
        self.store.remove(&format!("{target}/{SEAL}"))?;
        for name in Checkpoint::open(&folder)?.files()?.into_keys().chain([SEAL.to_owned()]) {
            self.store.upload(&folder.join(&name), &format!("{target}/{name}"))?;
        }
        // Later steps belong to a start that was lost and is being repeated.
        let steps: Vec<u64> =
            self.steps(&stage)?.into_iter().filter(|&step| step <= newest).collect();
        retention.outdated(&steps).try_for_each(|step| self.remove(&key_of(&stage, step)))
    }

    /// Fetches the newest whole checkpoint of each stage that has none here; damaged ones are left
    /// out with a warning.
    fn restore(&self, checkpoints: &Path) -> Result<Vec<String>> {
        let mut fetched = Vec::new();
        for stage in self.store.folders("")? {
            let folder = checkpoints.join(&stage);
            if !steps_in(&folder)?.is_empty() {
                continue;
            }
            for step in self.steps(&stage)?.into_iter().rev() {
                let Some(newest) = self.fetch(&stage, step, &folder)? else { continue };
                fetched.push(key_of(&stage, step));
                // If the best one is missing, the stage that needs it says so.
                if let Some((_, best)) = newest.trainer()?.best.filter(|(_, best)| *best != step)
                    && self.fetch(&stage, best, &folder)?.is_some()
                {
                    fetched.push(key_of(&stage, best));
                }
                break;
            }
        }
        Ok(fetched)
    }

    /// Fetches a checkpoint into a stage's local folder; `None` if it is not whole.
    fn fetch(&self, stage: &str, step: u64, folder: &Path) -> Result<Option<Checkpoint>> {
        let (key, place) = (key_of(stage, step), folder_of_step(folder, step));
        fs_err::create_dir_all(folder)?;
        let work = tempfile::Builder::new().prefix(SAVING).tempdir_in(folder)?;
        for name in self.store.files(&key)? {
            self.store.download(&format!("{key}/{name}"), &work.path().join(&name))?;
        }
        match Checkpoint::open(work.path()) {
            Ok(_) => {
                fs_err::rename(work.keep(), &place)?;
                Checkpoint::open(&place).map(Some)
            }
            Err(error @ Error::Data(_)) => {
                say(format!("warning: {key} of {} is left out: {error}", self.url));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The steps with a seal, in rising order.
    fn steps(&self, stage: &str) -> Result<Vec<u64>> {
        let mut steps = Vec::new();
        for name in self.store.folders(stage)? {
            if let Some(step) = step_of(&name)
                && self.store.read(&format!("{stage}/{name}/{SEAL}"))?.is_some()
            {
                steps.push(step);
            }
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// Removes a checkpoint, its seal first.
    fn remove(&self, folder: &str) -> Result<()> {
        self.store.remove(&format!("{folder}/{SEAL}"))?;
        self.store
            .files(folder)?
            .iter()
            .try_for_each(|name| self.store.remove(&format!("{folder}/{name}")))
    }
}

/// The store that a URL names.
fn open(url: &str) -> Result<Box<dyn Store>> {
    open_place(url).map_err(|error| error.in_place("checkpoint_mirror"))
}

fn has_folders(path: &Path) -> Result<bool> {
    Ok(path.is_dir() && fs_err::read_dir(path)?.next().is_some())
}

fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn key_of(stage: &str, step: u64) -> String {
    folder_of_step(Path::new(stage), step).to_string_lossy().into_owned()
}

#[cfg(test)]
pub(crate) mod tests;
