//! The schedule of one stage: learning rates, steps, optimiser, checkpoints, evaluations.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::{Error, Result};

/// The dev score that selects the checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// F1.
    #[default]
    F1,
    /// F1 over facts that the training documents do not hold.
    IgnF1,
}

/// The optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Decoupled weight decay.
    Adamw,
    /// Weight decay added to the gradient.
    Adam,
}

/// The kind of number of the matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// bf16 on a GPU, fp32 on a CPU.
    Auto,
    /// Single precision.
    Fp32,
    /// bfloat16 over single-precision weights.
    Bf16,
}

/// What happens at a loss or a gradient that is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NonFinite {
    /// End the run.
    Stop,
    /// Skip the update.
    Skip,
}

/// Most tokens of a micro-batch where the recipe leaves it open.
const TOKENS_ON_CPU: usize = 8_192;

/// The same on a GPU. BERT-base keeps about 350 KB a token there, 23 GB in all.
const TOKENS_ON_GPU: usize = 65_536;

/// Schedule and optimiser of one stage (docs/systems.md, C.18 and C.19).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Steps of a pre-training epoch.
    pub steps_per_epoch: u64,
    /// Number of steps; overrides `epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// `adamw` (decoupled decay) or `adam` (decay added to the gradient).
    pub optimizer: OptimizerKind,
    /// AMSGrad: divide by the largest second moment so far.
    pub amsgrad: bool,
    /// Weight decay.
    pub weight_decay: f64,
    /// Parts of the names of parameters that are not decayed.
    pub no_decay: Vec<String>,
    /// The optimiser's ε.
    pub epsilon: f64,
    /// Largest global gradient norm; 0: no clipping.
    pub clip: f64,
    /// Most tokens of a micro-batch; a longer document is a micro-batch of its own. 0: 8,192 on a
    /// CPU, 65,536 on a GPU.
    pub tokens_per_micro_batch: usize,
    /// Steps between checkpoints; 0: only at the end.
    pub checkpoint_steps: u64,
    /// Number of newest checkpoints of this stage to keep.
    pub keep_checkpoints: usize,
    /// Keep the checkpoints of every so many steps for good as well; 0: none.
    pub keep_every_steps: u64,
    /// Compare the weights of all ranks, bit by bit, every so many steps and before each
    /// checkpoint; 0: never.
    pub compare_ranks_steps: u64,
    /// `fp32`, `bf16`, or `auto`: bf16 on a GPU, fp32 on a CPU.
    pub precision: PrecisionChoice,
    /// Epochs between evaluations on dev (fine-tuning).
    pub evaluate_epochs: usize,
    /// The first epoch after which dev is evaluated (fine-tuning).
    pub first_evaluation_epoch: f64,
    /// The dev score that selects the checkpoint: `f1` or `ign-f1` (fine-tuning).
    pub select: Select,
    /// Stop after so many evaluations without a better dev score; 0: never (fine-tuning).
    pub patience: usize,
    /// At a loss or gradient that is not finite: `skip` the update, or `stop`.
    pub non_finite: NonFinite,
    /// With `skip`: stop nevertheless after more than so many skipped steps in a row.
    pub non_finite_limit: u64,
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
            optimizer: OptimizerKind::Adamw,
            amsgrad: false,
            weight_decay: 0.0,
            no_decay: vec!["bias".into(), "LayerNorm.weight".into()],
            epsilon: 1e-6,
            clip: 1.0,
            tokens_per_micro_batch: 0,
            checkpoint_steps: 0,
            keep_checkpoints: 1,
            keep_every_steps: 0,
            compare_ranks_steps: 500,
            precision: PrecisionChoice::Auto,
            evaluate_epochs: 1,
            first_evaluation_epoch: 0.0,
            select: Select::F1,
            patience: 0,
            non_finite: NonFinite::Stop,
            non_finite_limit: 10,
        }
    }

    /// Most tokens of a micro-batch on `device`. A GPU needs many: with 8,192 tokens it would wait
    /// for the host, which starts the same kernels for every micro-batch.
    pub fn token_budget(&self, device: Device) -> usize {
        match (self.tokens_per_micro_batch, device) {
            (0, Device::Cpu) => TOKENS_ON_CPU,
            (0, _) => TOKENS_ON_GPU,
            (tokens, _) => tokens,
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
        let by_epochs = self.steps.is_none();
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let not_negative = |value: f64| value.is_finite() && value >= 0.0;
        let count = |key, value: usize| (key, value as f64, value > 0, "at least 1");
        let rules = [
            count("batch", self.batch),
            (
                "learning_rate",
                self.learning_rate,
                positive(self.learning_rate),
                "a positive number",
            ),
            ("steps", self.steps.unwrap_or(0) as f64, self.steps != Some(0), "more than 0"),
            ("epochs", self.epochs, !by_epochs || positive(self.epochs), "more than 0"),
            (
                "steps_per_epoch",
                self.steps_per_epoch as f64,
                !by_epochs || self.steps_per_epoch > 0,
                "at least 1",
            ),
            ("epsilon", self.epsilon, positive(self.epsilon), "a positive number"),
            ("weight_decay", self.weight_decay, not_negative(self.weight_decay), "0 or more"),
            ("head_rate", self.head_rate, not_negative(self.head_rate), "0 or more"),
            ("clip", self.clip, not_negative(self.clip), "0 or more"),
            ("warmup", self.warmup, (0.0..=1.0).contains(&self.warmup), "between 0 and 1"),
            count("keep_checkpoints", self.keep_checkpoints),
        ];
        match rules.into_iter().find(|(_, _, holds, _)| !holds) {
            Some((key, value, _, need)) => {
                Err(Error::recipe(format!("{stage}.{key} = {value}, but it must be {need}")))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_then_falls() {
        let schedule = Schedule { warmup: 0.1, decay: true, ..Schedule::base() };
        let rates: Vec<f64> =
            [5, 10, 55, 100].iter().map(|&step| schedule.rate_at(step, 100)).collect();
        assert_eq!(rates, [0.5, 1.0, 0.5, 0.0]);
    }

    #[test]
    fn the_token_budget_is_that_of_the_recipe_or_of_the_device() {
        let budgets = |schedule: Schedule| {
            [Device::Cpu, Device::Cuda(0)].map(|device| schedule.token_budget(device))
        };
        assert_eq!(budgets(Schedule::base()), [8_192, 65_536]);
        let fixed = Schedule { tokens_per_micro_batch: 99, ..Schedule::base() };
        assert_eq!(budgets(fixed), [99, 99]);
    }
}
