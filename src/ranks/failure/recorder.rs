//! The flight recorder: what a rank does, in a memory-mapped file that outlives the process,
//! however it ends.
//!
//! A file is a header page (who, last sign of life, the sections that are open now) and a ring of
//! the latest events, all records of one size with a checksum each. The kernel keeps what was
//! written even after `kill -9`; only a crash of the machine loses it. Not for judging what it
//! means: `autopsy` does.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use memmap2::MmapMut;

use crate::{DataError, Result};

const MAGIC: &[u8; 8] = b"DOCREFR1";
const HEADER: usize = 4096;
const RECORD: usize = 256;
/// Events that a file holds: a few hundred steps.
const EVENTS: usize = 4096;
/// Sections that can be open at once; deeper ones are recorded as events only.
const OPEN: usize = 12;
const OPEN_AT: usize = 512;
/// Place of the exit code, plus 1.
const ENDED_AT: u64 = 20;
const HOST_AT: usize = 128;
const HOST_BYTES: usize = 64;
const ROWS: usize = 12;
const TEXT_AT: usize = 114;
const CHECK_AT: usize = RECORD - 4;

/// What an event tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventKind {
    /// A section begins.
    #[default]
    Enter,
    /// A section ends.
    Leave,
}

/// A section that begins or ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Counts the events of the file, from 1.
    pub number: u64,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Begin or end.
    pub kind: EventKind,
    /// Counts the sections of the process.
    pub section: u64,
    /// The step under way, from 1; 0 outside of steps.
    pub step: u64,
    /// For a collective: its number among those of the process, from 1; 0 otherwise.
    pub collective: u64,
    /// For a gradient bucket: its index.
    pub bucket: Option<u32>,
    /// For a collective: bytes of this rank's part.
    pub bytes: u64,
    /// Documents of the step (rows of the shards), the first of them.
    pub rows: Vec<u32>,
    /// Documents of the step in all.
    pub documents: u32,
    /// What the section does.
    pub text: String,
}

/// A recorder that is being written.
#[derive(Debug)]
pub struct FlightRecorder {
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    map: MmapMut,
    events: u64,
    /// The section in each slot of the header; 0: free.
    open: [u64; OPEN],
}

/// A recorder as it was left.
#[derive(Clone, Debug, Default)]
pub struct Flight {
    /// The file.
    pub path: PathBuf,
    /// Whose it is.
    pub rank: usize,
    /// Ranks in all.
    pub world: usize,
    /// Process.
    pub pid: u32,
    /// Machine.
    pub host: String,
    /// Hash of boot and process namespace: equal for processes that can see each other.
    pub place: u64,
    /// Nanoseconds since 1970.
    pub started_ns: u64,
    /// Last sign of life, nanoseconds since 1970.
    pub alive_ns: u64,
    /// The exit code, where the process came to its own end.
    pub ended: Option<u8>,
    /// Sections that were open, outermost first.
    pub open: Vec<Event>,
    /// Latest events, oldest first.
    pub events: Vec<Event>,
}

/// The folder of a run's recorders.
pub fn flights(run: &Path) -> PathBuf {
    run.join("log/flight")
}

/// The file of a rank in a folder of recorders.
pub fn flight_path(folder: &Path, rank: usize) -> PathBuf {
    folder.join(format!("rank-{rank:05}.flight"))
}

/// Nanoseconds since 1970.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}

/// Identifies the processes that can see this one by number: same boot, same namespace.
pub fn place() -> u64 {
    let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = fs_err::read_link("/proc/self/ns/pid").unwrap_or_default();
    let mut first = [0; 8];
    first.copy_from_slice(
        &blake3::hash(format!("{boot} {}", space.display()).as_bytes()).as_bytes()[..8],
    );
    u64::from_le_bytes(first)
}

impl FlightRecorder {
    /// Starts the recorder of a rank; what an earlier process left under that name stays beside it
    /// as `….previous`.
    ///
    /// # Errors
    /// I/O errors.
    pub fn create(folder: &Path, rank: usize, world: usize, host: &str) -> Result<Self> {
        fs_err::create_dir_all(folder)?;
        let path = flight_path(folder, rank);
        if path.exists() {
            fs_err::rename(&path, path.with_extension("previous"))?;
        }
        let file =
            fs_err::OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        // Real zeros, not a hole: a full disk is an error here instead of a bus error at some later
        // step.
        let filled = std::io::copy(
            &mut std::io::Read::take(std::io::repeat(0), (HEADER + EVENTS * RECORD) as u64),
            &mut &file,
        );
        if let Err(error) = filled {
            let _ = fs_err::remove_file(&path);
            return Err(error.into());
        }
        // SAFETY: the file belongs to this process alone; readers copy it and check every record.
        let mut map = unsafe { MmapMut::map_mut(file.file())? };
        put(&mut map, 8, &(rank as u32).to_le_bytes());
        put(&mut map, 12, &(world as u32).to_le_bytes());
        put(&mut map, 16, &std::process::id().to_le_bytes());
        for at in [24, 32] {
            put(&mut map, at, &now_ns().to_le_bytes());
        }
        put(&mut map, 48, &place().to_le_bytes());
        put(&mut map, HOST_AT, cut(host, HOST_BYTES).as_bytes());
        put(&mut map, 0, MAGIC);
        Ok(Self { ring: Mutex::new(Ring { map, events: 0, open: [0; OPEN] }) })
    }

    /// A section begins.
    pub fn enter(&self, mut event: Event) {
        let mut ring = self.lock();
        event.kind = EventKind::Enter;
        let record = ring.append(&mut event);
        if let Some(slot) = ring.open.iter().position(|section| *section == 0) {
            // A section's own count starts at 0, but 0 marks a free slot.
            ring.open[slot] = event.section + 1;
            put(&mut ring.map, OPEN_AT + slot * RECORD, &record);
        }
    }

    /// A section ends.
    pub fn leave(&self, section: u64, step: u64) {
        let mut ring = self.lock();
        ring.append(&mut Event { kind: EventKind::Leave, section, step, ..Event::default() });
        if let Some(slot) = ring.open.iter().position(|open| *open == section + 1) {
            ring.open[slot] = 0;
            put(&mut ring.map, OPEN_AT + slot * RECORD, &[0; 8]);
        }
    }

    /// A sign of life.
    pub fn alive(&self) {
        put(&mut self.lock().map, 32, &now_ns().to_le_bytes());
    }

    /// The process comes to its own end.
    pub fn ended(&self, code: u8) {
        put(&mut self.lock().map, ENDED_AT as usize, &(u32::from(code) + 1).to_le_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// Numbers the event, dates it, and puts it over the oldest.
    fn append(&mut self, event: &mut Event) -> [u8; RECORD] {
        self.events += 1;
        event.number = self.events;
        event.time_ns = now_ns();
        let record = encode(event);
        put(&mut self.map, HEADER + ((self.events - 1) as usize % EVENTS) * RECORD, &record);
        put(&mut self.map, 32, &event.time_ns.to_le_bytes());
        record
    }
}

impl Flight {
    /// Reads the recorder of a rank, also one that is being written: records that are half there
    /// are left out.
    ///
    /// # Errors
    /// A data error for a file that is no recorder; I/O errors.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs_err::read(path)?;
        if bytes.len() != HEADER + EVENTS * RECORD || !bytes.starts_with(MAGIC) {
            return Err(DataError::new(path, "is no flight recorder of this version").into());
        }
        let host = String::from_utf8_lossy(&bytes[HOST_AT..HOST_AT + HOST_BYTES])
            .trim_end_matches('\0')
            .to_owned();
        let mut open: Vec<Event> =
            bytes[OPEN_AT..OPEN_AT + OPEN * RECORD].chunks(RECORD).filter_map(decode).collect();
        let mut events: Vec<Event> = bytes[HEADER..].chunks(RECORD).filter_map(decode).collect();
        open.sort_by_key(|event| event.section);
        events.sort_by_key(|event| event.number);
        Ok(Self {
            path: path.to_owned(),
            rank: u32_at(&bytes, 8) as usize,
            world: u32_at(&bytes, 12) as usize,
            pid: u32_at(&bytes, 16),
            host,
            place: u64_at(&bytes, 48),
            started_ns: u64_at(&bytes, 24),
            alive_ns: u64_at(&bytes, 32),
            ended: u8::try_from(u32_at(&bytes, ENDED_AT as usize))
                .ok()
                .and_then(|code| code.checked_sub(1)),
            open,
            events,
        })
    }

    /// Closes the recorder of a process that has ended without doing so itself.
    pub(crate) fn mark_ended(folder: &Path, process: u32, code: u8) {
        let open = Self::read_all(folder)
            .unwrap_or_default()
            .into_iter()
            .find(|flight| flight.pid == process && flight.ended.is_none());
        if let Some(flight) = open
            && let Ok(file) = fs_err::OpenOptions::new().write(true).open(&flight.path)
        {
            // Nothing depends on it but what other ranks say.
            let _ = std::os::unix::fs::FileExt::write_all_at(
                file.file(),
                &(u32::from(code) + 1).to_le_bytes(),
                ENDED_AT,
            );
        }
    }

    /// The recorders of all ranks in a folder, by rank.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let (mut flights, mut unreadable) = (Vec::new(), None);
        for entry in fs_err::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "flight") {
                match Self::read(&path) {
                    Ok(flight) => flights.push(flight),
                    // One that is cut must not silence the others.
                    Err(error) => unreadable = Some(error),
                }
            }
        }
        flights.sort_by_key(|flight| flight.rank);
        match unreadable {
            Some(error) if flights.is_empty() => Err(error),
            _ => Ok(flights),
        }
    }
}

fn encode(event: &Event) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    put(&mut record, 0, &event.number.to_le_bytes());
    put(&mut record, 8, &event.time_ns.to_le_bytes());
    put(&mut record, 16, &u32::from(event.kind == EventKind::Leave).to_le_bytes());
    put(&mut record, 20, &event.bucket.map_or(0, |bucket| bucket + 1).to_le_bytes());
    for (at, value) in
        [(24, event.section), (32, event.step), (40, event.collective), (48, event.bytes)]
    {
        put(&mut record, at, &value.to_le_bytes());
    }
    put(&mut record, 56, &event.documents.to_le_bytes());
    let rows = &event.rows[..event.rows.len().min(ROWS)];
    put(&mut record, 60, &(rows.len() as u32).to_le_bytes());
    rows.iter()
        .enumerate()
        .for_each(|(index, row)| put(&mut record, 64 + 4 * index, &row.to_le_bytes()));
    let text = cut(&event.text, CHECK_AT - TEXT_AT);
    put(&mut record, 112, &(text.len() as u16).to_le_bytes());
    put(&mut record, TEXT_AT, text.as_bytes());
    let check = crc32fast::hash(&record[..CHECK_AT]);
    put(&mut record, CHECK_AT, &check.to_le_bytes());
    record
}

/// `None` for a slot that is empty or half written.
fn decode(record: &[u8]) -> Option<Event> {
    if u64_at(record, 0) == 0 || u32_at(record, CHECK_AT) != crc32fast::hash(&record[..CHECK_AT]) {
        return None;
    }
    let length = usize::from(u16::from_le_bytes([record[112], record[113]]));
    let rows =
        (0..ROWS.min(u32_at(record, 60) as usize)).map(|index| u32_at(record, 64 + 4 * index));
    Some(Event {
        number: u64_at(record, 0),
        time_ns: u64_at(record, 8),
        kind: if u32_at(record, 16) == 1 { EventKind::Leave } else { EventKind::Enter },
        section: u64_at(record, 24),
        step: u64_at(record, 32),
        collective: u64_at(record, 40),
        bucket: u32_at(record, 20).checked_sub(1),
        bytes: u64_at(record, 48),
        rows: rows.collect(),
        documents: u32_at(record, 56),
        text: String::from_utf8_lossy(record.get(TEXT_AT..TEXT_AT + length)?).into_owned(),
    })
}

/// At most `bytes` bytes of a text, whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    let end =
        (0..=bytes.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

fn put(target: &mut [u8], at: usize, bytes: &[u8]) {
    target[at..at + bytes.len()].copy_from_slice(bytes);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(section: u64, text: &str) -> Event {
        Event {
            section,
            step: 17,
            collective: 3,
            bucket: Some(0),
            bytes: 1 << 40,
            rows: vec![5, 9],
            documents: 2,
            text: text.into(),
            ..Event::default()
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = FlightRecorder::create(folder.path(), 2, 4, "node07").unwrap();
        recorder.enter(event(0, "step 17"));
        recorder.enter(event(1, &"é".repeat(100)));
        recorder.leave(1, 17);
        recorder.enter(event(2, "all-reduce"));
        // Read while it is still being written: nothing is flushed.
        let flights = Flight::read_all(folder.path()).unwrap();
        let flight = &flights[0];
        assert_eq!(
            (flights.len(), flight.rank, flight.world, flight.host.as_str(), flight.ended),
            (1, 2, 4, "node07", None)
        );
        assert_eq!((flight.pid, flight.place), (std::process::id(), place()));
        let texts: Vec<&str> = flight.open.iter().map(|event| event.text.as_str()).collect();
        assert_eq!(texts, ["step 17", "all-reduce"]);
        assert_eq!(flight.events.len(), 4);
        assert_eq!(
            flight.events[0],
            Event { number: 1, time_ns: flight.events[0].time_ns, ..event(0, "step 17") }
        );
        assert_eq!(
            (flight.events[1].text.chars().count(), flight.events[2].kind),
            (69, EventKind::Leave)
        );
        recorder.ended(75);
        assert_eq!(Flight::read(&flight.path).unwrap().ended, Some(75));
    }

    #[test]
    fn the_oldest_events_go_first_and_open_sections_stay() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = FlightRecorder::create(folder.path(), 0, 1, "here").unwrap();
        recorder.enter(event(0, "the whole time"));
        for section in 1..=EVENTS as u64 {
            recorder.enter(event(section, "short"));
            recorder.leave(section, 1);
        }
        let flight = Flight::read(&flight_path(folder.path(), 0)).unwrap();
        assert_eq!((flight.events.len(), flight.events[0].number), (EVENTS, EVENTS as u64 + 2));
        assert_eq!(flight.open.len(), 1);
        assert_eq!(flight.open[0].text, "the whole time");
    }

    #[test]
    fn any_changed_byte_loses_at_most_its_record() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = FlightRecorder::create(folder.path(), 0, 1, "here").unwrap();
        (0..3).for_each(|section| recorder.enter(event(section, "a section")));
        let path = flight_path(folder.path(), 0);
        let good = fs_err::read(&path).unwrap();
        let whole = Flight::read(&path).unwrap();
        for at in (0..OPEN_AT + 2 * RECORD).chain(HEADER..HEADER + 3 * RECORD).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            fs_err::write(folder.path().join("bad.flight"), &bad).unwrap();
            if let Ok(flight) = Flight::read(&folder.path().join("bad.flight")) {
                assert!(
                    flight.events.iter().all(|event| whole.events.contains(event)),
                    "byte {at} made an event up"
                );
                assert!(flight.events.len() + 1 >= whole.events.len());
            }
        }
        fs_err::write(folder.path().join("short.flight"), &good[..good.len() - 1]).unwrap();
        assert_eq!(Flight::read(&folder.path().join("short.flight")).unwrap_err().exit_code(), 65);
    }

    #[test]
    fn the_recorder_before_stays_beside_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        FlightRecorder::create(folder.path(), 0, 1, "first").unwrap();
        FlightRecorder::create(folder.path(), 0, 1, "second").unwrap();
        let path = flight_path(folder.path(), 0);
        assert_eq!(Flight::read(&path).unwrap().host, "second");
        assert_eq!(Flight::read(&path.with_extension("previous")).unwrap().host, "first");
    }
}
