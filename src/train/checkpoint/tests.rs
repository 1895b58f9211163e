use tch::{Device, Kind};

use super::*;

fn tokenizer(folder: &Path) -> Tokenizer {
    let path = folder.join("vocab.txt");
    fs_err::write(&path, "[PAD]\n[UNK]\n[CLS]\n[SEP]\nparis\n##es\n").unwrap();
    Tokenizer::load(&path, None).unwrap()
}

fn tensors(name: &str, first: f64) -> Vec<(String, Tensor)> {
    vec![(name.to_owned(), Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]) + first)]
}

/// A stage's folder with checkpoints of `steps`.
fn stage(steps: &[u64]) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(temp.path());
    for &step in steps {
        let content = CheckpointContent {
            encoder_config: serde_json::json!({"model_type": "bert", "hidden_size": 3}),
            encoder: tensors("pooler.dense.weight", 0.0),
            heads: tensors("relation.weight", 10.0),
            optimizer: tensors("moment1.relation.weight", 20.0),
            description: serde_json::json!({"relation_width": 3}),
            trainer: TrainerState { stage: "pretrain".into(), step, best: Some((0.5, 2)), ..TrainerState::default() },
            tokenizer: &tokenizer,
            extra: vec![("note.txt".into(), b"further".to_vec())],
        };
        Checkpoint::write(&folder_of_step(temp.path(), step), &content).unwrap();
    }
    temp
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
    assert_eq!((trainer.stage.as_str(), trainer.step, trainer.best), ("pretrain", 7, Some((0.5, 2))));
    assert_eq!(checkpoint.heads().unwrap(), tensors("relation.weight", 10.0));
    assert_eq!(checkpoint.optimizer().unwrap(), tensors("moment1.relation.weight", 20.0));
    assert_eq!(checkpoint.description::<serde_json::Value>().unwrap()["relation_width"], 3);
    let folder = hf::read_folder(checkpoint.path()).unwrap();
    assert_eq!(folder.tensors["pooler.dense.weight"], tensors("", 0.0)[0].1);
    assert_eq!(Tokenizer::load(checkpoint.path(), None).unwrap().identity(), tokenizer(stage.path()).identity());
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
    let names: Vec<_> = fs_err::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
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
        assert!(matches!(error, Error::Data(_)) && error.to_string().contains(name.as_str()), "{error}");
        fs_err::write(&path, good).unwrap();
    }
    Checkpoint::open(&folder).unwrap();
}

#[test]
fn a_folder_without_a_seal_is_no_checkpoint() {
    let stage = stage(&[3, 5, 9]);
    fs_err::remove_file(folder_of_step(stage.path(), 9).join(SEAL)).unwrap();
    let error = Checkpoint::open(&folder_of_step(stage.path(), 9)).unwrap_err();
    assert_eq!(error.exit_code(), 65);
    assert!(error.to_string().contains("no complete checkpoint") && error.hint().is_some(), "{error}");
    assert_eq!(Checkpoint::latest(stage.path()).unwrap().unwrap().trainer().unwrap().step, 5);
    let empty = tempfile::tempdir().unwrap();
    assert!(Checkpoint::latest(empty.path()).unwrap().is_none());
    assert!(Checkpoint::latest(&empty.path().join("nothing")).unwrap().is_none());
}

/// Opens a checkpoint whose seal was changed.
fn resealed(change: fn(&mut serde_json::Value)) -> Error {
    let stage = stage(&[1]);
    let path = folder_of_step(stage.path(), 1).join(SEAL);
    let mut seal: serde_json::Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    change(&mut seal);
    fs_err::write(&path, seal.to_string()).unwrap();
    Checkpoint::open(&folder_of_step(stage.path(), 1)).unwrap_err()
}

#[test]
fn a_newer_format_is_refused() {
    let error = resealed(|seal| {
        seal["format_version"] = (FORMAT_VERSION + 1).into();
        seal["program"] = "9.8.7".into();
    });
    assert_eq!(error.exit_code(), 65);
    let newer = format!("format version {}", FORMAT_VERSION + 1);
    assert!(error.to_string().contains(&newer) && error.hint().unwrap().contains("9.8.7"), "{error}");
}

#[test]
fn a_seal_names_only_files_of_its_folder() {
    let outside = [
        resealed(|seal| seal["files"]["../vocab.txt"] = serde_json::json!({"bytes": 0, "blake3": ""})),
        resealed(|seal| seal["files"][".."] = serde_json::json!({"bytes": 0, "blake3": ""})),
        resealed(|seal| seal["files"]["/etc/hostname"] = serde_json::json!({"bytes": 0, "blake3": ""})),
    ];
    for error in outside {
        assert!(error.to_string().contains("outside the checkpoint"), "{error}");
    }
    assert_eq!(resealed(|seal| *seal = serde_json::json!({"files": 3})).exit_code(), 65);
}

#[test]
fn pruning_keeps_the_newest_and_the_spared() {
    let stage = stage(&[1, 2, 10, 30, 200]);
    Checkpoint::prune(stage.path(), 2, Some(2)).unwrap();
    assert_eq!(steps(&stage), [2, 30, 200]);
    Checkpoint::prune(stage.path(), 9, None).unwrap();
    assert_eq!(steps(&stage), [2, 30, 200], "fewer than are to be kept");
    Checkpoint::prune(stage.path(), 1, None).unwrap();
    assert_eq!(steps(&stage), [200]);
    assert!(!folder_of_step(stage.path(), 30).exists());
}

#[test]
fn identity_follows_the_content() {
    let (one, same, other) = (stage(&[1]), stage(&[1]), stage(&[2]));
    let identity = |stage: &tempfile::TempDir| Checkpoint::latest(stage.path()).unwrap().unwrap().identity().unwrap();
    assert_eq!(identity(&one), identity(&same));
    assert_ne!(identity(&one), identity(&other));
}
