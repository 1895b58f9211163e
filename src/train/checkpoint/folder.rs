//! A checkpoint: a Hugging Face folder with heads, optimiser and trainer state, sealed by hashes
//! that are written last.
//!
//! Everything is written into a temporary folder beside the final one, flushed, and renamed; a
//! reader checks every hash before it uses a byte. Whichever operation of a save or of pruning is
//! the last of a process, the newest sealed checkpoint is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tch::Tensor;

use super::disk::{Disk, LocalDisk};
use super::retention::{Retention, folder_of_step, step_of, steps_in};
use super::seal::{CARD, SEAL, Seal, seal};
use crate::base::{entries, fingerprint, folder_of, read_json, run_files, write_whole};
use crate::hub::{self, RepoName, Wanted};
use crate::text::Tokenizer;
use crate::torch::hf;
use crate::train::state::TrainerState;
use crate::{DataError, Error, Result};

/// Starts the name of a folder that is being written.
pub(in crate::train) const SAVING: &str = ".saving-";

/// Starts the name of a folder that is being replaced, if two folders cannot be exchanged at once.
const REPLACED: &str = ".replaced-";

// Files besides the encoder and the tokenizer.
const HEADS: &str = "heads.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const DESCRIPTION: &str = "docre.json";
pub(super) const TRAINER: &str = "trainer.json";

/// What goes into a checkpoint.
pub struct CheckpointContent {
    /// The encoder's `config.json`.
    pub encoder_config: serde_json::Value,
    /// Encoder tensors by Hugging Face name.
    pub encoder: Vec<(String, Tensor)>,
    /// Head tensors, by name without prefix.
    pub heads: Vec<(String, Tensor)>,
    /// Optimiser state.
    pub optimizer: Vec<(String, Tensor)>,
    /// How to build the heads, relations, settings: written as `docre.json`.
    pub description: serde_json::Value,
    /// Trainer state.
    pub trainer: TrainerState,
    /// The tokenizer, saved beside the weights.
    pub tokenizer: Tokenizer,
    /// Further files: (name, content).
    pub extra: Vec<(String, Vec<u8>)>,
}

/// A sealed checkpoint on disk whose hashes have been checked.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
}

impl Checkpoint {
    /// Writes a checkpoint to `path`; one that is there is replaced.
    ///
    /// # Errors
    /// I/O errors; what was at `path` before is then still there.
    pub fn write(path: &Path, content: &CheckpointContent) -> Result<Self> {
        Self::write_on(&LocalDisk, path, content)
    }

    /// As [`Self::write`], on any disk.
    pub(in crate::train) fn write_on(
        disk: &dyn Disk,
        path: &Path,
        content: &CheckpointContent,
    ) -> Result<Self> {
        let (parent, name) = (
            path.parent().unwrap_or(Path::new(".")),
            path.file_name().unwrap_or_default().to_string_lossy(),
        );
        let work = parent.join(format!("{SAVING}{name}"));
        disk.remove_folder(&work)?;
        disk.create_folder(&work)?;
        let outcome = fill(disk, &work, content).and_then(|()| {
            put_in_place(disk, &work, path, &parent.join(format!("{REPLACED}{name}")))
        });
        if outcome.is_err() {
            // What this leaves is swept away at the next start.
            let _ = disk.remove_folder(&work);
        }
        outcome?;
        Ok(Self { path: path.to_owned() })
    }

    /// Removes from a stage's folder what a process left that ended in the middle of a save or of
    /// pruning.
    ///
    /// # Errors
    /// I/O errors.
    pub fn sweep(stage_folder: &Path) -> Result<()> {
        for (name, path) in entries(stage_folder)? {
            let replaced = name
                .strip_prefix(REPLACED)
                .map(|name| stage_folder.join(name))
                .filter(|place| !place.exists());
            let unsealed = step_of(&name).is_some() && path.is_dir() && !path.join(SEAL).exists();
            if let Some(place) = replaced {
                fs_err::rename(path, place)?;
            } else if unsealed || name.starts_with(SAVING) || name.starts_with(REPLACED) {
                fs_err::remove_dir_all(path)?;
            }
        }
        Ok(())
    }

    /// Opens a checkpoint and checks it: a folder, or, where there is none at the path, the
    /// repository of the Hugging Face Hub that the path names (`ORG/NAME[@REVISION]`).
    ///
    /// # Errors
    /// [`Error::Data`] naming the file that is missing, changed or too new; as [`hub::fetch`].
    pub fn open(path: &Path) -> Result<Self> {
        let path = match repository(path) {
            Some(name) => hub::fetch(&name, Wanted::Checkpoint)?.folder,
            None => path.to_owned(),
        };
        if !path.join(SEAL).exists() {
            return Err(unsealed(&path).into());
        }
        Seal::check(&path)?;
        Ok(Self { path })
    }

    /// Whether a path is taken for the name of a repository of the Hub.
    pub fn is_repository(path: &Path) -> bool {
        repository(path).is_some()
    }

    /// Opens the newest complete checkpoint of a stage's folder, by step.
    ///
    /// # Errors
    /// If the newest sealed one fails its check.
    pub fn latest(stage_folder: &Path) -> Result<Option<Self>> {
        let steps = steps_in(stage_folder)?;
        steps.last().map(|step| Self::open(&folder_of_step(stage_folder, *step))).transpose()
    }

    /// Opens the checkpoint that a stage ends with: the best on dev, or the newest if it was never
    /// judged.
    ///
    /// # Errors
    /// If the newest or the best fails its check.
    pub fn best(stage_folder: &Path) -> Result<Option<Self>> {
        let Some(last) = Self::latest(stage_folder)? else { return Ok(None) };
        match last.trainer()?.best {
            Some((_, step)) => Self::open(&folder_of_step(stage_folder, step)).map(Some),
            None => Ok(Some(last)),
        }
    }

    /// Removes the checkpoints of a stage that nothing keeps.
    ///
    /// # Errors
    /// I/O errors.
    pub fn prune(stage_folder: &Path, retention: Retention) -> Result<()> {
        Self::prune_on(&LocalDisk, stage_folder, retention)
    }

    /// As [`Self::prune`], on any disk.
    pub(in crate::train) fn prune_on(
        disk: &dyn Disk,
        stage_folder: &Path,
        retention: Retention,
    ) -> Result<()> {
        let steps = steps_in(stage_folder)?;
        for step in retention.outdated(&steps) {
            let folder = folder_of_step(stage_folder, step);
            // The seal goes first, so that a half-removed folder is not taken for a checkpoint.
            disk.remove_file(&folder.join(SEAL))?;
            disk.remove_folder(&folder)?;
        }
        Ok(())
    }

    /// Returns the hashes of all files, by name.
    ///
    /// # Errors
    /// If the seal cannot be read.
    pub fn files(&self) -> Result<BTreeMap<String, String>> {
        let seal: Seal = self.json(SEAL)?;
        Ok(seal.files.into_iter().map(|(name, file)| (name, file.blake3)).collect())
    }

    /// Whether the card of an export is there and as it was written; `None` where it has none.
    ///
    /// # Errors
    /// If the seal or the card cannot be read.
    pub fn card_is_original(&self) -> Result<Option<bool>> {
        let Some(hash) = self.files()?.remove(CARD) else { return Ok(None) };
        let card = self.path.join(CARD);
        Ok(Some(card.exists() && fingerprint(&card)?.1 == hash))
    }

    /// The encoder's `config.json`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn encoder_config(&self) -> Result<serde_json::Value> {
        self.json("config.json")
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Short hash that identifies the weights.
    ///
    /// # Errors
    /// I/O errors.
    pub fn identity(&self) -> Result<String> {
        Ok(blake3::hash(&fs_err::read(self.path.join(SEAL))?).to_hex()[..16].to_owned())
    }

    /// Trainer state.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn trainer(&self) -> Result<TrainerState> {
        self.json(TRAINER)
    }

    /// The description of the heads.
    ///
    /// # Errors
    /// If the file cannot be read, or belongs to another system.
    pub fn description<T: for<'a> Deserialize<'a>>(&self) -> Result<T> {
        self.json(DESCRIPTION).map_err(|error| match error {
            Error::Data(error) => (*error)
                .hint(
                    "another version of this program wrote it; train again, or read it \
                    with that version",
                )
                .into(),
            other => other,
        })
    }

    fn json<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<T> {
        let path = self.path.join(name);
        let bytes = fs_err::read(&path)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| DataError::new(path, error.to_string()).into())
    }

    /// Head tensors.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn heads(&self) -> Result<Vec<(String, Tensor)>> {
        Ok(hf::read_safetensors(&self.path.join(HEADS))?.into_iter().collect())
    }

    /// Optimiser state; empty in an export.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn optimizer(&self) -> Result<Vec<(String, Tensor)>> {
        let path = self.path.join(OPTIMIZER);
        if path.exists() {
            Ok(hf::read_safetensors(&path)?.into_iter().collect())
        } else {
            Ok(Vec::new())
        }
    }
}

/// The repository that a path names, where nothing lies at it.
fn repository(path: &Path) -> Option<RepoName> {
    path.to_str().filter(|_| !path.exists()).and_then(RepoName::parse)
}

/// Writes all files, flushes them, and seals the folder.
fn fill(disk: &dyn Disk, folder: &Path, content: &CheckpointContent) -> Result<()> {
    let json =
        |value: serde_json::Result<Vec<u8>>| value.map_err(|error| Error::Bug(error.to_string()));
    let description = json(serde_json::to_vec_pretty(&content.description))?;
    let trainer = json(serde_json::to_vec_pretty(&content.trainer))?;
    disk.write(folder, &mut |folder| {
        hf::write_folder(folder, &content.encoder_config, named(&content.encoder))
    })?;
    for (name, tensors) in [(HEADS, &content.heads), (OPTIMIZER, &content.optimizer)] {
        disk.write(folder, &mut |folder| {
            hf::write_safetensors(&folder.join(name), named(tensors))
        })?;
    }
    let extra = content.extra.iter().map(|(name, bytes)| (name.as_str(), bytes));
    for (name, bytes) in [(DESCRIPTION, &description), (TRAINER, &trainer)].into_iter().chain(extra)
    {
        disk.write(folder, &mut |folder| write_whole(&folder.join(name), bytes))?;
    }
    disk.write(folder, &mut |folder| content.tokenizer.save(folder))?;
    seal(disk, folder)
}

/// Renames a finished folder to its final name.
fn put_in_place(disk: &dyn Disk, work: &Path, path: &Path, aside: &Path) -> Result<()> {
    let parent = folder_of(path);
    if !path.exists() {
        disk.rename(work, path)?;
        return disk.sync(parent);
    }
    if !disk.exchange(work, path)? {
        disk.remove_folder(aside)?;
        disk.rename(path, aside)?;
        disk.rename(work, path)?;
    }
    disk.sync(parent)?;
    disk.remove_folder(work)?;
    disk.remove_folder(aside)
}

fn named(tensors: &[(String, Tensor)]) -> impl Iterator<Item = (&str, &Tensor)> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
}

/// The error of a folder without a seal, which names the checkpoints that lie in it.
fn unsealed(folder: &Path) -> DataError {
    if !folder.exists() {
        return DataError::new(folder, "there is no such folder")
            .hint("name an export, or a step-… folder below the checkpoints of a run");
    }
    let stages = folder.join(run_files::CHECKPOINTS);
    let inside: Vec<PathBuf> = match entries(&stages) {
        Ok(stages) => stages.into_iter().map(|(_, path)| path).collect(),
        Err(_) => vec![folder.to_owned()],
    };
    let best: Vec<String> = inside.iter().filter_map(|stage| best_in(stage)).collect();
    let error = DataError::new(folder, format!("is not a complete checkpoint: it has no {SEAL}"));
    error.hint(match best.as_slice() {
        [] => "it was not written to its end, or is something else; name another folder".into(),
        [one] => format!("name {one}"),
        several => format!("name one of {}", several.join(", ")),
    })
}

/// The checkpoint of a stage that is the best on dev, or else the newest.
fn best_in(stage: &Path) -> Option<String> {
    let steps = steps_in(stage).ok()?;
    let newest = folder_of_step(stage, *steps.last()?);
    let state: Option<TrainerState> = read_json(&newest.join(TRAINER)).ok();
    let best = state.and_then(|state| state.best).filter(|(_, step)| steps.contains(step));
    let named = best.map_or(newest, |(_, step)| folder_of_step(stage, step));
    Some(named.display().to_string())
}

#[cfg(test)]
#[path = "tests.rs"]
pub(in crate::train) mod tests;
