//! Checkpoints written beside training: a thread takes a snapshot to the disk while the next steps run.
//!
//! Not for taking the snapshot, for the format (`checkpoint`), or for how a mirror is reached (`mirror`). One checkpoint is on its way at a time: taking a second one waits for
//! the first, so that a slow disk slows training down instead of filling the memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::checkpoint::{Checkpoint, CheckpointContent, Retention, folder_of_step};
use super::mirror::Mirror;
use crate::{Error, Result};

/// The thread, while there is something to write.
#[derive(Debug, Default)]
pub struct CheckpointWriter {
    mirror: Option<Arc<Mirror>>,
    under_way: Option<JoinHandle<Result<()>>>,
}

impl CheckpointWriter {
    /// A writer that lets `mirror` follow every checkpoint.
    pub fn new(mirror: Option<Arc<Mirror>>) -> Self {
        Self { mirror, under_way: None }
    }

    /// Checkpoints that the mirror lacks.
    pub fn unmirrored(&self) -> u64 {
        self.mirror.as_ref().map_or(0, |mirror| mirror.failures())
    }

    /// Starts to write a snapshot into a stage's folder, to prune that folder, and to upload the snapshot.
    ///
    /// # Errors
    /// I/O errors of the checkpoint before.
    pub fn write(&mut self, stage_folder: PathBuf, content: CheckpointContent, retention: Retention) -> Result<()> {
        self.settle()?;
        let mirror = self.mirror.clone();
        let write = move || {
            Checkpoint::write(&folder_of_step(&stage_folder, content.trainer.step), &content)?;
            // The uploads may take long, and the snapshot is of no use to them.
            drop(content);
            Checkpoint::prune(&stage_folder, retention)?;
            if let Some(mirror) = mirror {
                mirror.follow(&stage_folder, retention);
            }
            Ok(())
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
