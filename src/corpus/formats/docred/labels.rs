//! Labels of DocRED's JSON: a list of rows, or an object of lists, as Hugging Face's `datasets`
//! writes them.

use std::fmt;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A label as it stands in the file, before any check.
#[derive(Deserialize)]
pub(crate) struct RawLabel {
    pub h: i64,
    pub t: i64,
    pub r: String,
    #[serde(default)]
    pub evidence: Vec<i64>,
}

/// Labels as an object of lists.
#[derive(Deserialize)]
struct LabelColumns {
    #[serde(alias = "h")]
    head: Vec<i64>,
    #[serde(alias = "t")]
    tail: Vec<i64>,
    #[serde(alias = "r")]
    relation_id: Vec<String>,
    evidence: Option<Vec<Vec<i64>>>,
    /// Not read, but as long as the others.
    relation_text: Option<Vec<IgnoredAny>>,
}

impl LabelColumns {
    fn rows(self) -> std::result::Result<Vec<RawLabel>, String> {
        let count = self.head.len();
        let lengths = [
            ("tail", Some(self.tail.len())),
            ("relation_id", Some(self.relation_id.len())),
            ("evidence", self.evidence.as_ref().map(Vec::len)),
            ("relation_text", self.relation_text.as_ref().map(Vec::len)),
        ];
        if let Some((name, Some(length))) =
            lengths.into_iter().find(|(_, length)| length.is_some_and(|length| length != count))
        {
            return Err(format!("`head` lists {count} labels, `{name}` {length}"));
        }
        let evidence = self.evidence.unwrap_or_else(|| vec![Vec::new(); count]);
        let pairs = self.head.into_iter().zip(self.tail);
        let rows = pairs.zip(self.relation_id.into_iter().zip(evidence));
        Ok(rows.map(|((h, t), (r, evidence))| RawLabel { h, t, r, evidence }).collect())
    }
}

/// Reads the labels in either form; `None` for null.
pub(crate) fn labels<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Vec<RawLabel>>, D::Error> {
    deserializer.deserialize_any(LabelsVisitor)
}

struct LabelsVisitor;

impl<'de> Visitor<'de> for LabelsVisitor {
    type Value = Option<Vec<RawLabel>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of labels, or an object of lists")
    }

    fn visit_unit<E: serde::de::Error>(self) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> std::result::Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(Some)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Self::Value, A::Error> {
        let columns = LabelColumns::deserialize(MapAccessDeserializer::new(map))?;
        columns.rows().map(Some).map_err(serde::de::Error::custom)
    }
}
