//! The format's entry, and its reader, which goes document by document.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::raw::{RawDocument, Unread};
use super::writer::DocredWriter;
use crate::Result;
use crate::base::json_stream;
use crate::corpus::check::{Check, DOCRED_FIELDS, Repeats};
use crate::corpus::formats::format::{DocumentFormat, DocumentWriter, GoldDocuments};
use crate::corpus::formats::reading::{Intake, ReadOptions, ReadSummary};
use crate::corpus::{Document, RelationSet};

/// The format's name.
pub(in crate::corpus::formats) const NAME: &str = "docred";
/// The format's line of help.
pub(in crate::corpus::formats) const ABOUT: &str =
    "DocRED's JSON array: DocRED, Re-DocRED, DWIE, the generated world";

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
        read::<String>(path, options.relations.as_ref(), Repeats::Merge, each)
    }

    /// Keeps every label row as it stands: DocRED's scorer counts the evidence of each row, and
    /// takes that of the last row of a fact (docs/scores.md, "Evidence"). No scorer reads words:
    /// sentences have as many as the file gives them, all empty.
    fn read_gold(&self, path: &Path) -> Result<GoldDocuments> {
        let mut documents = Vec::new();
        read::<Unread>(path, None, Repeats::Keep, &mut |document| {
            documents.push(document);
            Ok(())
        })?;
        Ok(GoldDocuments { documents, pairs: None })
    }

    fn create(&self, path: &Path) -> Option<Result<Box<dyn DocumentWriter>>> {
        Some(DocredWriter::create(path).map(|writer| Box::new(writer) as _))
    }
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
        intake.take(&document, duplicates)?;
        each(document)
    })?;
    Ok(intake.summary)
}
