//! Judging made-up flights.

use super::*;

const SECOND: u64 = 1_000_000_000;

fn section(text: &str, collective: u64, time_ns: u64) -> Event {
    Event { number: 1, time_ns, text: text.into(), collective, ..Event::default() }
}

/// A rank of three on another machine, `events` begun and open; times in seconds.
fn flight(rank: usize, open: Vec<Event>) -> Flight {
    Flight {
        rank,
        world: 3,
        pid: 7,
        host: format!("node{rank}"),
        alive_ns: 100 * SECOND,
        events: open.clone(),
        open,
        ..Flight::default()
    }
}

#[test]
fn the_rank_that_never_came_is_blamed() {
    let step =
        Event { rows: vec![4, 8], documents: 2, ..section("step 17 of pretrain", 0, 30 * SECOND) };
    let waiting = |rank| {
        flight(
            rank,
            vec![
                step.clone(),
                Event { bucket: Some(3), bytes: 4096, ..section("all-reduce", 42, 40 * SECOND) },
            ],
        )
    };
    let reading = flight(
        1,
        vec![
            step.clone(),
            section("forward and backward", 0, 31 * SECOND),
            section("all-reduce", 41, 0),
        ],
    );
    let reading = Flight { open: reading.open[..2].to_vec(), ..reading };
    let said = behind(&[waiting(0), reading, waiting(2)], 100 * SECOND).unwrap();
    assert_eq!(
        said,
        "rank 1 on node1 (process 7) holds up the others in step 17 of pretrain > forward and backward for 69.0 s, documents in rows 4, 8; \
         ranks 0, 2 are in all-reduce of gradient bucket 3 (collective 42, 4096 bytes)"
    );
    assert_eq!(
        behind(&[waiting(0), waiting(1)], 100 * SECOND),
        None,
        "all wait for the network: nobody is to blame"
    );
}

#[test]
fn a_silent_or_vanished_process_of_this_machine_is_found() {
    let here = |rank, pid| Flight {
        pid,
        place: place(),
        ..flight(rank, vec![section("barrier", 5, 90 * SECOND)])
    };
    let alive = here(1, std::process::id());
    let limit = Duration::from_secs(10);
    assert_eq!(lost(std::slice::from_ref(&alive), 0, limit, 105 * SECOND), None);
    let said = lost(std::slice::from_ref(&alive), 0, limit, 112 * SECOND).unwrap();
    assert!(
        said.starts_with("rank 1 on node1") && said.contains("no sign of life for 12 s"),
        "{said}"
    );
    assert_eq!(
        lost(std::slice::from_ref(&alive), 1, limit, 112 * SECOND),
        None,
        "a rank does not judge itself"
    );
    assert_eq!(lost(&[Flight { ended: Some(0), ..alive.clone() }], 0, limit, 112 * SECOND), None);
    assert_eq!(
        lost(&[Flight { place: 0, ..alive }], 0, limit, 112 * SECOND),
        None,
        "another machine's processes cannot be seen"
    );
    // Above the largest process number of Linux.
    let said = lost(&[here(2, 1 << 30)], 0, limit, 101 * SECOND).unwrap();
    assert!(said.starts_with("rank 2 on node2") && said.contains("ended without a word"), "{said}");
}

#[test]
fn only_the_first_sentence_is_said() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(folder.path().join("log")).unwrap();
    assert_eq!(speak(folder.path(), "rank 1 is gone").as_deref(), Some("rank 1 is gone"));
    assert_eq!(speak(folder.path(), "so is rank 2"), None);
    assert_eq!(fs_err::read_to_string(verdict_path(folder.path())).unwrap(), "rank 1 is gone\n");
}

#[test]
fn the_report_tells_verdict_ranks_and_events() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(autopsy(folder.path(), 5).unwrap_err().exit_code(), 65);
    let recorder = FlightRecorder::create(&flights(folder.path()), 0, 2, "here").unwrap();
    recorder.enter(Event { section: 1, step: 3, ..section("step 3 of rank", 0, 0) });
    recorder.leave(1, 3);
    recorder.ended(75);
    fs_err::create_dir_all(folder.path().join("checkpoints/rank/step-00000003")).unwrap();
    fs_err::write(folder.path().join("checkpoints/rank/step-00000003/MANIFEST.json"), "{}")
        .unwrap();
    let said = obituary(folder.path(), 1, "was killed by signal 9").unwrap();
    assert!(
        said.starts_with("rank 1 on ")
            && said.ends_with("; the last good checkpoint is checkpoints/rank/step-00000003"),
        "{said}"
    );
    let found = autopsy(folder.path(), 5).unwrap();
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

#[test]
fn recorders_of_ranks_that_are_no_more_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    for rank in 0..4 {
        FlightRecorder::create(&flights(folder.path()), rank, 4, "here").unwrap();
    }
    put_aside(folder.path(), 2);
    let left: Vec<usize> = Flight::read_all(&flights(folder.path()))
        .unwrap()
        .iter()
        .map(|flight| flight.rank)
        .collect();
    assert_eq!(left, [0, 1]);
    assert!(flight_path(&flights(folder.path()), 3).with_extension("previous").exists());
}
