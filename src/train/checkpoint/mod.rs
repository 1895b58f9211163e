//! Checkpoints: a Hugging Face folder with heads, optimiser and trainer state, sealed by a manifest
//! of hashes that is written last.
//!
//! A folder without `MANIFEST.json` is no checkpoint. Everything is written into a temporary folder
//! beside the final one, flushed, and renamed; a reader checks every hash before it uses a byte.
//! Whichever operation of a save or of pruning is the last of a process, the newest sealed
//! checkpoint is whole.

mod compare;
mod disk;
mod writer;

pub use compare::{CheckpointDifference, Difference, TensorDifference, compare};
pub use writer::CheckpointWriter;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::Tensor;

use self::disk::{Disk, LocalDisk};
use super::guard::LossHistory;
use crate::base::write_whole;
use crate::text::Tokenizer;
use crate::torch::hf;
use crate::{DataError, Error, Result};

/// Version of the folder's layout; a reader refuses a newer one. 2: GLRE's `corpus` and
/// `classifier_width`, LSTM-SP.
const FORMAT_VERSION: u32 = 2;
pub(super) const SEAL: &str = "MANIFEST.json";
/// Starts the name of a folder in the making.
const SAVING: &str = ".saving-";
/// Starts the name of a folder that is being replaced where two folders cannot change places at
/// once.
const REPLACED: &str = ".replaced-";

/// Where training stands: with the seed, all that resume needs beside the tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Stage name.
    pub stage: String,
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub total_steps: u64,
    /// Whether the stage is complete.
    pub finished: bool,
    /// Rolling hash of the order of the data.
    pub order_hash: String,
    /// What the order follows from; absent in old checkpoints.
    #[serde(default)]
    pub order: Option<OrderKey>,
    /// Fine-tuning: (epoch, dev F1) so far.
    #[serde(default)]
    pub curve: Vec<(f64, f64)>,
    /// Fine-tuning: the best dev F1 and the step that had it.
    #[serde(default)]
    pub best: Option<(f64, u64)>,
    /// Fine-tuning: the decision threshold found on dev.
    #[serde(default)]
    pub threshold: Option<f64>,
    /// Seconds of training so far.
    #[serde(default)]
    pub seconds: f64,
    /// Steps in a row whose update was skipped because a number was not finite.
    #[serde(default)]
    pub skipped_in_a_row: u64,
    /// Mean and variance of the losses, for the z-score of the next.
    #[serde(default)]
    pub losses: LossHistory,
}

/// What the order of a stage's documents follows from, beside the documents: another one cannot go
/// on from the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderKey {
    /// The seed.
    pub seed: u64,
    /// Documents (or pairs of documents) a step.
    pub batch: usize,
}

/// Which checkpoints of a stage stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest.
    pub newest: usize,
    /// Those whose step is a multiple of this; 0: none.
    pub every: u64,
    /// The best so far.
    pub best: Option<u64>,
}

impl Retention {
    /// Of `steps`, in rising order, those that nothing keeps; never the last.
    pub(super) fn outdated(self, steps: &[u64]) -> impl Iterator<Item = u64> + '_ {
        let old = &steps[..steps.len().saturating_sub(self.newest.max(1))];
        let kept = move |step: u64| {
            Some(step) == self.best || (self.every > 0 && step.is_multiple_of(self.every))
        };
        old.iter().copied().filter(move |&step| !kept(step))
    }
}

/// The hashes of all files.
#[derive(Debug, Serialize, Deserialize)]
struct Seal {
    format_version: u32,
    program: String,
    files: BTreeMap<String, FileSeal>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct FileSeal {
    bytes: u64,
    blake3: String,
}

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
    /// Writes a checkpoint to `path`, in the place of one that is there.
    ///
    /// # Errors
    /// I/O errors; what was at `path` before is still there then.
    pub fn write(path: &Path, content: &CheckpointContent) -> Result<Self> {
        Self::write_on(&LocalDisk, path, content)
    }

    /// As [`Self::write`], on any disk.
    pub(super) fn write_on(
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

    /// Removes what a process that ended in the middle of a save or of pruning left in a stage's
    /// folder.
    ///
    /// # Errors
    /// I/O errors.
    pub fn sweep(stage_folder: &Path) -> Result<()> {
        for entry in fs_err::read_dir(stage_folder)? {
            let entry = entry?;
            let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
            let replaced = name
                .strip_prefix(REPLACED)
                .map(|name| stage_folder.join(name))
                .filter(|place| !place.exists());
            let unsealed = name.starts_with("step-") && path.is_dir() && !path.join(SEAL).exists();
            if let Some(place) = replaced {
                fs_err::rename(path, place)?;
            } else if unsealed || name.starts_with(SAVING) || name.starts_with(REPLACED) {
                fs_err::remove_dir_all(path)?;
            }
        }
        Ok(())
    }

    /// Opens a checkpoint and checks it.
    ///
    /// # Errors
    /// [`Error::Data`] naming the file that is missing, changed or too new.
    pub fn open(path: &Path) -> Result<Self> {
        let seal_path = path.join(SEAL);
        let text = fs_err::read(&seal_path).map_err(|error| {
            DataError::new(path, format!("is no complete checkpoint: {error}"))
                .hint("a checkpoint is complete once it has a MANIFEST.json; name another step")
        })?;
        let seal: Seal = serde_json::from_slice(&text)
            .map_err(|error| DataError::new(&seal_path, error.to_string()))?;
        if seal.format_version > FORMAT_VERSION {
            let problem = format!(
                "has format version {}, this program reads up to {FORMAT_VERSION}",
                seal.format_version
            );
            return Err(DataError::new(&seal_path, problem)
                .hint(format!("use docre-pretrain {} or newer", seal.program))
                .into());
        }
        for (name, expected) in &seal.files {
            if Path::new(name).components().count() != 1 || name.starts_with('.') {
                return Err(DataError::new(
                    &seal_path,
                    format!("names a file outside the checkpoint: {name}"),
                )
                .into());
            }
            let found = fingerprint(&path.join(name))
                .map_err(|error| DataError::new(path, format!("{name} cannot be read: {error}")))?;
            if found != *expected {
                return Err(DataError::new(
                    path.join(name),
                    "differs from the hash in MANIFEST.json",
                )
                .hint("the file was changed or cut off; name another checkpoint")
                .into());
            }
        }
        Ok(Self { path: path.to_owned() })
    }

    /// The newest complete checkpoint of a stage's folder, by step.
    ///
    /// # Errors
    /// If the newest sealed one fails its check.
    pub fn latest(stage_folder: &Path) -> Result<Option<Self>> {
        let steps = steps_in(stage_folder)?;
        steps.last().map(|step| Self::open(&folder_of_step(stage_folder, *step))).transpose()
    }

    /// Removes the checkpoints of a stage that nothing keeps.
    ///
    /// # Errors
    /// I/O errors.
    pub fn prune(stage_folder: &Path, retention: Retention) -> Result<()> {
        Self::prune_on(&LocalDisk, stage_folder, retention)
    }

    /// As [`Self::prune`], on any disk.
    pub(super) fn prune_on(
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

    /// All files of the checkpoint with their hashes, by name.
    ///
    /// # Errors
    /// A malformed seal.
    pub fn files(&self) -> Result<BTreeMap<String, String>> {
        let seal: Seal = self.json(SEAL)?;
        Ok(seal.files.into_iter().map(|(name, file)| (name, file.blake3)).collect())
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
    /// A malformed file.
    pub fn trainer(&self) -> Result<TrainerState> {
        self.json("trainer.json")
    }

    /// The description of the heads.
    ///
    /// # Errors
    /// A malformed file, or one of another system.
    pub fn description<T: for<'a> Deserialize<'a>>(&self) -> Result<T> {
        self.json("docre.json").map_err(|error| match error {
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
    /// A malformed file.
    pub fn heads(&self) -> Result<Vec<(String, Tensor)>> {
        Ok(hf::read_safetensors(&self.path.join("heads.safetensors"))?.into_iter().collect())
    }

    /// Optimiser state; empty in an export.
    ///
    /// # Errors
    /// A malformed file.
    pub fn optimizer(&self) -> Result<Vec<(String, Tensor)>> {
        let path = self.path.join("optimizer.safetensors");
        if path.exists() {
            Ok(hf::read_safetensors(&path)?.into_iter().collect())
        } else {
            Ok(Vec::new())
        }
    }
}

/// The folder of a step's checkpoint.
pub fn folder_of_step(stage_folder: &Path, step: u64) -> PathBuf {
    stage_folder.join(format!("step-{step:08}"))
}

/// Steps of the sealed checkpoints in a stage's folder, in rising order; none where there is no
/// such folder.
///
/// # Errors
/// I/O errors.
pub fn steps_in(stage_folder: &Path) -> Result<Vec<u64>> {
    if !stage_folder.exists() {
        return Ok(Vec::new());
    }
    let mut steps = Vec::new();
    for entry in fs_err::read_dir(stage_folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(step) = name.strip_prefix("step-").and_then(|digits| digits.parse().ok())
            && entry.path().join(SEAL).exists()
        {
            steps.push(step);
        }
    }
    steps.sort_unstable();
    Ok(steps)
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
    disk.write(folder, &mut |folder| {
        hf::write_safetensors(&folder.join("heads.safetensors"), named(&content.heads))
    })?;
    disk.write(folder, &mut |folder| {
        hf::write_safetensors(&folder.join("optimizer.safetensors"), named(&content.optimizer))
    })?;
    disk.write(folder, &mut |folder| write_whole(&folder.join("docre.json"), &description))?;
    disk.write(folder, &mut |folder| write_whole(&folder.join("trainer.json"), &trainer))?;
    for (name, bytes) in &content.extra {
        disk.write(folder, &mut |folder| write_whole(&folder.join(name), bytes))?;
    }
    disk.write(folder, &mut |folder| content.tokenizer.save(folder))?;
    seal(disk, folder)
}

/// Lets a finished folder take its place.
fn put_in_place(disk: &dyn Disk, work: &Path, path: &Path, aside: &Path) -> Result<()> {
    // The parent of a bare name is "".
    let parent =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
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

fn seal(disk: &dyn Disk, folder: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        disk.sync(&entry.path())?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), fingerprint(&entry.path())?);
    }
    let seal =
        Seal { format_version: FORMAT_VERSION, program: env!("CARGO_PKG_VERSION").into(), files };
    let bytes = serde_json::to_vec_pretty(&seal).map_err(|error| Error::Bug(error.to_string()))?;
    disk.write(folder, &mut |folder| write_whole(&folder.join(SEAL), &bytes))?;
    disk.sync(folder)
}

fn fingerprint(path: &Path) -> Result<FileSeal> {
    let mut hasher = blake3::Hasher::new();
    let mut file = fs_err::File::open(path)?;
    let bytes = std::io::copy(&mut file, &mut hasher)?;
    Ok(FileSeal { bytes, blake3: hasher.finalize().to_hex().to_string() })
}

#[cfg(test)]
pub(super) mod tests;
