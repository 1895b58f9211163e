//! The format's entry, and its reader, which goes document by document: first the JSON fields as
//! they stand in the file, then the checks of every format.
//!
//! `candidates` and `kb_id` are this program's own fields, which other readers of the format pass
//! over.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Visitor};

use super::labels::{RawLabel, labels};
use super::writer::DocredWriter;
use crate::Result;
use crate::base::json_stream;
use crate::base::records::Record;
use crate::corpus::Document;
use crate::corpus::check::{
    Check, DOCRED_FIELDS, Repeats, Unchecked, UncheckedEntity, UncheckedFact, UncheckedMention,
    UncheckedPair,
};
use crate::corpus::formats::format::{DocumentFormat, DocumentWriter, GoldDocuments};
use crate::corpus::formats::reading::{Intake, ReadOptions, ReadSummary};

/// The format's name.
pub(in crate::corpus::formats) const NAME: &str = "docred";
/// The format's line of help.
pub(in crate::corpus::formats) const ABOUT: &str =
    "DocRED's JSON, an array or lines: DocRED, Re-DocRED, DWIE, the generated world";

/// DocRED's JSON: an array of documents.
#[derive(Debug)]
pub struct Docred;

impl DocumentFormat for Docred {
    fn names(&self) -> &'static [(&'static str, &'static str)] {
        &[(NAME, ABOUT)]
    }

    fn read(
        &self,
        path: &Path,
        options: &ReadOptions,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<ReadSummary> {
        read::<String>(path, options, Repeats::Merge, each)
    }

    /// Keeps every label row as it stands: DocRED's scorer counts the evidence of each row, and
    /// takes that of the last row of a fact (docs/scores.md, "Evidence"). No scorer reads words:
    /// sentences have as many as the file gives them, all empty.
    fn read_gold(&self, path: &Path) -> Result<GoldDocuments> {
        let mut documents = Vec::new();
        let options = ReadOptions::default();
        let summary = read::<Unread>(path, &options, Repeats::Keep, &mut |document| {
            documents.push(document);
            Ok(())
        })?;
        Ok(GoldDocuments { documents, pairs: None, warnings: summary.warnings(path) })
    }

    fn create(&self, path: &Path) -> Option<Result<Box<dyn DocumentWriter>>> {
        Some(DocredWriter::create(path).map(|writer| Box::new(writer) as _))
    }
}

fn read<W: DeserializeOwned + Into<String>>(
    path: &Path,
    options: &ReadOptions,
    repeats: Repeats,
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<ReadSummary> {
    let mut intake = Intake::new(options);
    let relations = options.relations.as_ref();
    let check = |row: usize, raw: RawDocument<W>| {
        let check = Check { file: path, row, relations, fields: &DOCRED_FIELDS, repeats };
        let (mut document, mut others) = check.document(raw.into())?;
        if let Some(annotator) = &options.annotator {
            others.found = annotator.annotate_words(&mut document);
        }
        Ok((document, others))
    };
    let mut take = |_, read| intake.take(read, each);
    let elements = json_stream::read_array_with(path, &check, &mut take);
    if elements.as_ref().is_ok_and(|elements| elements.alone && elements.rows == 1) {
        intake.note("a single document, read as a list of one");
    }
    intake.finish(elements.map(drop))
}

/// One document, without its labels, from the JSON object of a line.
pub(in crate::corpus::formats) fn parse(path: &Path, record: Record<'_>) -> Result<Document> {
    let Record { text, row, line } = record;
    let raw: RawDocument = json_stream::parse_line(path, text, row, line)?;
    let unlabelled = Unchecked { facts: None, ..raw.into() };
    let (fields, repeats) = (&DOCRED_FIELDS, Repeats::Merge);
    Ok(Check { file: path, row, relations: None, fields, repeats }.document(unlabelled)?.0)
}

/// A document whose words are read into `W`: [`String`], or [`Unread`] where nobody looks at them.
#[derive(Deserialize)]
struct RawDocument<W = String> {
    title: String,
    sents: Vec<Vec<W>>,
    #[serde(rename = "vertexSet")]
    vertex_set: Vec<Vec<RawMention>>,
    /// Absent (or null) where the labels are hidden.
    #[serde(default, deserialize_with = "labels")]
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
struct RawCandidate {
    h: i64,
    t: i64,
    #[serde(default)]
    excluded: bool,
}

/// A word that is checked to be a string and left where it is; a list of them costs no memory.
struct Unread;

impl From<Unread> for String {
    fn from(_: Unread) -> Self {
        Self::new()
    }
}

impl<'de> Deserialize<'de> for Unread {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_str(Self)
    }
}

impl Visitor<'_> for Unread {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> std::result::Result<Self, E> {
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
