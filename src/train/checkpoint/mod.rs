//! Checkpoints on the local disk.

mod compare;
mod disk;
mod folder;
mod retention;
mod seal;

pub use compare::{CheckpointDifference, Difference, TensorDifference, compare};
pub(super) use folder::SAVING;
#[cfg(test)]
pub(super) use folder::tests;
pub use folder::{Checkpoint, CheckpointContent};
pub(super) use retention::step_of;
pub use retention::{Retention, folder_of_step, steps_in};
pub(super) use seal::SEAL;
