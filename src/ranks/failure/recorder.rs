//! The recorder of a rank: a memory-mapped file with what the rank does, which outlives the process
//! however it ends.
//!
//! The file is a header page (who, last sign of life, the sections that are open now) and a ring of
//! the latest events. All records have one size and a checksum each. The kernel keeps what was
//! written even after `kill -9`; only a crash of the machine loses it. Not for judging what it
//! means: `verdict` does.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use memmap2::MmapMut;

use crate::base::{entries, hash_number, host_name, lock, run_files};
use crate::{DataError, Result};

const MAGIC: &[u8; 8] = b"DOCREREC";
const HEADER: usize = 4096;
const RECORD: usize = 256;
/// Events that a file holds: a few hundred steps.
const EVENTS: usize = 4096;
/// Sections that can be open at once; deeper ones are recorded as events only.
const OPEN: usize = 12;

// Offsets in the header.
const RANK_AT: usize = 8;
const WORLD_AT: usize = 12;
const PID_AT: usize = 16;
/// The exit code plus 1.
const ENDED_AT: usize = 20;
const ALIVE_AT: usize = 32;
const PLACE_AT: usize = 48;
const HOST_AT: usize = 128;
const HOST_BYTES: usize = 64;
const OPEN_AT: usize = 512;

// Offsets and limits in a record.
const ROWS: usize = 12;
const TEXT_AT: usize = 114;
const CHECK_AT: usize = RECORD - 4;

/// Extension of a recorder.
const RECORDER: &str = "rec";

/// Extension of what an earlier start left.
const PREVIOUS: &str = "previous";

/// A section that begins or ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Counts the events of the file, from 1.
    pub number: u64,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Whether the section ends; otherwise it begins.
    pub ends: bool,
    /// Counts the sections of the process.
    pub section: u64,
    /// The step under way, from 1; 0 outside of steps.
    pub step: u64,
    /// For a collective: its number among those of the process, from 1; 0 otherwise.
    pub collective: u64,
    /// For a gradient bucket: its index.
    pub bucket: Option<u32>,
    /// For a collective: bytes that this rank sends.
    pub bytes: u64,
    /// Rows of the step's first documents in the shards.
    pub rows: Vec<u32>,
    /// Number of documents of the step.
    pub documents: u32,
    /// What the section does.
    pub text: String,
}

/// The recorder of this rank.
#[derive(Debug)]
pub struct Recorder {
    run: PathBuf,
    rank: usize,
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    map: MmapMut,
    events: u64,
    /// The section in each slot of the header; 0: free.
    open: [u64; OPEN],
}

/// What a recorder holds, read at one moment.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The file.
    pub path: PathBuf,
    /// The rank that wrote it.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
    /// Process.
    pub pid: u32,
    /// Machine.
    pub host: String,
    /// Hash of boot and process namespace: equal for processes that can see each other.
    pub place: u64,
    /// Last sign of life, nanoseconds since 1970.
    pub alive_ns: u64,
    /// The exit code, if the process came to its own end.
    pub ended: Option<u8>,
    /// Sections that were open, outermost first.
    pub open: Vec<Event>,
    /// Latest events, oldest first.
    pub events: Vec<Event>,
}

fn path_of(run: &Path, rank: usize) -> PathBuf {
    run.join(run_files::RECORDERS).join(format!("rank-{rank:05}.{RECORDER}"))
}

/// Nanoseconds since 1970.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}

/// Identifies the processes that can see this one by number: same boot, same namespace.
pub(super) fn place() -> u64 {
    let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = fs_err::read_link("/proc/self/ns/pid").unwrap_or_default();
    hash_number(&blake3::hash(format!("{boot} {}", space.display()).as_bytes()))
}

impl Recorder {
    /// Starts the recorder of a rank in a run folder. What an earlier process left under that name
    /// stays beside it as `….previous`.
    ///
    /// # Errors
    /// I/O errors.
    pub fn create(run: &Path, rank: usize, world: usize) -> Result<Self> {
        let path = path_of(run, rank);
        fs_err::create_dir_all(run.join(run_files::RECORDERS))?;
        if path.exists() {
            fs_err::rename(&path, path.with_extension(PREVIOUS))?;
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
        put(&mut map, RANK_AT, &(rank as u32).to_le_bytes());
        put(&mut map, WORLD_AT, &(world as u32).to_le_bytes());
        put(&mut map, PID_AT, &std::process::id().to_le_bytes());
        put(&mut map, ALIVE_AT, &now_ns().to_le_bytes());
        put(&mut map, PLACE_AT, &place().to_le_bytes());
        put(&mut map, HOST_AT, cut(&host_name(), HOST_BYTES).as_bytes());
        put(&mut map, 0, MAGIC);
        let ring = Mutex::new(Ring { map, events: 0, open: [0; OPEN] });
        Ok(Self { run: run.to_owned(), rank, ring })
    }

    /// Puts the recorders of ranks aside that this start does not have.
    pub(in crate::ranks) fn put_aside(run: &Path, world: usize) {
        for path in (world..).map(|rank| path_of(run, rank)).take_while(|path| path.exists()) {
            fs_err::rename(&path, path.with_extension(PREVIOUS)).ok();
        }
    }

    /// The run folder.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The rank that writes it.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Records that a section begins.
    pub fn enter(&self, mut event: Event) {
        let mut ring = lock(&self.ring);
        let record = ring.append(&mut event);
        if let Some(slot) = ring.open.iter().position(|section| *section == 0) {
            // A section's own count starts at 0, but 0 marks a free slot.
            ring.open[slot] = event.section + 1;
            put(&mut ring.map, OPEN_AT + slot * RECORD, &record);
        }
    }

    /// Records that a section ends.
    pub fn leave(&self, section: u64, step: u64) {
        let mut ring = lock(&self.ring);
        ring.append(&mut Event { ends: true, section, step, ..Event::default() });
        if let Some(slot) = ring.open.iter().position(|open| *open == section + 1) {
            ring.open[slot] = 0;
            put(&mut ring.map, OPEN_AT + slot * RECORD, &[0; 8]);
        }
    }

    /// Records a sign of life.
    pub fn alive(&self) {
        put(&mut lock(&self.ring).map, ALIVE_AT, &now_ns().to_le_bytes());
    }

    /// Records that the process comes to its own end.
    pub fn ended(&self, code: u8) {
        put(&mut lock(&self.ring).map, ENDED_AT, &(u32::from(code) + 1).to_le_bytes());
    }
}

impl Ring {
    /// Numbers and dates the event and overwrites the oldest one with it.
    fn append(&mut self, event: &mut Event) -> [u8; RECORD] {
        self.events += 1;
        event.number = self.events;
        event.time_ns = now_ns();
        let record = pack(event);
        put(&mut self.map, HEADER + ((self.events - 1) as usize % EVENTS) * RECORD, &record);
        put(&mut self.map, ALIVE_AT, &event.time_ns.to_le_bytes());
        record
    }
}

impl Recording {
    /// Reads the recorder of a rank, also while it is being written: records that are only half
    /// there are left out.
    ///
    /// # Errors
    /// A data error if the file is not a recorder; I/O errors.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs_err::read(path)?;
        if bytes.len() != HEADER + EVENTS * RECORD || !bytes.starts_with(MAGIC) {
            return Err(DataError::new(path, "is not a recorder of this version").into());
        }
        let host = String::from_utf8_lossy(&bytes[HOST_AT..HOST_AT + HOST_BYTES])
            .trim_end_matches('\0')
            .to_owned();
        let mut open: Vec<Event> =
            bytes[OPEN_AT..OPEN_AT + OPEN * RECORD].chunks(RECORD).filter_map(unpack).collect();
        let mut events: Vec<Event> = bytes[HEADER..].chunks(RECORD).filter_map(unpack).collect();
        open.sort_by_key(|event| event.section);
        events.sort_by_key(|event| event.number);
        let ended = u32_at(&bytes, ENDED_AT).checked_sub(1).map(u8::try_from);
        Ok(Self {
            path: path.to_owned(),
            rank: u32_at(&bytes, RANK_AT) as usize,
            world: u32_at(&bytes, WORLD_AT) as usize,
            pid: u32_at(&bytes, PID_AT),
            host,
            place: u64_at(&bytes, PLACE_AT),
            alive_ns: u64_at(&bytes, ALIVE_AT),
            ended: ended.and_then(Result::ok),
            open,
            events,
        })
    }

    /// Reads the recorders of all ranks of a run, by rank.
    ///
    /// # Errors
    /// As [`Self::read`], if not a single one can be read.
    pub fn read_all(run: &Path) -> Result<Vec<Self>> {
        let (mut recordings, mut unreadable) = (Vec::new(), None);
        for (_, path) in entries(&run.join(run_files::RECORDERS))? {
            if path.extension().is_some_and(|extension| extension == RECORDER) {
                match Self::read(&path) {
                    Ok(recording) => recordings.push(recording),
                    // One that is cut must not silence the others.
                    Err(error) => unreadable = Some(error),
                }
            }
        }
        recordings.sort_by_key(|recording| recording.rank);
        match unreadable {
            Some(error) if recordings.is_empty() => Err(error),
            _ => Ok(recordings),
        }
    }

    /// The recording of a process that has not closed its recorder.
    pub(super) fn left_open(run: &Path, process: u32) -> Option<Self> {
        let open = |recording: &Self| recording.pid == process && recording.ended.is_none();
        Self::read_all(run).ok()?.into_iter().find(open)
    }

    /// Closes the recorder of a process that has ended without doing so itself.
    pub(super) fn mark_ended(&self, code: u8) {
        if let Ok(file) = fs_err::OpenOptions::new().write(true).open(&self.path) {
            // Nothing depends on it but what other ranks say.
            let _ = std::os::unix::fs::FileExt::write_all_at(
                file.file(),
                &(u32::from(code) + 1).to_le_bytes(),
                ENDED_AT as u64,
            );
        }
    }
}

fn pack(event: &Event) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    put(&mut record, 0, &event.number.to_le_bytes());
    put(&mut record, 8, &event.time_ns.to_le_bytes());
    put(&mut record, 16, &u32::from(event.ends).to_le_bytes());
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
fn unpack(record: &[u8]) -> Option<Event> {
    if u64_at(record, 0) == 0 || u32_at(record, CHECK_AT) != crc32fast::hash(&record[..CHECK_AT]) {
        return None;
    }
    let length = usize::from(u16::from_le_bytes([record[112], record[113]]));
    let rows =
        (0..ROWS.min(u32_at(record, 60) as usize)).map(|index| u32_at(record, 64 + 4 * index));
    Some(Event {
        number: u64_at(record, 0),
        time_ns: u64_at(record, 8),
        ends: u32_at(record, 16) == 1,
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
        let run = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(run.path(), 2, 4).unwrap();
        recorder.enter(event(0, "step 17"));
        recorder.enter(event(1, &"é".repeat(100)));
        recorder.leave(1, 17);
        recorder.enter(event(2, "all-reduce"));
        // Read while it is still being written: nothing is flushed.
        let recordings = Recording::read_all(run.path()).unwrap();
        let recording = &recordings[0];
        assert_eq!(
            (recordings.len(), recording.rank, recording.world, recording.ended),
            (1, 2, 4, None)
        );
        assert_eq!((recording.pid, recording.place), (std::process::id(), place()));
        assert_eq!(recording.host, host_name());
        let texts: Vec<&str> = recording.open.iter().map(|event| event.text.as_str()).collect();
        assert_eq!(texts, ["step 17", "all-reduce"]);
        assert_eq!(recording.events.len(), 4);
        assert_eq!(
            recording.events[0],
            Event { number: 1, time_ns: recording.events[0].time_ns, ..event(0, "step 17") }
        );
        assert_eq!(
            (recording.events[1].text.chars().count(), recording.events[2].ends),
            (69, true)
        );
        recorder.ended(75);
        assert_eq!(Recording::read(&recording.path).unwrap().ended, Some(75));
    }

    #[test]
    fn the_oldest_events_go_first_and_open_sections_stay() {
        let run = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(run.path(), 0, 1).unwrap();
        recorder.enter(event(0, "the whole time"));
        for section in 1..=EVENTS as u64 {
            recorder.enter(event(section, "short"));
            recorder.leave(section, 1);
        }
        let recording = Recording::read(&path_of(run.path(), 0)).unwrap();
        let (count, first) = (recording.events.len(), recording.events[0].number);
        assert_eq!((count, first), (EVENTS, EVENTS as u64 + 2));
        assert_eq!(recording.open.len(), 1);
        assert_eq!(recording.open[0].text, "the whole time");
    }

    #[test]
    fn any_changed_byte_loses_at_most_its_record() {
        let run = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(run.path(), 0, 1).unwrap();
        (0..3).for_each(|section| recorder.enter(event(section, "a section")));
        let path = path_of(run.path(), 0);
        let good = fs_err::read(&path).unwrap();
        let whole = Recording::read(&path).unwrap();
        let damaged = run.path().join("damaged.rec");
        for at in (0..OPEN_AT + 2 * RECORD).chain(HEADER..HEADER + 3 * RECORD).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            fs_err::write(&damaged, &bad).unwrap();
            if let Ok(recording) = Recording::read(&damaged) {
                assert!(
                    recording.events.iter().all(|event| whole.events.contains(event)),
                    "byte {at} made an event up"
                );
                assert!(recording.events.len() + 1 >= whole.events.len());
            }
        }
        fs_err::write(&damaged, &good[..good.len() - 1]).unwrap();
        assert_eq!(Recording::read(&damaged).unwrap_err().exit_code(), 65);
    }

    #[test]
    fn the_recorder_before_stays_beside_the_new_one() {
        let run = tempfile::tempdir().unwrap();
        Recorder::create(run.path(), 0, 1).unwrap();
        Recorder::create(run.path(), 0, 2).unwrap();
        let path = path_of(run.path(), 0);
        assert_eq!(Recording::read(&path).unwrap().world, 2);
        assert_eq!(Recording::read(&path.with_extension(PREVIOUS)).unwrap().world, 1);
    }

    #[test]
    fn recorders_of_ranks_that_are_no_more_do_not_count() {
        let run = tempfile::tempdir().unwrap();
        for rank in 0..4 {
            Recorder::create(run.path(), rank, 4).unwrap();
        }
        Recorder::put_aside(run.path(), 2);
        let left = Recording::read_all(run.path()).unwrap();
        assert_eq!(left.iter().map(|recording| recording.rank).collect::<Vec<_>>(), [0, 1]);
        assert!(path_of(run.path(), 3).with_extension(PREVIOUS).exists());
    }
}
