//! One document from one JSON object, in DocRED's form or in that of JSONL, which its fields tell
//! apart. Labels are left out, and a title may be missing.
//!
//! Not for: files, whose format is named and whose titles are keys.

use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

use super::reading::ReadOptions;
use super::{docred, jsonl};
use crate::base::json_stream;
use crate::base::records::Record;
use crate::corpus::Document;
use crate::{DataError, Error, Result};

/// A document that stands alone.
#[derive(Clone, Debug, PartialEq)]
pub struct LoneDocument {
    /// The document, without labels.
    pub document: Document,
    /// Whether it came as running text, so that its sentences and words were made here.
    pub from_text: bool,
}

/// The fields that tell the forms apart; all others are passed over.
#[derive(Deserialize)]
#[serde(expecting = "a document as a JSON object")]
struct Shape {
    /// Whether it holds something; `None` where the field is not there.
    #[serde(default, deserialize_with = "held")]
    title: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    id: bool,
    #[serde(default, deserialize_with = "given")]
    text: bool,
    #[serde(default, deserialize_with = "given")]
    sents: bool,
    #[serde(default, rename = "vertexSet", deserialize_with = "given")]
    vertex_set: bool,
}

/// Whether a field that is there holds something.
fn held<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    given(deserializer).map(Some)
}

/// Whether a field holds something.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::<IgnoredAny>::deserialize(deserializer).map(|value| value.is_some())
}

/// Reads the document of line `row` (from 0) of `source`. Without a title it is called `line N`,
/// from 1.
///
/// # Errors
/// A [`DataError`] naming the row, and title and field where they are known, for everything that
/// is no document in one of the two forms.
pub fn read_one(source: &Path, text: &str, row: usize) -> Result<LoneDocument> {
    let text = text.trim_end();
    if text.trim_start().is_empty() {
        let hint = "send a document as a JSON object on each line";
        return Err(DataError::new(source, "the line is empty").row(row).hint(hint).into());
    }
    if text.trim_start().starts_with('[') {
        let hint = "send each document as a JSON object on a line of its own";
        let problem = "the line is a list, not an object";
        return Err(DataError::new(source, problem).row(row).hint(hint).into());
    }
    let shape: Shape = json_stream::parse_line(source, text, row, row)?;
    let named = shape.title == Some(true) || shape.id && shape.text;
    let titled = if named { None } else { Some(with_title(text, shape.title, row)?) };
    let record = Record { text: titled.as_deref().unwrap_or(text), row, line: row };
    if shape.vertex_set || shape.sents && !shape.text {
        let document = docred::parse(source, record)?;
        return Ok(LoneDocument { document, from_text: false });
    }
    let (document, _) = jsonl::parse_line(source, record, &ReadOptions::default())?;
    let document = Document { facts: None, ..document };
    Ok(LoneDocument { document, from_text: shape.text })
}

/// The object with the title that stands for none; `title` says whether it has such a field.
fn with_title(text: &str, title: Option<bool>, row: usize) -> Result<String> {
    let own = format!("line {}", row + 1);
    match text.strip_suffix('}') {
        Some(fields) if title.is_none() => {
            let comma = if fields.trim_end().ends_with('{') { "" } else { ", " };
            Ok(format!("{fields}{comma}\"title\": \"{own}\"}}"))
        }
        _ => {
            let bug = |error| Error::Bug(format!("an object that was read before: {error}"));
            let mut fields: serde_json::Map<_, _> = serde_json::from_str(text).map_err(bug)?;
            fields.insert("title".into(), own.into());
            Ok(serde_json::Value::from(fields).to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn docred() -> Value {
        json!({
            "title": "a",
            "sents": [["Ada", "ran", "it", "."]],
            "vertexSet": [
                [{"name": "Ada", "sent_id": 0, "pos": [0, 1], "type": "PER"}],
                [{"name": "it", "sent_id": 0, "pos": [2, 3], "type": "MISC"}],
            ],
        })
    }

    fn text() -> Value {
        json!({
            "title": "a",
            "text": "Ada ran it.",
            "entities": [
                {"type": "PER", "mentions": [{"start": 0, "end": 3}]},
                {"type": "MISC", "mentions": [{"start": 8, "end": 10}]},
            ],
        })
    }

    fn read(line: &Value) -> Result<LoneDocument> {
        read_one(Path::new("lines"), &line.to_string(), 6)
    }

    fn with(mut line: Value, field: &str, value: Value) -> Value {
        line[field] = value;
        line
    }

    #[test]
    fn both_forms_are_told_by_their_fields_and_give_the_same_document() {
        let (one, other) = (read(&docred()).unwrap(), read(&text()).unwrap());
        assert_eq!(one.document, other.document);
        assert!(!one.from_text && other.from_text);
        let mut words = text();
        words.as_object_mut().unwrap().remove("text");
        let entity = |kind, at| {
            json!({"type": kind,
                "mentions": [{"sentence": 0, "start": at, "end": at + 1}]})
        };
        let words = with(words, "sentences", json!([["Ada", "ran", "it", "."]]));
        let words = with(words, "entities", json!([entity("PER", 0), entity("MISC", 2)]));
        let words = read(&words).unwrap();
        assert_eq!(words, LoneDocument { from_text: false, ..one });
    }

    #[test]
    fn a_document_without_a_title_is_called_by_its_line() {
        for mut line in [docred(), text()] {
            line.as_object_mut().unwrap().remove("title");
            assert_eq!(read(&line).unwrap().document.title, "line 7");
            line["title"] = Value::Null;
            assert_eq!(read(&line).unwrap().document.title, "line 7");
        }
    }

    #[test]
    fn labels_play_no_part_even_if_they_fit_nothing() {
        let labels = json!([{"h": 0, "t": 9, "r": "P1", "evidence": [7]}]);
        let line = with(docred(), "labels", labels);
        assert_eq!(read(&line).unwrap(), read(&docred()).unwrap());
        let facts = json!([{"head": 0, "tail": 1, "relation": "unknown"}]);
        assert_eq!(read(&with(text(), "facts", facts)).unwrap(), read(&text()).unwrap());
    }

    #[test]
    fn what_is_no_document_is_named_by_row_and_field() {
        let cut = docred().to_string();
        let cut = &cut[..cut.len() - 1];
        let no_mentions = with(docred(), "vertexSet", json!([[]])).to_string();
        let half = r#"{"title": "b", "sents": []}"#;
        for (line, part) in [
            ("", "the line is empty"),
            (" \t ", "the line is empty"),
            ("3", "expected a document as a JSON object"),
            ("null", "expected a document as a JSON object"),
            ("[1]", "is a list"),
            ("{}", "neither `text` nor `sentences`"),
            (r#"{"a": NaN}"#, "not valid JSON"),
            (r#"{"title": 3, "text": "", "entities": []}"#, "field `title`"),
            (half, "`vertexSet`"),
            (cut, "line 7"),
            (&no_mentions, "field `vertexSet[0]`"),
        ] {
            let error = read_one(Path::new("lines"), line, 6).unwrap_err();
            let told = error.to_string();
            assert!(told.starts_with("lines, row 6") && told.contains(part), "{line}: {told}");
            assert!(error.exit_code() == 65 && error.hint().is_some(), "{line}: {told}");
        }
    }
}
