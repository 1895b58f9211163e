//! `watch`: where a run stands, from its files alone, so that it works on any machine that sees them and on runs that are over.
//!
//! Not for why a run failed: `autopsy` tells.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::shared::print_all;
use crate::report::{MetricLine, MetricsWriter, read_metrics};
use crate::train::{RankState, rank_states};
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
            let ranks = rank_states(&self.run).unwrap_or_default();
            let clear = if std::io::stdout().is_terminal() && !self.once { "\x1b[2J\x1b[H" } else { "" };
            print_all(format!("{clear}{}", describe(&self.run, &ranks)?).as_bytes())?;
            if self.once || !ranks.iter().any(RankState::is_at_work) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs(self.every.max(1)));
        }
    }
}

/// The last step of each stage and what each rank is at.
fn describe(run: &Path, ranks: &[RankState]) -> Result<String> {
    let path = MetricsWriter::path(run);
    let lines = if path.exists() { read_metrics(&path)? } else { Vec::new() };
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        if lines.get(index + 1).is_none_or(|next| next.stage != line.stage) {
            text += &step_line(line);
        }
    }
    for rank in ranks {
        let _ = writeln!(text, "{rank}");
    }
    Ok(text)
}

fn step_line(line: &MetricLine) -> String {
    let number = |name: &str, value: Option<f64>| value.map_or_else(String::new, |value| format!(", {name} {value:.4}"));
    let rate = line.documents_per_s.map_or_else(String::new, |rate| format!(", {rate:.0} documents/s"));
    let rest = [number("loss", line.loss), number("gradient norm", line.grad_norm), number("straggler", line.number("straggler")), rate];
    format!("{:<24} step {}{}\n", line.stage, line.step, rest.concat())
}
