//! How a stage scales: seconds a step, efficiency and documents a second on 1 to 512 ranks, by the
//! simulated network.
//!
//! Not for a measurement: work is computed from the share of the slowest rank, and nothing but
//! messages and missing work slows a step down.

use std::fmt;

use clap::Args;
use serde::Serialize;

use super::fabric::{Fabric, StepTimeline};
use crate::{Error, Result};

/// Most ranks of the curve.
const MOST_RANKS: usize = 512;

/// A backward pass costs twice a forward pass.
const BACKWARD_SHARE: f64 = 2.0 / 3.0;

/// The network, and what is known of the work, as the flags of `plan` say it.
#[derive(Clone, Debug, Args)]
pub struct ScalingOptions {
    /// Print how each stage scales to 512 ranks
    #[arg(long)]
    pub scaling: bool,
    /// Microseconds of one step of a ring between machines
    #[arg(long, value_name = "US", default_value_t = 6.5, requires = "scaling")]
    pub latency_us: f64,
    /// GB a second of a ring between machines
    #[arg(long, value_name = "GB", default_value_t = 362.0, requires = "scaling")]
    pub bandwidth_gbs: f64,
    /// Microseconds of one step of a ring inside a machine
    #[arg(long, value_name = "US", default_value_t = 3.0, requires = "scaling")]
    pub node_latency_us: f64,
    /// GB a second of a ring inside a machine
    #[arg(long, value_name = "GB", default_value_t = 464.0, requires = "scaling")]
    pub node_bandwidth_gbs: f64,
    /// Measured seconds of a step on one rank; may be repeated [default: those of the run folder,
    /// otherwise estimated]
    #[arg(long, value_name = "STAGE=S", requires = "scaling")]
    pub step_seconds: Vec<String>,
    /// Let the batch grow with the ranks: items of each rank [default: the recipe's batch on any
    /// number of ranks]
    #[arg(long, value_name = "N", requires = "scaling")]
    pub batch_per_rank: Option<usize>,
}

/// A step as a stage knows it.
#[derive(Clone, Debug)]
pub(super) struct StepShape {
    /// Items of a batch.
    pub items: usize,
    /// Documents of an item.
    pub documents: f64,
    /// Tokens of an item.
    pub tokens: f64,
    /// Most tokens of a micro-batch.
    pub budget: f64,
    /// Bytes of the gradient buckets in fp32.
    pub buckets: Vec<usize>,
    /// Estimated seconds of an item on one rank.
    pub seconds: f64,
}

/// Where the seconds of an item come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkSource {
    /// An option.
    Given,
    /// The steps that a run has made.
    RunFolder,
    /// Floating-point operations and a rate.
    Estimated,
}

impl fmt::Display for WorkSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "given",
            Self::RunFolder => "measured in the run folder",
            Self::Estimated => "estimated",
        })
    }
}

/// How a stage scales.
#[derive(Clone, Debug, Serialize)]
pub struct StageScaling {
    /// Its name.
    pub stage: String,
    /// Seconds that one rank works for one item of a batch.
    pub item_s: f64,
    /// Where they come from.
    pub source: WorkSource,
    /// Gradients in fp32, in MB.
    pub gradient_mb: f64,
    /// The buckets that they travel in.
    pub buckets: usize,
    /// The curve.
    pub points: Vec<ScalingPoint>,
}

/// A number of ranks.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ScalingPoint {
    /// Ranks.
    pub ranks: usize,
    /// Items of a batch.
    pub batch: usize,
    /// Seconds that the rank with the largest share works.
    pub work_s: f64,
    /// Gradients in fp32.
    pub fp32: WireTimes,
    /// Gradients in bf16.
    pub bf16: WireTimes,
}

/// What a step takes with one kind of message.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WireTimes {
    /// Seconds of a step whose messages travel during the backward pass.
    pub step_s: f64,
    /// Seconds of a step whose messages wait for its end.
    pub step_s_without_overlap: f64,
    /// Share of the time in which a rank works on items of its own, on average: what one rank alone
    /// would take, divided by the time of all.
    pub efficiency: f64,
    /// Documents a second on all ranks.
    pub documents_per_s: f64,
}

impl ScalingOptions {
    /// The links of a ring of so many ranks: those between machines, if it leaves one.
    pub(super) fn fabric(&self, ranks: usize, ranks_per_node: usize) -> Fabric {
        let (latency_us, gigabytes) = if ranks > ranks_per_node {
            (self.latency_us, self.bandwidth_gbs)
        } else {
            (self.node_latency_us, self.node_bandwidth_gbs)
        };
        Fabric { latency_s: latency_us * 1e-6, bytes_per_s: gigabytes * 1e9 }
    }

    fn check(&self) -> Result<()> {
        let latencies = [self.latency_us, self.node_latency_us];
        let rates = [self.bandwidth_gbs, self.node_bandwidth_gbs];
        if latencies.iter().all(|us| us.is_finite() && *us >= 0.0)
            && rates.iter().all(|rate| rate.is_finite() && *rate > 0.0)
            && self.batch_per_rank != Some(0)
        {
            return Ok(());
        }
        Err(Error::recipe(
            "latencies are not negative, bandwidths are positive, and --batch-per-rank counts \
             from 1",
        ))
    }

    /// The measured seconds of steps by stage, all of which are among `stages`.
    ///
    /// # Errors
    /// A recipe error (64) for an option that means nothing.
    pub(super) fn measured(&self, stages: &[&str]) -> Result<Vec<(String, f64)>> {
        self.check()?;
        let read = |text: &String| {
            let (stage, seconds) = text.split_once('=').unwrap_or((text, ""));
            let seconds = seconds.parse::<f64>().ok().filter(|s| s.is_finite() && *s > 0.0);
            match seconds {
                Some(seconds) if stages.contains(&stage) => Ok((stage.to_owned(), seconds)),
                _ => Err(Error::recipe(format!("--step-seconds {text} is not STAGE=SECONDS"))
                    .with_hint(format!("the stages are {}", stages.join(", ")))),
            }
        };
        self.step_seconds.iter().map(read).collect()
    }
}

impl StepShape {
    /// The curve of a stage whose items take `item_s` seconds each.
    pub(super) fn scaling(
        &self,
        stage: &str,
        (item_s, source): (f64, WorkSource),
        options: &ScalingOptions,
        ranks_per_node: usize,
    ) -> StageScaling {
        let all = std::iter::successors(Some(1), |ranks| Some(2 * ranks));
        let point = |ranks: usize| {
            let batch = options.batch_per_rank.map_or(self.items, |own| own * ranks);
            self.point(ranks, batch, item_s, &options.fabric(ranks, ranks_per_node))
        };
        StageScaling {
            stage: stage.to_owned(),
            item_s,
            source,
            gradient_mb: self.buckets.iter().sum::<usize>() as f64 / 1e6,
            buckets: self.buckets.len(),
            points: all.take_while(|ranks| *ranks <= MOST_RANKS).map(point).collect(),
        }
    }

    /// A step of `batch` items.
    fn point(&self, ranks: usize, batch: usize, item_s: f64, fabric: &Fabric) -> ScalingPoint {
        let share = batch.div_ceil(ranks) as f64;
        let work_s = share * item_s;
        let micro_batches = (share * self.tokens / self.budget).ceil().max(1.0);
        let backward_s = BACKWARD_SHARE * work_s / micro_batches;
        let times = |size: f64| {
            let buckets = self.buckets.iter().map(|bytes| size * *bytes as f64).collect();
            let step = StepTimeline { before_s: work_s - backward_s, backward_s, buckets };
            let step_s = fabric.step(&step, ranks, true);
            WireTimes {
                step_s,
                step_s_without_overlap: fabric.step(&step, ranks, false),
                efficiency: batch as f64 * item_s / (ranks as f64 * step_s),
                documents_per_s: self.documents * batch as f64 / step_s,
            }
        };
        ScalingPoint { ranks, batch, work_s, fp32: times(1.0), bf16: times(0.5) }
    }
}

impl fmt::Display for StageScaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, item_s, source, gradient_mb, buckets, points } = self;
        writeln!(
            f,
            "\n\nscaling of {stage}: {item_s:.4} s of work an item ({source}), {gradient_mb:.0} MB \
             of gradients in {buckets} bucket(s)"
        )?;
        write!(f, "{:>6}{:>8}{:>10}", "ranks", "batch", "work s")?;
        for wire in ["fp32", "bf16"] {
            let step = format!("{wire} s");
            write!(f, "{step:>10}{:>12}{:>6}{:>10}", "no overlap", "eff.", "docs/s")?;
        }
        for point in points {
            let ScalingPoint { ranks, batch, work_s, .. } = point;
            write!(f, "\n{ranks:>6}{batch:>8}{work_s:>10.4}")?;
            for times in [point.fp32, point.bf16] {
                write!(f, "{:>10.4}{:>12.4}", times.step_s, times.step_s_without_overlap)?;
                write!(f, "{:>6.2}{:>10.1}", times.efficiency, times.documents_per_s)?;
            }
        }
        Ok(())
    }
}
