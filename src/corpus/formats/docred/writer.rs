//! Writes DocRED files, one document a line, whole or not at all.

use std::{io::Write, path::Path};

use serde::Serialize;

use crate::base::text_file::TextFile;
use crate::corpus::formats::format::{DocumentWriter, WriteSummary};
use crate::corpus::{Candidate, Document, Entity, Fact};
use crate::{Error, Result};

/// Writes documents into a DocRED file, which appears with [`DocredWriter::finish`].
pub struct DocredWriter {
    file: TextFile,
    documents: usize,
}

impl DocredWriter {
    /// Starts a file; a name that ends in `.gz` is compressed. Missing folders are made.
    ///
    /// # Errors
    /// I/O errors.
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self { file: TextFile::create(path)?, documents: 0 })
    }

    /// Adds a document.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write(&mut self, document: &Document) -> Result<()> {
        self.write_json(&to_json(document)?)
    }

    /// Adds a document that [`to_json`] has turned into JSON, perhaps on another thread.
    pub(crate) fn write_json(&mut self, json: &[u8]) -> Result<()> {
        let before: &[u8] = if self.documents == 0 { b"[\n" } else { b",\n" };
        self.documents += 1;
        self.file.write_all(before)?;
        Ok(self.file.write_all(json)?)
    }

    /// Closes the array and gives the file its name; returns the number of documents.
    ///
    /// # Errors
    /// I/O errors; the file does not appear then.
    pub fn finish(mut self) -> Result<usize> {
        self.file.write_all(if self.documents == 0 { b"[]\n" } else { b"\n]\n" })?;
        self.file.finish()?;
        Ok(self.documents)
    }
}

impl DocumentWriter for DocredWriter {
    fn write(&mut self, document: Document) -> Result<()> {
        Self::write(self, &document)
    }

    fn finish(self: Box<Self>) -> Result<WriteSummary> {
        Ok(WriteSummary { documents: Self::finish(*self)?, losses: String::new() })
    }
}

/// A document as one line of DocRED JSON.
pub(crate) fn to_json(document: &Document) -> Result<Vec<u8>> {
    let written = WrittenDocument {
        title: &document.title,
        sents: &document.sentences,
        vertex_set: document.entities.iter().map(mentions).collect(),
        labels: document.facts.as_ref().map(|rows| rows.iter().map(WrittenLabel::of).collect()),
        candidates: document.candidates.as_ref().map(|pairs| pairs.iter().map(candidate).collect()),
    };
    serde_json::to_vec(&written)
        .map_err(|error| Error::Bug(format!("writing a document as JSON: {error}")))
}

fn mentions(entity: &Entity) -> Vec<WrittenMention<'_>> {
    let written = entity.mentions.iter().map(|mention| WrittenMention {
        name: &mention.name,
        sent_id: mention.sentence,
        pos: [mention.start, mention.end],
        entity_type: &mention.entity_type,
        kb_id: entity.knowledge_base_id.as_deref(),
    });
    written.collect()
}

fn candidate(&Candidate { head, tail, excluded }: &Candidate) -> WrittenCandidate {
    WrittenCandidate { h: head, t: tail, excluded }
}

#[derive(Serialize)]
struct WrittenDocument<'a> {
    title: &'a str,
    sents: &'a [Vec<String>],
    #[serde(rename = "vertexSet")]
    vertex_set: Vec<Vec<WrittenMention<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<WrittenLabel<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<Vec<WrittenCandidate>>,
}

#[derive(Serialize)]
struct WrittenMention<'a> {
    name: &'a str,
    sent_id: usize,
    pos: [usize; 2],
    #[serde(rename = "type")]
    entity_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kb_id: Option<&'a str>,
}

/// A fact as it is written.
#[derive(Serialize)]
pub(crate) struct WrittenLabel<'a> {
    h: usize,
    t: usize,
    r: &'a str,
    evidence: &'a [usize],
}

#[derive(Serialize)]
struct WrittenCandidate {
    h: usize,
    t: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    excluded: bool,
}

impl<'a> WrittenLabel<'a> {
    pub(crate) fn of(fact: &'a Fact) -> Self {
        Self { h: fact.head, t: fact.tail, r: &fact.relation, evidence: &fact.evidence }
    }
}
