//! JSONL, the format for people's own text: a document a line, as running text with mentions as
//! spans of characters, or as sentences of words with mentions as spans of words. `docs/formats.md`
//! shows both.
//!
//! Written as words, it holds everything that a [`Document`] does. Not for: DocRED's JSON array.

mod line;

use std::io::Write;
use std::path::Path;

use self::line::RawLine;
use super::format::{DocumentFormat, DocumentWriter, WriteSummary};
use super::reading::{ReadOptions, ReadSummary, read_documents};
use crate::base::json_stream;
use crate::base::records::{Record, Unit};
use crate::base::text_file::TextFile;
use crate::corpus::check::{Check, OtherRows, PLAIN_FIELDS, Repeats};
use crate::corpus::{Document, RelationSet};
use crate::{DataError, Error, Result};

/// JSONL.
#[derive(Debug)]
pub(super) struct Jsonl;

impl DocumentFormat for Jsonl {
    fn names(&self) -> &'static [(&'static str, &'static str)] {
        &[("jsonl", "A document a line, as text or as words")]
    }

    fn read(
        &self,
        path: &Path,
        options: &ReadOptions,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<ReadSummary> {
        let relations = options.relations.as_ref();
        let parse = |record: Record<'_>| parse(path, record, relations);
        read_documents(path, Unit::Line, options, &parse, each)
    }

    fn create(&self, path: &Path) -> Option<Result<Box<dyn DocumentWriter>>> {
        let file = TextFile::create(path);
        Some(file.map(|file| Box::new(JsonlWriter { file, documents: 0 }) as _))
    }
}

/// One document from its line, with the label rows that made no fact.
pub(super) fn parse(
    path: &Path,
    record: Record<'_>,
    relations: Option<&RelationSet>,
) -> Result<(Document, OtherRows)> {
    let Record { text, row, line } = record;
    if text.trim_start().starts_with('[') {
        return Err(DataError::new(path, "the line is a list, not an object")
            .row(row)
            .hint("a JSON array of documents with DocRED's fields is --format docred")
            .into());
    }
    let raw: RawLine = json_stream::parse_line(path, text, row, line).map_err(|error| {
        if text.contains("\"vertexSet\"") {
            error.with_hint("documents with DocRED's fields are --format docred")
        } else {
            error
        }
    })?;
    let unchecked = raw.unchecked(path, row)?;
    let (fields, repeats) = (&PLAIN_FIELDS, Repeats::Merge);
    Check { file: path, row, relations, fields, repeats }.document(unchecked)
}

/// Writes documents as sentences of words.
struct JsonlWriter {
    file: TextFile,
    documents: usize,
}

impl DocumentWriter for JsonlWriter {
    fn write(&mut self, document: Document) -> Result<()> {
        let mut json = serde_json::to_vec(&document)
            .map_err(|error| Error::Bug(format!("writing a document as JSON: {error}")))?;
        json.push(b'\n');
        self.documents += 1;
        Ok(self.file.write_all(&json)?)
    }

    fn finish(self: Box<Self>) -> Result<WriteSummary> {
        self.file.finish()?;
        Ok(WriteSummary { documents: self.documents, losses: String::new() })
    }
}

#[cfg(test)]
mod tests;
