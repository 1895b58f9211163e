//! Writes DocRED files, one document a line, whole or not at all.

use std::{io::Write, path::Path};

use flate2::{Compression, write::GzEncoder};

use super::raw::{WrittenDocument, WrittenLabel, WrittenMention};
use crate::{
    Error, Result,
    corpus::{Document, Entity, Fact, atomic::AtomicFile, json_stream::is_gzip},
};

/// Streams documents into a DocRED file. Nothing stands under the file's name before [`DocredWriter::finish`].
pub struct DocredWriter {
    sink: Sink,
    documents: usize,
}

enum Sink {
    Plain(AtomicFile),
    Gzip(Box<GzEncoder<AtomicFile>>),
}

impl DocredWriter {
    /// Starts a file; a name that ends in `.gz` is compressed. Missing folders are made.
    ///
    /// # Errors
    /// I/O errors.
    pub fn create(path: &Path) -> Result<Self> {
        let file = AtomicFile::create(path)?;
        let sink = if is_gzip(path) { Sink::Gzip(Box::new(GzEncoder::new(file, Compression::default()))) } else { Sink::Plain(file) };
        Ok(Self { sink, documents: 0 })
    }

    /// Adds a document.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write(&mut self, document: &Document) -> Result<()> {
        self.write_encoded(&encode(document)?)
    }

    /// Adds a document that [`encode`] has turned into JSON already, perhaps on another thread.
    pub(crate) fn write_encoded(&mut self, json: &[u8]) -> Result<()> {
        let before: &[u8] = if self.documents == 0 { b"[\n" } else { b",\n" };
        self.documents += 1;
        self.write_all(before)?;
        self.write_all(json)
    }

    /// Closes the array and gives the file its name; returns the number of documents.
    ///
    /// # Errors
    /// I/O errors; the file does not appear then.
    pub fn finish(mut self) -> Result<usize> {
        self.write_all(if self.documents == 0 { b"[]\n" } else { b"\n]\n" })?;
        match self.sink {
            Sink::Plain(file) => file.finish()?,
            Sink::Gzip(encoder) => encoder.finish()?.finish()?,
        }
        Ok(self.documents)
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.sink {
            Sink::Plain(file) => file.write_all(bytes)?,
            Sink::Gzip(encoder) => encoder.write_all(bytes)?,
        }
        Ok(())
    }
}

/// A document as one line of DocRED JSON.
pub(crate) fn encode(document: &Document) -> Result<Vec<u8>> {
    let written = WrittenDocument {
        title: &document.title,
        sents: &document.sentences,
        vertex_set: document.entities.iter().map(mentions).collect(),
        labels: document.facts.as_ref().map(|facts| facts.iter().map(label).collect()),
    };
    serde_json::to_vec(&written).map_err(|error| Error::Bug(format!("a document did not turn into JSON: {error}")))
}

fn mentions(entity: &Entity) -> Vec<WrittenMention<'_>> {
    let written = entity.mentions.iter().map(|mention| WrittenMention {
        name: &mention.name,
        sent_id: mention.sentence,
        pos: [mention.start, mention.end],
        entity_type: &mention.entity_type,
    });
    written.collect()
}

fn label(fact: &Fact) -> WrittenLabel<'_> {
    WrittenLabel { h: fact.head, t: fact.tail, r: &fact.relation, evidence: &fact.evidence }
}
