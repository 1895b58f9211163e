//! Small documents and fixtures for the tests of this room.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::corpus::{Document, Entity, Fact, Mention, Provenance};

/// A document whose entities have a mention in each of the given sentences; entity `i` is called
/// `e<i>`.
pub fn document(title: &str, entities: &[&[usize]]) -> Document {
    let entity = |(number, sentences): (usize, &&[usize])| {
        let mention = |&sentence: &usize| Mention {
            name: format!("e{number}"),
            sentence,
            start: 0,
            end: 1,
            entity_type: "ORG".into(),
        };
        Entity { mentions: sentences.iter().map(mention).collect(), knowledge_base_id: None }
    };
    Document {
        title: title.into(),
        entities: entities.iter().enumerate().map(entity).collect(),
        ..Document::default()
    }
}

pub fn fact(head: usize, tail: usize, relation: &str, evidence: &[usize]) -> Fact {
    Fact { head, tail, relation: relation.into(), evidence: evidence.to_vec() }
}

/// The folder of a case of the reference data.
pub fn case(name: &str) -> PathBuf {
    crate::reference_data().join("parity").join(name)
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

/// A plain reader of DocRED files that trusts its input.
pub fn documents(path: &Path) -> Vec<Document> {
    let rows = json(path);
    rows.as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(row, value)| parse(path, row, value))
        .collect()
}

fn parse(path: &Path, row: usize, value: &Value) -> Document {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mention = |m: &Value| Mention {
        name: text(&m["name"]),
        sentence: number(&m["sent_id"]),
        start: number(&m["pos"][0]),
        end: number(&m["pos"][1]),
        entity_type: text(&m["type"]),
    };
    let label = |l: &Value| Fact {
        head: number(&l["h"]),
        tail: number(&l["t"]),
        relation: text(&l["r"]),
        evidence: list(&l["evidence"]).iter().map(number).collect(),
    };
    Document {
        title: text(&value["title"]),
        sentences: list(&value["sents"])
            .iter()
            .map(|words| list(words).iter().map(text).collect())
            .collect(),
        entities: list(&value["vertexSet"])
            .iter()
            .map(|mentions| Entity {
                mentions: list(mentions).iter().map(mention).collect(),
                knowledge_base_id: None,
            })
            .collect(),
        facts: value.get("labels").map(|labels| list(labels).iter().map(label).collect()),
        candidates: None,
        provenance: Provenance { file: path.to_owned(), row },
    }
}

/// Asserts |a − b| ≤ tolerance with a message that says where.
pub fn close(place: &str, ours: f64, theirs: &Value, tolerance: f64) {
    let theirs = theirs.as_f64().unwrap_or_else(|| panic!("{place}: no expected number"));
    assert!((ours - theirs).abs() <= tolerance, "{place}: {ours} instead of {theirs}");
}
