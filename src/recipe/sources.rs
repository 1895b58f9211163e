//! Named sources of documents that are trained on beside the human-annotated ones.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::corpus::Format;
use crate::systems::check_weight;
use crate::{Error, Result};

/// Names that other documents of a run have.
const TAKEN: [&str; 4] = ["distant", "human", "dev", "test"];

/// Where the labels of a source come from.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Annotators.
    Human,
    /// A model, with corrections by people.
    Reviewed,
    /// A large language model.
    Llm,
    /// Known facts, by distant supervision.
    Distant,
}

impl SourceKind {
    /// Its word in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Reviewed => "reviewed",
            Self::Llm => "llm",
            Self::Distant => "distant",
        }
    }
}

/// Documents that fine-tuning trains on beside `data.human`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NamedSource {
    /// Its name, in messages and of its folder of shards: letters, digits and `-`.
    pub name: String,
    /// Files of documents.
    pub files: Vec<PathBuf>,
    /// Format of these files; `data.format` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Where the labels come from. A title that several sources have stays in `data.human`, or else
    /// in the source of the first of these kinds: `human`, `reviewed`, `llm`, `distant`.
    pub kind: SourceKind,
    /// How often an epoch visits each document, on average: 0.2 is one document in five.
    #[serde(default = "once")]
    pub weight: f64,
}

fn once() -> f64 {
    1.0
}

impl NamedSource {
    fn check(&self) -> Result<()> {
        let name = &self.name;
        let fits = |part: char| part.is_ascii_alphanumeric() || part == '-';
        if name.is_empty() || !name.chars().all(fits) {
            return Err(Error::recipe(format!("data.source: name = \"{name}\""))
                .with_hint("a name has letters of a to z, digits and `-`"));
        }
        if TAKEN.contains(&name.as_str()) {
            return Err(Error::recipe(format!(
                "data.source: the name \"{name}\" is that of data.{name}"
            ))
            .with_hint(
                "give the source another name; its `kind` says where the labels come from",
            ));
        }
        if self.files.is_empty() {
            return Err(Error::recipe(format!("data.source \"{name}\" names no files"))
                .with_hint("name files of documents, or leave the source out"));
        }
        check_weight(&format!("data.source \"{name}\": weight"), self.weight)
    }
}

/// Refuses sources that cannot be told apart, or lack something.
///
/// # Errors
/// [`Error::Recipe`] that names the source.
pub(super) fn check_sources(sources: &[NamedSource]) -> Result<()> {
    for (place, source) in sources.iter().enumerate() {
        source.check()?;
        if sources[..place].iter().any(|other| other.name == source.name) {
            return Err(Error::recipe(format!(
                "data.source: two sources are called \"{}\"",
                source.name
            ))
            .with_hint("give each a name of its own"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::recipe::{Recipe, SourceKind};

    const GOOD: &str =
        "[[data.source]]\nname = \"llm-a\"\nfiles = [\"a.json\"]\nkind = \"llm\"\nweight = 0.2\n";

    fn read(text: &str) -> crate::Result<Recipe> {
        Recipe::parse(text, "x", &[])
    }

    #[test]
    fn sources_are_read_and_written_and_their_files_start_at_the_recipe() {
        let text = format!("{GOOD}{}", GOOD.replace("llm-a", "b").replace("weight = 0.2", ""));
        let recipe = read(&text).unwrap();
        let [first, second] = recipe.data.source.as_slice() else { panic!("two sources") };
        assert_eq!((first.weight, second.weight), (0.2, 1.0));
        assert_eq!((first.kind, first.kind.name()), (SourceKind::Llm, "llm"));
        assert!(first.files[0].is_absolute() && first.files[0].ends_with("a.json"));
        let again = read(&recipe.to_toml().unwrap()).unwrap();
        assert_eq!(again.data.source, recipe.data.source);
        assert_eq!(again.difference(&recipe).unwrap(), None);
        let other = read(&text.replace("0.2", "0.3")).unwrap();
        assert_eq!(other.difference(&recipe).unwrap().unwrap().0, "data.source");
        assert_ne!(other.fingerprint().unwrap(), recipe.fingerprint().unwrap());
        // A part of a recipe, as tables share it, has its sources.
        let part = recipe.part(|key| key.starts_with("data.")).unwrap();
        assert_eq!(part.data.source, recipe.data.source);
        assert!(!read("").unwrap().to_toml().unwrap().contains("data.source"));
    }

    #[test]
    fn sources_that_mean_nothing_are_refused() {
        for (from, to, problem) in [
            ("llm-a", "llm a", "name = \"llm a\""),
            ("llm-a", "../x", "name = \"../x\""),
            ("llm-a", "dev", "\"dev\" is that of data.dev"),
            ("[\"a.json\"]", "[]", "names no files"),
            ("0.2", "0", "weight is 0"),
            ("0.2", "-1", "weight is -1"),
            ("0.2", "nan", "weight is NaN"),
            ("weight", "wieght", "data.source `llm-a`: unknown key `wieght`"),
            ("\"llm\"", "\"gpt\"", "data.source"),
        ] {
            let error = read(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.to_string().contains(problem), "{to}: {error}");
            assert!(error.hint().is_some() && error.exit_code() == 64, "{error}");
        }
        let error = read(&format!("{GOOD}{GOOD}")).unwrap_err();
        assert!(error.to_string().contains("two sources are called \"llm-a\""), "{error}");
        let error = read("[data]\nhuman_weight = 0").unwrap_err();
        assert!(error.to_string().contains("data.human_weight is 0"), "{error}");
    }
}
