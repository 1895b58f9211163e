use std::cell::Cell;

use tch::{Device, Kind};

use super::*;
use crate::bad_disk::{SmallDisk, damage};
use crate::train::RunFolder;

fn tokenizer(folder: &Path) -> Tokenizer {
    let path = folder.join("vocab.txt");
    fs_err::write(&path, "[PAD]\n[UNK]\n[CLS]\n[SEP]\nparis\n##es\n").unwrap();
    Tokenizer::load(&path, None).unwrap()
}

fn tensors(name: &str, first: f64) -> Vec<(String, Tensor)> {
    vec![(name.to_owned(), Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]) + first)]
}

/// A stage's folder with checkpoints of `steps`.
pub(in crate::train) fn stage(steps: &[u64]) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    for &step in steps {
        Checkpoint::write(&folder_of_step(temp.path(), step), &content(temp.path(), step, 0.0))
            .unwrap();
    }
    temp
}

pub(in crate::train) fn content(folder: &Path, step: u64, first: f64) -> CheckpointContent {
    CheckpointContent {
        encoder_config: serde_json::json!({"model_type": "bert", "hidden_size": 3}),
        encoder: tensors("pooler.dense.weight", first),
        heads: tensors("relation.weight", 10.0),
        optimizer: tensors("moment1.relation.weight", 20.0),
        description: serde_json::json!({"relation_width": 3}),
        trainer: TrainerState {
            stage: "pretrain".into(),
            step,
            best: Some((0.5, 2)),
            ..TrainerState::default()
        },
        tokenizer: tokenizer(folder),
        extra: vec![("note.txt".into(), b"further".to_vec())],
    }
}

fn steps(stage: &tempfile::TempDir) -> Vec<u64> {
    steps_in(stage.path()).unwrap()
}

#[test]
fn what_is_written_is_read() {
    let stage = stage(&[7]);
    let checkpoint = Checkpoint::latest(stage.path()).unwrap().unwrap();
    assert_eq!(checkpoint.path(), stage.path().join("step-00000007"));
    let trainer = checkpoint.trainer().unwrap();
    assert_eq!(
        (trainer.stage.as_str(), trainer.step, trainer.best),
        ("pretrain", 7, Some((0.5, 2)))
    );
    assert_eq!(checkpoint.heads().unwrap(), tensors("relation.weight", 10.0));
    assert_eq!(checkpoint.optimizer().unwrap(), tensors("moment1.relation.weight", 20.0));
    assert_eq!(checkpoint.description::<serde_json::Value>().unwrap()["relation_width"], 3);
    let folder = hf::read_folder(checkpoint.path()).unwrap();
    assert_eq!(folder.tensors["pooler.dense.weight"], tensors("", 0.0)[0].1);
    assert_eq!(
        Tokenizer::load(checkpoint.path(), None).unwrap().identity(),
        tokenizer(stage.path()).identity()
    );
    assert_eq!(fs_err::read(checkpoint.path().join("note.txt")).unwrap(), b"further");
    let left = fs_err::read_dir(stage.path()).unwrap().count();
    assert_eq!(left, 2, "the checkpoint and vocab.txt: no temporary folder is left");
}

#[test]
fn writing_again_replaces() {
    let stage = stage(&[7, 7]);
    assert_eq!(steps(&stage), [7]);
    assert!(Checkpoint::latest(stage.path()).unwrap().is_some());
}

#[test]
fn a_changed_byte_in_any_file_is_named() {
    let stage = stage(&[1]);
    let folder = folder_of_step(stage.path(), 1);
    let names: Vec<_> = fs_err::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.len() > 7, "{names:?}");
    for name in names.iter().filter(|name| *name != SEAL) {
        let path = folder.join(name);
        let good = fs_err::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        for broken in [&bad[..], &good[..good.len() - 1]] {
            fs_err::write(&path, broken).unwrap();
            let error = Checkpoint::open(&folder).unwrap_err();
            let Error::Data(data) = &error else { panic!("{error}") };
            assert_eq!((data.file.as_path(), error.exit_code()), (path.as_path(), 65), "{error}");
        }
        fs_err::remove_file(&path).unwrap();
        let error = Checkpoint::open(&folder).unwrap_err();
        assert!(
            matches!(error, Error::Data(_)) && error.to_string().contains(name.as_str()),
            "{error}"
        );
        fs_err::write(&path, good).unwrap();
    }
    Checkpoint::open(&folder).unwrap();
}

#[test]
fn flips_and_cuts_anywhere_give_an_error_or_the_same_content() {
    let stage = stage(&[1]);
    let folder = folder_of_step(stage.path(), 1);
    let content = |checkpoint: &Checkpoint| {
        (
            checkpoint.heads().unwrap(),
            checkpoint.optimizer().unwrap(),
            checkpoint.trainer().unwrap(),
        )
    };
    let good_content = content(&Checkpoint::open(&folder).unwrap());
    for path in names(&folder) {
        damage(&path, 50, |what| match Checkpoint::open(&folder) {
            Ok(found) => assert_eq!(content(&found), good_content, "{what}"),
            Err(error) => assert!(matches!(error, Error::Data(_)), "{what}: {error}"),
        });
    }
}

#[test]
#[cfg_attr(not(can_mount), ignore = "mounting a file system needs root")]
fn a_full_disk_at_any_write_is_an_io_error_and_the_old_checkpoint_loads() {
    let disk = SmallDisk::new(1 << 20);
    let stage = disk.path().join("pretrain");
    fs_err::create_dir(&stage).unwrap();
    Checkpoint::write(&folder_of_step(&stage, 1), &content(disk.path(), 1, 1.0)).unwrap();
    let new = content(disk.path(), 2, 2.0);
    let mut refused = 0;
    // Room comes in pages.
    for left in (0..).map(|page| page * 4096) {
        let ballast = disk.fill(left);
        let outcome = Checkpoint::write(&folder_of_step(&stage, 2), &new);
        let found = Checkpoint::latest(&stage).unwrap().unwrap().trainer().unwrap().step;
        match outcome {
            Ok(_) => {
                assert!(found == 2 && refused > 5, "{refused} refusals");
                break;
            }
            Err(error) => {
                assert_eq!((error.exit_code(), found), (74, 1), "{left} bytes left: {error}");
                assert!(
                    error.to_string().contains("pretrain")
                        && error.hint().is_some_and(|hint| hint.contains("space")),
                    "{error}"
                );
                assert_eq!(steps_in(&stage).unwrap(), [1]);
                refused += 1;
            }
        }
        fs_err::remove_file(ballast).unwrap();
        Checkpoint::sweep(&stage).unwrap();
        assert_eq!(names(&stage).len(), 1, "nothing is left behind");
    }
}

#[test]
#[cfg_attr(not(can_mount), ignore = "mounting a file system needs root")]
fn a_disk_that_cannot_be_written_is_an_io_error() {
    let disk = SmallDisk::new(1 << 20);
    let stage = disk.path().join("pretrain");
    fs_err::create_dir(&stage).unwrap();
    Checkpoint::write(&folder_of_step(&stage, 1), &content(disk.path(), 1, 1.0)).unwrap();
    let new = content(disk.path(), 2, 2.0);
    disk.set_read_only(true);
    let error = Checkpoint::write(&folder_of_step(&stage, 2), &new).unwrap_err();
    assert_eq!(
        (error.exit_code(), Checkpoint::latest(&stage).unwrap().unwrap().trainer().unwrap().step),
        (74, 1),
        "{error}"
    );
    assert!(error.to_string().contains("pretrain") && error.hint().is_some(), "{error}");
    let error = RunFolder::claim(disk.path()).unwrap_err();
    assert_eq!((error.exit_code(), error.hint().is_some()), (74, true), "{error}");
    disk.set_read_only(false);
}

#[test]
fn the_folder_of_a_stage_or_of_a_run_names_its_best_checkpoint() {
    let run = tempfile::tempdir().unwrap();
    let place = run.path().join("checkpoints/finetune");
    fs_err::create_dir_all(run.path().join("checkpoints")).unwrap();
    fs_err::rename(stage(&[3, 5]).keep(), &place).unwrap();
    let named = |folder: &Path| Checkpoint::open(folder).unwrap_err().hint().unwrap().to_owned();
    assert!(named(&place).ends_with("finetune/step-00000005"), "{}", named(&place));
    let path = folder_of_step(&place, 5).join("trainer.json");
    let mut state: serde_json::Value = crate::base::read_json(&path).unwrap();
    state["best"] = serde_json::json!([0.5, 3]);
    fs_err::write(&path, state.to_string()).unwrap();
    for folder in [run.path(), &place] {
        assert!(named(folder).ends_with("finetune/step-00000003"), "{}", named(folder));
    }
    let absent = Checkpoint::open(&run.path().join("absent")).unwrap_err();
    assert!(absent.to_string().contains("no such folder"), "{absent}");
}

#[test]
fn a_folder_without_a_seal_is_no_checkpoint() {
    let stage = stage(&[3, 5, 9]);
    fs_err::remove_file(folder_of_step(stage.path(), 9).join(SEAL)).unwrap();
    let error = Checkpoint::open(&folder_of_step(stage.path(), 9)).unwrap_err();
    assert_eq!(error.exit_code(), 65);
    assert!(
        error.to_string().contains("not a complete checkpoint") && error.hint().is_some(),
        "{error}"
    );
    assert_eq!(Checkpoint::latest(stage.path()).unwrap().unwrap().trainer().unwrap().step, 5);
    let empty = tempfile::tempdir().unwrap();
    assert!(Checkpoint::latest(empty.path()).unwrap().is_none());
    assert!(Checkpoint::latest(&empty.path().join("nothing")).unwrap().is_none());
}

/// Opens a checkpoint whose seal was changed.
fn resealed(change: fn(&mut serde_json::Value)) -> Error {
    let stage = stage(&[1]);
    let path = folder_of_step(stage.path(), 1).join(SEAL);
    let mut seal: serde_json::Value =
        serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    change(&mut seal);
    fs_err::write(&path, seal.to_string()).unwrap();
    Checkpoint::open(&folder_of_step(stage.path(), 1)).unwrap_err()
}

#[test]
fn a_newer_format_is_refused() {
    let error = resealed(|seal| {
        seal["format_version"] = 3.into();
        seal["program"] = "9.8.7".into();
    });
    assert_eq!(error.exit_code(), 65);
    let newer = "format version 3";
    assert!(
        error.to_string().contains(newer) && error.hint().unwrap().contains("9.8.7"),
        "{error}"
    );
}

#[test]
fn a_seal_names_only_files_of_its_folder() {
    let outside = [
        resealed(|seal| {
            seal["files"]["../vocab.txt"] = serde_json::json!({"bytes": 0, "blake3": ""});
        }),
        resealed(|seal| seal["files"][".."] = serde_json::json!({"bytes": 0, "blake3": ""})),
        resealed(|seal| {
            seal["files"]["/etc/hostname"] = serde_json::json!({"bytes": 0, "blake3": ""});
        }),
    ];
    for error in outside {
        assert!(error.to_string().contains("outside the checkpoint"), "{error}");
    }
    assert_eq!(resealed(|seal| *seal = serde_json::json!({"files": 3})).exit_code(), 65);
}

fn keep(newest: usize, every: u64, best: Option<u64>) -> Retention {
    Retention { newest, every, best }
}

#[test]
fn pruning_keeps_the_newest_the_best_and_every_mth() {
    let stage = stage(&[1, 2, 10, 20, 30, 200]);
    Checkpoint::prune(stage.path(), keep(2, 20, Some(2))).unwrap();
    assert_eq!(steps(&stage), [2, 20, 30, 200]);
    Checkpoint::prune(stage.path(), keep(9, 0, None)).unwrap();
    assert_eq!(steps(&stage), [2, 20, 30, 200], "fewer than are to be kept");
    Checkpoint::prune(stage.path(), keep(1, 0, None)).unwrap();
    assert_eq!(steps(&stage), [200]);
    assert!(!folder_of_step(stage.path(), 30).exists());
    Checkpoint::prune(stage.path(), keep(0, 0, None)).unwrap();
    assert_eq!(steps(&stage), [200], "the last one is never removed");
}

/// A disk on which the process dies at the n-th operation: before it, or with it half done.
struct Dying {
    left: Cell<usize>,
    half: bool,
    exchanges: bool,
}

impl Dying {
    fn new(left: usize, half: bool, exchanges: bool) -> Self {
        Self { left: Cell::new(left), half, exchanges }
    }

    /// Does an operation if there is life left; in the last one `halfway` instead, where it is to
    /// be half done.
    fn live<T>(&self, whole: impl FnOnce() -> Result<T>, halfway: impl FnOnce()) -> Result<T> {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        match left {
            0 => Err(Error::Bug("dead".into())),
            1 => {
                if self.half {
                    halfway();
                }
                Err(Error::Bug("dead".into()))
            }
            _ => whole(),
        }
    }
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

impl Disk for Dying {
    fn create_folder(&self, path: &Path) -> Result<()> {
        self.live(|| LocalDisk.create_folder(path), || fs_err::create_dir_all(path).unwrap())
    }

    fn write(&self, folder: &Path, write: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
        let write = std::cell::RefCell::new(write);
        let torn = || {
            let before = names(folder);
            write.borrow_mut()(folder).unwrap();
            for path in names(folder).into_iter().filter(|path| !before.contains(path)) {
                let bytes = fs_err::read(&path).unwrap();
                fs_err::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            }
        };
        // The seal is renamed into place when it is whole: `corpus::atomic` has its own test.
        let seal = folder.join("trainer.json").exists() && folder.join("vocab.txt").exists();
        self.live(
            || write.borrow_mut()(folder),
            || {
                if !seal {
                    torn();
                }
            },
        )
    }

    fn sync(&self, path: &Path) -> Result<()> {
        self.live(|| LocalDisk.sync(path), || {})
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.live(|| LocalDisk.rename(from, to), || {})
    }

    fn exchange(&self, one: &Path, other: &Path) -> Result<bool> {
        self.live(|| if self.exchanges { LocalDisk.exchange(one, other) } else { Ok(false) }, || {})
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.live(|| LocalDisk.remove_file(path), || {})
    }

    fn remove_folder(&self, path: &Path) -> Result<()> {
        self.live(
            || LocalDisk.remove_folder(path),
            || {
                for path in
                    if path.exists() { names(path) } else { Vec::new() }.into_iter().step_by(2)
                {
                    fs_err::remove_file(path).unwrap();
                }
            },
        )
    }
}

/// Saves `step` over a stage that holds 1 and 2, and prunes, with death at every operation; the
/// first value of the encoder tells which checkpoint is found afterwards.
fn dies_everywhere(step: u64, exchanges: bool) {
    const OLD: f32 = 0.0;
    const NEW: f32 = 5.0;
    let first = |checkpoint: &Checkpoint| {
        hf::read_folder(checkpoint.path()).unwrap().tensors["pooler.dense.weight"]
            .double_value(&[0, 0]) as f32
    };
    let mut seen = Vec::new();
    for (lives, half) in (1..).flat_map(|lives| [(lives, false), (lives, true)]) {
        let stage = stage(&[1, 2]);
        let disk = Dying::new(lives, half, exchanges);
        let new = content(stage.path(), step, f64::from(NEW));
        let outcome = Checkpoint::write_on(&disk, &folder_of_step(stage.path(), step), &new)
            .and_then(|_| Checkpoint::prune_on(&disk, stage.path(), keep(1, 0, None)));
        let before = (exchanges || step != 2)
            .then(|| first(&Checkpoint::latest(stage.path()).unwrap().unwrap()));
        Checkpoint::sweep(stage.path()).unwrap();
        let found = Checkpoint::latest(stage.path()).unwrap().expect("one is always there");
        let value = first(&found);
        assert!(before.is_none_or(|before| before == value), "sweeping changes what is found");
        assert_eq!(
            value == NEW,
            found.trainer().unwrap().step == step && value != OLD,
            "old and new do not mix"
        );
        assert!(
            names(stage.path()).iter().all(|path| !path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with('.')),
            "swept"
        );
        seen.push(value);
        Checkpoint::write(&folder_of_step(stage.path(), 3), &content(stage.path(), 3, 1.0))
            .unwrap();
        if outcome.is_ok() {
            assert!(value == NEW && lives > 15, "{lives} operations");
            break;
        }
    }
    assert!(
        seen.contains(&OLD) && seen.is_sorted(),
        "first the old one, from some operation on the new one: {seen:?}"
    );
}

#[test]
fn death_at_any_operation_leaves_a_whole_checkpoint() {
    dies_everywhere(3, true);
}

#[test]
fn death_while_one_is_replaced_leaves_the_old_or_the_new() {
    dies_everywhere(2, true);
    dies_everywhere(2, false);
}

#[test]
fn identity_follows_the_content() {
    let (one, same, other) = (stage(&[1]), stage(&[1]), stage(&[2]));
    let identity = |stage: &tempfile::TempDir| {
        Checkpoint::latest(stage.path()).unwrap().unwrap().identity().unwrap()
    };
    assert_eq!(identity(&one), identity(&same));
    assert_ne!(identity(&one), identity(&other));
}
