//! The facts known from training data as (head name, tail name, relation): what Ign F1 ignores
//! (docs/scores.md, S.2).
//!
//! Names are exact strings without case folding, as in the official script. Not for: facts between
//! entities of one document (`gold`).

use std::borrow::Borrow;
use std::path::Path;

use ahash::{AHashMap, AHashSet};
use serde::Deserialize;
use serde::de::{
    Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer,
};

use crate::base::json_stream;
use crate::corpus::formats::docred::{RawLabel, labels};
use crate::corpus::{Document, is_no_relation};
use crate::{DataError, Error, Result};

/// A set of (head name, tail name, relation) triples; 12 bytes a triple beside the distinct
/// strings.
#[derive(Clone, Debug, Default)]
pub struct FactSet {
    strings: AHashMap<String, u32>,
    triples: AHashSet<(u32, u32, u32)>,
}

impl FactSet {
    /// Reads a `.fact` file (a JSON list of `[head name, tail name, relation]`) or a training file
    /// in DocRED format, whose labels stand for the cross product of head and tail mention names.
    /// The two are told apart row by row.
    ///
    /// # Errors
    /// I/O errors, and data errors that name the row and the label.
    pub fn load(path: &Path) -> Result<Self> {
        let mut set = Self::default();
        set.add(path)?;
        Ok(set)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let mut insert = |row, item| match item {
            FactSetRow::Triple(head, tail, relation) => {
                self.insert(&head, &tail, &relation);
                Ok(())
            }
            FactSetRow::Document(document) => self.insert_labels(path, row, &document),
        };
        json_stream::read_array(path, &mut insert).map(drop)
    }

    /// The facts of documents, which need not be in memory together.
    pub fn from_documents<D: Borrow<Document>>(documents: impl IntoIterator<Item = D>) -> Self {
        let mut set = Self::default();
        for document in documents {
            let document: &Document = document.borrow();
            for fact in document.facts() {
                let names = |entity: usize| {
                    document
                        .entities
                        .get(entity)
                        .map(|entity| entity.mentions.as_slice())
                        .unwrap_or_default()
                };
                for head in names(fact.head) {
                    for tail in names(fact.tail) {
                        set.insert(&head.name, &tail.name, &fact.relation);
                    }
                }
            }
        }
        set
    }

    /// Adds one triple.
    pub fn insert(&mut self, head: &str, tail: &str, relation: &str) {
        let triple = (self.intern(head), self.intern(tail), self.intern(relation));
        self.triples.insert(triple);
    }

    /// Whether the triple is in the set.
    pub fn contains(&self, head: &str, tail: &str, relation: &str) -> bool {
        let id = |text: &str| self.strings.get(text).copied();
        match (id(head), id(tail), id(relation)) {
            (Some(head), Some(tail), Some(relation)) => {
                self.triples.contains(&(head, tail, relation))
            }
            _ => false,
        }
    }

    /// Number of distinct triples.
    pub fn len(&self) -> usize {
        self.triples.len()
    }

    /// Whether the set holds nothing.
    pub fn is_empty(&self) -> bool {
        self.triples.is_empty()
    }

    fn intern(&mut self, text: &str) -> u32 {
        if let Some(&id) = self.strings.get(text) {
            return id;
        }
        // 2^32 distinct names would need more memory than a node has.
        let id = self.strings.len() as u32;
        self.strings.insert(text.to_owned(), id);
        id
    }

    fn insert_labels(&mut self, path: &Path, row: usize, document: &TrainDocument) -> Result<()> {
        let labels = (0..).zip(document.labels.iter().flatten());
        for (number, label) in labels.filter(|(_, label)| !is_no_relation(&label.r)) {
            let names = |entity: i64, field: &str| {
                let found = usize::try_from(entity).ok();
                found.and_then(|entity| document.vertex_set.get(entity)).ok_or_else(|| {
                    let problem =
                        format!("entity {entity} of {} does not exist", document.vertex_set.len());
                    let error = DataError::new(path, problem)
                        .row(row)
                        .title(&document.title)
                        .hint("entities count from 0 in `vertexSet`");
                    Error::from(error.field(format!("labels[{number}].{field}")))
                })
            };
            let (heads, tails) = (names(label.h, "h")?, names(label.t, "t")?);
            for head in heads {
                for tail in tails {
                    self.insert(&head.name, &tail.name, &label.r);
                }
            }
        }
        Ok(())
    }
}

/// A row of either format.
enum FactSetRow {
    Triple(String, String, String),
    Document(TrainDocument),
}

#[derive(Deserialize)]
struct TrainDocument {
    #[serde(default)]
    title: String,
    #[serde(rename = "vertexSet")]
    vertex_set: Vec<Vec<TrainMention>>,
    #[serde(default, deserialize_with = "labels")]
    labels: Option<Vec<RawLabel>>,
}

#[derive(Deserialize)]
struct TrainMention {
    name: String,
}

impl<'de> Deserialize<'de> for FactSetRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RowVisitor)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = FactSetRow;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[head name, tail name, relation] or a document in DocRED format")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<FactSetRow, A::Error> {
        let mut next = |at| {
            items
                .next_element::<String>()?
                .ok_or_else(|| serde::de::Error::invalid_length(at, &"three names"))
        };
        let row = FactSetRow::Triple(next(0)?, next(1)?, next(2)?);
        match items.next_element::<IgnoredAny>()? {
            None => Ok(row),
            Some(_) => Err(serde::de::Error::invalid_length(4, &"three names")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FactSetRow, A::Error> {
        TrainDocument::deserialize(MapAccessDeserializer::new(map)).map(FactSetRow::Document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<FactSet> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("facts.json");
        fs_err::write(&path, text).unwrap();
        FactSet::load(&path)
    }

    #[test]
    fn both_formats_are_read() {
        let triples = load(r#"[["Ann","Rome","P19"],["Ann","Rome","P19"]]"#).unwrap();
        assert_eq!(triples.len(), 1);
        assert!(triples.contains("Ann", "Rome", "P19"));
        assert!(!triples.contains("Rome", "Ann", "P19") && !triples.contains("ann", "Rome", "P19"));
        let text = r#"[{"title":"T","vertexSet":[[{"name":"Ann"},{"name":"A."}],[{"name":"Rome"}]],
            "labels":[{"h":0,"t":1,"r":"P19"}]}]"#;
        let documents = load(text).unwrap();
        assert_eq!(documents.len(), 2);
        assert!(documents.contains("A.", "Rome", "P19"));
    }

    /// As the reader of documents takes them (`corpus::formats::docred`).
    #[test]
    fn labels_are_rows_an_object_of_lists_or_null_and_no_relation_is_no_fact() {
        let with = |labels: &str| {
            load(&format!(
                r#"[{{"title":"T","vertexSet":[[{{"name":"Ann"}}],[{{"name":"Rome"}}]],
                "labels":{labels}}}]"#
            ))
        };
        let columns = r#"{"head":[0,1],"tail":[1,0],"relation_id":["P19","P20"]}"#;
        let set = with(columns).unwrap();
        assert_eq!(set.len(), 2);
        assert!(set.contains("Ann", "Rome", "P19") && set.contains("Rome", "Ann", "P20"));
        assert!(with("null").unwrap().is_empty());
        assert!(with(r#"[{"h":0,"t":1,"r":"NA"}]"#).unwrap().is_empty());
        for (wrong, part) in [
            (r#"{"head":[0],"tail":[],"relation_id":["P19"]}"#, "`tail` 0"),
            (r#"[{"h":-1,"t":1,"r":"P19"}]"#, "labels[0].h"),
            (r#"{"head":[0],"tail":[2],"relation_id":["P19"]}"#, "entity 2 of 2"),
        ] {
            let error = with(wrong).unwrap_err();
            assert!(error.exit_code() == 65 && error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn errors_name_the_place() {
        let text =
            r#"[["a","b","c"],{"title":"T","vertexSet":[],"labels":[{"h":0,"t":1,"r":"P19"}]}]"#;
        let message = load(text).unwrap_err().to_string();
        assert!(message.contains("row 1, document `T`, field `labels[0].h`"), "{message}");
        assert!(load(r#"[["a","b"]]"#).unwrap_err().to_string().contains("row 0"));
        assert!(
            load(r#"[["a","b","c","d"]]"#).is_err()
                && load(r#"{"a":1}"#).is_err()
                && load("[] x").is_err()
        );
    }
}
