//! JSONL, the format for people's own text: a document a line, as running text with mentions as
//! spans of characters, or as sentences of words with mentions as spans of words. `docs/formats.md`
//! shows both.
//!
//! Written as words, it holds everything that a [`Document`] does. Not for: DocRED's JSON array.

mod line;
mod writer;

use std::path::Path;

use self::line::RawLine;
use super::reading::Intake;
use super::{ReadOptions, ReadSummary};
use crate::Result;
use crate::base::json_stream;
use crate::base::records::{Record, Unit, read_records};
use crate::corpus::Document;
use crate::corpus::check::{Check, PLAIN_FIELDS, Repeats};

pub use writer::JsonlWriter;

/// Reads `path` (gzip if it ends in `.gz`) on all cores and hands every checked document to `each`,
/// in file order.
///
/// # Errors
/// A [`DataError`](crate::DataError) naming file, row, title and field for everything that breaks
/// the format, unknown fields included; an I/O error for an unreadable file; whatever `each`
/// returns.
pub fn read_jsonl(
    path: &Path,
    options: &ReadOptions,
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<ReadSummary> {
    let mut intake = Intake::default();
    let work = |record: Record<'_>| {
        let raw: RawLine = json_stream::parse_line(path, record.text, record.row, record.line)?;
        let unchecked = raw.unchecked(path, record.row)?;
        Check {
            file: path,
            row: record.row,
            relations: options.relations.as_ref(),
            fields: &PLAIN_FIELDS,
            repeats: Repeats::Merge,
        }
        .document(unchecked)
    };
    read_records(path, Unit::Line, &work, &mut |(document, duplicates)| {
        intake.take(path, &document, duplicates)?;
        each(document)
    })?;
    Ok(intake.summary)
}

#[cfg(test)]
mod tests;
