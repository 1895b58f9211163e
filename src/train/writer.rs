//! Checkpoints written beside training: a thread takes a snapshot to the disk while the next steps run.
//!
//! Not for taking the snapshot, and not for the format (`checkpoint`). One checkpoint is on its way at a time: taking a second one waits for
//! the first, so that a slow disk slows training down instead of filling the memory.

use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use super::checkpoint::{Checkpoint, CheckpointContent, Retention, folder_of_step};
use crate::{Error, Result};

/// The thread, while there is something to write.
#[derive(Debug, Default)]
pub struct CheckpointWriter {
    under_way: Option<JoinHandle<Result<()>>>,
}

impl CheckpointWriter {
    /// Starts to write a snapshot into a stage's folder, and then to prune that folder.
    ///
    /// # Errors
    /// I/O errors of the checkpoint before.
    pub fn write(&mut self, stage_folder: PathBuf, content: CheckpointContent, retention: Retention) -> Result<()> {
        self.settle()?;
        let write = move || {
            Checkpoint::write(&folder_of_step(&stage_folder, content.trainer.step), &content)?;
            Checkpoint::prune(&stage_folder, retention)
        };
        self.under_way = Some(thread::Builder::new().name("checkpoint".into()).spawn(write)?);
        Ok(())
    }

    /// Returns once nothing is under way any more.
    ///
    /// # Errors
    /// I/O errors of the last checkpoint.
    pub fn settle(&mut self) -> Result<()> {
        let panicked = |_| Err(Error::Bug("writing a checkpoint panicked".into()));
        self.under_way.take().map_or(Ok(()), |thread| thread.join().unwrap_or_else(panicked))
    }
}

impl Drop for CheckpointWriter {
    /// A checkpoint that was taken is finished, also on the way out of an error.
    fn drop(&mut self) {
        let _ = self.settle();
    }
}
