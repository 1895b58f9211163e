//! What the recordings of all ranks tell, in full: where each rank is, how it ended, the last
//! events.
//!
//! Reads only. Not for the one sentence about a failure: `verdict` makes it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::recorder::{Event, Recording, now_ns, place};
use super::verdict::{Verdict, describe, doing, name};
use crate::base::{MemoryUse, run_files};
use crate::{DataError, Error, Result};

/// A rank that has been silent for so long is not at work.
const SILENT_NS: u64 = 60_000_000_000;

/// Where a rank stands.
#[derive(Clone, Debug, Serialize)]
pub struct RankState {
    /// The rank.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
    /// Machine.
    pub host: String,
    /// Process.
    pub process: u32,
    /// Whether it has neither ended nor been silent for a minute.
    pub at_work: bool,
    /// Its exit code; `None` if it did not end by itself.
    pub exit_code: Option<u8>,
    /// Last sign of life, nanoseconds since 1970.
    pub alive_ns: u64,
    /// Its open sections, outermost first.
    pub sections: Vec<String>,
    /// Main memory of its process, if that can be seen from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryUse>,
    /// The same in words.
    pub said: String,
}

impl From<Recording> for RankState {
    fn from(recording: Recording) -> Self {
        let (name, now) = (name(&recording), now_ns());
        let at_work =
            recording.ended.is_none() && now.saturating_sub(recording.alive_ns) < SILENT_NS;
        let said = match recording.ended {
            Some(code) => format!("{name} ended with exit code {code}"),
            None if at_work => format!("{name} {}", doing(&recording, now)),
            None => format!("{name} is silent; it was {}", doing(&recording, recording.alive_ns)),
        };
        let seen = at_work && recording.place == place();
        let memory = seen.then(|| MemoryUse::of_process(Some(recording.pid)).ok()).flatten();
        let sections = recording.open.iter().map(describe).collect();
        let Recording { rank, world, pid: process, host, alive_ns, ended: exit_code, .. } =
            recording;
        Self { rank, world, host, process, at_work, exit_code, alive_ns, sections, memory, said }
    }
}

/// What became of a run, in the order in which it is printed.
#[derive(Clone, Debug, Serialize)]
pub struct AutopsyReport {
    /// The verdict on the failure, if there was one.
    pub verdict: Option<String>,
    /// Number of ranks that the run was started with.
    pub world: usize,
    /// The ranks that left a recorder.
    pub ranks: Vec<RankEnd>,
    /// The last events of all ranks, in order of time.
    pub events: Vec<LastEvent>,
}

/// How a rank ended.
#[derive(Clone, Debug, Serialize)]
pub struct RankEnd {
    /// The rank.
    pub rank: usize,
    /// Rank, machine and process.
    pub name: String,
    /// Its exit code; `None` if it did not end by itself.
    pub exit_code: Option<u8>,
    /// Seconds from its last sign of life to the last one of all ranks.
    pub silent_s: f64,
    /// Its open sections.
    pub doing: String,
}

/// A section that began or ended.
#[derive(Clone, Debug, Serialize)]
pub struct LastEvent {
    /// Seconds from it to the last sign of life of any rank.
    pub before_end_s: f64,
    /// The rank.
    pub rank: usize,
    /// Step of the stage; 0 outside of steps.
    pub step: u64,
    /// Whether the section began; otherwise it ended.
    pub begins: bool,
    /// The section.
    pub section: String,
}

impl std::fmt::Display for AutopsyReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(verdict) = &self.verdict {
            writeln!(f, "{verdict}")?;
        }
        writeln!(f, "{} of {} ranks left a recorder", self.ranks.len(), self.world)?;
        for RankEnd { name, exit_code, silent_s, doing, .. } in &self.ranks {
            match exit_code {
                Some(code) => write!(f, "{name}: ended with exit code {code}")?,
                None => write!(
                    f,
                    "{name}: did not end by itself; last sign of life {silent_s:.6} s before the \
                     last of all"
                )?,
            }
            writeln!(f, "; {doing}")?;
        }
        write!(f, "the last events, in seconds before the last sign of life of any rank:")?;
        for LastEvent { before_end_s, rank, step, begins, section } in &self.events {
            let step = if *step > 0 { format!("step {step}") } else { String::new() };
            let mark = if *begins { "begins" } else { "ends" };
            write!(
                f,
                "\n{:>12}  rank {rank:<4} {step:<14} {mark:<6} {section}",
                format!("{before_end_s:.6} s")
            )?;
        }
        Ok(())
    }
}

/// Reads what became of a run, with the last `last_events` events of all ranks.
///
/// # Errors
/// If the folder holds no recorders.
pub fn autopsy(run: &Path, last_events: usize) -> Result<AutopsyReport> {
    let recordings = Recording::read_all(run).map_err(|error| match error {
        Error::Io(_) => {
            DataError::new(run, format!("holds no recorders ({})", run_files::RECORDERS))
                .hint("name a run folder in which training was started")
                .into()
        }
        other => other,
    })?;
    let end = recordings.iter().map(|recording| recording.alive_ns).max().unwrap_or(0);
    let rank = |recording: &Recording| RankEnd {
        rank: recording.rank,
        name: name(recording),
        exit_code: recording.ended,
        silent_s: seconds(recording.alive_ns, end),
        doing: doing(recording, recording.alive_ns),
    };
    Ok(AutopsyReport {
        verdict: Verdict::of(run, &recordings).map(|verdict| verdict.to_string()),
        world: recordings.first().map_or(0, |recording| recording.world),
        ranks: recordings.iter().map(rank).collect(),
        events: last(&recordings, last_events, end),
    })
}

/// The last `count` events of all ranks.
fn last(recordings: &[Recording], count: usize, end: u64) -> Vec<LastEvent> {
    let mut events: Vec<(usize, &Event)> = recordings
        .iter()
        .flat_map(|recording| recording.events.iter().map(|event| (recording.rank, event)))
        .collect();
    events.sort_by_key(|(_, event)| event.time_ns);
    let begun = events.iter().filter(|(_, event)| !event.ends);
    let names: BTreeMap<(usize, u64), String> =
        begun.map(|&(rank, event)| ((rank, event.section), describe(event))).collect();
    let told = |&(rank, event): &(usize, &Event)| LastEvent {
        before_end_s: seconds(event.time_ns, end),
        rank,
        step: event.step,
        begins: !event.ends,
        section: names
            .get(&(rank, event.section))
            .map_or("an older section", String::as_str)
            .to_owned(),
    };
    events[events.len().saturating_sub(count)..].iter().map(told).collect()
}

fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::super::recorder::Recorder;
    use super::*;

    #[test]
    fn the_report_tells_verdict_ranks_and_events() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(autopsy(run.path(), 5).unwrap_err().exit_code(), 65);
        let recorder = Recorder::create(run.path(), 0, 2).unwrap();
        let text = "step 3 of rank".to_owned();
        recorder.enter(Event { section: 1, step: 3, text, ..Event::default() });
        recorder.leave(1, 3);
        recorder.ended(75);
        let checkpoint = run.path().join("checkpoints/rank/step-00000003");
        fs_err::create_dir_all(&checkpoint).unwrap();
        fs_err::write(checkpoint.join("MANIFEST.json"), "{}").unwrap();
        let said = Verdict::on_end(run.path(), 1, "was killed by signal 9").unwrap().to_string();
        assert!(
            said.starts_with("rank 1 on ")
                && said.ends_with("; the last good checkpoint is checkpoints/rank/step-00000003"),
            "{said}"
        );
        let found = autopsy(run.path(), 5).unwrap();
        assert_eq!(
            (found.ranks[0].exit_code, found.events.len(), found.events[1].begins),
            (Some(75), 2, false)
        );
        let report = found.to_string();
        assert!(report.starts_with(&said), "{report}");
        for part in [
            "1 of 2 ranks left a recorder",
            "ended with exit code 75",
            "begins step 3 of rank",
            "ends   step 3 of rank",
        ] {
            assert!(report.contains(part), "{report}");
        }
    }
}
