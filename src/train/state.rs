//! Where a stage's training stands.
//!
//! Not for tensors: a checkpoint holds both.

use serde::{Deserialize, Serialize};

use super::loss_history::LossHistory;
use crate::distant::Calibration;

/// Where training stands: with the seed, everything that resuming needs except for tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainerState {
    /// Stage name.
    pub stage: String,
    /// Steps done.
    pub step: u64,
    /// Number of steps.
    pub total_steps: u64,
    /// Whether the stage is complete.
    pub finished: bool,
    /// Rolling hash of the order of the data.
    pub order_hash: String,
    /// What the order follows from.
    pub order: Option<OrderKey>,
    /// Fine-tuning: (epoch, dev F1) so far.
    pub curve: Vec<(f64, f64)>,
    /// Fine-tuning: the best dev F1 and the step that had it.
    pub best: Option<(f64, u64)>,
    /// Fine-tuning: the decision threshold found on dev.
    pub threshold: Option<f64>,
    /// Fine-tuning: how margins become probabilities, fitted on dev at the best step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Whether the boundary of this step is still to be reached: the run was asked to stop there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unjudged: bool,
    /// Seconds of training so far.
    pub seconds: f64,
    /// Steps in a row whose update was skipped because a number was not finite.
    pub skipped_in_a_row: u64,
    /// Mean and variance of the losses, for the z-score of the next.
    pub losses: LossHistory,
}

/// What the order of a stage's documents follows from, besides the documents. Training cannot be
/// resumed with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderKey {
    /// The seed.
    pub seed: u64,
    /// Documents (or pairs of documents) a step.
    pub batch: usize,
    /// What tells the sources and their weights from others; 0: one source without a weight.
    #[serde(default)]
    pub mixture: u64,
}
