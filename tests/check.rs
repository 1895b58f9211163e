//! Exports from outside: the self-test after a move, through a link and from a repository of a
//! small Hub of the tests; the card; what is told where something has changed.
#![allow(clippy::unwrap_used, reason = "a call that fails fails its test")]

#[allow(dead_code, reason = "other tests use the rest")]
mod common;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "support/fake_hub.rs"]
mod fake_hub;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use common::{copy, free_of_launchers, program};
use fake_hub::FakeHub;

/// A run, an export of its last checkpoint, and a Hub.
struct Place {
    temp: tempfile::TempDir,
    hub: FakeHub,
}

impl Place {
    fn new() -> Self {
        let place = Self { temp: tempfile::tempdir().unwrap(), hub: FakeHub::new() };
        let recipe = common::recipe("check", 24, "", "steps = 2", 4);
        fs_err::write(place.path("recipe.toml"), recipe).unwrap();
        place.good("run recipe.toml --run-dir run");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn asked(&self, line: &str) -> Output {
        let mut command = Command::new(program());
        free_of_launchers(&mut command);
        for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"] {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.path("home")).env("HF_ENDPOINT", self.hub.endpoint());
        command.env("NO_PROXY", "127.0.0.1");
        let command = command.args(line.split_whitespace()).current_dir(self.temp.path());
        command.output().unwrap()
    }

    fn good(&self, line: &str) -> String {
        let done = self.asked(line);
        assert!(done.status.success(), "{line}: {}", told(&done));
        told(&done)
    }

    fn bad(&self, line: &str, parts: &[&str]) {
        let done = self.asked(line);
        let said = told(&done);
        assert_eq!(done.status.code(), Some(65), "{line}: {said}");
        for part in parts {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
    }

    /// The checkpoint of the run's fine-tuning that its scores are about.
    fn best(&self) -> String {
        let folder = self.path("run/checkpoints/finetune-pretrained");
        let mut steps = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let is_best = |step: &PathBuf| {
            let text = fs_err::read(step.join("trainer.json")).unwrap();
            let state: Value = serde_json::from_slice(&text).unwrap();
            state["best"][1] == state["step"]
        };
        steps.find(is_best).unwrap().display().to_string()
    }

    fn text(&self, name: &str) -> String {
        fs_err::read_to_string(self.path(name)).unwrap()
    }
}

fn told(done: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

/// All files of a folder, by their names from there.
fn files(folder: &Path, start: &str, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs_err::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{start}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            files(&entry.path(), &format!("{name}/"), found);
        } else {
            found.push((name, fs_err::read(entry.path()).unwrap()));
        }
    }
}

#[test]
fn an_export_is_checked_wherever_it_goes() {
    let place = Place::new();
    let best = place.best();
    let said = place.good(&format!("export --checkpoint {best} --output model"));
    assert!(said.contains("checks of its self-test hold") && said.contains("--license"), "{said}");
    let said = place.good("check model --json report.json");
    assert!(said.contains("the model does what it did"), "{said}");
    let report: Value = serde_json::from_str(&place.text("report.json")).unwrap();
    assert_eq!(report["good"], true);
    let rows = report["rows"].as_array().unwrap();
    let row = |name: &str| rows.iter().find(|row| row["what"] == name).cloned().unwrap();
    assert_eq!(row("logits")["difference"], 0.0, "{report}");
    assert!(row("kept pairs")["good"] == true && row("ranker: states")["good"] == true);

    // A copy under another name, without the run, as `git clone` leaves it, read through a link.
    copy(&place.path("model"), &place.path("a b"));
    fs_err::rename(place.path("a b"), place.path("elsewhere")).unwrap();
    fs_err::rename(place.path("run"), place.path("gone")).unwrap();
    fs_err::write(place.path("elsewhere/.gitattributes"), "* text\n").unwrap();
    fs_err::write(place.path("elsewhere/README.md"), "# Edited\n").unwrap();
    std::os::unix::fs::symlink(place.path("elsewhere"), place.path("link")).unwrap();
    let writable = |name: &str, writable: bool| {
        let mode = if writable { "u+w" } else { "a-w" };
        let folder = place.path(name);
        assert!(Command::new("chmod").args(["-R", mode]).arg(folder).status().unwrap().success());
    };
    writable("elsewhere", false);
    let said = place.good("check link --threads 2");
    assert!(said.contains("note: README.md is not as it was exported"), "{said}");
    writable("elsewhere", true);

    // As a repository.
    let mut all = Vec::new();
    files(&place.path("elsewhere"), "", &mut all);
    let all: Vec<(&str, &[u8])> =
        all.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    place.hub.put("org/model", &all);
    place.good("check org/model");
    let said = place.good("inspect org/model");
    assert!(said.contains("all hashes match"), "{said}");
    for (checkpoint, output) in [("model", "here.json"), ("org/model@main", "there.json")] {
        let input = "--input gone/data/world/dev.json --device cpu --threads 1";
        place.good(&format!("predict --checkpoint {checkpoint} {input} --output {output}"));
    }
    assert_eq!(place.text("here.json"), place.text("there.json"));
    place.hub.put("org/other", &[("config.json", b"{}")]);
    let done = place.asked("check org/other");
    assert_eq!(done.status.code(), Some(64));
    assert!(told(&done).contains("it has no MANIFEST.json"), "{}", told(&done));
    let leaving = br#"{"files": {"../../x": {}}}"#;
    place.hub.put("org/leaving", &[("config.json", b"{}"), ("MANIFEST.json", leaving)]);
    place.bad("check org/leaving", &["names a file outside the checkpoint", "../../x"]);

    // What is not there any more, and what never was.
    let damaged = place.path("elsewhere/heads.safetensors");
    let mut bytes = fs_err::read(&damaged).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(&damaged, bytes).unwrap();
    place.bad("check link", &["heads.safetensors", "differs from the hash", "hint: "]);
    fs_err::remove_dir_all(place.path("model/ranker")).unwrap();
    place.bad("check model", &["ranker", "hint: "]);
}

#[test]
fn the_card_of_a_run_has_its_scores_data_and_versions() {
    let place = Place::new();
    let best = place.best();
    let flags = "--license mit --language en --author Ada";
    place.good(&format!("export --checkpoint {best} --output model {flags}"));
    let (card, scores) = (place.text("model/README.md"), place.text("run/scores.json"));
    let scores: Value = serde_json::from_str(&scores).unwrap();
    for split in ["dev", "test"] {
        let f1 = scores[format!("pretrained-{split}")]["official"]["f1"].as_f64().unwrap();
        let row = format!("| generated documents | {split} | F1 | {:.2} |", 100.0 * f1);
        assert!(card.contains(&row), "`{row}` is not in:\n{card}");
    }
    let shards = place.text("run/data/shards/human/manifest.json");
    let shards: Value = serde_json::from_str(&shards).unwrap();
    let counts = format!("| human | generated | {} | ", shards["documents"]);
    for part in [
        counts.as_str(),
        "| id | name | annotated facts in training |",
        "| variant | DSDocRE +D+P |",
        "| ranks | 1 |",
        "| libtorch | ",
        "| profile | fixed |",
        "# DSDocRE relation extractor",
        "Xiao et al. 2020",
    ] {
        assert!(card.contains(part), "`{part}` is not in:\n{card}");
    }
    assert!(!card.contains(place.temp.path().to_str().unwrap()), "no path of this machine");
    // The checkpoint of a run says what it is.
    let said = place.good(&format!("check {best}"));
    assert!(said.contains("which has no self-test"), "{said}");
    place.good(&format!("export --checkpoint {best} --output bare --without-self-test"));
    place.bad("check bare", &["is an export without a self-test", "hint: "]);
}
