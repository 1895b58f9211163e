//! What stands between a bad number and the weights: which documents made a loss or gradient that
//! is not finite, and how far a loss lies from those before it.
//!
//! Not for deciding what to do about it: the recipe's `non_finite` does, in the step loop.

use std::io::Write;

use serde::{Deserialize, Serialize};
use tch::Kind;

use super::run_folder::RunFolder;
use super::{BatchSource, Forward, MicroBatch, Objective, Share};
use crate::Error;
use crate::Result;
use crate::ranks::World;
use crate::torch::GradientBuckets;

/// Steps before a deviation means anything.
const WARM_UP: u64 = 20;

/// Weight of the newest loss once the history is long: the last hundred steps or so count.
const NEWEST: f64 = 0.02;

/// From this z-score on a loss is called a spike.
pub const SPIKE: f64 = 6.0;

/// Exponentially weighted mean and variance of the losses so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossHistory {
    /// Losses taken in.
    pub steps: u64,
    /// Their mean.
    pub mean: f64,
    /// Their variance.
    pub variance: f64,
}

impl LossHistory {
    /// How many standard deviations `loss` lies above the mean of those before it (`None` while
    /// they are few or all equal); then takes it in, a spike as no more than [`SPIKE`] deviations,
    /// so that one does not hide the next.
    pub fn score(&mut self, loss: f64) -> Option<f64> {
        let spread = self.variance.sqrt();
        let known = self.steps >= WARM_UP && spread > 0.0;
        let deviation = loss - self.mean;
        let taken =
            if known { deviation.clamp(-SPIKE * spread, SPIKE * spread) } else { deviation };
        let weight = (1.0 / (self.steps as f64 + 1.0)).max(NEWEST);
        self.mean += weight * taken;
        self.variance = (1.0 - weight) * (self.variance + weight * taken * taken);
        self.steps += 1;
        known.then(|| deviation / spread)
    }
}

/// What was found after a step whose loss or gradient was not finite; a line of
/// `log/non-finite.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Finding {
    /// The stage.
    pub stage: String,
    /// The step, from 1.
    pub step: u64,
    /// Ranks whose own losses were not finite; empty where only the gradient was not.
    pub ranks: Vec<usize>,
    /// The documents that make it alone, by title; all of the step where none does.
    pub documents: Vec<String>,
    /// Whether those documents do it alone.
    pub alone: bool,
}

impl Finding {
    /// The culprits, for one line.
    pub fn describe(&self) -> String {
        let ranks: Vec<String> = self.ranks.iter().map(ToString::to_string).collect();
        let place =
            if ranks.is_empty() { String::new() } else { format!(" on rank {}", ranks.join(", ")) };
        let sure =
            if self.alone { "made by" } else { "no document makes it alone; the step holds" };
        let shown: Vec<String> =
            self.documents.iter().take(8).map(|title| format!("`{title}`")).collect();
        let more = self.documents.len().saturating_sub(shown.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{place} ({sure} {}{more})", shown.join(", "))
    }

    /// Appends it to the run's list.
    pub fn record(&self, run: &RunFolder) -> Result<()> {
        let mut line = serde_json::to_vec(self).map_err(|error| Error::Bug(error.to_string()))?;
        line.push(b'\n');
        fs_err::create_dir_all(run.path().join("log"))?;
        fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(run.path().join("log/non-finite.jsonl"))?
            .write_all(&line)?;
        Ok(())
    }
}

/// Titles of the documents whose item alone makes a loss or gradient that is not finite, over all
/// ranks, in order of rank; every rank calls it. The gradients are overwritten; hooks must be at
/// rest.
pub(super) fn culprits<O, S>(
    objective: &O,
    source: &S,
    buckets: &GradientBuckets,
    forward: Forward,
    step: u64,
    rows: &[usize],
    world: &World,
) -> Result<Vec<String>>
where
    O: Objective,
    S: BatchSource<Batch = O::Batch>,
{
    let mut mine = Vec::new();
    for index in (world.rank()..rows.len()).step_by(world.size()) {
        let alone = source.prepare(step, Share { rank: index, world: rows.len() })?.micro;
        let documents: usize = alone.iter().map(MicroBatch::documents).sum();
        if documents > 0 && !is_finite(objective, &alone, buckets, forward)? {
            let own = rows.iter().skip(index * documents).take(documents);
            mine.extend(own.map(|&row| source.title(row)));
        }
    }
    let json = serde_json::to_vec(&mine).map_err(|error| Error::Bug(error.to_string()))?;
    let all = world.communicator().all_gather(&json)?;
    let lists = all.iter().map(|json| {
        serde_json::from_slice::<Vec<String>>(json).map_err(|error| Error::Bug(error.to_string()))
    });
    Ok(lists.collect::<Result<Vec<_>>>()?.concat())
}

/// Whether losses and gradients of these micro-batches are finite numbers.
fn is_finite<O: Objective>(
    objective: &O,
    micro: &[O::Batch],
    buckets: &GradientBuckets,
    forward: Forward,
) -> Result<bool> {
    buckets.zero()?;
    for batch in micro {
        let loss =
            tch::Tensor::f_stack(&objective.forward(batch, forward)?, 0)?.f_sum(Kind::Float)?;
        loss.f_backward()?;
        if !f64::try_from(loss.detach())?.is_finite() {
            return Ok(false);
        }
    }
    Ok(buckets.norm()?.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_that_of_the_definition() {
        let mut history = LossHistory::default();
        let losses: Vec<f64> = (0..20).map(|step| if step % 2 == 0 { 1.0 } else { 3.0 }).collect();
        assert!(losses.iter().all(|&loss| history.score(loss).is_none()), "too few to tell");
        // Weights 1/n up to the twentieth: the plain mean 2 and the plain variance 1.
        assert!(
            (history.mean - 2.0).abs() < 1e-12 && (history.variance - 1.0).abs() < 1e-12,
            "{history:?}"
        );
        assert!((history.score(4.5).unwrap() - 2.5).abs() < 1e-12);
    }

    #[test]
    fn a_spike_stands_out_and_does_not_hide_the_next() {
        let mut history = LossHistory::default();
        for step in 0..200u32 {
            assert!(
                history
                    .score(1.0 + 0.1 * f64::from(step % 3))
                    .is_none_or(|score| score.abs() < SPIKE)
            );
        }
        assert!(history.score(50.0).unwrap() > 100.0);
        assert!(history.score(50.0).unwrap() > SPIKE);
    }

    #[test]
    fn equal_losses_have_no_score() {
        let mut history = LossHistory::default();
        assert!((0..99).all(|_| history.score(2.0).is_none()));
    }
}
