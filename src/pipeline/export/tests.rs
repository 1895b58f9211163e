//! Exports of every kind of model, whole and damaged.

use serde_json::{Value, json};
use tch::Tensor;

use super::*;
use crate::base::{fingerprint, read_json};
use crate::corpus::formats::{ReadOptions, load_relations};
use crate::corpus::synth::{WorldOptions, write_world};
use crate::distant::Calibration;
use crate::pipeline::model::{Loaded, NewModel};
use crate::pipeline::prepare_job::{InputFile, PrepareJob};
use crate::recipe::EncoderChoice;
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::dsdocre::{DSDOCRE, DsdocreSettings, ModelKind};
use crate::systems::evidence::EvidenceSettings;
use crate::systems::{Model, Profile, Settings, systems};
use crate::torch::device::LocalThreads;
use crate::torch::hf;
use crate::train::TrainerState;

/// Generated documents, and room for models of them.
struct Place {
    temp: tempfile::TempDir,
    store: DocumentStore,
}

impl Place {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let world = temp.path().join("world");
        let options = WorldOptions { distant: 4, human: 4, dev: 2, test: 2, ..Default::default() };
        write_world(&options, &world).unwrap();
        let relations = load_relations(&world.join("rel_info.json")).unwrap();
        let inputs = [InputFile::docred(world.join("train_annotated.json"))];
        let (read, shards) = (ReadOptions::default(), temp.path().join("shards"));
        let tokenizer = world.join("tokenizer");
        PrepareJob::new(&inputs, &read, &shards, &tokenizer, &relations).run().unwrap();
        let store = DocumentStore::open(&shards, StoreOptions::default()).unwrap();
        Self { temp, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Saves a new model as a checkpoint.
    fn saved<M: Model>(&self, name: &str, loaded: &Loaded<M>) -> PathBuf {
        let state = TrainerState {
            stage: "finetune".into(),
            step: 3,
            best: Some((0.5, 3)),
            threshold: Some(0.5),
            calibration: Some(Calibration::plain(self.store.relations().len())),
            ..TrainerState::default()
        };
        loaded.save(&self.path(name), &state, Vec::new()).unwrap();
        self.path(name)
    }

    fn new_model<'a>(encoder: &'a EncoderChoice) -> NewModel<'a> {
        NewModel { encoder, start: None, seed: 7, device: Device::Cpu, speaks: false }
    }

    /// A checkpoint of a system with its default settings.
    fn system(&self, settings: &Settings) -> PathBuf {
        let encoder = EncoderChoice::default();
        let new = Self::new_model(&encoder);
        let stores = std::slice::from_ref(&self.store);
        if let Some(evidence) = settings.get::<EvidenceSettings>() {
            return self.saved(settings.system(), &new.evidence(stores, evidence).unwrap());
        }
        let mut loaded = new.extractor(stores, &settings.fit(2), false).unwrap();
        loaded.description.encoder.name = "/elsewhere/minilm".into();
        self.saved(settings.system(), &loaded)
    }

    fn named(&self, system: &str) -> PathBuf {
        let system = systems().into_iter().find(|other| other.info().name == system).unwrap();
        self.system(&system.defaults(Profile::Fixed, &toml::Table::new()))
    }

    fn dsdocre(&self, kind: ModelKind) -> PathBuf {
        let settings = DsdocreSettings { relation_width: 16, ..DsdocreSettings::default() };
        let encoder = EncoderChoice::default();
        let new = Self::new_model(&encoder);
        let loaded = new.dsdocre(&self.store, kind, &settings).unwrap();
        self.saved(&format!("{kind:?}"), &loaded)
    }

    /// A fine-tuned DSDocRE that needs a ranker.
    fn ranked(&self) -> PathBuf {
        let ranker = self.dsdocre(ModelKind::Ranker);
        let settings = DsdocreSettings { relation_width: 16, ..DsdocreSettings::default() };
        let encoder = EncoderChoice::default();
        let stores = std::slice::from_ref(&self.store);
        let settings = Settings::of(&DSDOCRE, settings);
        let mut loaded = Self::new_model(&encoder).extractor(stores, &settings, true).unwrap();
        loaded.description.ranker = Some(ranker);
        self.saved("ranked", &loaded)
    }

    fn exported(&self, checkpoint: &Path, name: &str) -> PathBuf {
        let output = self.path(name);
        export(&task(checkpoint, &output)).unwrap();
        output
    }
}

fn task(checkpoint: &Path, output: &Path) -> ExportTask {
    ExportTask {
        checkpoint: checkpoint.to_owned(),
        ranker: None,
        output: output.to_owned(),
        self_test: None,
        format: Format::DOCRED,
        without_self_test: false,
        card: CardFlags::default(),
    }
}

fn checked(folder: &Path) -> Result<CheckReport> {
    check_model(folder, Device::Cpu, Precision::Fp32)
}

/// What does not hold, or the error.
fn fault(folder: &Path) -> String {
    match checked(folder).and_then(|report| report.outcome()) {
        Ok(()) => "nothing".to_owned(),
        Err(error) => {
            assert_eq!(error.exit_code(), 65, "{error}");
            error.to_string()
        }
    }
}

/// A file of tensors in which a number of the first tensor of that name is another.
fn changed(path: &Path, end: &str) -> Vec<u8> {
    let mut tensors = hf::read_safetensors(path).unwrap();
    let (name, tensor) = tensors.iter_mut().find(|(name, _)| name.ends_with(end)).unwrap();
    let mut values = Vec::<f32>::try_from(tensor.view([-1])).unwrap();
    values[0] += 1.0;
    println!("{name} is changed");
    *tensor = Tensor::from_slice(&values).view_as(tensor);
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    hf::safetensors_bytes(named).unwrap()
}

/// Puts the hash of a changed file into the seal.
fn seal_again(folder: &Path, file: &str) {
    let path = folder.join("MANIFEST.json");
    let mut seal: Value = read_json(&path).unwrap();
    let (bytes, hash) = fingerprint(&folder.join(file)).unwrap();
    seal["files"][file] = json!({ "bytes": bytes, "blake3": hash });
    fs_err::write(path, seal.to_string()).unwrap();
}

#[test]
fn exports_of_every_system_do_what_they_did_with_any_number_of_threads() {
    let place = Place::new();
    for system in systems() {
        let settings = system.defaults(Profile::Fixed, &toml::Table::new());
        let name = settings.system();
        let export = place.exported(&place.system(&settings), &format!("{name} export"));
        for threads in [1, 2] {
            let _threads = LocalThreads::new(threads);
            let report = checked(&export).unwrap();
            assert!(report.good, "{name}: {report}");
            let numbers = report.rows.iter().filter_map(|row| row.difference);
            assert!(numbers.clone().count() > 0, "{name}: {report}");
            assert!(numbers.fold(0.0, f64::max) == 0.0, "{name}: {report}");
            let second = report.rows.iter().any(|row| row.what == "second run");
            assert_eq!(second, name == "dreeam", "{name}: {report}");
        }
        fs_err::remove_dir_all(&export).unwrap();
    }
}

#[test]
fn rankers_and_pretrained_encoders_are_checked_by_their_states() {
    let place = Place::new();
    for kind in [ModelKind::Ranker, ModelKind::Pretrainer] {
        let export = place.exported(&place.dsdocre(kind), &format!("export of {kind:?}"));
        let report = checked(&export).unwrap();
        let names: Vec<&str> = report.rows.iter().map(|row| row.what.as_str()).collect();
        assert!(report.good, "{report}");
        for name in ["states", "entities", "scores of pairs"] {
            assert!(names.contains(&name), "{report}");
        }
        let card = fs_err::read_to_string(export.join("README.md")).unwrap();
        assert_eq!(card.contains("feature-extraction"), kind == ModelKind::Pretrainer, "{card}");
    }
}

#[test]
fn a_changed_export_is_told_by_what_was_changed() {
    let place = Place::new();
    let export = place.exported(&place.named("atlop"), "export");
    assert_eq!(fault(&export), "nothing");
    let edit = |file: &str, change: &dyn Fn(&mut Value)| {
        let mut value: Value = read_json(&export.join(file)).unwrap();
        change(&mut value);
        value.to_string().into_bytes()
    };
    let swapped = edit("docre.json", &|value| {
        value["relations"].as_array_mut().unwrap().swap(0, 1);
    });
    let set = |file: &str, key: &str, to: Value| {
        let (file, key) = (file.to_owned(), key.to_owned());
        edit(&file, &|value| value[&key] = to.clone())
    };
    let words = edit("tokenizer.json", &|value| {
        let vocabulary = value["model"]["vocab"].as_object_mut().unwrap();
        let last = vocabulary.len() - 1;
        let numbers: Vec<&mut Value> = vocabulary.values_mut().skip(last - 1).collect();
        let [one, other] = numbers.try_into().unwrap();
        std::mem::swap(one, other);
    });
    let cases = [
        ("model.safetensors", changed(&export.join("model.safetensors"), "query.bias"), "logits"),
        ("heads.safetensors", changed(&export.join("heads.safetensors"), "bias"), "logits"),
        ("tokenizer.json", words, "tokenizer"),
        ("docre.json", swapped, "label map: class 0 is"),
        (
            "config.json",
            set("config.json", "hidden_act", json!("relu")),
            "`hidden_act` is \"relu\"",
        ),
        (
            "config.json",
            set("config.json", "layer_norm_eps", json!(0.1)),
            "`layer_norm_eps` is 0.1",
        ),
        (
            "trainer.json",
            set("trainer.json", "calibration", Value::Null),
            "calibration: is missing",
        ),
        ("trainer.json", set("trainer.json", "threshold", json!(0.25)), "threshold: is 0.25"),
        ("self-test/documents.jsonl", Vec::new(), "documents"),
    ];
    for (file, content, told) in cases {
        let path = export.join(file);
        let (seal, good) =
            (fs_err::read(export.join("MANIFEST.json")).unwrap(), fs_err::read(&path).unwrap());
        assert_ne!(good, content, "{file} is not changed");
        fs_err::write(&path, &content).unwrap();
        // The hash tells first.
        let said = fault(&export);
        assert!(said.contains(file) && said.contains("differs from the hash"), "{file}: {said}");
        seal_again(&export, file);
        let said = fault(&export);
        assert!(said.contains(told), "{file} should be told by `{told}`: {said}");
        fs_err::write(&path, good).unwrap();
        fs_err::write(export.join("MANIFEST.json"), seal).unwrap();
    }
    assert_eq!(fault(&export), "nothing");
}

#[test]
fn an_export_with_a_ranker_is_checked_with_it() {
    let place = Place::new();
    let export = place.exported(&place.ranked(), "export");
    let report = checked(&export).unwrap();
    let names: Vec<&str> = report.rows.iter().map(|row| row.what.as_str()).collect();
    assert!(report.good, "{report}");
    assert!(
        names.contains(&"kept pairs") && names.contains(&"ranker: scores of pairs"),
        "{report}"
    );
    let description: Value = read_json(&export.join("docre.json")).unwrap();
    assert_eq!(description["ranker"], "ranker", "no path of this machine");
    // Another ranker, whole in itself.
    let ranker = export.join("ranker");
    let heads = ranker.join("heads.safetensors");
    fs_err::write(&heads, changed(&heads, "rank_score.weight")).unwrap();
    seal_again(&ranker, "heads.safetensors");
    let said = fault(&export);
    assert!(said.contains("kept pairs"), "{said}");
    fs_err::remove_dir_all(&ranker).unwrap();
    let said = fault(&export);
    assert!(said.contains("ranker: is missing"), "{said}");
}

#[test]
fn the_card_may_be_edited_and_other_files_may_lie_beside() {
    let place = Place::new();
    let checkpoint = place.named("cnn");
    let export = place.exported(&checkpoint, "export");
    fs_err::write(export.join("README.md"), "# Mine\n").unwrap();
    fs_err::write(export.join(".gitattributes"), "*.safetensors filter=lfs\n").unwrap();
    fs_err::create_dir_all(export.join(".cache/huggingface")).unwrap();
    let report = checked(&export).unwrap();
    assert!(report.good && report.notes[0].contains("README.md"), "{report}");
    let report = checked(&checkpoint).unwrap();
    assert!(report.good && report.notes[0].contains("no self-test"), "{report}");
    let without = ExportTask { without_self_test: true, ..task(&checkpoint, &place.path("bare")) };
    assert_eq!(export_of(&without), None);
    let error = checked(&place.path("bare")).unwrap_err();
    assert!(error.exit_code() == 65 && error.hint().is_some(), "{error}");
    let left = fs_err::read_dir(place.temp.path()).unwrap();
    let names: Vec<String> =
        left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
}

fn export_of(task: &ExportTask) -> Option<bool> {
    export(task).unwrap().map(|report| report.good)
}

#[test]
fn a_self_test_can_be_made_of_own_documents() {
    let place = Place::new();
    let checkpoint = place.named("atlop");
    let own = |file: PathBuf, output: &str| ExportTask {
        self_test: Some(file),
        ..task(&checkpoint, &place.path(output))
    };
    assert_eq!(export_of(&own(place.path("world/dev.json"), "export")), Some(true));
    let kept = fs_err::read_to_string(place.path("export/self-test/documents.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), 2);
    assert!(!kept.contains("\"facts\""), "labels stay at home");
    // Too many, and none that can be read.
    let one: Value = read_json(&place.path("world/dev.json")).unwrap();
    let copy = |number: usize| {
        let mut document = one[0].clone();
        document["title"] = json!(format!("copy {number}"));
        document
    };
    let many: Vec<Value> = (0..51).map(copy).collect();
    fs_err::write(place.path("many.json"), json!(many).to_string()).unwrap();
    let error = export(&own(place.path("many.json"), "x")).unwrap_err();
    assert!(error.exit_code() == 64 && error.to_string().contains("50"), "{error}");
    fs_err::write(place.path("broken.json"), "[{\"title\": 1}]").unwrap();
    let error = export(&own(place.path("broken.json"), "x")).unwrap_err();
    assert!(error.exit_code() == 65 && error.to_string().contains("broken.json"), "{error}");
    assert!(!place.path("x").exists());
}

#[test]
fn the_card_says_what_is_known_and_nothing_else() {
    let place = Place::new();
    let mut task = task(&place.named("atlop"), &place.path("export"));
    task.card = CardFlags {
        license: Some("apache-2.0".into()),
        language: vec!["en".into()],
        dataset: vec!["org/docs".into()],
        author: Some("A. Author".into()),
    };
    export(&task).unwrap();
    let card = fs_err::read_to_string(place.path("export/README.md")).unwrap();
    for part in [
        "license: \"apache-2.0\"\n",
        "library_name: \"docre-pretrain\"\n",
        "language:\n- \"en\"\n",
        "datasets:\n- \"org/docs\"\n",
        "model-index:\n- name: \"ATLOP relation extractor\"\n",
        "      value: 50.00\n",
        "Made by A. Author.",
        "docre-pretrain check MODEL",
        "| R16 | country |",
        "above that of the threshold class; 4 relations a pair at most.\n",
        "a temperature of 1.000",
        "On which documents it was trained is not recorded",
        "Zhou et al. 2021",
    ] {
        assert!(card.contains(part), "{part} is not in:\n{card}");
    }
    let description: Value = read_json(&place.path("export/docre.json")).unwrap();
    assert_eq!(description["encoder"]["name"], "minilm", "no path of this machine");
    for part in ["base_model", "ECE", "BLAKE3 of the shards", place.temp.path().to_str().unwrap()] {
        assert!(!card.contains(part), "{part} is in:\n{card}");
    }
    for (flags, named) in [
        (CardFlags { license: Some("My Licence".into()), ..CardFlags::default() }, "--license"),
        (CardFlags { language: vec!["english".into()], ..CardFlags::default() }, "--language"),
        (CardFlags { dataset: vec!["a/b/c".into()], ..CardFlags::default() }, "--dataset"),
    ] {
        let error = flags.check().unwrap_err();
        assert!(error.exit_code() == 64 && error.to_string().contains(named), "{error}");
    }
}
