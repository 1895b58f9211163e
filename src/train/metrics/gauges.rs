//! What a line of metrics says besides the step itself: how well the device is used, memory, and
//! the time left.
//!
//! What is not known is left out. Not for: what happens inside of a step (`sections`).

use std::time::{Duration, Instant};

use serde_json::Value;
use tch::Device;

use super::MetricLine;
use crate::base::MemoryUse;
use crate::encoders::encoder_flops;
use crate::torch::device::cuda_memory;

/// Memory is asked for this often at most: the kernel takes some 20 µs to answer.
const MEMORY_EVERY: Duration = Duration::from_secs(1);

/// What one document costs, and what the devices could do.
#[derive(Clone, Debug)]
pub struct EncoderCost {
    /// The encoder's `config.json`.
    pub config: Value,
    /// Forward passes that a step is worth: 3 with a backward pass through the encoder, else 1.
    pub passes: f64,
    /// FLOP/s of all ranks' devices together.
    pub peak_rate: f64,
}

impl EncoderCost {
    /// Model FLOPs utilisation: the arithmetic of the encoder over what the devices could have done
    /// meanwhile. The mean length of the step stands for all of its documents.
    fn utilisation(&self, documents_per_s: f64, tokens_per_s: f64) -> Option<f64> {
        let length = tokens_per_s / documents_per_s;
        let flops = self.passes * documents_per_s * encoder_flops(&self.config, length)?;
        Some(flops / self.peak_rate).filter(|share| share.is_finite())
    }
}

/// Adds to each line of a stage what can be read off this process.
#[derive(Debug)]
pub struct Gauges {
    device: Device,
    total_steps: u64,
    cost: Option<EncoderCost>,
    /// The first step of this process that was written, and when.
    first: Option<(u64, Instant)>,
    memory: Vec<(&'static str, u64)>,
    memory_read: Option<Instant>,
}

impl Gauges {
    /// For a stage of so many steps; without `cost`, utilisation is not known.
    pub fn new(device: Device, total_steps: u64, cost: Option<EncoderCost>) -> Self {
        Self { device, total_steps, cost, first: None, memory: Vec::new(), memory_read: None }
    }

    /// The line of the step that has just ended, completed.
    #[must_use]
    pub(super) fn complete(&mut self, mut line: MetricLine) -> MetricLine {
        let now = Instant::now();
        line = line.with("total_steps", self.total_steps);
        // The first step warms up, so the time left is told from the second one on.
        let &mut (first, since) = self.first.get_or_insert((line.step, now));
        let left = self.total_steps.saturating_sub(line.step);
        if let Some(seconds) = time_left(now - since, line.step.saturating_sub(first), left) {
            line = line.with("eta_s", seconds);
        }
        if let (Some(cost), Some(documents), Some(tokens)) =
            (&self.cost, line.documents_per_s, line.tokens_per_s)
            && let Some(share) = cost.utilisation(documents, tokens)
        {
            line = line.with("mfu", share);
        }
        if self.memory_read.is_none_or(|read| now - read >= MEMORY_EVERY) {
            (self.memory, self.memory_read) = (self.read_memory(), Some(now));
        }
        self.memory.iter().fold(line, |line, &(key, bytes)| line.with(key, bytes))
    }

    fn read_memory(&self) -> Vec<(&'static str, u64)> {
        let host = MemoryUse::of_process(None).ok();
        let device = cuda_memory(self.device).ok().flatten();
        let keys = [
            ("memory/host", "memory/host_peak", host),
            ("memory/device", "memory/device_peak", device),
        ];
        let known = keys.into_iter().filter_map(|(now, most, memory)| {
            let MemoryUse { current, peak } = memory?;
            Some([(now, current), (most, peak)])
        });
        known.flatten().collect()
    }
}

/// Seconds for the steps that are left, if each takes as long as the mean of those `done`. Time
/// between steps counts, such as that of checkpoints and of judging dev.
fn time_left(took: Duration, done: u64, left: u64) -> Option<f64> {
    (done > 0).then(|| took.as_secs_f64() / done as f64 * left as f64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn time_left_is_that_of_the_mean_step() {
        assert_eq!(time_left(Duration::from_secs(30), 10, 40), Some(120.0));
        assert_eq!(time_left(Duration::from_secs(30), 10, 0), Some(0.0));
        assert_eq!(time_left(Duration::ZERO, 0, 40), None);
    }

    #[test]
    fn utilisation_of_a_bert_of_known_cost() {
        // A layer: 24·n·d² for its products with weights, 4·n²·d for attention (docs/design.md).
        let config = json!({"num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 512});
        let (length, width) = (310.0_f64, 128.0_f64);
        let forward = 2.0 * (24.0 * length * width.powi(2) + 4.0 * length.powi(2) * width);
        let cost = EncoderCost { config, passes: 3.0, peak_rate: 1e12 };
        let share = cost.utilisation(100.0, 100.0 * length).unwrap();
        assert!((share / (3.0 * 100.0 * forward / 1e12) - 1.0).abs() < 1e-9, "{share}");
        assert_eq!(cost.utilisation(0.0, 0.0), None);
        let words = EncoderCost { config: json!({"model_type": "docre-words"}), ..cost };
        assert_eq!(words.utilisation(100.0, 31e3), None);
    }

    #[test]
    fn a_line_says_what_is_known_and_nothing_else() {
        let mut gauges = Gauges::new(Device::Cpu, 20, None);
        let line = |step| MetricLine {
            stage: "rank".into(),
            step,
            documents_per_s: Some(8.0),
            tokens_per_s: Some(800.0),
            ..MetricLine::default()
        };
        let first = gauges.complete(line(5));
        let keys: Vec<&str> = first.more.keys().map(String::as_str).collect();
        assert_eq!(keys, ["total_steps", "memory/host", "memory/host_peak"]);
        assert!(first.number("memory/host_peak") >= first.number("memory/host"));
        let second = gauges.complete(line(6));
        assert!(second.number("eta_s").unwrap() >= 0.0 && second.number("mfu").is_none());
        assert_eq!(second.number("memory/host"), first.number("memory/host"), "read once a second");
        assert_eq!(gauges.complete(line(20)).number("eta_s"), Some(0.0));
    }
}
