//! Judging made-up recordings.

use super::*;

const SECOND: u64 = 1_000_000_000;

fn section(text: &str, collective: u64, time_ns: u64) -> Event {
    Event { number: 1, time_ns, text: text.into(), collective, ..Event::default() }
}

/// A rank of three on another machine, `events` begun and open; times in seconds.
fn recording(rank: usize, open: Vec<Event>) -> Recording {
    Recording {
        rank,
        world: 3,
        pid: 7,
        host: format!("node{rank}"),
        alive_ns: 100 * SECOND,
        events: open.clone(),
        open,
        ..Recording::default()
    }
}

#[test]
fn the_rank_that_never_came_is_blamed() {
    let step =
        Event { rows: vec![4, 8], documents: 2, ..section("step 17 of pretrain", 0, 30 * SECOND) };
    let bucket = Event { bucket: Some(3), bytes: 4096, ..section("all-reduce", 42, 40 * SECOND) };
    let waiting = |rank| recording(rank, vec![step.clone(), bucket.clone()]);
    let backward = section("forward and backward", 0, 31 * SECOND);
    let mut reading = recording(1, vec![step.clone(), backward, section("all-reduce", 41, 0)]);
    reading.open.pop();
    let said = behind(&[waiting(0), reading, waiting(2)], 100 * SECOND).unwrap();
    assert_eq!(
        said,
        "rank 1 on node1 (process 7) holds up the others in step 17 of pretrain > forward and \
         backward for 69.0 s, documents in rows 4, 8; ranks 0, 2 are in all-reduce of gradient \
         bucket 3 (collective 42, 4096 bytes)"
    );
    assert_eq!(
        behind(&[waiting(0), waiting(1)], 100 * SECOND),
        None,
        "all wait for the network: nobody is to blame"
    );
}

#[test]
fn a_silent_or_vanished_process_of_this_machine_is_found() {
    let here = |rank, pid| Recording {
        pid,
        place: place(),
        ..recording(rank, vec![section("barrier", 5, 90 * SECOND)])
    };
    let limit = Duration::from_secs(10);
    let judged = |rank, own, now| silent(&[rank], own, limit, now * SECOND);
    let alive = here(1, std::process::id());
    assert_eq!(judged(alive.clone(), 0, 105), None);
    let said = judged(alive.clone(), 0, 112).unwrap();
    assert!(
        said.starts_with("rank 1 on node1") && said.contains("no sign of life for 12 s"),
        "{said}"
    );
    assert_eq!(judged(alive.clone(), 1, 112), None, "a rank does not judge itself");
    assert_eq!(judged(Recording { ended: Some(0), ..alive.clone() }, 0, 112), None);
    assert_eq!(
        judged(Recording { place: 0, ..alive }, 0, 112),
        None,
        "another machine's processes cannot be seen"
    );
    // Above the largest process number of Linux.
    let said = judged(here(2, 1 << 30), 0, 101).unwrap();
    assert!(said.starts_with("rank 2 on node2") && said.contains("ended without a word"), "{said}");
}

#[test]
fn only_the_first_verdict_is_told() {
    let run = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(run.path().join(run_files::LOG)).unwrap();
    let first = Verdict::on_end(run.path(), 1, "is gone").unwrap().to_string();
    assert!(first.contains("is gone; there is no checkpoint yet"), "{first}");
    assert_eq!(Verdict::on_end(run.path(), 2, "is gone, too"), None);
    let kept = fs_err::read_to_string(run.path().join(run_files::VERDICT)).unwrap();
    assert_eq!(kept, format!("{first}\n"));
    Verdict::forget(run.path());
    assert!(Verdict::on_end(run.path(), 2, "is gone, too").is_some());
}
