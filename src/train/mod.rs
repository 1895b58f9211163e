//! The step loop and what it leaves behind: batches prepared ahead, exact accumulation, clipping,
//! metrics, checkpoints, signals. [`Objective`] is what it needs of a model, [`BatchSource`] of its
//! data.
//!
//! Not for: what is learnt (`systems`) or how gradients travel (`ranks`).

mod batches;
pub mod checkpoint;
mod guard;
pub mod metrics;
mod objective;
mod prefetch;
mod replicas;
pub mod run_folder;
mod schedule;
mod signals;
mod trainer;

pub use batches::{BatchSource, Share, StepBatches};
pub use checkpoint::{
    Checkpoint, CheckpointContent, CheckpointWriter, OrderKey, Retention, TrainerState,
    folder_of_step, steps_in,
};
pub use guard::{LossHistory, SPIKE};
pub use metrics::Metrics;
pub use objective::{Forward, MicroBatch, Objective};
pub use prefetch::StepWork;
pub use run_folder::{RunFolder, RunIdentity, RunRecipe};
pub use schedule::{Schedule, Select};
pub use signals::Signals;
pub use trainer::{Boundary, StageContext, StepReport, Trainer, TrainerSettings};
