//! The checkpoints in a stage's folder, and which of them stay.

use std::path::{Path, PathBuf};

use super::seal::SEAL;
use crate::Result;
use crate::base::entries;

/// Which checkpoints of a stage stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Number of the newest.
    pub newest: usize,
    /// Those whose step is a multiple of this; 0: none.
    pub every: u64,
    /// The best so far.
    pub best: Option<u64>,
}

impl Retention {
    /// Returns those of `steps`, in rising order, that nothing keeps; never the last.
    pub(in crate::train) fn outdated(self, steps: &[u64]) -> impl Iterator<Item = u64> + '_ {
        let old = &steps[..steps.len().saturating_sub(self.newest.max(1))];
        let kept = move |step: u64| {
            Some(step) == self.best || (self.every > 0 && step.is_multiple_of(self.every))
        };
        old.iter().copied().filter(move |&step| !kept(step))
    }
}

/// The folder of a step's checkpoint.
pub fn folder_of_step(stage_folder: &Path, step: u64) -> PathBuf {
    stage_folder.join(format!("step-{step:08}"))
}

/// Returns the steps of the sealed checkpoints in a stage's folder, in rising order; none if there
/// is no such folder.
///
/// # Errors
/// I/O errors.
pub fn steps_in(stage_folder: &Path) -> Result<Vec<u64>> {
    if !stage_folder.exists() {
        return Ok(Vec::new());
    }
    let mut steps = Vec::new();
    for (name, path) in entries(stage_folder)? {
        if let Some(step) = step_of(&name)
            && path.join(SEAL).exists()
        {
            steps.push(step);
        }
    }
    steps.sort_unstable();
    Ok(steps)
}

/// Returns the step that the name of a checkpoint's folder holds.
pub(in crate::train) fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("step-")?.parse().ok()
}
