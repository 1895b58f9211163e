use super::*;
use crate::bad_disk::SmallDisk;
#[cfg(feature = "cloud")]
use crate::fake_bucket::{FakeBucket, Fault, Speech};
#[cfg(feature = "cloud")]
use crate::objects::cloud_tests;
use crate::train::checkpoint::tests::{content, stage};

/// A recipe that is the same as another where the text is.
fn recipe(
    text: &str,
    check: impl Fn(&RunRecipe<'_>) -> Result<Vec<String>>,
) -> Result<Vec<String>> {
    check(&RunRecipe { text, same: &|other| other == text })
}

const RECIPE_TEXT: &str = "seed = 1\n";

/// Does something with an empty mirror in each kind of store that can be had here.
fn everywhere(test: impl Fn(&Mirror)) {
    let place = tempfile::tempdir().unwrap();
    test(&over(&place.path().join("runs/a")));
    #[cfg(feature = "cloud")]
    {
        test(&of(cloud_tests::in_memory()));
        // A part of a bucket; and its root, as a prefix of everything else.
        for prefix in ["runs/a", ""] {
            cloud_tests::services()
                .iter()
                .for_each(|server| test(&of(cloud_tests::on(server, prefix))));
        }
    }
}

/// The mirror in a store.
#[cfg(feature = "cloud")]
fn of(store: Box<dyn Store>) -> Mirror {
    Mirror { store, pause: Duration::from_millis(1), ..Mirror::open("file:///").unwrap() }
}

/// The mirror in a folder.
fn over(folder: &Path) -> Mirror {
    Mirror {
        pause: Duration::from_millis(1),
        ..Mirror::open(&format!("file://{}", folder.display())).unwrap()
    }
}

/// A store that never answers.
#[derive(Debug)]
struct Stuck;

impl Stuck {
    fn wait(&self) -> ! {
        loop {
            std::thread::park();
        }
    }
}

impl Store for Stuck {
    fn upload(&self, _: &Path, _: &str) -> Result<()> {
        self.wait()
    }

    fn download(&self, _: &str, _: &Path) -> Result<()> {
        self.wait()
    }

    fn read(&self, _: &str) -> Result<Option<Vec<u8>>> {
        self.wait()
    }

    fn read_range(&self, _: &str, _: std::ops::Range<u64>) -> Result<Vec<u8>> {
        self.wait()
    }

    fn write(&self, _: &str, _: &[u8]) -> Result<()> {
        self.wait()
    }

    fn folders(&self, _: &str) -> Result<Vec<String>> {
        self.wait()
    }

    fn files(&self, _: &str) -> Result<Vec<String>> {
        self.wait()
    }

    fn remove(&self, _: &str) -> Result<()> {
        self.wait()
    }
}

/// A mirror that never answers.
pub(in crate::train) fn stuck() -> Mirror {
    Mirror {
        url: "stuck".into(),
        store: Box::new(Stuck),
        pause: PAUSE,
        failures: AtomicU64::new(0),
        away: AtomicBool::new(false),
    }
}

fn newest(count: usize) -> Retention {
    Retention { newest: count, every: 0, best: None }
}

/// A run folder with checkpoints of `steps` in its stage `pretrain`, each uploaded as it is made.
fn run(mirror: &Mirror, steps: &[u64], retention: Retention) -> tempfile::TempDir {
    let run = tempfile::tempdir().unwrap();
    recipe(RECIPE_TEXT, |recipe| mirror.attach(run.path(), recipe, true)).unwrap();
    let folder = run.path().join("checkpoints/pretrain");
    fs_err::create_dir_all(&folder).unwrap();
    for &step in steps {
        Checkpoint::write(&folder_of_step(&folder, step), &content(run.path(), step, step as f64))
            .unwrap();
        mirror.follow(&folder, retention);
    }
    assert_eq!(mirror.failures(), 0);
    run
}

/// Steps that a run folder has after it was attached in order to resume.
fn restored(mirror: &Mirror, into: &Path) -> Vec<u64> {
    recipe(RECIPE_TEXT, |recipe| mirror.attach(into, recipe, true)).unwrap();
    steps_in(&into.join("checkpoints/pretrain")).unwrap()
}

#[test]
fn a_store_gives_back_what_it_was_given_under_the_name_it_was_given() {
    everywhere(|mirror| {
        let (store, local) = (&mirror.store, tempfile::tempdir().unwrap());
        // Around the lengths of one part and of several, which are 1,000 bytes in these tests.
        for length in [0, 1, 999, 1_000, 1_001, 3_000, 3_005] {
            let content: Vec<u8> = (0..length).map(|at: u32| (at % 251) as u8).collect();
            let (from, to) = (local.path().join("from"), local.path().join("to"));
            fs_err::write(&from, &content).unwrap();
            for key in ["a/b/new".to_owned(), format!("a/b/{length}")] {
                store.upload(&from, &key).unwrap();
                store.download(&key, &to).unwrap();
                assert!(
                    fs_err::read(&to).unwrap() == content
                        && store.read(&key).unwrap() == Some(content.clone()),
                    "{key}, {length} bytes"
                );
            }
        }
        assert_eq!(fs_err::read_dir(local.path()).unwrap().count(), 2, "no halves are left");
        for key in ["top", "a/bc", "ab/c", "a/d e+%/f"] {
            store.write(key, key.as_bytes()).unwrap();
            assert_eq!(store.read(key).unwrap().unwrap(), key.as_bytes());
        }
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        assert_eq!(sorted(store.folders("").unwrap()), ["a", "ab"]);
        assert_eq!(sorted(store.files("").unwrap()), ["top"]);
        assert_eq!(sorted(store.folders("a").unwrap()).len(), 2, "`b` and `d e+%`");
        assert_eq!(sorted(store.files("a").unwrap()), ["bc"]);
        assert_eq!(
            sorted(store.files("a/b").unwrap()),
            ["0", "1", "1000", "1001", "3000", "3005", "999", "new"]
        );
        assert!(
            store.files("nowhere").unwrap().is_empty()
                && store.folders("nowhere").unwrap().is_empty()
        );
        for _ in 0..2 {
            store.remove("a/b/new").unwrap();
            assert!(store.read("a/b/new").unwrap().is_none());
        }
        let error = store.download("a/b/new", &local.path().join("none")).unwrap_err();
        assert!(error.exit_code() == 74 && error.to_string().contains("a/b/new"), "{error}");
        assert_eq!(fs_err::read_dir(local.path()).unwrap().count(), 2);
    });
}

#[test]
fn an_empty_run_folder_gets_the_newest_checkpoint_and_the_best() {
    everywhere(|mirror| {
        let first = run(mirror, &[1, 2, 3, 4, 5], Retention { best: Some(2), ..newest(2) });
        let second = tempfile::tempdir().unwrap();
        // The state of these checkpoints says that step 2 is the best.
        assert_eq!(restored(mirror, second.path()), [2, 5], "4 is there but not needed");
        for step in [2, 5] {
            let hashes = |run: &Path| {
                Checkpoint::open(&folder_of_step(&run.join("checkpoints/pretrain"), step))
                    .unwrap()
                    .files()
                    .unwrap()
            };
            assert_eq!(hashes(first.path()), hashes(second.path()));
        }
        assert_eq!(
            mirror.steps("pretrain").unwrap(),
            [2, 4, 5],
            "the mirror keeps what the run folder keeps"
        );
        assert!(
            recipe(RECIPE_TEXT, |recipe| mirror.attach(second.path(), recipe, true))
                .unwrap()
                .is_empty(),
            "what is there stays"
        );
    });
}

#[test]
fn an_upload_without_seal_and_a_damaged_one_are_passed_over() {
    everywhere(|mirror| {
        let _first = run(mirror, &[4, 8, 12], newest(9));
        mirror.store.remove("pretrain/step-00000012/MANIFEST.json").unwrap();
        mirror.store.write("pretrain/step-00000008/heads.safetensors", b"cut").unwrap();
        let second = tempfile::tempdir().unwrap();
        assert_eq!(restored(mirror, second.path()), [4], "12 is not sealed, 8 is damaged");
        let left: Vec<_> =
            fs_err::read_dir(second.path().join("checkpoints/pretrain")).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing half-fetched is left: {left:?}");
    });
}

#[test]
fn a_mirror_belongs_to_one_recipe_and_is_not_overwritten_by_a_fresh_start() {
    everywhere(|mirror| {
        let folder = tempfile::tempdir().unwrap();
        recipe(RECIPE_TEXT, |recipe| mirror.attach(folder.path(), recipe, false)).unwrap();
        let other =
            recipe("seed = 2\n", |recipe| mirror.attach(folder.path(), recipe, true)).unwrap_err();
        assert!(
            other.exit_code() == 64
                && other.to_string().contains("another recipe")
                && other.hint().is_some(),
            "{other}"
        );
        let used = run(mirror, &[4], newest(1));
        let fresh =
            recipe(RECIPE_TEXT, |recipe| mirror.attach(folder.path(), recipe, false)).unwrap_err();
        assert!(fresh.exit_code() == 64 && fresh.hint().unwrap().contains("--resume"), "{fresh}");
        recipe(RECIPE_TEXT, |recipe| mirror.attach(used.path(), recipe, false)).unwrap();
        assert_eq!(restored(mirror, folder.path()), [4]);
    });
}

#[test]
#[cfg_attr(not(can_mount), ignore = "mounting a file system needs root")]
fn a_full_mirror_is_a_warning_at_every_write_and_never_looks_whole() {
    let disk = SmallDisk::new(1 << 20);
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
    for url in
        ["runs/a", "ftp://x/y", "file://runs/a", "memory:///a", "http://x/y", "s3:/bucket", ""]
    {
        let error = Mirror::open(url).unwrap_err();
        assert!(
            error.exit_code() == 64 && error.to_string().contains(url) && error.hint().is_some(),
            "{url}: {error}"
        );
    }
}

#[test]
#[cfg(not(feature = "cloud"))]
fn a_build_without_object_stores_says_how_to_make_one_with_them() {
    for url in ["s3://bucket/prefix", "gs://bucket", "az://container/prefix"] {
        let error = Mirror::open(url).unwrap_err();
        assert!(error.exit_code() == 64 && error.to_string().contains(url), "{error}");
        assert!(error.hint().unwrap().contains("--features cloud"), "{error}");
    }
}

#[cfg(feature = "cloud")]
#[test]
fn a_mirror_that_goes_away_costs_the_run_nothing_but_its_copies() {
    let server = FakeBucket::new(Speech::Amazon);
    let mirror = of(cloud_tests::on(&server, "runs/a"));
    let local = stage(&[1]);
    let retention = Retention { newest: 1, every: 0, best: None };
    server.fail("PUT", 3, Fault::Cut);
    mirror.follow(local.path(), retention);
    assert_eq!(mirror.failures(), 0);
    let name = local.path().file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(mirror.steps(&name).unwrap(), [1]);
    // In the middle of another upload of the same step.
    server.fail("heads.safetensors", usize::MAX, Fault::Cut);
    mirror.follow(local.path(), retention);
    assert_eq!(mirror.failures(), 1);
    server.reset();
    assert!(mirror.steps(&name).unwrap().is_empty(), "what is not all there is not sealed");
    drop(server);
    let begun = std::time::Instant::now();
    mirror.follow(local.path(), retention);
    assert_eq!(mirror.failures(), 2);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(crate::train::checkpoint::steps_in(local.path()).unwrap(), [1]);
}
