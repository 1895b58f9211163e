//! Reads DocRED files document by document.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::raw::{RawDocument, Unread};
use crate::Result;
use crate::base::json_stream;
use crate::corpus::check::{Check, DOCRED_FIELDS, Repeats};
use crate::corpus::formats::reading::Intake;
use crate::corpus::formats::{ReadOptions, ReadSummary};
use crate::corpus::{Document, RelationSet};

/// Reads `path` (a JSON array of documents, gzip if it ends in `.gz`) and hands every checked
/// document to `each`, in file order.
///
/// Documents are parsed and checked on all cores, some hundred of them ahead of `each`; 24 bytes a
/// title find titles that repeat.
///
/// # Errors
/// A [`DataError`](crate::DataError) naming file, row, title, field and value for everything that
/// breaks the format; an I/O error for an unreadable file; whatever `each` returns.
pub fn read_documents(
    path: &Path,
    options: &ReadOptions,
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<ReadSummary> {
    read::<String>(path, options.relations.as_ref(), Repeats::Merge, each)
}

/// All documents of a file with every label row as it stands: DocRED's scorer counts the evidence
/// of each row, and takes that of the last row of a fact (docs/scores.md, "Evidence"). No scorer
/// reads words: sentences have as many as the file gives them, all empty.
///
/// # Errors
/// Those of [`read_documents`].
pub fn read_gold(path: &Path) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    read::<Unread>(path, None, Repeats::Keep, &mut |document| {
        documents.push(document);
        Ok(())
    })?;
    Ok(documents)
}

fn read<W: DeserializeOwned + Into<String>>(
    path: &Path,
    relations: Option<&RelationSet>,
    repeats: Repeats,
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<ReadSummary> {
    let mut intake = Intake::default();
    let check = |row: usize, raw: RawDocument<W>| {
        Check { file: path, row, relations, fields: &DOCRED_FIELDS, repeats }.document(raw.into())
    };
    json_stream::read_array_with(path, &check, &mut |_, (document, duplicates)| {
        intake.take(path, &document, duplicates)?;
        each(document)
    })?;
    Ok(intake.summary)
}

/// All documents of a file at once, for corpora that fit into memory.
///
/// # Errors
/// Those of [`read_documents`].
pub fn read_all(path: &Path, options: &ReadOptions) -> Result<(Vec<Document>, ReadSummary)> {
    let mut documents = Vec::new();
    let summary = read_documents(path, options, &mut |document| {
        documents.push(document);
        Ok(())
    })?;
    Ok((documents, summary))
}
