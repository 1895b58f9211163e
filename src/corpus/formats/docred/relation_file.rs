//! The files that name the relations of a corpus: `rel_info.json`, `rel2id.json`, or a list of
//! `{id, name}`.

use std::{fmt, path::Path};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::base::text_file;
use crate::corpus::{RelationSet, is_no_relation};
use crate::{DataError, Error, Result};

const HINT: &str = "expected {\"P17\": \"country\", …}, {\"P17\": 1, …} or \
    [{\"id\": \"P17\", \"name\": \"country\"}, …]";

/// The relations named in `path`, in class order and without "no relation"
/// ([`is_no_relation`]).
///
/// `{id: name}` (`rel_info.json`) and `[{id, name}]` keep the order of the file; `{id: number}`
/// (`rel2id.json`) is ordered by number, and each relation is named by its identifier.
///
/// # Errors
/// A [`DataError`] for JSON of another form, a repeated number or identifier, or a file without
/// relations.
pub fn load_relations(path: &Path) -> Result<RelationSet> {
    let file: RelationFile =
        serde_json::from_slice(&text_file::read_whole(path)?).map_err(|error| {
            let problem =
                if error.is_data() { "neither an object nor a list" } else { "not valid JSON" };
            bad(path, format!("{problem}: {error}"))
        })?;
    let rows = match &file {
        RelationFile::Object(entries) if entries.iter().all(|(_, name)| name.is_string()) => {
            named(entries)
        }
        RelationFile::Object(entries) => numbered(path, entries)?,
        RelationFile::List(list) => listed(path, list)?,
    };
    collect(path, &rows)
}

/// The contents of the file. An object keeps all its entries; a map would keep one a key.
enum RelationFile {
    Object(Vec<(String, Value)>),
    List(Vec<Value>),
}

impl<'de> Deserialize<'de> for RelationFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RelationFileVisitor)
    }
}

struct RelationFileVisitor;

impl<'de> Visitor<'de> for RelationFileVisitor {
    type Value = RelationFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RelationFile, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(RelationFile::Object(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RelationFile, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(RelationFile::List(values))
    }
}

fn bad(path: &Path, problem: String) -> Error {
    DataError::new(path, problem).hint(HINT).into()
}

fn collect(path: &Path, rows: &[(String, String)]) -> Result<RelationSet> {
    let mut set = RelationSet::default();
    for (id, name) in rows.iter().filter(|(id, _)| !is_no_relation(id)) {
        if set.index_of(id).is_some() {
            return Err(bad(path, format!("the relation `{id}` is listed twice")));
        }
        set.insert(id, name);
    }
    if set.is_empty() { Err(bad(path, "the file lists no relations".to_owned())) } else { Ok(set) }
}

fn named(entries: &[(String, Value)]) -> Vec<(String, String)> {
    entries
        .iter()
        .map(|(id, name)| (id.clone(), name.as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn numbered(path: &Path, entries: &[(String, Value)]) -> Result<Vec<(String, String)>> {
    let mut rows = Vec::with_capacity(entries.len());
    for (id, value) in entries {
        let number = value.as_u64().ok_or_else(|| {
            bad(path, format!("the value of `{id}` is {value}, not a class number"))
        })?;
        rows.push((number, id));
    }
    rows.sort_unstable();
    // An entry that comes again as it was is refused for its identifier.
    if let Some(pair) =
        rows.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1)
    {
        return Err(bad(
            path,
            format!("`{}` and `{}` share the number {}", pair[0].1, pair[1].1, pair[0].0),
        ));
    }
    Ok(rows.into_iter().map(|(_, id)| (id.clone(), id.clone())).collect())
}

fn listed(path: &Path, list: &[Value]) -> Result<Vec<(String, String)>> {
    let entry = |(row, value): (usize, &Value)| {
        let id = value
            .get("id")
            .and_then(Value::as_str)
            .ok_or_else(|| bad(path, format!("entry {row} has no text `id`: {value}")))?;
        let name = value.get("name").and_then(Value::as_str).unwrap_or(id);
        Ok((id.to_owned(), name.to_owned()))
    };
    list.iter().enumerate().map(entry).collect()
}
