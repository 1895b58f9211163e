use super::*;
use crate::bad_disk::SmallDisk;
use crate::train::checkpoint::tests::{content, stage};

const RECIPE_TEXT: &str = "seed = 1\n";

/// The mirror in a folder.
fn over(folder: &Path) -> Mirror {
    Mirror { pause: Duration::from_millis(1), ..Mirror::open(&format!("file://{}", folder.display())).unwrap() }
}

fn newest(count: usize) -> Retention {
    Retention { newest: count, every: 0, best: None }
}

/// A run folder with checkpoints of `steps` in its stage `pretrain`, each uploaded as it is made.
fn run(mirror: &Mirror, steps: &[u64], retention: Retention) -> tempfile::TempDir {
    let run = tempfile::tempdir().unwrap();
    mirror.attach(run.path(), RECIPE_TEXT, true).unwrap();
    let folder = run.path().join("checkpoints/pretrain");
    fs_err::create_dir_all(&folder).unwrap();
    for &step in steps {
        Checkpoint::write(&folder_of_step(&folder, step), &content(run.path(), step, step as f64)).unwrap();
        mirror.follow(&folder, retention);
    }
    assert_eq!(mirror.failures(), 0);
    run
}

/// Steps that a run folder has after it was attached in order to resume.
fn restored(mirror: &Mirror, into: &Path) -> Vec<u64> {
    mirror.attach(into, RECIPE_TEXT, true).unwrap();
    steps_in(&into.join("checkpoints/pretrain")).unwrap()
}

#[test]
fn an_empty_run_folder_gets_the_newest_checkpoint_and_the_best() {
    let place = tempfile::tempdir().unwrap();
    let mirror = over(&place.path().join("runs/a"));
    let first = run(&mirror, &[1, 2, 3, 4, 5], Retention { best: Some(2), ..newest(2) });
    let second = tempfile::tempdir().unwrap();
    // The state of these checkpoints says that step 2 is the best.
    assert_eq!(restored(&mirror, second.path()), [2, 5], "4 is there but not needed");
    for step in [2, 5] {
        let hashes = |run: &Path| Checkpoint::open(&folder_of_step(&run.join("checkpoints/pretrain"), step)).unwrap().files().unwrap();
        assert_eq!(hashes(first.path()), hashes(second.path()));
    }
    assert_eq!(mirror.steps("pretrain").unwrap(), [2, 4, 5], "the mirror keeps what the run folder keeps");
    assert!(mirror.attach(second.path(), RECIPE_TEXT, true).unwrap().is_empty(), "what is there stays");
}

#[test]
fn an_upload_without_seal_and_a_damaged_one_are_passed_over() {
    let place = tempfile::tempdir().unwrap();
    let mirror = over(place.path());
    let _first = run(&mirror, &[4, 8, 12], newest(9));
    fs_err::remove_file(place.path().join("pretrain/step-00000012/MANIFEST.json")).unwrap();
    fs_err::write(place.path().join("pretrain/step-00000008/heads.safetensors"), b"cut").unwrap();
    let second = tempfile::tempdir().unwrap();
    assert_eq!(restored(&mirror, second.path()), [4], "12 is not sealed, 8 is damaged");
    let left: Vec<_> = fs_err::read_dir(second.path().join("checkpoints/pretrain")).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing half-fetched is left: {left:?}");
}

#[test]
fn a_mirror_belongs_to_one_recipe_and_is_not_overwritten_by_a_fresh_start() {
    let (place, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mirror = over(place.path());
    mirror.attach(folder.path(), RECIPE_TEXT, false).unwrap();
    let other = mirror.attach(folder.path(), "seed = 2\n", true).unwrap_err();
    assert!(other.exit_code() == 64 && other.to_string().contains("another recipe") && other.hint().is_some(), "{other}");
    let used = run(&mirror, &[4], newest(1));
    let fresh = mirror.attach(folder.path(), RECIPE_TEXT, false).unwrap_err();
    assert!(fresh.exit_code() == 64 && fresh.hint().unwrap().contains("--resume"), "{fresh}");
    mirror.attach(used.path(), RECIPE_TEXT, false).unwrap();
    assert_eq!(restored(&mirror, folder.path()), [4]);
}

#[test]
fn a_full_mirror_is_a_warning_at_every_write_and_never_looks_whole() {
    let Some(disk) = SmallDisk::new(1 << 20) else { return };
    let mirror = over(disk.path());
    let local = stage(&[1]);
    let name = name_of(local.path());
    for (failed, left) in (0..).map(|page| (page + 1, page as usize * 4096)) {
        let ballast = disk.fill(left);
        mirror.follow(local.path(), newest(1));
        fs_err::remove_file(ballast).unwrap();
        if mirror.failures() < failed {
            assert!(failed > 5, "{failed}");
            break;
        }
        assert!(mirror.steps(&name).unwrap().is_empty(), "{left} bytes left");
        fs_err::remove_dir_all(disk.path().join(&name)).ok();
    }
    assert_eq!(mirror.steps(&name).unwrap(), [1]);
}

#[test]
fn what_is_no_place_for_checkpoints_is_a_recipe_error() {
    for url in ["runs/a", "ftp://x/y", "file://runs/a", ""] {
        let error = Mirror::open(url).unwrap_err();
        assert!(error.exit_code() == 64 && error.to_string().contains(url) && error.hint().is_some(), "{url}: {error}");
    }
}
