//! What one step gave, and its line of metrics.

use std::collections::BTreeMap;

use super::metrics::MetricLine;
use super::sections::StepClock;

/// The outcome of one step, equal on all ranks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepReport {
    /// Loss by task; the directions of a task are added up.
    pub losses: BTreeMap<String, f64>,
    /// Their sum.
    pub loss: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Whether losses and gradient were finite numbers on all ranks; otherwise nothing was updated
    /// on any.
    pub finite: bool,
    /// Ranks whose own losses were not finite.
    pub bad_ranks: Vec<usize>,
    /// Seconds each rank worked in the step without waiting for others, by rank.
    pub busy_s: Vec<f64>,
    /// Documents over all ranks.
    pub documents: f64,
    /// Tokens over all ranks.
    pub tokens: f64,
    /// A rank wants to stop.
    pub stop: bool,
    /// A rank wants a checkpoint.
    pub save: bool,
}

impl StepReport {
    /// Adds up the mean loss of each slot by task, and all of them.
    pub(super) fn add_losses(&mut self, slots: &[&str], sums: &[f64], counts: &[f64]) {
        for ((slot, sum), count) in slots.iter().zip(sums).zip(counts) {
            let task = slot.split('/').next().unwrap_or(slot).to_owned();
            *self.losses.entry(task).or_default() += if *count > 0.0 { sum / count } else { 0.0 };
        }
        self.loss = self.losses.values().sum();
    }

    /// The line of metrics of a step that took so many `seconds`, and by `clock` for what.
    pub(super) fn line(
        &self,
        stage: &str,
        step: u64,
        seconds: f64,
        clock: &StepClock,
    ) -> MetricLine {
        let line = MetricLine {
            stage: stage.to_owned(),
            step,
            loss: Some(self.loss),
            grad_norm: Some(self.grad_norm),
            documents_per_s: Some(self.documents / seconds.max(1e-9)),
            tokens_per_s: Some(self.tokens / seconds.max(1e-9)),
            ..MetricLine::default()
        };
        let mut line = self
            .losses
            .iter()
            .fold(line, |line, (task, loss)| line.with(&format!("loss/{task}"), *loss));
        if !self.finite {
            line = line.with("skipped", 1.0);
        }
        if let Some((rank, score)) = straggler(&self.busy_s) {
            line = line.with("straggler", score).with("straggler_rank", rank as f64);
        }
        let shares = clock.shares().into_iter();
        shares.fold(line, |line, (section, share)| {
            line.with(&format!("share/{}", section.key()), share)
        })
    }
}

/// The slowest rank, and how long it worked as a multiple of the median; `None` for one rank.
fn straggler(busy_s: &[f64]) -> Option<(usize, f64)> {
    let mut sorted = busy_s.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let median = *sorted.get((sorted.len() - 1) / 2).filter(|_| sorted.len() > 1)?;
    let rank = (0..busy_s.len()).max_by(|&a, &b| busy_s[a].total_cmp(&busy_s[b]))?;
    Some((rank, busy_s[rank] / median.max(1e-9)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_rank_is_measured_against_the_median() {
        assert_eq!(straggler(&[1.0]), None);
        assert_eq!(straggler(&[1.0, 3.0]), Some((1, 3.0)));
        assert_eq!(straggler(&[2.0, 8.0, 1.0, 2.0]), Some((1, 4.0)));
    }
}
