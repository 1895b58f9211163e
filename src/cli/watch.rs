//! `watch`: where a run stands, from its files alone, so that it works on any machine that sees
//! them and on runs that are over.
//!
//! Not for why a run failed: `autopsy` tells.

use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::shared::{print_all, write_json};
use crate::ranks::failure::{RankState, rank_states};
use crate::train::metrics::{MetricLine, MetricsWriter, read_metrics};
use crate::{DataError, Result};

/// `watch RUN`.
#[derive(Debug, Args)]
pub struct Watch {
    /// The run folder
    run: PathBuf,
    /// Print once and end
    #[arg(long)]
    once: bool,
    /// Seconds between looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    every: u64,
    /// Write the state as JSON, at each look
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Where a run stands.
#[derive(Debug, Serialize)]
struct State {
    /// The last step of each stage.
    stages: Vec<MetricLine>,
    ranks: Vec<RankState>,
}

impl Watch {
    /// Prints the state until no rank is at work any more.
    ///
    /// # Errors
    /// A folder that is no run.
    pub fn run(self) -> Result<()> {
        if !self.run.join("run.json").exists() {
            let error = DataError::new(&self.run, "is no run folder (there is no run.json)");
            return Err(error.hint("name the folder given to --run-dir").into());
        }
        loop {
            let state = State {
                stages: last_steps(&self.run)?,
                ranks: rank_states(&self.run).unwrap_or_default(),
            };
            write_json(self.json.as_deref(), &state)?;
            let clear =
                if std::io::stdout().is_terminal() && !self.once { "\x1b[2J\x1b[H" } else { "" };
            print_all(format!("{clear}{state}").as_bytes())?;
            if self.once || !state.ranks.iter().any(RankState::is_at_work) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs(self.every.max(1)));
        }
    }
}

/// The last line of each stage in the metrics.
fn last_steps(run: &Path) -> Result<Vec<MetricLine>> {
    let lines = read_metrics(&MetricsWriter::path(run))?;
    let last = |index: usize, line: &MetricLine| {
        lines.get(index + 1).is_none_or(|next| next.stage != line.stage)
    };
    Ok(lines
        .iter()
        .enumerate()
        .filter(|(index, line)| last(*index, line))
        .map(|(_, line)| line.clone())
        .collect())
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stages.iter().try_for_each(|line| f.write_str(&step_line(line)))?;
        self.ranks.iter().try_for_each(|rank| writeln!(f, "{rank}"))
    }
}

fn step_line(line: &MetricLine) -> String {
    let number = |name: &str, value: Option<f64>| {
        value.map_or_else(String::new, |value| format!(", {name} {value:.4}"))
    };
    let rate =
        line.documents_per_s.map_or_else(String::new, |rate| format!(", {rate:.0} documents/s"));
    let rest = [
        number("loss", line.loss),
        number("gradient norm", line.grad_norm),
        number("straggler", line.number("straggler")),
        rate,
    ];
    format!("{:<24} step {}{}\n", line.stage, line.step, rest.concat())
}
