//! What surrounds the step loop of a stage: its name, ranks, folder and signals, and what it does
//! at boundaries.

use tch::Tensor;

use super::batches::Share;
use super::run_folder::RunFolder;
use super::signals::Signals;
use super::state::TrainerState;
use crate::Result;
use crate::base::Progress;
use crate::ranks::World;

/// Everything around a stage except for its model and data.
pub struct StageContext<'a> {
    /// Name of the stage, as in the run folder.
    pub stage: &'a str,
    /// The ranks.
    pub world: &'a World,
    /// The run folder.
    pub run: &'a RunFolder,
    /// Stop and save requests.
    pub signals: &'a Signals,
}

impl StageContext<'_> {
    /// Whether this rank writes files and prints.
    pub fn is_root(&self) -> bool {
        self.world.rank() == 0
    }

    /// This rank's share of every global batch.
    pub fn share(&self) -> Share {
        Share { rank: self.world.rank(), world: self.world.size() }
    }
}

/// What a stage does at boundaries; `save` is called with the state and the optimiser's tensors
/// whenever a checkpoint is due.
pub trait Boundary {
    /// Called every `boundary_steps` steps and after the last; may change the state (scores, best
    /// step, `finished` to stop early). Returns whether to save.
    ///
    /// # Errors
    /// Errors of the stage, which must be the same on all ranks.
    fn reached(&mut self, state: &mut TrainerState, progress: &Progress) -> Result<bool>;

    /// Takes a checkpoint (called on rank 0 only). It may still be being written when this returns.
    ///
    /// # Errors
    /// I/O errors of this checkpoint or the one before.
    fn save(&mut self, state: &TrainerState, optimizer: Vec<(String, Tensor)>) -> Result<()>;

    /// Returns once every checkpoint taken so far is on the disk.
    ///
    /// # Errors
    /// I/O errors.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    /// Number of checkpoints that could not be copied to the mirror.
    fn unmirrored(&self) -> u64 {
        0
    }
}
