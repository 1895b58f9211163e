//! Which documents made a loss or a gradient that is not finite.
//!
//! Not for deciding what to do about it: the step loop does, by the recipe's `non_finite`.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use tch::Kind;

use super::batches::{BatchSource, Share};
use super::objective::{Forward, MicroBatch, Objective};
use crate::base::run_files;
use crate::ranks::World;
use crate::torch::GradientBuckets;
use crate::{Error, Result};

/// What was found after a step whose loss or gradient was not finite: a line of
/// [`run_files::NON_FINITE`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Finding {
    /// The stage.
    pub stage: String,
    /// The step, from 1.
    pub step: u64,
    /// Ranks whose own losses were not finite; empty if only the gradient was not.
    pub ranks: Vec<usize>,
    /// Titles of the documents that cause it alone; all of the step if none does.
    pub documents: Vec<String>,
    /// Whether those documents cause it alone.
    pub alone: bool,
}

impl Finding {
    /// Ranks and documents, as a part of one line.
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

    /// Appends the finding to the run's list.
    pub fn record(&self, run: &Path) -> Result<()> {
        let mut line = serde_json::to_vec(self).map_err(|error| Error::Bug(error.to_string()))?;
        line.push(b'\n');
        fs_err::create_dir_all(run.join(run_files::LOG))?;
        fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(run.join(run_files::NON_FINITE))?
            .write_all(&line)?;
        Ok(())
    }
}

/// Returns the titles of the documents whose item alone makes a loss or gradient that is not
/// finite, over all ranks, in order of rank. Every rank calls it. The gradients are overwritten;
/// hooks must not be armed.
pub(super) fn culprits<O: Objective, S: BatchSource<Batch = O::Batch>>(
    objective: &O,
    source: &S,
    buckets: &GradientBuckets,
    forward: Forward,
    step: u64,
    rows: &[usize],
    world: &World,
) -> Result<Vec<String>> {
    let mut mine = Vec::new();
    for index in (world.rank()..rows.len()).step_by(world.size()) {
        let alone = source.prepare(step, Share { rank: index, world: rows.len() })?.micro;
        let documents: usize = alone.iter().map(MicroBatch::documents).sum();
        if documents > 0 && !is_finite(objective, &alone, buckets, forward)? {
            let own = rows.iter().skip(index * documents).take(documents);
            mine.extend(own.map(|&row| source.title(row)));
        }
    }
    Ok(world.gather(&mine)?.concat())
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
