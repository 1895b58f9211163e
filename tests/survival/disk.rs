//! Disks that fill up, cannot be written or are lost, under several ranks.

use std::time::Duration;

use docre::Checkpoint;

use super::bad_disk::SmallDisk;
use super::common::copy;
use super::place::{PATIENCE, Place, Started};

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
#[cfg_attr(not(can_mount), ignore = "mounting a file system needs root")]
fn a_disk_that_fills_up_ends_all_ranks_with_74_and_the_run_goes_on_when_there_is_room() {
    let (place, disk) = (Place::new(), SmallDisk::new(400 << 20));
    place.prepared(2);
    let run = disk.path().join("r").to_string_lossy().into_owned();
    // At any moment of a step, and where the next checkpoint finds half of the room it needs.
    for (after, left) in [(5, 0), (13, 2 << 20)] {
        if after == 5 {
            copy(&place.path("ready"), &place.path(&run));
        }
        let mut started = place.start(2, &run, "--resume");
        place.await_step(&run, after, &mut started);
        // What is on its way to the disk gets there.
        let sealed = || {
            matches!(
                Checkpoint::latest(&place.path(&run).join("checkpoints/pretrain")),
                Ok(Some(_))
            )
        };
        while !sealed() {
            assert!(started.since.elapsed() < PATIENCE, "{}", place.said());
            std::thread::sleep(Duration::from_millis(10));
        }
        let ballast = disk.fill(left);
        let ended = place.end(started);
        assert_eq!(ended.code, Some(74), "{}", ended.said);
        assert_eq!(
            ended.said.matches("No space left on device").count(),
            1,
            "one error:\n{}",
            ended.said
        );
        assert!(ended.said.contains("hint: free space"), "{}", ended.said);
        let last = Checkpoint::latest(&place.path(&run).join("checkpoints/pretrain"))
            .unwrap()
            .unwrap()
            .trainer()
            .unwrap();
        assert!(last.step >= 4 && last.step.is_multiple_of(4), "{}", last.step);
        fs_err::remove_file(ballast).unwrap();
    }
    place.finish(2, &run, "--resume");
    assert_eq!(place.final_hashes(&run), place.final_hashes("calm2"));
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
#[cfg_attr(not(can_mount), ignore = "mounting a file system needs root")]
fn a_folder_that_cannot_be_written_ends_all_ranks_with_74() {
    let (place, disk) = (Place::new(), SmallDisk::new(1 << 20));
    disk.set_read_only(true);
    let ended = place.end(place.start(2, &disk.path().join("r").to_string_lossy(), ""));
    assert_eq!(ended.code, Some(74), "{}", ended.said);
    assert!(
        ended.said.contains("Read-only file system") && ended.said.contains("hint: name a folder"),
        "{}",
        ended.said
    );
    disk.set_read_only(false);
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_run_folder_that_is_lost_comes_back_from_the_mirror() {
    let place = Place::new();
    place.prepared(2);
    let ended =
        place.end(lost_and_resumed(&place, &format!("file://{}", place.path("mirror").display())));
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(place.final_hashes("r"), place.final_hashes("calm2"));
}

/// A run `r` with a mirror is killed and its folder removed; returns its resumption, which has
/// begun to train from what the mirror had.
pub fn lost_and_resumed(place: &Place, url: &str) -> Started {
    let settings = format!("--set checkpoint_mirror={url}");
    let mut started = place.start(2, "r", &settings);
    place.await_step("r", 20, &mut started);
    place.signal("r", 1, libc::SIGKILL);
    let ended = place.end(started);
    assert_eq!(ended.code, Some(71), "{}", ended.said);
    fs_err::remove_dir_all(place.path("r")).unwrap();
    let refused = place.end(place.start(2, "r", &settings));
    assert_eq!(refused.code, Some(64), "{}", refused.said);
    assert!(refused.said.contains("holds checkpoints of this recipe already"), "{}", refused.said);
    let mut resumed = place.start(2, "r", &format!("{settings} --resume"));
    place.await_step("r", 1, &mut resumed);
    let said = place.said();
    assert!(
        said.contains(&format!("rank/step-00000002 comes from {url}"))
            && said.contains("pretrain/step-000000"),
        "{said}"
    );
    let first = *place.metrics("r").keys().next().unwrap();
    assert!(first > 12, "pre-training began at step {first}");
    resumed
}
