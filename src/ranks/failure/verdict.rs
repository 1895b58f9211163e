//! The verdict: one sentence about what became of a run, made from the recordings of all ranks.
//!
//! Several ranks and keepers may notice one failure; only the first verdict of a run is kept and
//! told. Not for noticing failures (`watchdog`, `keeper`) or for the full report (`autopsy`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::recorder::{Event, Recording, now_ns, place};
use crate::base::{host_name, run_files};

/// Rows of documents that a verdict names.
const ROWS_SHOWN: usize = 6;

/// Ranks of a group that a verdict names.
const RANKS_SHOWN: usize = 8;

/// How long a rank may be silent before a rank that met its limit blames it.
const SILENCE: Duration = Duration::from_secs(2);

/// The one sentence about what became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict(String);

impl Verdict {
    /// The verdict on a rank that was lost; `fate` says how, as in `was killed by signal 9`. `None`
    /// if the run has a verdict already.
    pub fn on_end(run: &Path, rank: usize, fate: &str) -> Option<Self> {
        let recordings = Recording::read_all(run).unwrap_or_default();
        let sentence = match recordings.iter().find(|recording| recording.rank == rank) {
            Some(own) => {
                let at = doing(own, now_ns());
                format!("{} {fate} {at}{}", name(own), others(&recordings, rank))
            }
            None => format!("rank {rank} on {} {fate}", host_name()),
        };
        Self::keep(run, sentence)
    }

    /// The verdict on a rank that was lost before it had a run folder.
    pub(super) fn on_early_end(rank: usize, fate: &str) -> Self {
        Self(format!("rank {rank} on {} {fate} before it had a run folder", host_name()))
    }

    /// The verdict of the rank `own`, which met its limit: it blames the rank that holds up the
    /// others, or repeats `line` if that cannot be told. `None` if the run has a verdict already.
    pub(super) fn on_hang(run: &Path, own: usize, line: &str) -> Option<Self> {
        let recordings = Recording::read_all(run).unwrap_or_default();
        let now = now_ns();
        let blame = silent(&recordings, own, SILENCE, now).or_else(|| behind(&recordings, now));
        Self::keep(run, blame.unwrap_or_else(|| line.to_owned()))
    }

    /// The verdict of the rank `own`, which waits for the others: it blames one that is gone, or
    /// silent for longer than `limit`. `None` if there is none, or the run has a verdict already.
    pub(super) fn on_silence(run: &Path, own: usize, limit: Duration) -> Option<Self> {
        Self::keep(run, silent(&Recording::read_all(run).ok()?, own, limit, now_ns())?)
    }

    /// The verdict that was kept, or one about a rank that has been silent for a minute.
    pub(super) fn of(run: &Path, recordings: &[Recording]) -> Option<Self> {
        let kept = fs_err::read_to_string(run.join(run_files::VERDICT)).ok();
        kept.map(|text| text.trim_end().to_owned())
            .or_else(|| {
                let limit = Duration::from_secs(60);
                let sentence = silent(recordings, usize::MAX, limit, now_ns())?;
                Some(sentence + &last_checkpoint(run))
            })
            .map(Self)
    }

    /// Forgets the last failure of a run.
    pub(crate) fn forget(run: &Path) {
        fs_err::remove_file(run.join(run_files::VERDICT)).ok();
    }

    /// Adds the last checkpoint and keeps the verdict if it is the first of this failure.
    fn keep(run: &Path, sentence: String) -> Option<Self> {
        let verdict = Self(sentence + &last_checkpoint(run));
        let path = run.join(run_files::VERDICT);
        match fs_err::OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(mut file) => {
                let _ = writeln!(file, "{verdict}");
                Some(verdict)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => None,
            Err(_) => Some(verdict),
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Of the other ranks on this machine whose recorder is open, but that are gone or silent for
/// longer than `limit`, the one that fell silent first: the others may have been taken down because
/// of it.
fn silent(recordings: &[Recording], own: usize, limit: Duration, now: u64) -> Option<String> {
    let here = place();
    let mut others_here: Vec<&Recording> = recordings
        .iter()
        .filter(|other| other.rank != own && other.place == here && other.ended.is_none())
        .collect();
    others_here.sort_by_key(|other| other.alive_ns);
    others_here.into_iter().find_map(|other| {
        let silence = Duration::from_nanos(now.saturating_sub(other.alive_ns));
        let gone = !Path::new("/proc").join(other.pid.to_string()).exists();
        let what = match (gone, silence > limit) {
            (true, _) => "ended without a word".to_owned(),
            (false, true) => {
                format!("has given no sign of life for {:.0} s (stopped?)", silence.as_secs_f64())
            }
            (false, false) => return None,
        };
        let at = doing(other, other.alive_ns);
        Some(format!("{} {what} {at}{}", name(other), others(recordings, other.rank)))
    })
}

/// The rank that is behind: the one that has begun the fewest collectives, if not all have begun
/// the same number.
fn behind(recordings: &[Recording], now: u64) -> Option<String> {
    let begun = |recording: &Recording| {
        recording.events.iter().map(|event| event.collective).max().unwrap_or(0)
    };
    let least = recordings.iter().min_by_key(|recording| begun(recording))?;
    if recordings.iter().all(|recording| begun(recording) == begun(least)) {
        return None;
    }
    let at = doing(least, now);
    Some(format!("{} holds up the others {at}{}", name(least), others(recordings, least.rank)))
}

/// Rank, machine and process.
pub(super) fn name(recording: &Recording) -> String {
    format!("rank {} on {} (process {})", recording.rank, recording.host, recording.pid)
}

/// The open sections of a rank, and the documents of its step.
pub(super) fn doing(recording: &Recording, now: u64) -> String {
    let Some(inner) = recording.open.last() else { return "outside of any section".into() };
    let names: Vec<String> = recording.open.iter().map(describe).collect();
    let seconds = now.saturating_sub(inner.time_ns) as f64 / 1e9;
    let step = recording.open.iter().find(|event| event.documents > 0);
    let documents = step.map_or_else(String::new, |event| {
        let rows: Vec<String> =
            event.rows.iter().take(ROWS_SHOWN).map(ToString::to_string).collect();
        let more = if event.documents as usize > rows.len() { ", …" } else { "" };
        format!(", documents in rows {}{more}", rows.join(", "))
    });
    format!("in {} for {seconds:.1} s{documents}", names.join(" > "))
}

/// Names the section of an event.
pub fn describe(event: &Event) -> String {
    let bucket =
        event.bucket.map_or_else(String::new, |bucket| format!(" of gradient bucket {bucket}"));
    match event.collective {
        0 => event.text.clone(),
        number => format!("{}{bucket} (collective {number}, {} bytes)", event.text, event.bytes),
    }
}

/// What the other ranks wait in, most frequent first.
fn others(recordings: &[Recording], rank: usize) -> String {
    let mut waiting: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for other in recordings.iter().filter(|other| other.rank != rank && other.ended.is_none()) {
        let at = other.open.last().map_or_else(|| "no section".to_owned(), describe);
        waiting.entry(at).or_default().push(other.rank);
    }
    let mut groups: Vec<_> = waiting.into_iter().collect();
    groups.sort_by_key(|(_, ranks)| std::cmp::Reverse(ranks.len()));
    groups.iter().fold(String::new(), |mut text, (at, ranks)| {
        let shown: Vec<String> = ranks.iter().take(RANKS_SHOWN).map(ToString::to_string).collect();
        let (list, more) = (shown.join(", "), if ranks.len() > RANKS_SHOWN { ", …" } else { "" });
        let (plural, verb) = if ranks.len() == 1 { ("rank", "is") } else { ("ranks", "are") };
        let _ = write!(text, "; {plural} {list}{more} {verb} in {at}");
        text
    })
}

/// The place of the newest sealed checkpoint of the run.
fn last_checkpoint(run: &Path) -> String {
    let folders = |path: &Path| fs_err::read_dir(path).into_iter().flatten().flatten();
    let sealed = folders(&run.join(run_files::CHECKPOINTS))
        .flat_map(|stage| folders(&stage.path()))
        .filter_map(|step| {
            let seal = step.path().join(run_files::CHECKPOINT_SEAL);
            Some((fs_err::metadata(seal).ok()?.modified().ok()?, step.path()))
        });
    sealed.max().map_or_else(
        || "; there is no checkpoint yet".to_owned(),
        |(_, step)| {
            let step = step.strip_prefix(run).unwrap_or(&step);
            format!("; the last good checkpoint is {}", step.display())
        },
    )
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
