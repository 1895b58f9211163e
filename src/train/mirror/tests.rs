use object_store::memory::InMemory;
use object_store::path::Path as Key;

use super::*;
use crate::bad_disk::SmallDisk;
use crate::train::checkpoint::tests::{content, stage};

const RECIPE_TEXT: &str = "seed = 1\n";

/// A mirror in memory, with its store to look into.
fn in_memory() -> (Mirror, Arc<dyn ObjectStore>) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    (over(store.clone()), store)
}

fn over(store: Arc<dyn ObjectStore>) -> Mirror {
    Mirror { pause: Duration::from_millis(1), ..Mirror::over("memory:///runs/a", store, Key::from("runs/a")).unwrap() }
}

fn newest(count: usize) -> Retention {
    Retention { newest: count, every: 0, best: None }
}

/// A run folder with checkpoints of `steps` in its stage `pretrain`, each uploaded as it is made.
fn run(mirror: &Mirror, steps: &[u64], retention: Retention) -> tempfile::TempDir {
    let run = tempfile::tempdir().unwrap();
    let folder = run.path().join("checkpoints/pretrain");
    fs_err::create_dir_all(&folder).unwrap();
    for &step in steps {
        Checkpoint::write(&folder_of_step(&folder, step), &content(run.path(), step, step as f64)).unwrap();
        mirror.follow(&folder, retention);
    }
    assert_eq!(mirror.failures(), 0);
    run
}

/// Steps that a run folder has after `attach`.
fn restored(mirror: &Mirror, into: &Path) -> Vec<u64> {
    mirror.attach(into, RECIPE_TEXT, true).unwrap();
    steps_in(&into.join("checkpoints/pretrain")).unwrap()
}

fn damage(mirror: &Mirror, key: &str, bytes: &[u8]) {
    mirror.ask(mirror.store.put(&Key::from(key), bytes.to_vec().into())).unwrap();
}

#[test]
fn an_empty_run_folder_gets_the_newest_checkpoint_and_the_best() {
    let (mirror, _) = in_memory();
    let best = Retention { best: Some(2), ..newest(2) };
    let first = run(&mirror, &[1, 2, 3, 4, 5], best);
    let second = tempfile::tempdir().unwrap();
    // The state of these checkpoints says that step 2 is the best.
    assert_eq!(restored(&mirror, second.path()), [2, 5], "3 is outdated, 4 is there but not needed");
    for step in [2, 5] {
        let hashes = |run: &Path| Checkpoint::open(&folder_of_step(&run.join("checkpoints/pretrain"), step)).unwrap().files().unwrap();
        assert_eq!(hashes(first.path()), hashes(second.path()));
    }
    assert_eq!(mirror.steps(&Key::from("runs/a/pretrain")).unwrap(), [2, 4, 5]);
    assert!(mirror.attach(second.path(), RECIPE_TEXT, true).unwrap().is_empty(), "what is there stays");
}

#[test]
fn the_seal_arrives_last_and_a_damaged_upload_is_passed_over() {
    let (mirror, store) = in_memory();
    let _first = run(&mirror, &[4, 8, 12], newest(9));
    let seal = Key::from("runs/a/pretrain/step-00000012/MANIFEST.json");
    let time = |key: &Key| mirror.ask(store.head(key)).unwrap().last_modified;
    let listed = mirror.ask(store.list_with_delimiter(Some(&Key::from("runs/a/pretrain/step-00000012")))).unwrap();
    assert!(listed.objects.len() > 7 && listed.objects.iter().all(|object| object.last_modified <= time(&seal)));
    mirror.remove(&seal).unwrap();
    damage(&mirror, "runs/a/pretrain/step-00000008/heads.safetensors", b"cut");
    let second = tempfile::tempdir().unwrap();
    assert_eq!(restored(&mirror, second.path()), [4], "12 is not sealed, 8 is damaged");
    let left: Vec<_> = fs_err::read_dir(second.path().join("checkpoints/pretrain")).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing half-fetched is left: {left:?}");
}

#[test]
fn a_mirror_belongs_to_one_recipe_and_is_not_overwritten_by_a_fresh_start() {
    let (mirror, _) = in_memory();
    let folder = tempfile::tempdir().unwrap();
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
fn a_folder_by_url_works_like_a_store_and_its_failures_are_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/mirror", folder.path().display());
    let _first = run(&Mirror::open(&url).unwrap(), &[3, 6], newest(1));
    assert!(folder.path().join("mirror/pretrain/step-00000006/MANIFEST.json").exists());
    assert!(!folder.path().join("mirror/pretrain/step-00000003/MANIFEST.json").exists());
    let second = tempfile::tempdir().unwrap();
    assert_eq!(restored(&Mirror::open(&url).unwrap(), second.path()), [6]);

    let Some(disk) = SmallDisk::new(1 << 20) else { return };
    let full = format!("file://{}", disk.path().display());
    let mirror = Mirror { pause: Duration::from_millis(1), ..Mirror::open(&full).unwrap() };
    let local = stage(&[1]);
    let ballast = disk.fill(8192);
    mirror.follow(local.path(), newest(1));
    assert_eq!(mirror.failures(), 1);
    let name = name_of(local.path());
    assert!(mirror.steps(&mirror.prefix.clone().join(name.as_str())).unwrap().is_empty(), "not sealed");
    fs_err::remove_file(ballast).unwrap();
    mirror.follow(local.path(), newest(1));
    assert_eq!((mirror.failures(), mirror.steps(&mirror.prefix.clone().join(name.as_str())).unwrap()), (1, vec![1]));
}

#[test]
fn what_is_no_place_for_checkpoints_is_a_recipe_error() {
    for url in ["runs/a", "ftp://x/y", "http://"] {
        let error = Mirror::open(url).unwrap_err();
        assert!(error.exit_code() == 64 && error.to_string().contains(url) && error.hint().is_some(), "{url}: {error}");
    }
    let s3 = Mirror::open("s3://bucket/prefix");
    assert_eq!(s3.is_ok(), cfg!(feature = "object-stores"), "{:?}", s3.err());
}
