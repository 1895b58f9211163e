//! Checkpoints written in the background: a thread writes a snapshot to the disk while the next
//! steps run.
//!
//! One checkpoint is under way at a time: taking a second one waits for the first, so that a slow
//! disk slows training down instead of filling the memory. Not for taking the snapshot, for the
//! format (`checkpoint`), or for how a mirror is reached (`mirror`).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use super::checkpoint::{Checkpoint, CheckpointContent, Retention, folder_of_step};
use super::mirror::Mirror;
use crate::{Error, Result};

/// The thread, while there is something to write.
#[derive(Debug, Default)]
pub struct CheckpointWriter {
    mirror: Option<Arc<Mirror>>,
    under_way: Option<UnderWay>,
}

/// A checkpoint that is being written.
#[derive(Debug)]
struct UnderWay {
    thread: JoinHandle<Result<()>>,
    /// Receives, or ends, when the checkpoint is on the disk; it may not be in the mirror yet.
    on_disk: Receiver<()>,
}

impl CheckpointWriter {
    /// A writer that copies every checkpoint to `mirror`.
    pub fn new(mirror: Option<Arc<Mirror>>) -> Self {
        Self { mirror, under_way: None }
    }

    /// Number of checkpoints that could not be copied to the mirror.
    pub fn unmirrored(&self) -> u64 {
        self.mirror.as_ref().map_or(0, |mirror| mirror.failures())
    }

    /// Starts to write a snapshot into a stage's folder, to prune that folder, and to upload the
    /// snapshot.
    ///
    /// # Errors
    /// I/O errors of the checkpoint before.
    pub fn write(
        &mut self,
        stage_folder: PathBuf,
        content: CheckpointContent,
        retention: Retention,
    ) -> Result<()> {
        self.settle()?;
        let mirror = self.mirror.clone();
        let (say, on_disk) = channel();
        let write = move || {
            Checkpoint::write(&folder_of_step(&stage_folder, content.trainer.step), &content)?;
            // Uploads may take long and do not need the snapshot.
            drop(content);
            Checkpoint::prune(&stage_folder, retention)?;
            // The receiver may be gone.
            let _ = say.send(());
            if let Some(mirror) = mirror {
                mirror.follow(&stage_folder, retention);
            }
            Ok(())
        };
        self.under_way = Some(UnderWay {
            thread: thread::Builder::new().name("checkpoint".into()).spawn(write)?,
            on_disk,
        });
        Ok(())
    }

    /// Waits until the last checkpoint is written.
    ///
    /// # Errors
    /// I/O errors of the last checkpoint.
    pub fn settle(&mut self) -> Result<()> {
        let panicked = |_| Err(Error::Bug("writing a checkpoint panicked".into()));
        self.under_way
            .take()
            .map_or(Ok(()), |under_way| under_way.thread.join().unwrap_or_else(panicked))
    }
}

impl Drop for CheckpointWriter {
    /// Waits until the checkpoint is on the disk, also after an error. An upload ends with the
    /// process: the other ranks do not wait for it, and a mirror never takes a part of one for a
    /// checkpoint.
    fn drop(&mut self) {
        if let Some(under_way) = self.under_way.take() {
            let _ = under_way.on_disk.recv();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::train::checkpoint::tests::content;
    use crate::train::mirror::tests::stuck;

    #[test]
    fn an_error_waits_for_the_disk_and_not_for_the_mirror() {
        let place = tempfile::tempdir().unwrap();
        let stage = place.path().join("checkpoints/pretrain");
        fs_err::create_dir_all(&stage).unwrap();
        let mut writer = CheckpointWriter::new(Some(Arc::new(stuck())));
        let began = Instant::now();
        writer
            .write(
                stage.clone(),
                content(place.path(), 3, 0.5),
                Retention { newest: 1, every: 0, best: None },
            )
            .unwrap();
        drop(writer);
        assert!(began.elapsed() < Duration::from_secs(30));
        Checkpoint::open(&folder_of_step(&stage, 3)).unwrap();
    }
}
