//! A thread that notices when this rank makes no progress, and ends the world instead of letting it
//! hang.
//!
//! Code opens a [`Section`] around whatever can wait for another rank; a section that stays open
//! longer than its limit is a hang. Every section is an event of the recorder too, once there is
//! one. Not for measuring time, and not for finding out which rank is to blame: `verdict` does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::recorder::{Event, Recorder};
use super::verdict::Verdict;
use crate::base::{host_name, lock, run_files, say};
use crate::ranks::communicator::Communicator;
use crate::{Error, Result, exit_code};

/// How often the thread looks.
const TICK: Duration = Duration::from_millis(200);

/// A pause between two ticks from which on the process counts as suspended.
const SUSPENDED: Duration = Duration::from_secs(3);

/// Ticks without a look after a suspension.
const CALM_TICKS: u32 = 25;

/// Ticks between two looks at the other ranks.
const PEERS_EVERY: u32 = 5;

/// Rows of a step that an event holds.
const ROWS: usize = 12;

/// A handle on the sections of this process; clones share them. The thread ends with the last
/// handle.
#[derive(Clone)]
pub struct Watchdog {
    sections: Arc<Sections>,
}

struct Sections {
    open: Mutex<Open>,
    limit_ms: AtomicU64,
    collectives: AtomicU64,
    step: AtomicU64,
    recorder: OnceLock<Recorder>,
    watched: Mutex<Option<Weak<dyn Communicator>>>,
}

#[derive(Default)]
struct Open {
    next: u64,
    by_number: BTreeMap<u64, OpenSection>,
}

struct OpenSection {
    name: String,
    since: Instant,
    limit: Duration,
    collective: bool,
}

/// A piece of work that must end within a limit; it ends when this is dropped.
#[must_use = "a section lasts as long as this guard"]
pub struct Section {
    sections: Arc<Sections>,
    number: u64,
    step: bool,
}

impl Watchdog {
    /// A watchdog that never bites, for one process and for tests.
    pub fn asleep() -> Self {
        Self { sections: Arc::new(Sections::new(Duration::MAX)) }
    }

    /// Watches this rank: if a section exceeds its limit, or `comm`'s own
    /// [`check`](Communicator::check) fails, the verdict is printed and the world ends with exit
    /// code 71. `limit` is what [`section`](Self::section) uses.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn over(comm: &Arc<dyn Communicator>, limit: Duration) -> Result<Self> {
        let watchdog = Self::start(limit, |sections, hang| {
            let Some(comm) = sections.communicator() else { return };
            let trouble = match (hang, comm.check()) {
                // Another rank has said why.
                (_, Err(Error::Elsewhere { .. })) => end(comm.as_ref(), None),
                (None, Err(error)) => Some(error.to_string()),
                (hang, _) => hang,
            };
            if let Some(trouble) = trouble {
                let line = format!("rank {} on {}: {trouble}", comm.rank(), host_name());
                let told = match sections.recorder.get() {
                    Some(recorder) => Verdict::on_hang(recorder.run(), recorder.rank(), &line)
                        .map(|verdict| verdict.to_string()),
                    None => Some(line),
                };
                end(comm.as_ref(), told.as_deref());
            }
            if let Some(verdict) = sections.lost_peer() {
                end(comm.as_ref(), Some(&verdict.to_string()));
            }
        })?;
        watchdog.watch(comm);
        Ok(watchdog)
    }

    /// Watches another communicator from now on, over the same sections.
    pub(crate) fn watch(&self, comm: &Arc<dyn Communicator>) {
        *lock(&self.sections.watched) = Some(Arc::downgrade(comm));
    }

    /// Calls `look` at every tick with what hangs, if anything does.
    fn start(
        limit: Duration,
        look: impl Fn(&Sections, Option<String>) + Send + 'static,
    ) -> Result<Self> {
        let sections = Arc::new(Sections::new(limit));
        let watched = Arc::downgrade(&sections);
        let watch = move || {
            let (mut last, mut calm) = (Instant::now(), 0);
            while let Some(sections) = watched.upgrade() {
                // The machine or the job was suspended: that time does not count, and the other
                // ranks need a moment to wake up, too.
                let slept = last.elapsed();
                last = Instant::now();
                if slept > SUSPENDED {
                    sections.forgive(slept);
                    calm = CALM_TICKS;
                }
                if calm == 0 {
                    look(&sections, sections.hang());
                }
                calm = calm.saturating_sub(1);
                if let Some(recorder) = sections.recorder.get() {
                    recorder.alive();
                }
                drop(sections);
                thread::sleep(TICK);
            }
        };
        thread::Builder::new().name("watchdog".into()).spawn(watch).map_err(Error::Io)?;
        Ok(Self { sections })
    }

    /// Records sections from now on. Only the first recorder of a process counts.
    pub fn attach(&self, recorder: Recorder) {
        let _ = self.sections.recorder.set(recorder);
    }

    /// The verdict on this rank, which ends the world; `None` without a recorder, or if the run
    /// has a verdict already.
    pub(in crate::ranks) fn verdict(&self, fate: &str) -> Option<Verdict> {
        let recorder = self.sections.recorder.get()?;
        Verdict::on_end(recorder.run(), recorder.rank(), fate)
    }

    /// Whether the run has a verdict on its failure already.
    pub(in crate::ranks) fn is_judged(&self) -> bool {
        let kept = |recorder: &Recorder| recorder.run().join(run_files::VERDICT).exists();
        self.sections.recorder.get().is_some_and(kept)
    }

    /// Tells the recorder that the process comes to its own end.
    pub(in crate::ranks) fn ended(&self, code: u8) {
        if let Some(recorder) = self.sections.recorder.get() {
            recorder.ended(code);
        }
    }

    /// The usual limit of a section.
    pub fn limit(&self) -> Duration {
        match self.sections.limit_ms.load(Ordering::Relaxed) {
            u64::MAX => Duration::MAX,
            limit_ms => Duration::from_millis(limit_ms),
        }
    }

    /// Sets the usual limit of the sections to come; a watchdog that is asleep stays so.
    pub fn set_limit(&self, limit: Duration) {
        if self.limit() != Duration::MAX {
            self.sections.limit_ms.store(milliseconds(limit), Ordering::Relaxed);
        }
    }

    /// Opens a section with the usual limit.
    pub fn section(&self, name: impl Into<String>) -> Section {
        self.section_within(name, self.limit())
    }

    /// Opens a section with a limit of its own, such as that of a first step.
    pub fn section_within(&self, name: impl Into<String>, limit: Duration) -> Section {
        self.open(Event { text: name.into(), ..Event::default() }, limit, false)
    }

    /// Opens a section without a limit of its own; those around it bound it.
    pub fn unbounded_section(&self, name: impl Into<String>) -> Section {
        self.section_within(name, Duration::MAX)
    }

    /// Opens the section of a step, whose number and documents the sections inside it share.
    pub fn step(
        &self,
        step: u64,
        name: impl Into<String>,
        rows: &[usize],
        limit: Duration,
    ) -> Section {
        self.sections.step.store(step, Ordering::Relaxed);
        let first = rows.iter().take(ROWS).map(|&row| row as u32).collect();
        let event = Event {
            text: name.into(),
            rows: first,
            documents: rows.len() as u32,
            ..Event::default()
        };
        let mut section = self.open(event, limit, false);
        section.step = true;
        section
    }

    /// Opens the section of a collective operation.
    pub fn collective(
        &self,
        name: &str,
        bytes: usize,
        bucket: Option<usize>,
        limit: Duration,
    ) -> Section {
        let collective = self.sections.collectives.fetch_add(1, Ordering::Relaxed) + 1;
        let bucket = bucket.map(|bucket| bucket as u32);
        self.open(
            Event {
                text: name.to_owned(),
                collective,
                bucket,
                bytes: bytes as u64,
                ..Event::default()
            },
            limit,
            true,
        )
    }

    fn open(&self, mut event: Event, limit: Duration, collective: bool) -> Section {
        let sections = &self.sections;
        let mut open = lock(&sections.open);
        let number = open.next;
        open.next += 1;
        let name = event.bucket.map_or_else(
            || event.text.clone(),
            |bucket| format!("{} of gradient bucket {bucket}", event.text),
        );
        open.by_number
            .insert(number, OpenSection { name, since: Instant::now(), limit, collective });
        drop(open);
        if let Some(recorder) = sections.recorder.get() {
            event.section = number;
            event.step = sections.step.load(Ordering::Relaxed);
            recorder.enter(event);
        }
        Section { sections: sections.clone(), number, step: false }
    }
}

fn milliseconds(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

impl Sections {
    fn new(limit: Duration) -> Self {
        Self {
            open: Mutex::default(),
            limit_ms: AtomicU64::new(milliseconds(limit)),
            collectives: AtomicU64::new(0),
            step: AtomicU64::new(0),
            recorder: OnceLock::new(),
            watched: Mutex::default(),
        }
    }

    fn communicator(&self) -> Option<Arc<dyn Communicator>> {
        lock(&self.watched).as_ref()?.upgrade()
    }

    /// The longest overdue time and all open sections, outermost first; `None` while nothing is
    /// overdue.
    fn hang(&self) -> Option<String> {
        let open = lock(&self.open);
        let overdue = open.by_number.values().filter(|entry| entry.since.elapsed() > entry.limit);
        let waited = overdue.map(|entry| entry.since.elapsed()).max()?;
        let names: Vec<&str> = open.by_number.values().map(|entry| entry.name.as_str()).collect();
        Some(format!("no progress for {} s in {}", waited.as_secs(), names.join(" > ")))
    }

    /// Takes time that this process was suspended for off every open section.
    fn forgive(&self, slept: Duration) {
        lock(&self.open).by_number.values_mut().for_each(|entry| entry.since += slept);
    }

    /// The verdict on a rank that is gone while this one waits in a collective.
    fn lost_peer(&self) -> Option<Verdict> {
        let recorder = self.recorder.get()?;
        let waited = lock(&self.open)
            .by_number
            .values()
            .filter(|entry| entry.collective)
            .map(|entry| entry.since.elapsed())
            .max()?;
        let due = waited > TICK * PEERS_EVERY
            && (waited.as_millis() / TICK.as_millis()).is_multiple_of(u128::from(PEERS_EVERY));
        let limit = Duration::from_millis(self.limit_ms.load(Ordering::Relaxed));
        if due { Verdict::on_silence(recorder.run(), recorder.rank(), limit) } else { None }
    }
}

/// Prints one line, unless another rank has printed it, and ends the world.
pub(in crate::ranks) fn end(comm: &dyn Communicator, line: Option<&str>) -> ! {
    if let Some(line) = line {
        say(line);
        comm.announce(line);
    }
    comm.abort(exit_code::RANK_LOST)
}

impl Drop for Section {
    fn drop(&mut self) {
        lock(&self.sections.open).by_number.remove(&self.number);
        if let Some(recorder) = self.sections.recorder.get() {
            recorder.leave(self.number, self.sections.step.load(Ordering::Relaxed));
        }
        if self.step {
            self.sections.step.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::super::recorder::Recording;
    use super::*;

    fn started(limit: Duration) -> (Watchdog, Receiver<String>) {
        let (sender, lines) = channel();
        let look = move |_: &Sections, hang: Option<String>| {
            hang.into_iter().for_each(|line| drop(sender.send(line)));
        };
        (Watchdog::start(limit, look).unwrap(), lines)
    }

    #[test]
    fn a_hang_is_told_with_all_open_sections() {
        let (watchdog, lines) = started(Duration::from_millis(10));
        let _step = watchdog.section_within("step 17", Duration::from_secs(3600));
        let _bucket = watchdog.section("all-reduce of bucket 3");
        let line = lines.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(
            line.starts_with("no progress for ")
                && line.ends_with(" s in step 17 > all-reduce of bucket 3"),
            "{line}"
        );
    }

    #[test]
    fn time_of_a_suspension_counts_for_nothing() {
        let sections = Arc::new(Sections::new(Duration::from_millis(50)));
        let watchdog = Watchdog { sections: sections.clone() };
        let _step = watchdog.section("step 3");
        thread::sleep(Duration::from_millis(120));
        assert!(sections.hang().is_some());
        // More than it has waited, so that a busy machine does not decide.
        sections.forgive(Duration::from_secs(60));
        assert_eq!(sections.hang(), None);
    }

    #[test]
    fn closed_and_patient_sections_are_silent() {
        let (watchdog, lines) = started(Duration::from_millis(500));
        let _step = watchdog.section_within("a first step", Duration::from_secs(3600));
        drop(watchdog.section("barrier"));
        assert!(lines.recv_timeout(4 * TICK).is_err());
    }

    #[test]
    fn sections_are_recorded_with_step_collective_and_documents() {
        let run = tempfile::tempdir().unwrap();
        let watchdog = Watchdog::asleep();
        drop(watchdog.section("before there is a recorder"));
        watchdog.attach(Recorder::create(run.path(), 0, 1).unwrap());
        let step = watchdog.step(5, "step 5 of rank", &[7, 8, 9], Duration::MAX);
        let bucket = watchdog.collective("all-reduce", 400, Some(2), Duration::MAX);
        let read = || Recording::read_all(run.path()).unwrap().remove(0);
        let [outer, inner] = &read().open[..] else { panic!("two sections are open") };
        assert_eq!((outer.step, &outer.rows[..], outer.documents), (5, &[7, 8, 9][..], 3));
        assert_eq!((inner.step, inner.collective, inner.bucket, inner.bytes), (5, 1, Some(2), 400));
        drop((bucket, step));
        watchdog.ended(0);
        assert_eq!((read().open.len(), read().events.len(), read().ended), (0, 4, Some(0)));
    }

    #[test]
    fn the_thread_ends_with_the_last_handle() {
        let (watchdog, lines) = started(Duration::MAX);
        drop(watchdog.clone());
        drop(watchdog);
        assert_eq!(
            lines.recv_timeout(Duration::from_secs(20)),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
        );
    }
}
