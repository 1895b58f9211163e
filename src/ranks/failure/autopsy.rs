//! What became of a run: the flight recorders of all ranks read together, and the one sentence
//! about the rank to blame.
//!
//! Not for recording (`ranks`) and not for ending the world (the watchdog does, with the sentence
//! from here).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::{Event, EventKind, Flight, FlightRecorder, flight_path, flights, now_ns, place};
use crate::base::host_name;
use crate::ranks::World;
use crate::{DataError, Error, Result};

/// Rows that a sentence names.
const ROWS_SHOWN: usize = 6;

/// The sentence that the last failure was told with.
fn verdict_path(run: &Path) -> PathBuf {
    run.join("log/verdict.txt")
}

/// Starts this rank's recorder in the run folder and lets the watchdog use those of all ranks.
/// Every rank calls it.
///
/// # Errors
/// I/O errors, on every rank if on any.
pub fn record(run: &Path, world: &World) -> Result<()> {
    let folder = run.to_owned();
    if world.is_root() {
        put_aside(&folder, world.size());
    }
    let recorder = world.agree(FlightRecorder::create(
        &flights(&folder),
        world.rank(),
        world.size(),
        &host_name(),
    ))?;
    crate::ranks::failure::keeper::name_run(&folder);
    let (own, for_peers, for_own) = (world.rank(), folder.clone(), folder.clone());
    let explain = move |line: &str| speak(&folder, &explain(&folder, own, line));
    let peers = move |limit| {
        let said = lost(&Flight::read_all(&flights(&for_peers)).ok()?, own, limit, now_ns())?;
        speak(&for_peers, &(said + &last_checkpoint(&for_peers)))
    };
    let keep = move |fate: &str| obituary(&for_own, own, fate);
    world.watchdog().attach(recorder, Box::new(explain), Box::new(peers), Box::new(keep));
    Ok(())
}

/// Forgets the last failure.
pub(crate) fn forget_verdict(run: &Path) {
    fs_err::remove_file(verdict_path(run)).ok();
}

/// Forgets the last failure, and the recorders of ranks that this start does not have.
fn put_aside(run: &Path, world: usize) {
    forget_verdict(run);
    for rank in
        (world..).map(|rank| flight_path(&flights(run), rank)).take_while(|path| path.exists())
    {
        fs_err::rename(&rank, rank.with_extension("previous")).ok();
    }
}

/// What to say of a rank that is lost, `fate` being what became of it (`was killed by …`); `None`
/// where another rank has spoken already.
pub fn obituary(run: &Path, rank: usize, fate: &str) -> Option<String> {
    let flights = Flight::read_all(&flights(run)).unwrap_or_default();
    let said = match flights.iter().find(|flight| flight.rank == rank) {
        Some(flight) => {
            format!("{} {fate} {}{}", name(flight), doing(flight, now_ns()), others(&flights, rank))
        }
        None => format!("rank {rank} on {} {fate}", host_name()),
    };
    speak(run, &(said + &last_checkpoint(run)))
}

/// Keeps the first sentence of a failure; `None` for the later ones.
fn speak(run: &Path, sentence: &str) -> Option<String> {
    match fs_err::OpenOptions::new().write(true).create_new(true).open(verdict_path(run)) {
        Ok(mut file) => {
            let _ = writeln!(file, "{sentence}");
            Some(sentence.to_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => None,
        Err(_) => Some(sentence.to_owned()),
    }
}

/// The sentence for a rank that met its limit: about the rank that holds up the others, or its own
/// line where that cannot be told.
fn explain(run: &Path, own: usize, line: &str) -> String {
    let flights = Flight::read_all(&flights(run)).unwrap_or_default();
    let now = now_ns();
    let blame = lost(&flights, own, Duration::from_secs(2), now).or_else(|| behind(&flights, now));
    blame.unwrap_or_else(|| line.to_owned()) + &last_checkpoint(run)
}

/// Of the other ranks on this machine that give no sign of life although their recorder is open
/// (gone, or silent for longer than `limit`) the one that fell silent first: the others may have
/// been taken down because of it.
fn lost(flights: &[Flight], own: usize, limit: Duration, now: u64) -> Option<String> {
    let here = place();
    let others_here = flights
        .iter()
        .filter(|flight| flight.rank != own && flight.place == here && flight.ended.is_none());
    let mut others_here: Vec<&Flight> = others_here.collect();
    others_here.sort_by_key(|flight| flight.alive_ns);
    others_here.into_iter().find_map(|flight| {
        let silent = Duration::from_nanos(now.saturating_sub(flight.alive_ns));
        let gone = !Path::new("/proc").join(flight.pid.to_string()).exists();
        let what = match (gone, silent > limit) {
            (true, _) => "ended without a word".to_owned(),
            (false, true) => {
                format!("has given no sign of life for {:.0} s (stopped?)", silent.as_secs_f64())
            }
            (false, false) => return None,
        };
        Some(format!(
            "{} {what} {}{}",
            name(flight),
            doing(flight, flight.alive_ns),
            others(flights, flight.rank)
        ))
    })
}

/// The rank that is behind: the one with the fewest collectives begun, where not all have begun as
/// many.
fn behind(flights: &[Flight], now: u64) -> Option<String> {
    let begun =
        |flight: &Flight| flight.events.iter().map(|event| event.collective).max().unwrap_or(0);
    let (least, most) = (
        flights.iter().min_by_key(|flight| begun(flight))?,
        flights.iter().max_by_key(|flight| begun(flight))?,
    );
    if begun(least) == begun(most) {
        return None;
    }
    Some(format!(
        "{} holds up the others {}{}",
        name(least),
        doing(least, now),
        others(flights, least.rank)
    ))
}

fn name(flight: &Flight) -> String {
    format!("rank {} on {} (process {})", flight.rank, flight.host, flight.pid)
}

/// What a rank is at, and with which documents.
fn doing(flight: &Flight, now: u64) -> String {
    let Some(inner) = flight.open.last() else { return "outside of any section".into() };
    let names: Vec<String> = flight.open.iter().map(describe).collect();
    let seconds = now.saturating_sub(inner.time_ns) as f64 / 1e9;
    let documents =
        flight.open.iter().find(|event| event.documents > 0).map_or_else(String::new, |event| {
            let rows: Vec<String> =
                event.rows.iter().take(ROWS_SHOWN).map(ToString::to_string).collect();
            let more = if event.documents as usize > rows.len() { ", …" } else { "" };
            format!(", documents in rows {}{more}", rows.join(", "))
        });
    format!("in {} for {seconds:.1} s{documents}", names.join(" > "))
}

fn describe(event: &Event) -> String {
    let bucket =
        event.bucket.map_or_else(String::new, |bucket| format!(" of gradient bucket {bucket}"));
    match event.collective {
        0 => event.text.clone(),
        number => format!("{}{bucket} (collective {number}, {} bytes)", event.text, event.bytes),
    }
}

/// What the other ranks wait in, most frequent first.
fn others(flights: &[Flight], rank: usize) -> String {
    let mut waiting: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for flight in flights.iter().filter(|flight| flight.rank != rank && flight.ended.is_none()) {
        let at = flight.open.last().map_or_else(|| "no section".to_owned(), describe);
        waiting.entry(at).or_default().push(flight.rank);
    }
    let mut groups: Vec<_> = waiting.into_iter().collect();
    groups.sort_by_key(|(_, ranks)| std::cmp::Reverse(ranks.len()));
    groups.iter().fold(String::new(), |mut text, (at, ranks)| {
        let list = ranks.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (plural, verb) = if ranks.len() == 1 { ("rank", "is") } else { ("ranks", "are") };
        let _ = write!(
            text,
            "; {plural} {list}{} {verb} in {at}",
            if ranks.len() > 8 { ", …" } else { "" }
        );
        text
    })
}

/// Where the newest sealed checkpoint of the run lies.
fn last_checkpoint(run: &Path) -> String {
    let stages = fs_err::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    let steps = stages
        .filter_map(|stage| fs_err::read_dir(stage.path()).ok())
        .flatten()
        .flatten()
        .map(|step| step.path());
    let sealed = steps.filter_map(|step| {
        Some((fs_err::metadata(step.join("MANIFEST.json")).ok()?.modified().ok()?, step))
    });
    sealed.max().map_or_else(
        || "; there is no checkpoint yet".to_owned(),
        |(_, step)| {
            format!(
                "; the last good checkpoint is {}",
                step.strip_prefix(run).unwrap_or(&step).display()
            )
        },
    )
}

/// Where a rank stands, by its recorder.
#[derive(Clone, Debug)]
pub struct RankState(Flight);

impl RankState {
    /// Whether it has neither ended nor been silent for a minute.
    pub fn is_at_work(&self) -> bool {
        self.0.ended.is_none() && now_ns().saturating_sub(self.0.alive_ns) < 60_000_000_000
    }
}

impl Serialize for RankState {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let Flight { rank, world, pid, host, alive_ns, ended, .. } = &self.0;
        let mut state = serializer.serialize_struct("RankState", 8)?;
        state.serialize_field("rank", rank)?;
        state.serialize_field("world", world)?;
        state.serialize_field("host", host)?;
        state.serialize_field("process", pid)?;
        state.serialize_field("at_work", &self.is_at_work())?;
        state.serialize_field("exit_code", ended)?;
        state.serialize_field("alive_ns", alive_ns)?;
        state.serialize_field("said", &self.to_string())?;
        state.end()
    }
}

impl std::fmt::Display for RankState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.ended {
            Some(code) => write!(f, "{} ended with exit code {code}", name(&self.0)),
            None if self.is_at_work() => {
                write!(f, "{} {}", name(&self.0), doing(&self.0, now_ns()))
            }
            None => {
                write!(f, "{} is silent; it was {}", name(&self.0), doing(&self.0, self.0.alive_ns))
            }
        }
    }
}

/// The state of all ranks of a run.
///
/// # Errors
/// A folder without recorders.
pub fn rank_states(run: &Path) -> Result<Vec<RankState>> {
    Ok(Flight::read_all(&flights(run))?.into_iter().map(RankState).collect())
}

/// What became of a run, in the order in which it is printed.
#[derive(Clone, Debug, Serialize)]
pub struct AutopsyReport {
    /// The sentence of the failure, where there was one.
    pub verdict: Option<String>,
    /// Ranks that the run was started with.
    pub world: usize,
    /// Those that left a recorder.
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
    /// Its exit code; `None` where it did not end by itself.
    pub exit_code: Option<u8>,
    /// Seconds from its last sign of life to the last one of all ranks.
    pub silent_s: f64,
    /// What it was at.
    pub doing: String,
}

/// Something that began or ended.
#[derive(Clone, Debug, Serialize)]
pub struct LastEvent {
    /// Seconds from it to the last sign of life of any rank.
    pub before_end_s: f64,
    /// The rank.
    pub rank: usize,
    /// Step of the stage; 0 outside of steps.
    pub step: u64,
    /// Whether it began; else it ended.
    pub begins: bool,
    /// What did.
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

/// The report of `autopsy`.
///
/// # Errors
/// A folder without recorders.
pub fn autopsy(run: &Path, last_events: usize) -> Result<AutopsyReport> {
    let missing = |error: Error| match error {
        Error::Io(_) => DataError::new(run, "holds no flight recorders (log/flight)")
            .hint("name a run folder in which training was started")
            .into(),
        other => other,
    };
    let flights = Flight::read_all(&flights(run)).map_err(missing)?;
    let told =
        fs_err::read_to_string(verdict_path(run)).ok().map(|text| text.trim_end().to_owned());
    let end = flights.iter().map(|flight| flight.alive_ns).max().unwrap_or(0);
    let rank = |flight: &Flight| RankEnd {
        rank: flight.rank,
        name: name(flight),
        exit_code: flight.ended,
        silent_s: seconds(flight.alive_ns, end),
        doing: doing(flight, flight.alive_ns),
    };
    Ok(AutopsyReport {
        verdict: told.or_else(|| {
            Some(
                lost(&flights, usize::MAX, Duration::from_secs(60), now_ns())?
                    + &last_checkpoint(run),
            )
        }),
        world: flights.first().map_or(0, |flight| flight.world),
        ranks: flights.iter().map(rank).collect(),
        events: last(&flights, last_events, end),
    })
}

/// The last `count` events of all ranks.
fn last(flights: &[Flight], count: usize, end: u64) -> Vec<LastEvent> {
    let mut events: Vec<(&Flight, &Event)> = flights
        .iter()
        .flat_map(|flight| flight.events.iter().map(move |event| (flight, event)))
        .collect();
    events.sort_by_key(|(_, event)| event.time_ns);
    let begun = events.iter().filter(|(_, event)| event.kind == EventKind::Enter);
    let names: BTreeMap<(usize, u64), String> =
        begun.map(|(flight, event)| ((flight.rank, event.section), describe(event))).collect();
    let told = |&(flight, event): &(&Flight, &Event)| LastEvent {
        before_end_s: seconds(event.time_ns, end),
        rank: flight.rank,
        step: event.step,
        begins: event.kind == EventKind::Enter,
        section: names
            .get(&(flight.rank, event.section))
            .map_or("an older section", String::as_str)
            .to_owned(),
    };
    events[events.len().saturating_sub(count)..].iter().map(told).collect()
}

fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}

#[cfg(test)]
#[path = "autopsy_tests.rs"]
mod tests;
