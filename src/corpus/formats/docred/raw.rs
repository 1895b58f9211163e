//! DocRED's JSON as it stands in the file, before any check, and as it is written. `candidates` and
//! `kb_id` are this program's own fields, which other readers of the format pass over.

use std::fmt;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::corpus::Fact;
use crate::corpus::check::{
    Unchecked, UncheckedEntity, UncheckedFact, UncheckedMention, UncheckedPair,
};

/// A document whose words are read into `W`: [`String`], or [`Unread`] where nobody looks at them.
#[derive(Deserialize)]
pub(super) struct RawDocument<W = String> {
    title: String,
    sents: Vec<Vec<W>>,
    #[serde(rename = "vertexSet")]
    vertex_set: Vec<Vec<RawMention>>,
    /// Absent (or null) where the labels are hidden.
    labels: Option<Vec<RawLabel>>,
    candidates: Option<Vec<RawCandidate>>,
}

#[derive(Deserialize)]
struct RawMention {
    name: String,
    sent_id: i64,
    pos: Vec<i64>,
    #[serde(rename = "type")]
    entity_type: String,
    kb_id: Option<String>,
}

#[derive(Deserialize)]
struct RawLabel {
    h: i64,
    t: i64,
    r: String,
    #[serde(default)]
    evidence: Vec<i64>,
}

#[derive(Deserialize)]
struct RawCandidate {
    h: i64,
    t: i64,
    #[serde(default)]
    excluded: bool,
}

/// A word that is checked to be a string and left where it is; a list of them costs no memory.
pub(super) struct Unread;

impl From<Unread> for String {
    fn from(_: Unread) -> Self {
        Self::new()
    }
}

impl<'de> Deserialize<'de> for Unread {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Self)
    }
}

impl Visitor<'_> for Unread {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
}

impl<W: Into<String>> From<RawDocument<W>> for Unchecked {
    fn from(raw: RawDocument<W>) -> Self {
        let words = |sentence: Vec<W>| sentence.into_iter().map(W::into).collect();
        let fact = |RawLabel { h, t, r, evidence }| UncheckedFact {
            head: h,
            tail: t,
            relation: r,
            evidence,
        };
        let pair = |RawCandidate { h, t, excluded }| UncheckedPair { head: h, tail: t, excluded };
        Self {
            title: raw.title,
            sentences: raw.sents.into_iter().map(words).collect(),
            entities: raw.vertex_set.into_iter().map(entity).collect(),
            facts: raw.labels.map(|rows| rows.into_iter().map(fact).collect()),
            candidates: raw.candidates.map(|rows| rows.into_iter().map(pair).collect()),
        }
    }
}

fn entity(mut mentions: Vec<RawMention>) -> UncheckedEntity {
    let id = mentions.iter_mut().find_map(|mention| mention.kb_id.take());
    let mention = |RawMention { name, sent_id, pos, entity_type, .. }| UncheckedMention {
        name,
        sentence: sent_id,
        span: pos,
        entity_type,
    };
    UncheckedEntity { id, mentions: mentions.into_iter().map(mention).collect() }
}

#[derive(Serialize)]
pub(super) struct WrittenDocument<'a> {
    pub title: &'a str,
    pub sents: &'a [Vec<String>],
    #[serde(rename = "vertexSet")]
    pub vertex_set: Vec<Vec<WrittenMention<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<WrittenLabel<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidates: Option<Vec<WrittenCandidate>>,
}

#[derive(Serialize)]
pub(super) struct WrittenMention<'a> {
    pub name: &'a str,
    pub sent_id: usize,
    pub pos: [usize; 2],
    #[serde(rename = "type")]
    pub entity_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kb_id: Option<&'a str>,
}

/// A fact as it is written.
#[derive(Serialize)]
pub(crate) struct WrittenLabel<'a> {
    pub h: usize,
    pub t: usize,
    pub r: &'a str,
    pub evidence: &'a [usize],
}

#[derive(Serialize)]
pub(super) struct WrittenCandidate {
    pub h: usize,
    pub t: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub excluded: bool,
}

impl<'a> WrittenLabel<'a> {
    pub(crate) fn of(fact: &'a Fact) -> Self {
        Self { h: fact.head, t: fact.tail, r: &fact.relation, evidence: &fact.evidence }
    }
}
