//! The JSON schema of a recipe: all keys with their meaning, read off the types. It answers unknown
//! keys, describes the systems' settings, and lies in `schemas/recipe.json` for editors.

use serde::Serialize;
use serde_json::Value;

/// The keys of the table at `path` (dotted; empty: the top level) with the text that describes
/// each, in alphabetical order.
pub fn described_keys(schema: &Value, path: &str) -> Vec<(String, String)> {
    let mut parts = path.split('.').filter(|part| !part.is_empty());
    let node = parts.try_fold(table(schema, schema), |node, part| {
        node.get("properties")?.get(part).map(|inner| table(schema, inner))
    });
    let keys = node
        .and_then(|node| node.get("properties"))
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let mut keys: Vec<(String, String)> =
        keys.map(|(key, value)| (key.clone(), description(value))).collect();
    keys.sort();
    keys
}

/// A word that a key takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// The word.
    pub word: String,
    /// What it means.
    pub meaning: String,
}

/// The words that the key at `path` (dotted), or each entry of its list, is one of; empty where it
/// takes anything else.
pub fn choices(schema: &Value, path: &str) -> Vec<Choice> {
    let node = path
        .split('.')
        .try_fold(schema, |node, part| table(schema, node).get("properties")?.get(part));
    let Some(node) = node else { return Vec::new() };
    let words = |node: &Value| {
        let single = |value: &Value| {
            let word = value.get("const").and_then(Value::as_str)?;
            Some(Choice { word: word.to_owned(), meaning: description(value) })
        };
        let alternatives =
            table(schema, node).get("oneOf").and_then(Value::as_array).into_iter().flatten();
        alternatives.filter_map(single).collect::<Vec<_>>()
    };
    node.get("items").map_or_else(|| words(node), words)
}

fn description(value: &Value) -> String {
    value.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ")
}

/// The node itself, or the table it refers to; an optional table is one of two alternatives, and a
/// list of tables has the keys of one.
fn table<'s>(root: &'s Value, node: &'s Value) -> &'s Value {
    if let Some(target) = node
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|name| root.pointer(name.trim_start_matches('#')))
    {
        return table(root, target);
    }
    if let Some(items) = node.get("items") {
        return table(root, items);
    }
    let alternatives =
        ["anyOf", "allOf", "oneOf"].iter().find_map(|key| node.get(*key)?.as_array());
    let inner = alternatives.and_then(|list| {
        list.iter().map(|each| table(root, each)).find(|each| each.get("properties").is_some())
    });
    inner.unwrap_or(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::recipe_schema;

    #[test]
    fn optional_tables_and_keys_are_known() {
        let schema = recipe_schema();
        let has = |path: &str, key: &str| {
            described_keys(&schema, path).iter().any(|(name, text)| name == key && !text.is_empty())
        };
        assert!(
            has("", "data")
                && has("data.synth", "noise")
                && has("data.split", "dev_share")
                && has("data.source", "weight")
                && has("encoder", "word_vectors")
        );
        assert!(
            has("dsdocre", "k_pretrain")
                && has("finetune", "steps")
                && !has("finetune", "stepps")
                && !has("nowhere", "steps")
        );
    }

    #[test]
    fn the_schema_on_disk_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/recipe.json");
        let text = serde_json::to_string_pretty(&recipe_schema()).unwrap() + "\n";
        if std::env::var_os("DOCRE_WRITE_SCHEMAS").is_some() {
            fs_err::write(&path, &text).unwrap();
        }
        assert!(
            fs_err::read_to_string(&path).unwrap_or_default() == text,
            "run the test with DOCRE_WRITE_SCHEMAS=1 to write {}",
            path.display()
        );
    }
}
