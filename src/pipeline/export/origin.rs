//! What the run folder that a checkpoint lies in says of its data, its training and its scores.
//! Nothing of it is needed: what is not there, or cannot be read, is left out of the card.

use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::Table;

use crate::base::{entries, read_json, run_files, say};
use crate::shards::{DocumentStore, ShardManifest, StoreOptions};

/// The run that a checkpoint comes from.
#[derive(Debug, Default)]
pub struct Origin {
    /// `run.json`.
    pub run: Value,
    /// `recipe.toml`.
    pub recipe: Table,
    /// The shards of each role, by name.
    pub shards: Vec<(String, ShardManifest)>,
    /// Labelled facts of each relation among the annotated documents that were trained on.
    pub facts: Option<Vec<usize>>,
    /// Scores of the model on dev and test, by split.
    pub scores: Vec<(String, Value)>,
}

impl Origin {
    /// Looks around a checkpoint of `stage`. Scores belong to it only if it is the `best` of its
    /// stage.
    pub fn of(checkpoint: &Path, stage: &str, best: bool) -> Self {
        let Some(run) = run_of(checkpoint) else { return Self::default() };
        let shards = shards_in(&run);
        let human = run.join(run_files::SHARDS).join("human");
        let facts = shards.iter().find(|(role, _)| role == "human").and_then(|(_, manifest)| {
            let counted = count_facts(&human, manifest.relations.len());
            counted.map_err(|error| leave_out(&human, &error)).ok()
        });
        let scores = if best { scores_in(&run, stage) } else { Vec::new() };
        let identity = read(&run.join(run_files::IDENTITY)).unwrap_or_default();
        let recipe = fs_err::read_to_string(run.join(run_files::RECIPE)).unwrap_or_default();
        let recipe = toml::from_str(&recipe).unwrap_or_default();
        Self { run: identity, recipe, shards, facts, scores }
    }

    /// The names of the files that the recipe gives for a role, without their folders.
    pub fn files(&self, role: &str) -> Vec<String> {
        let data = self.recipe.get("data").and_then(toml::Value::as_table);
        let names = |value: &toml::Value| -> Vec<String> {
            let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(toml::Value::as_str).filter_map(file_name).collect()
        };
        let key = role.replace('-', "_");
        let own = data.and_then(|data| data.get(&key)).map(names).unwrap_or_default();
        let sources = data.and_then(|data| data.get("source")?.as_array());
        let named = sources.into_iter().flatten().find_map(|source| {
            (source.get("name")?.as_str()? == role).then(|| source.get("files").map(names))?
        });
        if let Some(files) = named {
            return files;
        }
        let split = data.and_then(|data| data.get("split")?.get("files")).map(names);
        let divided = own.is_empty() && matches!(role, "human" | "dev" | "test");
        split.filter(|_| divided).unwrap_or(own)
    }

    /// Whether the documents were generated.
    pub fn is_generated(&self) -> bool {
        self.recipe.get("data").is_some_and(|data| data.get("synth").is_some())
    }
}

fn leave_out(path: &Path, error: &crate::Error) {
    say(format!("warning: the card leaves out {}: {error}", path.display()));
}

fn read(path: &Path) -> Option<Value> {
    if !path.exists() {
        return None;
    }
    read_json(path).map_err(|error| leave_out(path, &error)).ok()
}

fn file_name(path: &str) -> Option<String> {
    Some(Path::new(path).file_name()?.to_string_lossy().into_owned())
}

/// The run folder of `RUN/checkpoints/STAGE/step-N`.
fn run_of(checkpoint: &Path) -> Option<PathBuf> {
    let whole = fs_err::canonicalize(checkpoint).ok()?;
    let stages = whole.parent()?.parent()?;
    let run = stages.parent()?;
    let is_run = stages.ends_with(run_files::CHECKPOINTS) && run.join(run_files::IDENTITY).exists();
    is_run.then(|| run.to_owned())
}

fn shards_in(run: &Path) -> Vec<(String, ShardManifest)> {
    let folder = run.join(run_files::SHARDS);
    let mut found: Vec<(String, PathBuf)> = entries(&folder)
        .unwrap_or_default()
        .into_iter()
        .filter(|(_, path)| path.is_dir())
        .collect();
    found.sort();
    let manifest = |(role, path): (String, PathBuf)| {
        let read = ShardManifest::read(&path).map_err(|error| leave_out(&path, &error));
        Some((role, read.ok()?))
    };
    found.into_iter().filter_map(manifest).collect()
}

fn count_facts(folder: &Path, relations: usize) -> crate::Result<Vec<usize>> {
    let store = DocumentStore::open(folder, StoreOptions::default())?;
    let mut counts = vec![0; relations];
    for row in 0..store.len() {
        for fact in &store.get(row).facts {
            if let Some(count) = counts.get_mut(fact.relation as usize) {
                *count += 1;
            }
        }
    }
    Ok(counts)
}

/// The scores of the variant that a stage fine-tunes.
fn scores_in(run: &Path, stage: &str) -> Vec<(String, Value)> {
    let (Some(variant), Some(scores)) =
        (stage.strip_prefix("finetune-"), read(&run.join(run_files::SCORES)))
    else {
        return Vec::new();
    };
    let of_split = |split: &str| {
        let found = scores.get(format!("{variant}-{split}"))?;
        Some((split.to_owned(), found.clone()))
    };
    ["dev", "test"].into_iter().filter_map(of_split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_role_without_their_folders() {
        let recipe = "[data]\ndistant = [\"/a/d.json\", \"e.json\"]\ndev_distant = [\"f.json\"]\n\
            [data.split]\nfiles = [\"/x/all.json\"]\n[[data.source]]\nname = \"checked\"\n\
            files = [\"b/c.json\"]\n";
        let origin = Origin { recipe: toml::from_str(recipe).unwrap(), ..Origin::default() };
        for (role, files) in [
            ("distant", vec!["d.json", "e.json"]),
            ("dev-distant", vec!["f.json"]),
            ("human", vec!["all.json"]),
            ("dev", vec!["all.json"]),
            ("checked", vec!["c.json"]),
            ("other", vec![]),
        ] {
            assert_eq!(origin.files(role), files, "{role}");
        }
        assert!(!origin.is_generated());
    }

    #[test]
    fn a_folder_that_lies_in_no_run_tells_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let step = folder.path().join("checkpoints/finetune-baseline/step-00000001");
        fs_err::create_dir_all(&step).unwrap();
        assert!(Origin::of(&step, "finetune-baseline", true).run.is_null());
        fs_err::write(folder.path().join("run.json"), "{\"version\": \"0.1.0\"}").unwrap();
        fs_err::write(folder.path().join("recipe.toml"), "not = = toml").unwrap();
        let scores = "{\"baseline-dev\": {\"official\": {\"f1\": 0.5}}, \"denoised-dev\": {}}";
        fs_err::write(folder.path().join("scores.json"), scores).unwrap();
        let found = Origin::of(&step, "finetune-baseline", true);
        assert_eq!((&found.run["version"], found.scores.len()), (&Value::from("0.1.0"), 1));
        assert!(found.recipe.is_empty() && found.shards.is_empty() && found.facts.is_none());
        // Scores are those of the best checkpoint.
        assert!(Origin::of(&step, "finetune-baseline", false).scores.is_empty());
    }
}
