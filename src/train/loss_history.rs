//! How far a loss lies from those before it.
//!
//! Not for losses that are not finite: `culprits` names their documents.

use serde::{Deserialize, Serialize};

/// Steps before a deviation means anything.
const WARM_UP: u64 = 20;

/// Weight of the newest loss once the history is long: the last hundred steps or so count.
const NEWEST: f64 = 0.02;

/// The z-score from which on a loss is called a spike.
pub const SPIKE: f64 = 6.0;

/// Exponentially weighted mean and variance of the losses so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossHistory {
    /// Number of losses.
    pub steps: u64,
    /// Their mean.
    pub mean: f64,
    /// Their variance.
    pub variance: f64,
}

impl LossHistory {
    /// Returns how many standard deviations `loss` lies above the mean of the losses before it
    /// (`None` while they are few or all equal), then adds it to the history. A spike counts as no
    /// more than [`SPIKE`] deviations, so that it does not hide the next one.
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
