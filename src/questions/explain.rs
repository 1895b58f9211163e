//! What a key of a recipe means: its text, the words it takes, its value in each profile and in a
//! recipe at hand.
//!
//! Read off the types and their defaults, so that it cannot be out of date. Not for: the layers of
//! a system (`systems`).

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::systems::{SettingDescription, profile_recipes, profile_values};
use crate::recipe::{Choice, Recipe, choices, described_keys, recipe_schema};
use crate::systems::{default_system, find};
use crate::{Error, Result};

/// One key of a recipe.
#[derive(Clone, Debug, Serialize)]
pub struct KeyDescription {
    /// The key (dotted), what it means, and its value in the profiles.
    #[serde(flatten)]
    pub setting: SettingDescription,
    /// The words it takes, where only these are allowed.
    pub choices: Vec<Choice>,
    /// Its value in the recipe that was asked about.
    pub current: Option<Value>,
}

/// Explains the keys that `asked` means: the key itself, every key of a table, every key of that
/// name in any table, or else every key whose name or meaning holds the word; all of them without a
/// question. Defaults that depend on the system are those of the recipe's.
///
/// # Errors
/// Nothing of the sort, with the nearest key.
pub fn explain(asked: Option<&str>, recipe: Option<&Recipe>) -> Result<Vec<KeyDescription>> {
    let schema = recipe_schema();
    let mut keys = Vec::new();
    collect(&schema, "", &mut keys);
    let chosen = match asked {
        Some(asked) => matching(&keys, asked)?,
        None => keys.iter().collect(),
    };
    let system = recipe.map_or(Ok(default_system()), |recipe| find(&recipe.system))?;
    let columns = profile_recipes(system)?;
    let current = recipe
        .map(serde_json::to_value)
        .transpose()
        .map_err(|error| Error::Bug(error.to_string()))?;
    let describe = |(key, meaning): &(String, String)| {
        let pointer = format!("/{}", key.replace('.', "/"));
        let value = |table: &Value| table.pointer(&pointer).cloned().unwrap_or_default();
        KeyDescription {
            setting: SettingDescription {
                key: key.clone(),
                meaning: meaning.clone(),
                values: columns.each_ref().map(value),
            },
            choices: choices(&schema, key),
            current: current.as_ref().map(value),
        }
    };
    Ok(chosen.into_iter().map(describe).collect())
}

/// All keys that hold a value, not those that are tables, with their meaning.
fn collect(schema: &Value, table: &str, keys: &mut Vec<(String, String)>) {
    for (key, meaning) in described_keys(schema, table) {
        let path = if table.is_empty() { key } else { format!("{table}.{key}") };
        if described_keys(schema, &path).is_empty() {
            keys.push((path, meaning));
        } else {
            collect(schema, &path, keys);
        }
    }
}

fn matching<'k>(keys: &'k [(String, String)], asked: &str) -> Result<Vec<&'k (String, String)>> {
    let word = asked.to_lowercase();
    let (table, name) = (format!("{word}."), format!(".{word}"));
    let found = |fits: &dyn Fn(&str, &str) -> bool| {
        keys.iter().filter(|(key, meaning)| fits(key, meaning)).collect::<Vec<_>>()
    };
    let readings = [
        found(&|key, _| key == word),
        found(&|key, _| key.starts_with(&table)),
        found(&|key, _| key.ends_with(&name)),
        found(&|key, meaning| key.contains(&word) || meaning.to_lowercase().contains(&word)),
    ];
    if let Some(first) = readings.into_iter().find(|found| !found.is_empty()) {
        return Ok(first);
    }
    let last = |key: &str| key.rsplit('.').next().map_or_else(String::new, str::to_owned);
    let likeness = |key: &str| {
        strsim::jaro_winkler(key, &word).max(strsim::jaro_winkler(&last(key), &last(&word)))
    };
    let nearest = keys.iter().max_by(|a, b| likeness(&a.0).total_cmp(&likeness(&b.0)));
    let error =
        Error::recipe(format!("no key of a recipe is called `{asked}`, and none speaks of it"));
    Err(match nearest {
        Some((key, _)) => {
            error.with_hint(format!("did you mean `{key}`? `explain` alone lists all"))
        }
        None => error,
    })
}

impl fmt::Display for KeyDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SettingDescription { key, meaning, values } = &self.setting;
        write!(f, "{key} = {}", profile_values(values))?;
        if let Some(current) = &self.current {
            write!(f, "; here {}", profile_values(std::slice::from_ref(current)))?;
        }
        write!(f, "\n    {meaning}")?;
        self.choices
            .iter()
            .try_for_each(|Choice { word, meaning }| write!(f, "\n      \"{word}\": {meaning}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(asked: &str) -> Vec<String> {
        explain(Some(asked), None).unwrap().into_iter().map(|found| found.setting.key).collect()
    }

    #[test]
    fn the_encoders_that_a_recipe_can_name_are_all_listed() {
        let text = explain(Some("encoder.name"), None).unwrap()[0].to_string();
        for name in ["tiny", "mini", "base", "bilstm", "words"] {
            assert!(text.contains(&format!("`{name}`")), "{text}");
        }
    }

    #[test]
    fn a_key_a_table_a_name_and_a_word_are_found() {
        assert_eq!(keys("pretrain.batch"), ["pretrain.batch"]);
        assert!(
            keys("dsdocre").contains(&"dsdocre.k_pretrain".to_owned())
                && keys("dsdocre").len() > 20
        );
        assert_eq!(
            keys("warmup"),
            [
                "finetune.warmup",
                "inference.warmup",
                "pretrain.warmup",
                "rank.warmup",
                "refine.warmup",
                "student.warmup",
            ]
        );
        assert!(keys("blanking").contains(&"dsdocre.blank_probability".to_owned()));
        let error = explain(Some("pretrain.bacht"), None).unwrap_err();
        assert_eq!(
            (error.exit_code(), error.hint()),
            (64, Some("did you mean `pretrain.batch`? `explain` alone lists all"))
        );
    }

    #[test]
    fn values_of_the_profiles_of_a_recipe_and_the_words_are_told() {
        let recipe = Recipe::parse("[dsdocre]\nk_pretrain = 25", "x", &[]).unwrap();
        let text = explain(Some("k_pretrain"), Some(&recipe)).unwrap()[0].to_string();
        assert!(text.starts_with("dsdocre.k_pretrain = 20 | 20 | 30; here 25\n"), "{text}");
        let text = explain(Some("alignment_distance"), None).unwrap()[0].to_string();
        assert!(
            text.contains("\"abs\" | \"abs\" | \"squared\"")
                && text.contains("\n      \"squared\": "),
            "{text}"
        );
        let system = Recipe::parse("system = \"atlop\"", "x", &[]).unwrap();
        let (own, other) = (
            explain(Some("finetune.batch"), Some(&system)).unwrap(),
            explain(Some("finetune.batch"), None).unwrap(),
        );
        assert_eq!(own[0].current.as_ref(), Some(&own[0].setting.values[0]));
        assert!(
            own[0].setting.values[0] == 4 && other[0].setting.values[2] == 6,
            "{own:?} {other:?}"
        );
    }

    #[test]
    fn every_key_has_a_meaning() {
        for found in explain(None, None).unwrap() {
            assert!(!found.setting.meaning.is_empty(), "{}", found.setting.key);
        }
    }
}
