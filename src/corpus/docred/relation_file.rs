//! The files that name the relations of a corpus: `rel_info.json`, `rel2id.json`, or a list of `{id, name}`.

use std::{io::Read, path::Path};

use serde_json::{Map, Value};

use crate::{
    DataError, Error, Result,
    corpus::{RelationSet, json_stream},
};

const HINT: &str = "expected {\"P17\": \"country\", …}, {\"P17\": 1, …} or [{\"id\": \"P17\", \"name\": \"country\"}, …]";

/// The relations named in `path`, in class order and without "no relation" (`Na` or `NA`).
///
/// `{id: name}` (`rel_info.json`) and `[{id, name}]` keep the order of the file; `{id: number}` (`rel2id.json`) is ordered by number, and
/// each relation is named by its identifier.
///
/// # Errors
/// A [`DataError`] for JSON of another form, a repeated number or identifier, or a file without relations.
pub fn load_relations(path: &Path) -> Result<RelationSet> {
    let mut text = Vec::new();
    json_stream::open(path)?.read_to_end(&mut text).map_err(|error| json_stream::unreadable(path, 0, error))?;
    let value = serde_json::from_slice(&text).map_err(|error| bad(path, format!("not valid JSON: {error}")))?;
    let rows = match &value {
        Value::Object(map) if map.values().all(Value::is_string) => named(map),
        Value::Object(map) => numbered(path, map)?,
        Value::Array(list) => listed(path, list)?,
        _ => return Err(bad(path, "neither an object nor a list".to_owned())),
    };
    collect(path, &rows)
}

fn bad(path: &Path, problem: String) -> Error {
    DataError::new(path, problem).hint(HINT).into()
}

fn collect(path: &Path, rows: &[(String, String)]) -> Result<RelationSet> {
    let mut set = RelationSet::default();
    for (id, name) in rows.iter().filter(|(id, _)| !matches!(id.as_str(), "Na" | "NA")) {
        if set.index_of(id).is_some() {
            return Err(bad(path, format!("the relation `{id}` stands there twice")));
        }
        set.insert(id, name);
    }
    if set.is_empty() { Err(bad(path, "the file names no relation".to_owned())) } else { Ok(set) }
}

fn named(map: &Map<String, Value>) -> Vec<(String, String)> {
    map.iter().map(|(id, name)| (id.clone(), name.as_str().unwrap_or_default().to_owned())).collect()
}

fn numbered(path: &Path, map: &Map<String, Value>) -> Result<Vec<(String, String)>> {
    let mut rows = Vec::with_capacity(map.len());
    for (id, value) in map {
        let number = value.as_u64().ok_or_else(|| bad(path, format!("the value of `{id}` is {value}, not a class number")))?;
        rows.push((number, id));
    }
    rows.sort_unstable();
    if let Some(pair) = rows.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(bad(path, format!("`{}` and `{}` share the number {}", pair[0].1, pair[1].1, pair[0].0)));
    }
    Ok(rows.into_iter().map(|(_, id)| (id.clone(), id.clone())).collect())
}

fn listed(path: &Path, list: &[Value]) -> Result<Vec<(String, String)>> {
    let entry = |(row, value): (usize, &Value)| {
        let id = value.get("id").and_then(Value::as_str).ok_or_else(|| bad(path, format!("entry {row} has no text `id`: {value}")))?;
        let name = value.get("name").and_then(Value::as_str).unwrap_or(id);
        Ok((id.to_owned(), name.to_owned()))
    };
    list.iter().enumerate().map(entry).collect()
}
