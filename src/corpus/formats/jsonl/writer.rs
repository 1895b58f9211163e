//! Writes JSONL as sentences of words: everything that a document holds, but for where it was read.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::base::text_file::TextFile;
use crate::corpus::{Candidate, Document};
use crate::{Error, Result};

/// Streams documents into a file, which appears with [`JsonlWriter::finish`].
pub struct JsonlWriter {
    file: TextFile,
    documents: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    title: &'a str,
    sentences: &'a [Vec<String>],
    entities: Vec<WrittenEntity<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<Vec<WrittenFact<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<Vec<WrittenPair>>,
}

#[derive(Serialize)]
struct WrittenEntity<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    mentions: Vec<WrittenMention<'a>>,
}

#[derive(Serialize)]
struct WrittenMention<'a> {
    name: &'a str,
    sentence: usize,
    start: usize,
    end: usize,
    #[serde(rename = "type")]
    entity_type: &'a str,
}

#[derive(Serialize)]
struct WrittenFact<'a> {
    head: usize,
    tail: usize,
    relation: &'a str,
    evidence: &'a [usize],
}

#[derive(Serialize)]
struct WrittenPair {
    head: usize,
    tail: usize,
    excluded: bool,
}

impl JsonlWriter {
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
        let line = Line {
            title: &document.title,
            sentences: &document.sentences,
            entities: document.entities.iter().map(WrittenEntity::from).collect(),
            facts: document
                .facts
                .as_ref()
                .map(|facts| facts.iter().map(WrittenFact::from).collect()),
            candidates: document
                .candidates
                .as_ref()
                .map(|pairs| pairs.iter().map(WrittenPair::from).collect()),
        };
        let mut json = serde_json::to_vec(&line)
            .map_err(|error| Error::Bug(format!("a document did not turn into JSON: {error}")))?;
        json.push(b'\n');
        self.documents += 1;
        Ok(self.file.write_all(&json)?)
    }

    /// Gives the file its name; returns the number of documents.
    ///
    /// # Errors
    /// I/O errors; the file does not appear then.
    pub fn finish(self) -> Result<usize> {
        self.file.finish()?;
        Ok(self.documents)
    }
}

impl<'a> From<&'a crate::corpus::Entity> for WrittenEntity<'a> {
    fn from(entity: &'a crate::corpus::Entity) -> Self {
        let mention = |mention: &'a crate::corpus::Mention| WrittenMention {
            name: &mention.name,
            sentence: mention.sentence,
            start: mention.start,
            end: mention.end,
            entity_type: &mention.entity_type,
        };
        Self {
            id: entity.knowledge_base_id.as_deref(),
            mentions: entity.mentions.iter().map(mention).collect(),
        }
    }
}

impl<'a> From<&'a crate::corpus::Fact> for WrittenFact<'a> {
    fn from(fact: &'a crate::corpus::Fact) -> Self {
        Self {
            head: fact.head,
            tail: fact.tail,
            relation: &fact.relation,
            evidence: &fact.evidence,
        }
    }
}

impl From<&Candidate> for WrittenPair {
    fn from(&Candidate { head, tail, excluded }: &Candidate) -> Self {
        Self { head, tail, excluded }
    }
}
