//! Laying tables over tables: profile defaults, the user's file, `--set key=value`; and what to say
//! about an unknown key.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{Table, Value};

use super::schema::described_keys;
use crate::systems::Profile;
use crate::{Error, Result};

/// The table of all `key.path=value`; a value that is no TOML is taken as a string.
pub(super) fn settings_table(settings: &[String]) -> Result<Table> {
    let mut table = Table::new();
    for setting in settings {
        let (path, value) = setting.split_once('=').ok_or_else(|| {
            Error::recipe(format!("`--set {setting}` is not of the form key=value"))
        })?;
        let value = parse_value(value.trim());
        insert(&mut table, path.trim(), value).ok_or_else(|| {
            Error::recipe(format!("`--set {setting}`: a part of `{path}` is not a table"))
        })?;
    }
    Ok(table)
}

fn parse_value(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"));
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn insert(table: &mut Table, path: &str, value: Value) -> Option<()> {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
            Some(())
        }
        Some((first, rest)) => {
            let inner =
                table.entry(first).or_insert_with(|| Value::Table(Table::new())).as_table_mut()?;
            insert(inner, rest, value)
        }
    }
}

/// The profile that the user's table names, or the default.
pub(super) fn profile_of(table: &Table, origin: &str) -> Result<Profile> {
    let Some(value) = table.get("profile") else { return Ok(Profile::Fixed) };
    value.clone().try_into().map_err(|_| {
        Error::recipe(format!("{origin}: profile = {value} is unknown"))
            .with_hint("one of \"fixed\", \"paper\", \"code\"")
    })
}

/// A struct as a table.
pub(super) fn table_of<T: Serialize>(value: &T) -> Result<Table> {
    Table::try_from(value)
        .map_err(|error| Error::Bug(format!("defaults cannot be written as a table: {error}")))
}

/// All keys of a table, dotted, with their values as TOML.
pub(super) fn keys_of(table: &Table) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    for (name, value) in table {
        match value {
            Value::Table(inner) => keys.extend(
                keys_of(inner).into_iter().map(|(key, value)| (format!("{name}.{key}"), value)),
            ),
            value => drop(keys.insert(name.clone(), value.to_string())),
        }
    }
    keys
}

/// A table of settings as `key=value`, the form of `--set`.
pub fn settings_of_table(table: &Table) -> Vec<String> {
    keys_of(table).into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// Refuses keys that no struct reads in the table at `prefix` (dotted; empty: the top level).
///
/// # Errors
/// [`Error::Recipe`] that names the nearest known key.
pub fn check_keys(
    user: &Table,
    schema: &serde_json::Value,
    prefix: &str,
    origin: &str,
) -> Result<()> {
    check_keys_of(user, schema, [prefix, prefix], origin)
}

/// As [`check_keys`] for the table at `prefix`; an error shows keys after the prefix `shown`.
fn check_keys_of(
    user: &Table,
    schema: &serde_json::Value,
    [prefix, shown]: [&str; 2],
    origin: &str,
) -> Result<()> {
    let allowed: Vec<String> =
        described_keys(schema, prefix).into_iter().map(|(key, _)| key).collect();
    let below = |table: &str, key: &str| {
        if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
    };
    for (key, value) in user {
        let (path, told) = (below(prefix, key), below(shown, key));
        if !allowed.contains(key) {
            return Err(unknown_key(&told, key, &allowed, origin));
        }
        match value {
            // A setting that is one of several forms, such as a decision with its limit, is checked
            // when it is read.
            Value::Table(inner) if !described_keys(schema, &path).is_empty() => {
                check_keys_of(inner, schema, [&path, &told], origin)?;
            }
            Value::Array(list) if !described_keys(schema, &path).is_empty() => {
                for (number, entry) in list.iter().filter_map(Value::as_table).enumerate() {
                    let name = entry.get("name").or(entry.get("title")).and_then(Value::as_str);
                    let name =
                        name.map_or_else(|| (number + 1).to_string(), |name| format!("`{name}`"));
                    let origin = format!("{origin}: {told} {name}");
                    check_keys_of(entry, schema, [&path, ""], &origin)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn unknown_key(path: &str, key: &str, allowed: &[String], origin: &str) -> Error {
    let nearest = allowed
        .iter()
        .map(|name| (strsim::jaro_winkler(name, key), name))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let error = Error::recipe(format!("{origin}: unknown key `{path}`"));
    match nearest {
        Some((likeness, name)) if likeness > 0.7 => {
            error.with_hint(format!("did you mean `{name}`?"))
        }
        _ => error.with_hint(format!("known keys here: {}", allowed.join(", "))),
    }
}

/// A value that its key cannot take; `table` is the system's table that was read. The way out is
/// what the key means, or the table that it is part of.
pub(super) fn wrong_value(
    error: &toml::de::Error,
    schema: &serde_json::Value,
    origin: &str,
    table: Option<&str>,
) -> Error {
    let path = [table.map(str::to_owned), key_of(error)];
    let key = path.into_iter().flatten().collect::<Vec<_>>().join(".");
    if key.is_empty() {
        return Error::recipe(format!("{origin}: {}", error.message()));
    }
    let problem = Error::recipe(format!("{origin}: `{key}`: {}", error.message()));
    let mut known = std::iter::successors(Some(key.as_str()), |key| {
        key.rsplit_once('.').map(|(table, _)| table)
    });
    match known.find_map(|key| meaning(schema, key).map(|text| (key, text))) {
        Some((key, text)) => problem
            .with_hint(format!("{key}: {text} `docre-pretrain explain {key}` says what it takes")),
        None => problem,
    }
}

/// The dotted key of an error, which shows it on a line of its own and gives it in no other way.
fn key_of(error: &toml::de::Error) -> Option<String> {
    let text = error.to_string();
    let key = text.strip_prefix(error.message())?.trim().strip_prefix("in `")?.strip_suffix('`')?;
    Some(key.to_owned())
}

fn meaning(schema: &serde_json::Value, key: &str) -> Option<String> {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    described_keys(schema, table)
        .into_iter()
        .find_map(|(known, text)| (known == name && !text.is_empty()).then_some(text))
}

/// Lays `over` over `base`, table by table.
pub(super) fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match base.get_mut(&key) {
            Some(inner) => merge_value(inner, value),
            None => drop(base.insert(key, value)),
        }
    }
}

/// Lays a value over another; a table over a table key by key.
pub(super) fn merge_value(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Table(inner), Value::Table(new)) => merge(inner, new),
        (base, value) => *base = value,
    }
}

#[cfg(test)]
mod tests {
    use crate::recipe::Recipe;
    use crate::systems::docre_ii::DocreIiSettings;
    use crate::systems::dsdocre::DsdocreSettings;
    use crate::systems::glre::GlreSettings;

    #[test]
    fn unknown_keys_are_answered_with_the_nearest_one() {
        let error = Recipe::parse("[pretrain]\nlerning_rate = 1.0", "x.toml", &[]).unwrap_err();
        assert_eq!(error.to_string(), "x.toml: unknown key `pretrain.lerning_rate`");
        assert_eq!(error.hint(), Some("did you mean `learning_rate`?"));
        assert_eq!(error.exit_code(), 64);
    }

    #[test]
    fn settings_win_over_the_file_and_the_file_over_the_profile() {
        let text =
            "profile = \"code\"\n[dsdocre]\nblank_probability = 0.5\n[data.synth]\ndistant = 7";
        let recipe =
            Recipe::parse(text, "x", &["dsdocre.blank_probability=0.7".into(), "name=abc".into()])
                .unwrap();
        let dsdocre: &DsdocreSettings = recipe.settings_of().unwrap();
        assert_eq!((dsdocre.blank_probability, dsdocre.k_pretrain), (0.7, 30));
        assert_eq!(recipe.name, "abc");
        assert_eq!(recipe.data.synth.unwrap().distant, 7);
    }

    #[test]
    fn recipes_are_compared_by_what_they_ask_for() {
        let recipe = |text: &str| Recipe::parse(text, "x", &[]).unwrap();
        let first = recipe("[pretrain]\nbatch = 4\ncheckpoint_steps = 5");
        let same =
            recipe("hang_limit_s = 9\n# a comment\n[pretrain]\nbatch = 4\nnon_finite = \"skip\"");
        assert_eq!(first.difference(&same).unwrap(), None);
        let other = recipe("[pretrain]\nbatch = 8\n[data.synth]\ndistant = 7");
        assert_eq!(
            first.difference(&other).unwrap(),
            Some(("data.synth.dev".into(), "absent".into(), "100".into()))
        );
        let other = recipe("[pretrain]\nbatch = 8");
        assert_eq!(
            first.difference(&other).unwrap(),
            Some(("pretrain.batch".into(), "4".into(), "8".into()))
        );
    }

    #[test]
    fn a_resolved_recipe_reads_back_unchanged() {
        let recipe = Recipe::parse("[data.synth]\n[dsdocre]\nmax_mentions = 5", "x", &[]).unwrap();
        let text = recipe.to_toml().unwrap();
        assert_eq!(Recipe::parse(&text, "y", &[]).unwrap().to_toml().unwrap(), text);
    }

    #[test]
    fn the_settings_of_every_system_and_profile_survive_the_recipe_and_the_checkpoint() {
        for profile in ["fixed", "paper", "code"] {
            for system in crate::systems::systems().iter().map(|system| system.info().name) {
                let text = format!("system = \"{system}\"\nprofile = \"{profile}\"");
                let recipe = Recipe::parse(&text, "x", &[]).unwrap();
                let own = recipe.settings().unwrap();
                let again = Recipe::parse(&recipe.to_toml().unwrap(), "y", &[]).unwrap();
                let value = |settings: &crate::systems::Settings| settings.value().unwrap();
                assert_eq!(value(&again.settings().unwrap()), value(&own), "{system}, {profile}");
                assert_eq!(again.difference(&recipe).unwrap(), None, "{system}, {profile}");
                // As `docre.json` keeps them.
                let kept = serde_json::to_string(&own).unwrap();
                let reopened: crate::systems::Settings = serde_json::from_str(&kept).unwrap();
                assert_eq!(value(&reopened), value(&own), "{system}, {profile}");
            }
        }
        let paper = Recipe::parse("profile = \"paper\"", "x", &[]).unwrap();
        let dsdocre: &DsdocreSettings = paper.settings_of().unwrap();
        assert_eq!((dsdocre.max_mentions(), dsdocre.finetune_pairs().cap), (None, None));
    }

    #[test]
    fn the_corpus_chooses_the_defaults_of_glre() {
        let parse = |text: &str, setting: &str| Recipe::parse(text, "x", &[setting.into()]);
        let glre = |recipe: &Recipe| recipe.settings_of::<GlreSettings>().unwrap().clone();
        let recipe = parse("[glre]\ncorpus = \"cdr\"", "glre.heads=8").unwrap();
        let cdr = glre(&recipe);
        assert_eq!((cdr.rgcn_layers, cdr.classifier_width, cdr.heads), (3, 0, 8));
        assert_eq!(cdr.pair_types, Some(("Chemical".into(), "Disease".into())));
        let text = recipe.to_toml().unwrap();
        assert_eq!(glre(&Recipe::parse(&text, "y", &[]).unwrap()), cdr);
        assert_eq!(
            glre(&parse("", "glre.corpus=docred").unwrap()),
            glre(&Recipe::parse("", "x", &[]).unwrap())
        );
        let error = parse("", "glre.corpus=gda").unwrap_err();
        assert!(error.to_string().contains("gda") && error.exit_code() == 64, "{error}");
    }

    #[test]
    fn glre_has_a_schedule_for_each_corpus() {
        let schedule = |corpus: &str| {
            let text = format!("system = \"glre\"\n[glre]\ncorpus = \"{corpus}\"");
            let schedule = Recipe::parse(&text, "x", &[]).unwrap().finetune;
            (schedule.batch, schedule.weight_decay, schedule.patience)
        };
        assert_eq!(schedule("docred"), (8, 0.0, 10));
        assert_eq!(schedule("cdr"), (16, 1e-4, 20));
    }

    #[test]
    fn the_preset_of_docre_ii_chooses_the_values_of_table_7() {
        let recipe = |preset: &str, profile: &str| {
            let text = format!(
                "system = \"docre-ii\"\nprofile = \"{profile}\"\n[docre-ii]\npreset = \"{preset}\""
            );
            Recipe::parse(&text, "x", &[]).unwrap()
        };
        // Preset; batch, epochs, rates of encoder and heads, of either stage; learning rate of the
        // base module's heads as a multiple of the others' in stage 2; relations of a pair.
        for (preset, first, second, base_heads, labels) in [
            ("docred", (8, 30.0, 5e-5, 1e-4), (8, 15.0, 1e-5, 1e-4), 0.1, 4),
            ("docred-roberta", (4, 30.0, 5e-5, 1e-4), (4, 15.0, 5e-6, 1e-4), 0.05, 4),
            ("cdr", (8, 20.0, 1e-5, 5e-5), (8, 10.0, 1e-6, 5e-5), 0.02, 1),
            ("gda", (6, 10.0, 2e-5, 8e-5), (6, 5.0, 2e-6, 8e-5), 0.025, 1),
        ] {
            let read = recipe(preset, "paper");
            for (stage, (batch, epochs, rate, heads)) in
                [(&read.finetune, first), (&read.inference, second)]
            {
                assert_eq!((stage.batch, stage.epochs), (batch, epochs), "{preset}");
                assert_eq!(stage.learning_rate, rate, "{preset}");
                assert!((stage.learning_rate * stage.head_rate - heads).abs() < 1e-12, "{preset}");
            }
            let settings: &DocreIiSettings = read.settings_of().unwrap();
            assert_eq!((settings.base_head_rate, settings.num_labels), (base_heads, labels));
            // What is written wins, and what was resolved reads back.
            let again =
                Recipe::parse(&read.to_toml().unwrap(), "y", &["inference.epochs=2".into()]);
            assert_eq!(again.unwrap().inference.epochs, 2.0);
        }
        let code = recipe("docred", "code");
        assert_eq!((code.finetune.epochs, code.inference.epochs), (102.0, 52.0));
        assert_eq!((code.finetune.batch, code.inference.batch), (20, 12));
    }

    #[test]
    fn the_shipped_recipes_of_docre_ii_are_paper_and_release() {
        let read = |name: &str, text: &str| Recipe::parse(text, name, &[]).unwrap();
        let paper = read("paper", include_str!("../../jobs/docre-ii-paper.toml"));
        let code = read("code", include_str!("../../jobs/docre-ii-code.toml"));
        assert_eq!((paper.finetune.epochs, paper.inference.epochs), (30.0, 15.0));
        assert_eq!((code.finetune.epochs, code.inference.epochs), (102.0, 52.0));
        for (recipe, profile) in
            [(paper, crate::systems::Profile::Paper), (code, crate::systems::Profile::Code)]
        {
            assert_eq!(
                *recipe.settings_of::<DocreIiSettings>().unwrap(),
                DocreIiSettings::of(profile)
            );
        }
    }

    #[test]
    fn values_of_another_type_name_the_key_in_one_line() {
        for (text, key, problem, means) in [
            (
                "[rank]\nlearning_rate = \"x\"",
                "rank.learning_rate",
                "invalid type: string \"x\", expected f64",
                "Learning rate.",
            ),
            ("rank = 3", "rank", "invalid type: integer `3`", "the pre-denoising ranker"),
            ("seed = -1", "seed", "invalid value: integer `-1`", "every random choice"),
            (
                "[data.synth]\ndev = \"many\"",
                "data.synth.dev",
                "invalid type: string \"many\"",
                "Development documents.",
            ),
            (
                "[data.label]\nfacts = \"f\"",
                "data.label",
                "missing field `documents`",
                "by labelling others",
            ),
            (
                "[glre]\ncorpus = \"gda\"",
                "glre.corpus",
                "unknown variant `gda`",
                "`docred` or `cdr`",
            ),
            ("variants = [\"best\"]", "variants", "unknown variant `best`", "results table"),
        ] {
            let error = Recipe::parse(text, "r.toml", &[]).unwrap_err();
            let said = error.to_string();
            assert!(
                said.starts_with(&format!("r.toml: `{key}`: {problem}")) && !said.contains('\n'),
                "{said}"
            );
            let hint = error.hint().unwrap_or_default();
            assert!(
                hint.starts_with(&format!("{key}: "))
                    && hint.contains(means)
                    && hint.contains(&format!("explain {key}`")),
                "{hint}"
            );
            assert_eq!(error.exit_code(), 64);
        }
        let error = Recipe::parse("", "r.toml", &["rank.learning_rate=x".into()]).unwrap_err();
        assert!(error.to_string().contains("`rank.learning_rate`"), "{error}");
    }

    #[test]
    fn bits_that_do_not_depend_on_ranks_are_not_rounded_on_their_way() {
        let settings = |precision: &str| {
            vec![format!("communication.precision={precision}"), "deterministic=true".into()]
        };
        let error = Recipe::parse("[data.synth]", "x", &settings("bf16")).unwrap_err();
        assert_eq!(error.exit_code(), 64);
        assert!(error.to_string().contains("communication.precision"), "{error}");
        assert!(Recipe::parse("[data.synth]", "x", &settings("fp32")).is_ok());
    }

    #[test]
    fn bad_values_name_the_key() {
        for (setting, part) in [
            ("pretrain.batch=0", "pretrain.batch"),
            ("dsdocre.blank_probability=2", "blank_probability"),
            ("profile=best", "profile"),
            ("communication.precision=int8", "communication.precision"),
        ] {
            let error = Recipe::parse("[data.synth]", "x", &[setting.into()]).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
