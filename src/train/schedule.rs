//! The schedule of one stage: learning rates, steps, optimiser, checkpoints, evaluations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The dev score that chooses the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// F1.
    #[default]
    F1,
    /// F1 over facts that the training documents do not hold.
    IgnF1,
}

/// Schedule and optimiser of one stage (docs/systems.md, C.18 and C.19).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Schedule {
    /// Learning rate.
    pub learning_rate: f64,
    /// Learning rate of the heads as a multiple of `learning_rate`.
    pub head_rate: f64,
    /// Share of the steps over which the rate rises from 0.
    pub warmup: f64,
    /// Whether the rate falls linearly to 0 after the warm-up.
    pub decay: bool,
    /// Items (documents; document pairs in pre-training) a step, over all ranks and micro-batches.
    pub batch: usize,
    /// Passes over the data; for pre-training, epochs of `steps_per_epoch` steps.
    pub epochs: f64,
    /// Steps a pre-training epoch.
    pub steps_per_epoch: u64,
    /// Total steps; wins over `epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// `adamw` (decoupled decay) or `adam` (decay added to the gradient).
    pub optimizer: String,
    /// AMSGrad: divide by the largest second moment so far.
    pub amsgrad: bool,
    /// Weight decay.
    pub weight_decay: f64,
    /// Parts of the names of parameters that are not decayed.
    pub no_decay: Vec<String>,
    /// The optimiser's ε.
    pub epsilon: f64,
    /// Largest global gradient norm; 0 settings clipping off.
    pub clip: f64,
    /// Tokens a micro-batch at most; a longer document is a micro-batch of its own.
    pub tokens_per_micro_batch: usize,
    /// Steps between checkpoints; 0 saves only at the end.
    pub checkpoint_steps: u64,
    /// Newest checkpoints of this stage to keep.
    pub keep_checkpoints: usize,
    /// Keep the checkpoints of every so many steps for good as well; 0: none.
    pub keep_every_steps: u64,
    /// Compare the weights of all ranks, bit by bit, every so many steps and before each
    /// checkpoint; 0: never.
    pub compare_ranks_steps: u64,
    /// `fp32`, `bf16`, or `auto`: bf16 on a GPU, fp32 on a CPU.
    pub precision: String,
    /// Evaluate on dev every so many epochs (fine-tuning).
    pub evaluate_epochs: usize,
    /// The first epoch after which dev is evaluated (fine-tuning).
    pub first_evaluation_epoch: f64,
    /// The dev score that chooses the checkpoint: `f1` or `ign-f1` (fine-tuning).
    pub select: Select,
    /// Stop after so many evaluations without a better dev F1; 0: never (fine-tuning).
    pub patience: usize,
    /// Where a non-finite loss or gradient is met: `skip` the update, or `stop`.
    pub non_finite: String,
    /// With `skip`: stop after all when more than so many steps in a row were skipped.
    pub non_finite_limit: u64,
    /// The recipe's `deterministic`.
    #[serde(skip)]
    pub deterministic: bool,
}

impl Schedule {
    /// The values that most stages start from.
    pub fn base() -> Self {
        Self {
            learning_rate: 3e-5,
            head_rate: 1.0,
            warmup: 0.0,
            decay: false,
            batch: 32,
            epochs: 4.0,
            steps_per_epoch: 1000,
            steps: None,
            optimizer: "adamw".into(),
            amsgrad: false,
            weight_decay: 0.0,
            no_decay: vec!["bias".into(), "LayerNorm.weight".into()],
            epsilon: 1e-6,
            clip: 1.0,
            tokens_per_micro_batch: 8192,
            checkpoint_steps: 0,
            keep_checkpoints: 1,
            keep_every_steps: 0,
            compare_ranks_steps: 500,
            precision: "auto".into(),
            evaluate_epochs: 1,
            first_evaluation_epoch: 0.0,
            select: Select::F1,
            patience: 0,
            non_finite: "stop".into(),
            non_finite_limit: 10,
            deterministic: false,
        }
    }

    /// The learning rate's factor at `step` (from 1) of `total`.
    pub fn rate_at(&self, step: u64, total: u64) -> f64 {
        let warmup = (self.warmup * total as f64).round();
        let step = step as f64;
        if step < warmup {
            return step / warmup;
        }
        if !self.decay {
            return 1.0;
        }
        ((total as f64 - step) / (total as f64 - warmup).max(1.0)).max(0.0)
    }

    pub(crate) fn check(&self, stage: &str) -> Result<()> {
        let bad = |key: &str, value: String, need: &str| {
            Err(Error::recipe(format!("{stage}.{key} = {value}, but it must be {need}")))
        };
        if self.batch == 0 {
            return bad("batch", "0".into(), "at least 1");
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return bad("learning_rate", self.learning_rate.to_string(), "a positive number");
        }
        if self.steps == Some(0)
            || (self.steps.is_none() && !(self.epochs.is_finite() && self.epochs > 0.0))
        {
            let (key, value) = if self.steps.is_some() {
                ("steps", "0".into())
            } else {
                ("epochs", self.epochs.to_string())
            };
            return bad(key, value, "more than 0");
        }
        if self.steps.is_none() && self.steps_per_epoch == 0 {
            return bad("steps_per_epoch", "0".into(), "at least 1");
        }
        if !(self.epsilon.is_finite() && self.epsilon > 0.0) {
            return bad("epsilon", self.epsilon.to_string(), "a positive number");
        }
        for (key, value) in [
            ("weight_decay", self.weight_decay),
            ("head_rate", self.head_rate),
            ("clip", self.clip),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return bad(key, value.to_string(), "0 or more");
            }
        }
        if !(0.0..=1.0).contains(&self.warmup) {
            return bad("warmup", self.warmup.to_string(), "between 0 and 1");
        }
        if !["fp32", "bf16", "auto"].contains(&self.precision.as_str()) {
            return bad(
                "precision",
                format!("\"{}\"", self.precision),
                "\"auto\", \"fp32\" or \"bf16\"",
            );
        }
        if !["skip", "stop"].contains(&self.non_finite.as_str()) {
            return bad("non_finite", format!("\"{}\"", self.non_finite), "\"skip\" or \"stop\"");
        }
        if !["adam", "adamw"].contains(&self.optimizer.as_str()) {
            return bad("optimizer", format!("\"{}\"", self.optimizer), "\"adam\" or \"adamw\"");
        }
        if self.tokens_per_micro_batch == 0 {
            return bad("tokens_per_micro_batch", "0".into(), "at least 1");
        }
        if self.keep_checkpoints == 0 {
            return bad("keep_checkpoints", "0".into(), "at least 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_then_falls() {
        let plan = Schedule { warmup: 0.1, decay: true, ..Schedule::base() };
        let rates: Vec<f64> =
            [5, 10, 55, 100].iter().map(|&step| plan.rate_at(step, 100)).collect();
        assert_eq!(rates, [0.5, 1.0, 0.5, 0.0]);
    }
}
