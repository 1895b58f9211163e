//! The paths of a recipe: they start at the folder of its file, and those of `--set` at the working
//! directory. Once a recipe is read, all are absolute. Not for: whether their files are there.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::encoders::EncoderSpec;

/// Keys that hold a path or a list of paths.
const PATHS: [&str; 13] = [
    "data.mesh_tree",
    "data.distant",
    "data.human",
    "data.dev",
    "data.dev_distant",
    "data.test",
    "data.relations",
    "data.train_facts",
    "data.label.facts",
    "data.label.documents",
    "data.split.files",
    SOURCE_FILES,
    "encoder.word_vectors",
];

/// Keys that hold a path or a name: what is not there as a file stays as it is.
const PATHS_OR_NAMES: [&str; 2] = ["data.tokenizer", ENCODER];

/// The files of a list of tables.
const SOURCE_FILES: &str = "data.source.files";

const ENCODER: &str = "encoder.name";

/// Where the relative paths of a table start.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    /// First here.
    pub folder: &'a Path,
    /// Otherwise here, if it is there.
    pub otherwise: Option<&'a Path>,
}

impl Places<'_> {
    /// Makes all paths of a table absolute, and names the keys whose files are only in the second
    /// place.
    pub fn resolve(self, table: &mut Table) -> Vec<&'static str> {
        let mut elsewhere = Vec::new();
        for key in PATHS.into_iter().chain(PATHS_OR_NAMES) {
            let by_name = PATHS_OR_NAMES.contains(&key);
            let values = match key {
                SOURCE_FILES => files_of_sources(table),
                _ => value_at(table, key).into_iter().collect(),
            };
            let texts = values.into_iter().flat_map(|value| match value {
                Value::String(text) => vec![text],
                Value::Array(list) => list.iter_mut().filter_map(text_of).collect(),
                _ => Vec::new(),
            });
            for text in texts {
                let preset = key == ENCODER && EncoderSpec::is_preset(text);
                if !preset && self.resolve_one(text, by_name) && !elsewhere.contains(&key) {
                    elsewhere.push(key);
                }
            }
        }
        elsewhere
    }

    /// Whether the file is only in the second place.
    fn resolve_one(self, text: &mut String, by_name: bool) -> bool {
        let first = self.folder.join(&*text);
        let second = self.otherwise.map(|folder| folder.join(&*text));
        let second = second.filter(|second| !first.exists() && second.exists());
        let found = second.is_some();
        let path: PathBuf = second.unwrap_or(first);
        // Text that is no Unicode cannot come from TOML, and the folder's name only names the file.
        if (!by_name || path.exists())
            && let Some(whole) = std::path::absolute(&path).ok().as_deref().and_then(Path::to_str)
        {
            whole.clone_into(text);
        }
        found
    }
}

fn text_of(value: &mut Value) -> Option<&mut String> {
    if let Value::String(text) = value { Some(text) } else { None }
}

fn value_at<'t>(table: &'t mut Table, key: &str) -> Option<&'t mut Value> {
    match key.split_once('.') {
        None => table.get_mut(key),
        Some((first, rest)) => value_at(table.get_mut(first)?.as_table_mut()?, rest),
    }
}

fn files_of_sources(table: &mut Table) -> Vec<&mut Value> {
    let Some(Value::Array(sources)) = value_at(table, "data.source") else { return Vec::new() };
    sources.iter_mut().filter_map(|source| source.as_table_mut()?.get_mut("files")).collect()
}

#[cfg(test)]
mod tests {
    use crate::recipe::Recipe;

    /// A folder with a recipe that names a file beside it and one that is not there.
    fn load(text: &str, settings: &[String]) -> (tempfile::TempDir, Recipe) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        fs_err::write(&path, text).unwrap();
        fs_err::write(folder.path().join("own.json"), "[]").unwrap();
        let recipe = Recipe::load(&path, settings).unwrap();
        (folder, recipe)
    }

    #[test]
    fn paths_start_at_the_folder_of_the_recipe_and_those_of_set_at_the_working_directory() {
        let text = "[data]\nhuman = [\"own.json\", \"/abs.json\"]\ntokenizer = \"some-name\"\n\
                    [encoder]\nname = \"tiny\"";
        let (folder, recipe) = load(text, &["data.dev=[\"dev.json\"]".into()]);
        let here = std::env::current_dir().unwrap();
        assert_eq!(recipe.data.human, [folder.path().join("own.json"), "/abs.json".into()]);
        assert_eq!(recipe.data.dev, [here.join("dev.json")]);
        assert_eq!(recipe.data.tokenizer, Some("some-name".into()));
        assert_eq!((recipe.encoder.name.as_str(), recipe.notes.len()), ("tiny", 0));
        // The resolved recipe means the same wherever it lies.
        let again = Recipe::parse(&recipe.to_toml().unwrap(), "x", &[]).unwrap();
        assert_eq!(again.difference(&recipe).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_only_in_the_working_directory_is_read_there_with_one_note() {
        // Tests run in the folder of the package.
        let text = "[data]\nhuman = [\"Cargo.toml\", \"own.json\"]\ndev = [\"Cargo.toml\"]\n\
                    [encoder]\nname = \"docs\"";
        let (folder, recipe) = load(text, &[]);
        let here = std::env::current_dir().unwrap();
        assert_eq!(recipe.data.human, [here.join("Cargo.toml"), folder.path().join("own.json")]);
        assert_eq!(recipe.encoder.name, here.join("docs").display().to_string());
        assert_eq!(recipe.notes.len(), 1);
        assert!(
            recipe.notes[0].contains("data.human, data.dev, encoder.name"),
            "{:?}",
            recipe.notes
        );
    }
}
