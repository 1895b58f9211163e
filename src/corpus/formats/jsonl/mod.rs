//! JSONL, the format for people's own text: a document a line, as running text with mentions as
//! spans of characters, or as sentences of words with mentions as spans of words. `docs/formats.md`
//! shows both.
//!
//! Written as words, it holds everything that a [`Document`] does. Not for: DocRED's JSON array.

mod line;
mod spans;
mod tokens;

use std::io::Write;
use std::path::Path;

use self::line::RawLine;
use super::format::{DocumentFormat, DocumentWriter, WriteSummary};
use super::reading::{ReadOptions, ReadSummary, read_documents};
use crate::base::json_stream;
use crate::base::records::{Record, Unit};
use crate::base::text_file::TextFile;
use crate::corpus::Document;
use crate::corpus::check::{Check, OtherRows, PLAIN_FIELDS, Repeats};
use crate::corpus::place::DocumentPlace;
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
        let parse = |record: Record<'_>| parse_line(path, record, options);
        read_documents(path, Unit::Line, options, &parse, each)
    }

    fn create(&self, path: &Path) -> Option<Result<Box<dyn DocumentWriter>>> {
        let file = TextFile::create(path);
        Some(file.map(|file| Box::new(JsonlWriter { file, documents: 0 }) as _))
    }
}

/// The document of a line; `path` is for messages, and for the title of a line without one.
pub(super) fn parse_line(
    path: &Path,
    Record { text, row, line }: Record<'_>,
    options: &ReadOptions,
) -> Result<(Document, OtherRows)> {
    if text.trim_start().starts_with('[') {
        return Err(DataError::new(path, "the line is a list, not an object")
            .row(row)
            .hint("a JSON array of documents with DocRED's fields is --format docred")
            .into());
    }
    let mut raw: RawLine = json_stream::parse_line(path, text, row, line).map_err(|error| {
        if text.contains("\"vertexSet\"") {
            error.with_hint("documents with DocRED's fields are --format docred")
        } else {
            error
        }
    })?;
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let title = raw.take_title(&file_name, row);
    let has_words = raw.has_words();
    let (unchecked, told) =
        raw.unchecked(DocumentPlace { file: path, row, title: &title }, options)?;
    let relations = options.relations.as_ref();
    let (fields, repeats) = (&PLAIN_FIELDS, Repeats::Merge);
    let check = Check { file: path, row, relations, fields, repeats };
    let (mut document, others) = check.document(unchecked)?;
    let OtherRows { passed_over, mut found, .. } = told;
    if let Some(annotator) = options.annotator.as_ref().filter(|_| has_words) {
        found = annotator.annotate_words(&mut document);
    }
    Ok((document, OtherRows { passed_over, found, ..others }))
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
