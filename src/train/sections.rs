//! The sections of a training step: their names in the recorder, and how much of a step each takes
//! on this rank. Not for: finding out who is slow (`step_report`) or who hangs (`ranks::failure`).

use std::time::Instant;

/// Where a rank spends its time in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepSection {
    /// Waiting for the documents of the step.
    Reading,
    /// Forward and backward pass.
    Compute,
    /// Adding up counts, gradients and losses over the ranks, as far as it is waited for.
    Exchange,
    /// Norm, clipping, optimiser.
    Update,
}

impl StepSection {
    /// All of them, in the order of a step.
    pub const ALL: [Self; 4] = [Self::Reading, Self::Compute, Self::Exchange, Self::Update];

    /// What follows `share/` in the metrics.
    pub fn key(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Compute => "compute",
            Self::Exchange => "exchange",
            Self::Update => "update",
        }
    }

    /// How its section in the recorder begins. Collectives that stand alone are exchange too.
    pub fn recorded(self) -> &'static str {
        match self {
            Self::Reading => "reading the documents",
            Self::Compute => "forward and backward",
            Self::Exchange => "waiting for the sums of gradients",
            Self::Update => "updating the weights",
        }
    }
}

/// Measures the sections of one step after the other. A lap costs one look at the clock.
#[derive(Debug)]
pub(super) struct StepClock {
    started: Instant,
    last: Instant,
    seconds: [f64; StepSection::ALL.len()],
}

impl StepClock {
    /// A step begins, with the wait for its documents.
    pub fn start() -> Self {
        let now = Instant::now();
        Self { started: now, last: now, seconds: Default::default() }
    }

    /// The time since the last lap went into this section.
    pub fn lap(&mut self, section: StepSection) {
        self.lap_at(section, Instant::now());
    }

    fn lap_at(&mut self, section: StepSection, now: Instant) {
        self.seconds[section as usize] += now.duration_since(self.last).as_secs_f64();
        self.last = now;
    }

    /// The share of each section in the time since the start. What is left over is bookkeeping.
    pub fn shares(&self) -> [(StepSection, f64); StepSection::ALL.len()] {
        self.shares_at(Instant::now())
    }

    fn shares_at(&self, now: Instant) -> [(StepSection, f64); StepSection::ALL.len()] {
        let whole = now.duration_since(self.started).as_secs_f64().max(1e-9);
        StepSection::ALL.map(|section| (section, self.seconds[section as usize] / whole))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn shares_are_parts_of_the_whole_step() {
        let mut clock = StepClock::start();
        let at = |milliseconds| clock.started + Duration::from_millis(milliseconds);
        let times = [at(10), at(30), at(80), at(90), at(95), at(100)];
        clock.lap_at(StepSection::Reading, times[0]);
        clock.lap_at(StepSection::Exchange, times[1]);
        clock.lap_at(StepSection::Compute, times[2]);
        clock.lap_at(StepSection::Exchange, times[3]);
        clock.lap_at(StepSection::Update, times[4]);
        let shares = clock.shares_at(times[5]);
        let expected = [0.1, 0.5, 0.3, 0.05];
        for ((section, share), expected) in shares.iter().zip(expected) {
            assert!((share - expected).abs() < 1e-9, "{section:?}: {share}");
        }
        assert!(shares.iter().map(|(_, share)| share).sum::<f64>() <= 1.0);
    }
}
