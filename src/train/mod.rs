//! The step loop and what it leaves behind: batches prepared ahead, exact accumulation, clipping,
//! metrics, checkpoints, signals. [`Objective`] is what it needs of a model, [`BatchSource`] of its
//! data.
//!
//! The files stand below in the order in which they may use each other. Not for what is learnt
//! (`systems`) or how gradients travel (`ranks`).

mod communication;

mod schedule;

mod loss_history;

mod loss_sums;

mod state;

mod signals;

pub mod metrics;

pub mod checkpoint;

mod mirror;

mod checkpoint_writer;

mod run_folder;

mod objective;

mod batches;

mod division;

mod prefetch;

mod gradient_sums;

mod parameter_groups;

mod replicas;

mod culprits;

mod sections;

mod step_report;

mod stage;

mod trainer;

pub use batches::{BatchSource, Share, StepBatches};
pub use checkpoint::{Checkpoint, CheckpointContent, Retention, folder_of_step, steps_in};
pub use checkpoint_writer::CheckpointWriter;
pub use communication::{CommunicationSettings, WirePrecision};
pub use division::idle_ranks;
pub use gradient_sums::BUCKET_BYTES;
pub use loss_history::{LossHistory, SPIKE};
pub use metrics::{EncoderCost, Gauges, Metrics};
pub use mirror::RunRecipe;
pub use objective::{Forward, MicroBatch, Objective};
pub use run_folder::{RunFolder, RunIdentity};
pub use schedule::{OptimizerKind, PrecisionChoice, Schedule, Select};
pub use sections::StepSection;
pub use signals::Signals;
pub use stage::{Boundary, StageContext};
pub use state::{OrderKey, TrainerState};
pub use trainer::{Trainer, TrainerSettings};
