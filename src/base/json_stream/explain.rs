//! Saying what is wrong with an element: row, line, column, and title and field where the rest of
//! it can still be read.

use std::{fmt, path::Path};

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::scan::Fault;
use crate::base::blocks::Span;
use crate::base::text_file::unreadable;
use crate::{DataError, Error};

const HINT_CUT: &str = "the file was cut off; fetch or write it again";
const HINT_SYNTAX: &str =
    "check the file with a JSON tool at that line and column (NaN and Infinity are not JSON)";
const HINT_DATA: &str = "the format is described in `docs/formats.md`";
const HINT_FORMAT: &str = "is this the right file, and the right format?";
const HINT_LINES: &str = "mend or leave out that line (NaN and Infinity are not JSON)";

/// The error for an element that is not a `T`.
pub(super) fn element<T: DeserializeOwned>(
    path: &Path,
    text: &[u8],
    span: Span,
    error: &serde_json::Error,
) -> Error {
    let (line, column) = (error.line(), error.column());
    let problem = error.to_string();
    // The parser counts lines inside the element.
    let problem =
        problem.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&problem);
    let column = if line <= 1 { span.column + column } else { column };
    let (kind, hint) = match error.classify() {
        serde_json::error::Category::Eof if span.cut => ("the JSON ends too early", HINT_CUT),
        serde_json::error::Category::Data => ("unexpected JSON", HINT_DATA),
        _ if span.alone => ("not valid JSON", HINT_LINES),
        _ => ("not valid JSON", HINT_SYNTAX),
    };
    if let Some(keys) = wrapper_keys(text, span, problem) {
        return wrapper(path, problem, &keys);
    }
    let mut data = DataError::new(
        path,
        format!("{kind}: {problem} at line {} column {column}", span.line + line.max(1)),
    );
    data.row = Some(span.row);
    data.title = title(text);
    data.field = field::<T>(text);
    data.hint(hint).into()
}

/// The keys of an object that is the whole file and is no element: a list may be the value of one
/// of them.
fn wrapper_keys(text: &[u8], span: Span, problem: &str) -> Option<Vec<String>> {
    if !span.alone || span.row > 0 || !problem.starts_with("missing field") {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).ok()?;
    let holds_more = object.values().any(|value| value.is_array() || value.is_object());
    (holds_more && !object.contains_key("title")).then(|| object.keys().cloned().collect())
}

fn wrapper(path: &Path, problem: &str, keys: &[String]) -> Error {
    let names: Vec<String> = keys.iter().take(5).map(|key| format!("`{key}`")).collect();
    let more = if keys.len() > names.len() { ", …" } else { "" };
    let (plural, names) = (if keys.len() == 1 { "" } else { "s" }, names.join(", "));
    let problem = format!(
        "not a list, but an object with the key{plural} {names}{more}: as an element of a list it \
         has a {problem}"
    );
    let key = keys.first().map_or("data", String::as_str);
    DataError::new(path, problem)
        .row(0)
        .hint(format!(
            "take the list out of the object, such as with `jq '.[\"{key}\"]' FILE`; the file must \
             be an array, or have one element a line"
        ))
        .into()
}

/// The error for a file that ends right after an element.
pub(super) fn cut(path: &Path, span: Span) -> Error {
    let problem = format!(
        "the JSON ends too early: the array is not closed after the element at line {}",
        span.line + 1
    );
    DataError::new(path, problem).row(span.row).hint(HINT_CUT).into()
}

/// The error for a fault between elements; `row` is the number of complete ones.
pub(super) fn fault(path: &Path, row: usize, fault: Fault) -> Error {
    let data = match fault {
        Fault::Read(error) => return unreadable(path, row, error),
        Fault::Empty => return DataError::new(path, "the file is empty").hint(HINT_CUT).into(),
        Fault::NoJson => {
            let problem = "neither a JSON array nor an object: this is no JSON";
            return DataError::new(path, problem).hint(HINT_FORMAT).into();
        }
        Fault::Syntax(problem, line, column) => DataError::new(
            path,
            format!("not valid JSON: {problem} at line {line} column {column}"),
        )
        .hint(HINT_SYNTAX),
        Fault::Eof(problem, line, column) => DataError::new(
            path,
            format!("the JSON ends too early: {problem} at line {line} column {column}"),
        )
        .hint(HINT_CUT),
        Fault::Large => DataError::new(path, "an element is larger than 64 MiB").hint(
            "the file must be an array with one document an element, or have one document a line; \
             perhaps a quotation mark is missing, or the list is the value of a key",
        ),
    };
    data.row(row).into()
}

/// The path of the first field that does not fit, such as `vertexSet[3][0].pos`.
fn field<T: DeserializeOwned>(text: &[u8]) -> Option<String> {
    let outcome: Result<T, _> =
        serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(text));
    let path = outcome.err()?.path().to_string();
    (path != ".").then_some(path)
}

/// The text of the field `title`, as far as the element can be read.
fn title(text: &[u8]) -> Option<String> {
    let mut title = None;
    // An error only says that the rest cannot be read.
    let _ = TitleSeed(&mut title).deserialize(&mut serde_json::Deserializer::from_slice(text));
    title
}

struct TitleSeed<'a>(&'a mut Option<String>);

impl<'de> DeserializeSeed<'de> for TitleSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TitleSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "title" {
                *self.0 = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}
