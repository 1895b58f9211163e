//! A thread that notices when this rank makes no progress, and ends the world instead of letting it hang.
//!
//! Code opens a [`Section`] around whatever can wait for another rank; a section that stays open longer than its limit is a hang.
//! Not for measuring time, and not for finding out which *other* rank is to blame: every rank's line names what it waited in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Communicator;
use crate::{Error, Result};

/// How often the thread looks.
const TICK: Duration = Duration::from_millis(200);

/// A handle on the sections of this process; clones share them. The thread ends with the last handle.
#[derive(Clone)]
pub struct Watchdog {
    sections: Arc<Sections>,
}

struct Sections {
    open: Mutex<Open>,
    limit: Duration,
}

#[derive(Default)]
struct Open {
    next: u64,
    by_number: BTreeMap<u64, Entry>,
}

struct Entry {
    name: String,
    since: Instant,
    limit: Duration,
}

/// A piece of work that must end within a limit; it ends when this is dropped.
#[must_use = "a section lasts as long as this guard"]
pub struct Section {
    sections: Arc<Sections>,
    number: u64,
}

impl Watchdog {
    /// A watchdog that never bites, for one process and for tests.
    pub fn asleep() -> Self {
        Self { sections: Arc::new(Sections { open: Mutex::default(), limit: Duration::MAX }) }
    }

    /// Watches this rank: a section that exceeds its limit, or an error of `comm`'s own [`check`](Communicator::check), is printed with
    /// rank and host, and ends the world with exit code 71. `limit` is what [`section`](Self::section) gives.
    pub fn over(comm: &Arc<dyn Communicator>, limit: Duration) -> Result<Self> {
        let comm = Arc::downgrade(comm);
        Self::start(limit, move |hang| {
            let Some(comm) = comm.upgrade() else { return };
            let trouble = hang.or_else(|| comm.check().err().map(|error| error.to_string()));
            if let Some(trouble) = trouble {
                let line = format!("rank {} on {}: {trouble}", comm.rank(), host());
                super::world::end(comm.as_ref(), &line);
            }
        })
    }

    /// Calls `look` at every tick with what hangs, if anything does.
    fn start(limit: Duration, look: impl Fn(Option<String>) + Send + 'static) -> Result<Self> {
        let sections = Arc::new(Sections { open: Mutex::default(), limit });
        let watched = Arc::downgrade(&sections);
        let watch = move || {
            while let Some(sections) = watched.upgrade() {
                look(sections.hang());
                drop(sections);
                thread::sleep(TICK);
            }
        };
        thread::Builder::new().name("watchdog".into()).spawn(watch).map_err(Error::Io)?;
        Ok(Self { sections })
    }

    /// Opens a section with the usual limit.
    pub fn section(&self, name: impl Into<String>) -> Section {
        self.section_within(name, self.sections.limit)
    }

    /// Opens a section with a limit of its own, such as that of a first step.
    pub fn section_within(&self, name: impl Into<String>, limit: Duration) -> Section {
        let mut open = self.sections.lock();
        let number = open.next;
        open.next += 1;
        open.by_number.insert(number, Entry { name: name.into(), since: Instant::now(), limit });
        Section { sections: self.sections.clone(), number }
    }
}

impl Sections {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest overdue time and all open sections, outermost first; `None` while nothing is overdue.
    fn hang(&self) -> Option<String> {
        let open = self.lock();
        let overdue = open.by_number.values().filter(|entry| entry.since.elapsed() > entry.limit);
        let waited = overdue.map(|entry| entry.since.elapsed()).max()?;
        let names: Vec<&str> = open.by_number.values().map(|entry| entry.name.as_str()).collect();
        Some(format!("no progress for {} s in {}", waited.as_secs(), names.join(" > ")))
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        self.sections.lock().by_number.remove(&self.number);
    }
}

/// This machine's name, for messages.
fn host() -> String {
    fs_err::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "an unknown host".into(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn started(limit: Duration) -> (Watchdog, Receiver<String>) {
        let (sender, lines) = channel();
        let look = move |hang: Option<String>| hang.into_iter().for_each(|line| drop(sender.send(line)));
        (Watchdog::start(limit, look).unwrap(), lines)
    }

    #[test]
    fn a_hang_is_told_with_all_open_sections() {
        let (watchdog, lines) = started(Duration::from_millis(10));
        let _step = watchdog.section_within("step 17", Duration::from_secs(3600));
        let _bucket = watchdog.section("all-reduce of bucket 3");
        let line = lines.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(line, "no progress for 0 s in step 17 > all-reduce of bucket 3");
    }

    #[test]
    fn closed_and_patient_sections_are_silent() {
        let (watchdog, lines) = started(Duration::from_millis(50));
        let _step = watchdog.section_within("a first step", Duration::from_secs(3600));
        drop(watchdog.section("barrier"));
        assert!(lines.recv_timeout(4 * TICK).is_err());
    }

    #[test]
    fn the_thread_ends_with_the_last_handle() {
        let (watchdog, lines) = started(Duration::MAX);
        drop(watchdog.clone());
        drop(watchdog);
        assert_eq!(lines.recv_timeout(Duration::from_secs(20)), Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }
}
