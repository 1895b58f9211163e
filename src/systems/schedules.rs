//! What the schedules of several systems start from.

use crate::train::{OptimizerKind, Schedule};

/// Adam as DocRED's code base has it: no clipping, up to 200 epochs.
pub(crate) fn adam_schedule() -> Schedule {
    Schedule {
        optimizer: OptimizerKind::Adam,
        clip: 0.0,
        epsilon: 1e-8,
        epochs: 200.0,
        ..Schedule::base()
    }
}
