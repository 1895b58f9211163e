//! The step loop and what it leaves behind: batches prepared ahead, exact accumulation, clipping, metrics, checkpoints, signals.
//!
//! Not for: what is learnt (`systems`) or how gradients travel (`dist`).

mod autopsy;
mod checkpoint;
mod compare;
mod disk;
mod guard;
mod metrics;
mod mirror;
mod progress;
mod replicas;
mod run_folder;
mod signals;
mod source;
mod trainer;
mod writer;

pub use autopsy::{AutopsyReport, LastEvent, RankEnd, RankState, autopsy, obituary, rank_states, record};
pub use checkpoint::{Checkpoint, CheckpointContent, OrderKey, Retention, TrainerState, folder_of_step, steps_in};
pub use compare::{CheckpointDifference, Difference, TensorDifference, compare};
pub use guard::{LossHistory, SPIKE};
pub use metrics::Metrics;
pub use mirror::Mirror;
pub use progress::{Progress, say};
pub use run_folder::{RunFolder, RunIdentity, host_name, write_whole};
pub use signals::Signals;
pub use source::StepWork;
pub use trainer::{Boundary, StageContext, StepReport, Trainer, TrainerSettings};
pub use writer::CheckpointWriter;
