//! The program with names of the Hugging Face Hub, against a small Hub of the tests: a tokenizer
//! and an encoder by name, two processes at once, and what is told where a name leads nowhere.
#![allow(clippy::unwrap_used, reason = "a call that fails fails its test")]

#[path = "support/fake_hub.rs"]
mod fake_hub;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use fake_hub::{FakeHub, Fault, etag};

/// A Hub, an empty cache and a small world of documents.
struct Place {
    hub: FakeHub,
    temp: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { hub: FakeHub::new(), temp: tempfile::tempdir().unwrap() };
        place.good("synth --output world --distant 12 --human 6 --dev 3 --test 3 --seed 4");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_docre-pretrain"));
        command.args(arguments.split_whitespace()).current_dir(self.temp.path());
        for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"] {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.path("home")).env("HF_ENDPOINT", self.hub.endpoint());
        command.env("NO_PROXY", "127.0.0.1");
        command
    }

    fn good(&self, arguments: &str) -> String {
        let done = self.command(arguments).output().unwrap();
        assert!(done.status.success(), "{arguments}: {}", told(&done));
        told(&done)
    }

    /// Puts the tokenizer of the world there, and an encoder over it.
    fn put(&self, id: &str) -> String {
        let folder = self.path("world/tokenizer");
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            files.push((name, fs_err::read(path).unwrap()));
        }
        let tokenizer = docre::Tokenizer::load(&self.path("world/tokenizer"), None).unwrap();
        let (config, tensors) = tiny_bert(tokenizer.vocab_size());
        files.push(("config.json".into(), config.to_string().into_bytes()));
        files.push(("model.safetensors".into(), tensors));
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        self.hub.put(id, &files)
    }
}

fn told(done: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

/// `config.json` and weights of a BERT of one layer.
fn tiny_bert(pieces: usize) -> (Value, Vec<u8>) {
    let config = json!({
        "model_type": "bert", "vocab_size": pieces, "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 512,
        "type_vocab_size": 2,
    });
    let layer = "encoder.layer.0.";
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("embeddings.word_embeddings.weight".into(), vec![pieces, 16]),
        ("embeddings.position_embeddings.weight".into(), vec![512, 16]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, 16]),
    ];
    for name in ["query", "key", "value"].map(|name| format!("{layer}attention.self.{name}")) {
        shapes
            .extend([(format!("{name}.weight"), vec![16, 16]), (format!("{name}.bias"), vec![16])]);
    }
    for name in ["attention.output.dense", "intermediate.dense", "output.dense"] {
        let name = format!("{layer}{name}");
        shapes
            .extend([(format!("{name}.weight"), vec![16, 16]), (format!("{name}.bias"), vec![16])]);
    }
    let norms = [
        "embeddings.LayerNorm".to_owned(),
        format!("{layer}attention.output.LayerNorm"),
        format!("{layer}output.LayerNorm"),
    ];
    for name in norms {
        shapes.extend([(format!("{name}.weight"), vec![16]), (format!("{name}.bias"), vec![16])]);
    }
    let bytes: Vec<Vec<u8>> = shapes
        .iter()
        .map(|(_, shape)| {
            let count: usize = shape.iter().product();
            (0..count).flat_map(|at| ((at * 37 % 101) as f32 / 1000.0).to_le_bytes()).collect()
        })
        .collect();
    let views = shapes.iter().zip(&bytes).map(|((name, shape), bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name.clone(), view.unwrap())
    });
    (config, safetensors::serialize(views, None).unwrap())
}

#[test]
fn a_tokenizer_by_name_gives_the_shards_of_its_folder() {
    let place = Place::new();
    place.put("org/words");
    let prepare = |tokenizer: &str, output: &str| {
        format!(
            "prepare --format docred --input world/dev.json --tokenizer {tokenizer} --relations \
             world/rel_info.json --output {output}"
        )
    };
    place.good(&prepare("world/tokenizer", "a"));
    place.good(&prepare("org/words", "b"));
    let manifest = |name: &str| -> Value {
        let text = fs_err::read(place.path(name).join("manifest.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    assert_eq!(manifest("a")["tokenizer"], manifest("b")["tokenizer"]);
    let asked = place.hub.asked();
    assert!(asked.iter().all(|asked| !asked.path.contains("safetensors")), "{asked:?}");
    // Without the network the cache does.
    let offline = |line: &str| place.command(line).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(offline(&prepare("org/words", "c")).status.success());
    let refused = offline(&prepare("org/other", "d"));
    assert_eq!(refused.status.code(), Some(64));
    let text = told(&refused);
    assert!(
        text.contains("HF_HUB_OFFLINE forbids the network") && text.contains("hint: "),
        "{text}"
    );
    assert_eq!(place.hub.asked().len(), 0);
    let refused = place.command(&prepare("org/other", "d")).output().unwrap();
    let text = told(&refused);
    assert_eq!(refused.status.code(), Some(64), "{text}");
    assert!(text.contains("there is no folder org/other, and http://127.0.0.1:"), "{text}");
}

#[test]
fn an_encoder_by_name_is_trained_once_fetched_and_named_in_the_card() {
    let place = Place::new();
    let commit = place.put("org/bert");
    let large = etag(&tiny_bert_file(&place));
    place.hub.fail("GET", &large, Fault::Silent(10, std::time::Duration::from_millis(500)));
    place.good(
        "prepare --format docred --input world/train_annotated.json --tokenizer org/bert \
         --relations world/rel_info.json --output shards",
    );
    let run = |folder: &str| {
        let line = format!(
            "rank --train shards --encoder org/bert --run-dir {folder} --threads 1 --device cpu \
             --set rank.steps=2 --set dsdocre.relation_width=16"
        );
        place.command(&line).output().unwrap()
    };
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(|| run("two"));
        (run("one"), other.join().unwrap())
    });
    for done in [&one, &two] {
        assert!(done.status.success(), "{}", told(done));
    }
    let whole = place
        .hub
        .asked()
        .into_iter()
        .filter(|asked| asked.method == "GET" && asked.at_store && asked.range.is_none());
    assert_eq!(whole.filter(|asked| asked.path.ends_with(&large)).count(), 1, "fetched once");
    let step = |name: &str| place.path(name).join("checkpoints/rank/step-00000002");
    let description: Value =
        serde_json::from_slice(&fs_err::read(step("one").join("docre.json")).unwrap()).unwrap();
    assert_eq!(description["base"], json!({ "name": "org/bert", "commit": commit }));
    let checkpoint = step("one");
    place.good(&format!("export --checkpoint {} --output export", checkpoint.display()));
    let card = fs_err::read_to_string(place.path("export/README.md")).unwrap();
    assert!(card.contains("base_model: \"org/bert\"") && card.contains(&commit), "{card}");
    assert!(Path::new(&place.path("home/hub/models--org--bert/refs/main")).is_file());
}

fn tiny_bert_file(place: &Place) -> Vec<u8> {
    let tokenizer = docre::Tokenizer::load(&place.path("world/tokenizer"), None).unwrap();
    tiny_bert(tokenizer.vocab_size()).1
}

#[test]
fn an_encoder_of_an_unknown_family_is_refused_before_its_weights_are_fetched() {
    let place = Place::new();
    place.put("org/long");
    place.hub.change("org/long", |repo| {
        repo.files.insert("config.json".into(), br#"{"model_type": "longformer"}"#.to_vec());
    });
    place.good(
        "prepare --format docred --input world/train_annotated.json --tokenizer world/tokenizer \
         --relations world/rel_info.json --output shards",
    );
    let line = "rank --train shards --encoder org/long --run-dir run --threads 1 --device cpu";
    let done = place.command(line).output().unwrap();
    let text = told(&done);
    assert_eq!(done.status.code(), Some(65), "{text}");
    assert!(text.contains("`model_type` is `longformer`, which cannot be loaded"), "{text}");
    assert!(text.contains("hint: the encoders that can be loaded are `bert`, "), "{text}");
    let asked = place.hub.asked();
    assert!(asked.iter().all(|asked| asked.path.ends_with("/config.json")), "{asked:?}");
    assert_eq!(asked.iter().filter(|asked| asked.method == "GET").count(), 1, "{asked:?}");
}

#[test]
fn a_shorter_length_that_the_tokenizer_states_is_told_once_unless_a_length_is_chosen() {
    let place = Place::new();
    place.put("org/short");
    place.hub.change("org/short", |repo| {
        let config = repo.files.get_mut("tokenizer_config.json").unwrap();
        let mut settings: Value = serde_json::from_slice(config).unwrap();
        settings["model_max_length"] = json!(128);
        *config = settings.to_string().into_bytes();
    });
    let recipe = "name = \"short\"\n[data.synth]\ndistant = 12\nhuman = 6\ndev = 3\ntest = 3\n\
        [encoder]\nname = \"org/short\"\n[dsdocre]\nrelation_width = 16\n\
        [rank]\nsteps = 1\n[pretrain]\nsteps = 1\n[finetune]\nsteps = 1\n";
    fs_err::write(place.path("recipe.toml"), recipe).unwrap();
    let line = "run recipe.toml --set data.tokenizer=org/short --set encoder.truncate=true";
    let warnings = |said: &str| {
        said.lines().filter(|line| line.contains("model_max_length")).map(str::to_owned).collect()
    };
    let told: Vec<String> = warnings(&place.good(&format!("{line} --run-dir one")));
    assert_eq!(told.len(), 1, "{told:?}");
    let expected = "warning: encoder org/short: model_max_length in tokenizer_config.json is 128, \
        but the encoder reads up to 512 pieces in one go; set encoder.max_pieces to 128";
    assert!(told[0].starts_with(expected), "{told:?}");
    let chosen = format!("{line} --run-dir two --set encoder.max_pieces=128");
    let told: Vec<String> = warnings(&place.good(&chosen));
    assert_eq!(told, [""; 0]);
}
