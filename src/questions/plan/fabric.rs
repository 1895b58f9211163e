//! A network between ranks as a simulation: when the gradient buckets of a step arrive, and how
//! long the step takes.
//!
//! A message around a ring of n ranks takes 2(n − 1) steps, each of which costs a latency and the
//! time for an n-th of its bytes (docs/design.md, "Costs"). Not for what a step computes.

use serde::Serialize;

/// Links of a ring of ranks, all alike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fabric {
    /// Seconds until the first byte arrives at the neighbour.
    pub latency_s: f64,
    /// Bytes a second of each link.
    pub bytes_per_s: f64,
}

/// One training step of a rank, as far as the network matters.
#[derive(Clone, Debug)]
pub(super) struct StepTimeline {
    /// Seconds until the backward pass of the last micro-batch begins.
    pub before_s: f64,
    /// Seconds of that backward pass, which completes bucket after bucket.
    pub backward_s: f64,
    /// Bytes of each bucket in the order in which they are sent.
    pub buckets: Vec<f64>,
}

impl Fabric {
    /// Seconds of a sum of so many bytes over all ranks.
    pub(super) fn all_reduce(&self, bytes: f64, ranks: usize) -> f64 {
        let steps = 2.0 * (ranks.max(1) - 1) as f64;
        steps * (self.latency_s + bytes / ranks.max(1) as f64 / self.bytes_per_s)
    }

    /// Seconds of a step: a bucket is sent when its gradients are complete and the one before has
    /// arrived; without `overlap` when the backward pass has ended. Two short messages, counts and
    /// losses, go by the shortest way.
    pub(super) fn step(&self, work: &StepTimeline, ranks: usize, overlap: bool) -> f64 {
        let total: f64 = work.buckets.iter().sum();
        let end = work.before_s + work.backward_s;
        let (mut complete, mut arrived) = (0.0, 0.0_f64);
        for bytes in &work.buckets {
            complete += bytes;
            let share = if overlap { complete / total.max(1.0) } else { 1.0 };
            let ready = work.before_s + share * work.backward_s;
            arrived = arrived.max(ready) + self.all_reduce(*bytes, ranks);
        }
        let short = 2.0 * (ranks as f64).log2().ceil() * self.latency_s;
        end.max(if ranks > 1 { arrived } else { end }) + short
    }
}
