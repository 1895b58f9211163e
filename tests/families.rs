//! The way of every family of encoders through all stages, on tiny folders of the reference data: a
//! ranker, scores, pre-training and fine-tuning, on one rank and on two, resumed to the same bits.
//!
//! `DOCRE_ALL_FAMILIES` takes every folder and every system; otherwise each family takes one.
#![allow(clippy::unwrap_used, reason = "a call that fails fails its test")]

#[allow(dead_code, reason = "other tests use the rest")]
mod common;
#[cfg(test)]
#[path = "support/reference_data.rs"]
mod reference_data;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{allow_mpirun, copy, free_of_launchers, program};

/// A folder with an encoder, and a place for its runs.
struct Family {
    name: String,
    encoder: PathBuf,
    place: tempfile::TempDir,
}

impl Family {
    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Runs a recipe on so many ranks.
    fn run(&self, ranks: usize, line: &str) -> String {
        let (mut command, words) = if ranks == 1 {
            (Command::new(program()), vec![])
        } else {
            let mut mpirun = Command::new("mpirun");
            allow_mpirun(&mut mpirun);
            mpirun.arg("-n").arg(ranks.to_string());
            (mpirun, vec![program().display().to_string()])
        };
        free_of_launchers(&mut command);
        command.args(words).args(["run", "recipe.toml"]).args(line.split_whitespace());
        let output = command.current_dir(self.place.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{} {line} said:\n{said}", self.name);
        said
    }

    /// The settings of a system with so few layers, and all stages in a few steps.
    fn settings(&self, system: &str, layers: i64) -> String {
        let folder = self.encoder.display();
        // Position tables that do not start with row 0 cannot be extended.
        let own = match (system, layers) {
            ("docre-ii", ..3) => {
                "--set docre-ii.averaged_layers=1 --set docre-ii.long_documents=\"windows\""
            }
            ("docre-ii", _) => "--set docre-ii.long_documents=\"windows\"",
            _ => "",
        };
        let all = [
            format!("system=\"{system}\""),
            format!("encoder.name=\"{folder}\""),
            format!("data.tokenizer=\"{folder}\""),
            "encoder.truncate=true".to_owned(),
        ];
        all.map(|setting| format!("--set {setting} ")).concat() + own
    }
}

/// The folders of the reference data, one for each family unless all are asked for.
fn families() -> Vec<Family> {
    let all = std::env::var_os("DOCRE_ALL_FAMILIES").is_some();
    let cases = Path::new(&reference_data::reference_data()).join("parity-encoders");
    let mut names: Vec<PathBuf> =
        fs_err::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let bert = |path: &PathBuf| path.to_string_lossy().contains("encoder-bert-");
    let first = names.iter().position(bert);
    let chosen = names.iter().enumerate().filter(|(index, path)| {
        path.join("model").is_dir() && (all || !bert(path) || Some(*index) == first)
    });
    chosen
        .map(|(_, path)| {
            let place = tempfile::tempdir().unwrap();
            let recipe = common::recipe("families", 24, "", "steps = 4\ncheckpoint_steps = 2", 3);
            fs_err::write(place.path().join("recipe.toml"), recipe).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            Family { name, encoder: path.join("model"), place }
        })
        .collect()
}

fn weights(run: &Path, stage: &str) -> Vec<u8> {
    let stage = run.join("checkpoints").join(stage);
    let mut steps: Vec<PathBuf> =
        fs_err::read_dir(&stage).unwrap().map(|entry| entry.unwrap().path()).collect();
    steps.sort();
    let last = steps.last().unwrap();
    [fs_err::read(last.join("model.safetensors")), fs_err::read(last.join("heads.safetensors"))]
        .map(std::result::Result::unwrap)
        .concat()
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn every_family_goes_through_all_stages_and_resumes_to_the_same_bits() {
    for family in families() {
        let settings = family.settings("dsdocre", 2);
        let said = family.run(1, &format!("--run-dir whole {settings}"));
        let missing = |line: &str| line.contains("not in the weights") && !line.contains("pooler");
        assert!(!said.lines().any(missing), "{}: {said}", family.name);
        // What a run looks like that ended after the second step of pre-training.
        copy(&family.path("whole"), &family.path("cut"));
        let at = |name: &str| family.path("cut/checkpoints").join(name);
        fs_err::remove_dir_all(at("pretrain/step-00000004")).unwrap();
        fs_err::remove_dir_all(at("finetune-pretrained")).unwrap();
        family.run(1, &format!("--run-dir cut {settings} --resume"));
        for stage in ["pretrain", "finetune-pretrained"] {
            let [whole, cut] = ["whole", "cut"].map(|run| weights(&family.path(run), stage));
            assert!(whole == cut, "{}: {stage} differs after a resume", family.name);
        }
    }
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn every_family_trains_on_two_ranks_and_under_other_systems() {
    let systems = ["atlop", "docre-ii", "dsdocre"];
    let all = std::env::var_os("DOCRE_ALL_FAMILIES").is_some();
    for (index, family) in families().iter().enumerate() {
        let layers: serde_json::Value =
            serde_json::from_slice(&fs_err::read(family.encoder.join("config.json")).unwrap())
                .unwrap();
        let layers = ["num_hidden_layers", "n_layers", "n_layer"]
            .iter()
            .find_map(|key| layers[*key].as_i64())
            .unwrap();
        for (number, system) in systems.iter().enumerate() {
            if all || index % systems.len() == number {
                let settings = family.settings(system, layers);
                let line = format!("--run-dir {system} {settings} --set variants=[\"baseline\"]");
                family.run(2, &line);
            }
        }
    }
}
