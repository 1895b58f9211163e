//! Where a run stands, followed while it goes on: as one line, as a page on a terminal, and as a
//! page in a browser.
//!
//! Everything is read from the run folder, so that a run is watched without asking it. Not for what
//! went wrong (`autopsy`, `blame`).

mod browser;
mod curve;
mod server;
mod terminal;
mod timeline;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use browser::serve;
pub use terminal::watch_terminal;

use self::timeline::Timeline;
use crate::base::{brief, run_files};
use crate::ranks::failure::{RankState, Recording, now_ns};
use crate::report::{Series, StageCurves, duration};
use crate::train::metrics::{MetricLine, MetricsTail, MetricsWriter};
use crate::{DataError, Result};

/// Numbers whose curves are kept, or what their names begin with.
const CURVES: [&str; 5] = ["loss/", "share/", "memory/", "mfu", "dev/f1"];

/// How far a run is.
#[derive(Clone, Debug, Serialize)]
pub struct RunState {
    /// The last line of the metrics of each stage.
    pub stages: Vec<MetricLine>,
    /// The ranks.
    pub ranks: Vec<RankState>,
}

/// A run that is followed.
#[derive(Debug)]
pub struct WatchedRun {
    folder: PathBuf,
    metrics: MetricsTail,
    lines: Vec<MetricLine>,
    curves: Vec<StageCurves>,
}

/// What one look at a run shows.
#[derive(Debug)]
pub struct RunLook {
    /// How far it is.
    pub state: RunState,
    /// What the ranks did last.
    timeline: Timeline,
}

impl WatchedRun {
    /// Begins to follow a run.
    ///
    /// # Errors
    /// A data error if the folder is not that of a run.
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.join(run_files::IDENTITY).exists() {
            let error = DataError::new(folder, "is not a run folder (it has no run.json)");
            return Err(error.hint("name the folder that --run-dir named").into());
        }
        let metrics = MetricsTail::new(&MetricsWriter::path(folder));
        let (folder, lines, curves) = (folder.to_owned(), Vec::new(), Vec::new());
        Ok(Self { folder, metrics, lines, curves })
    }

    /// Reads what is new.
    ///
    /// # Errors
    /// A line of the metrics that cannot be read.
    pub fn look(&mut self) -> Result<RunLook> {
        let found = self.metrics.read_on()?;
        if found.anew {
            self.lines.clear();
            self.curves.clear();
        }
        found.lines.into_iter().for_each(|line| self.add(line));
        // A run that has not trained yet has no recorders.
        let recordings = Recording::read_all(&self.folder).unwrap_or_default();
        let timeline = Timeline::of(&recordings, now_ns());
        let ranks = recordings.into_iter().map(RankState::from).collect();
        Ok(RunLook { state: RunState { stages: self.lines.clone(), ranks }, timeline })
    }

    /// The curves of all stages so far.
    pub fn curves(&self) -> &[StageCurves] {
        &self.curves
    }

    /// What the last stage reached on dev when it was judged last.
    fn last_f1(&self) -> Option<f64> {
        Some(self.curves.last()?.curve("dev/f1")?.last()?.1)
    }

    /// Takes a line in. A step that is repeated after a resume replaces itself and what came after
    /// it.
    fn add(&mut self, line: MetricLine) {
        let place = self.lines.iter().position(|known| known.stage == line.stage);
        let place = place.unwrap_or_else(|| {
            self.lines.push(MetricLine::default());
            self.curves.push(StageCurves { stage: line.stage.clone(), ..StageCurves::default() });
            self.lines.len() - 1
        });
        let curves = &mut self.curves[place];
        let step = line.step as f64;
        if line.step <= self.lines[place].step {
            for Series { points, .. } in &mut curves.curves {
                points.truncate(points.partition_point(|&(x, _)| x < step));
            }
        }
        let own = [("loss", line.loss), ("documents_per_s", line.documents_per_s)];
        let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let kept = |name: &str| CURVES.iter().any(|curve| name.starts_with(curve));
        let more = line.more.iter().filter(|(name, _)| kept(name));
        let more = more.filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)));
        for (name, value) in own.chain(more) {
            curves.add(name, (step, value));
        }
        self.lines[place] = line;
    }
}

impl RunState {
    /// Whether any rank is at work.
    pub fn at_work(&self) -> bool {
        self.ranks.iter().any(|rank| rank.at_work)
    }

    /// The state in one line: the last stage, and how many ranks are well.
    pub fn in_one_line(&self) -> String {
        let stage = self.stages.last().map_or_else(|| "no step is done yet".to_owned(), step_words);
        let at_work = self.ranks.iter().filter(|rank| rank.at_work).count();
        let mut line = format!("{stage}; {at_work} of {} ranks at work", self.ranks.len());
        for rank in self.ranks.iter().filter(|rank| !is_well(rank)) {
            line += &format!("; {}", rank.said);
        }
        line
    }
}

/// Whether a rank is at work or has ended as it should.
fn is_well(rank: &RankState) -> bool {
    rank.at_work || rank.exit_code == Some(0)
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stages.iter().try_for_each(|line| writeln!(f, "{}", step_words(line)))?;
        self.ranks.iter().try_for_each(|rank| writeln!(f, "{}", rank.said))
    }
}

/// The share of its steps that a stage has done; `None` where their number is not known.
fn progress(line: &MetricLine) -> Option<f64> {
    let total = line.number("total_steps").filter(|&total| total > 0.0)?;
    Some((line.step as f64 / total).clamp(0.0, 1.0))
}

/// The time left for a stage in words; `None` if it is done or not known.
fn time_left(line: &MetricLine) -> Option<String> {
    let seconds = line.number("eta_s").filter(|&seconds| seconds > 0.0)?;
    Some(duration(seconds) + " left")
}

fn gigabytes(bytes: f64) -> String {
    format!("{:.2} GB", bytes / 1e9)
}

fn step_words(line: &MetricLine) -> String {
    let number = |name: &str, value: Option<f64>| value.map(|value| format!("{name} {value:.4}"));
    let total = line.number("total_steps").map_or_else(String::new, |total| format!(" of {total}"));
    let parts = [
        number("loss", line.loss),
        number("dev F1", line.number("dev/f1")),
        number("gradient norm", line.grad_norm),
        number("straggler", line.number("straggler")),
        line.documents_per_s.map(|rate| format!("{} documents/s", brief(rate))),
        line.number("mfu").map(|share| format!("MFU {:.1} %", 100.0 * share)),
        line.number("memory/host").map(gigabytes),
        time_left(line),
    ];
    let rest: String = parts.into_iter().flatten().map(|part| format!(", {part}")).collect();
    format!("{:<24} step {}{total}{rest}", line.stage, line.step)
}

#[cfg(test)]
mod tests;
