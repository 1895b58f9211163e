//! DocRED's JSON as it stands in the file, before any check. Indices are signed so that a negative one is a finding, not a type error.

use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
pub(super) struct RawDocument {
    pub title: String,
    pub sents: Vec<Vec<String>>,
    #[serde(rename = "vertexSet")]
    pub vertex_set: Vec<Vec<RawMention>>,
    /// Absent (or null) where the labels are hidden.
    #[serde(default)]
    pub labels: Option<Vec<RawLabel>>,
}

#[derive(Deserialize)]
pub(super) struct RawMention {
    pub name: String,
    pub sent_id: i64,
    pub pos: Vec<i64>,
    #[serde(rename = "type")]
    pub entity_type: String,
}

#[derive(Deserialize)]
pub(super) struct RawLabel {
    pub h: i64,
    pub t: i64,
    pub r: String,
    #[serde(default)]
    pub evidence: Vec<i64>,
}

#[derive(Serialize)]
pub(super) struct WrittenDocument<'a> {
    pub title: &'a str,
    pub sents: &'a [Vec<String>],
    #[serde(rename = "vertexSet")]
    pub vertex_set: Vec<Vec<WrittenMention<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<WrittenLabel<'a>>>,
}

#[derive(Serialize)]
pub(super) struct WrittenMention<'a> {
    pub name: &'a str,
    pub sent_id: usize,
    pub pos: [usize; 2],
    #[serde(rename = "type")]
    pub entity_type: &'a str,
}

#[derive(Serialize)]
pub(super) struct WrittenLabel<'a> {
    pub h: usize,
    pub t: usize,
    pub r: &'a str,
    pub evidence: &'a [usize],
}
