//! The step loop and what it leaves behind: batches prepared ahead, exact accumulation, clipping, metrics, checkpoints, signals.
//!
//! Not for: what is learnt (`systems`) or how gradients travel (`dist`).

mod checkpoint;
mod metrics;
mod progress;
mod run_folder;
mod signals;
mod source;
mod trainer;

pub use checkpoint::{Checkpoint, CheckpointContent, TrainerState, folder_of_step};
pub use metrics::Metrics;
pub use progress::{Progress, say};
pub use run_folder::{RunFolder, RunIdentity, host_name, write_whole};
pub use signals::Signals;
pub use trainer::{Boundary, StageContext, StepReport, Trainer, TrainerSettings};
