//! What a file format of documents provides: its names, a reader, and a writer where there is one.
//!
//! Not for: the list of formats (`formats`), or what all readers check (`reading`).

use std::panic::RefUnwindSafe;
use std::path::Path;

use super::reading::{ReadOptions, ReadSummary};
use crate::corpus::{Document, LabelledPair};
use crate::{Error, Result};

/// A file format of documents.
pub trait DocumentFormat: Sync + RefUnwindSafe {
    /// Its names (`--format`, `data.format` in a recipe), each with a line of help.
    fn names(&self) -> &'static [(&'static str, &'static str)];

    /// Reads `path` (plain or gzip) and hands every checked document to `each`, in file
    /// order. A file of any size costs the memory of a few blocks.
    ///
    /// # Errors
    /// A [`DataError`](crate::DataError) naming file, row, title and field for everything that
    /// breaks the format; an I/O error for an unreadable file; whatever `each` returns.
    fn read(
        &self,
        path: &Path,
        options: &ReadOptions,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<ReadSummary>;

    /// Reads labelled documents as the scorers of the format's corpora need them.
    ///
    /// # Errors
    /// Those of [`Self::read`]; a recipe error for a format without a scorer.
    fn read_gold(&self, path: &Path) -> Result<GoldDocuments> {
        let problem = format!("{}: this format has no scorer", path.display());
        Err(Error::recipe(problem).with_hint("convert the documents to docred first"))
    }

    /// Starts a file; `None` if the format is only read. Missing folders are made, and the file
    /// appears when it is finished.
    fn create(&self, _path: &Path) -> Option<Result<Box<dyn DocumentWriter>>> {
        None
    }
}

/// Writes documents into one file.
pub trait DocumentWriter {
    /// Adds a document.
    ///
    /// # Errors
    /// I/O errors; a [`DataError`](crate::DataError) for a document that the format would confuse.
    fn write(&mut self, document: Document) -> Result<()>;

    /// Gives the file its name.
    ///
    /// # Errors
    /// I/O errors; the file does not appear then.
    fn finish(self: Box<Self>) -> Result<WriteSummary>;
}

/// What a writer wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSummary {
    /// Documents.
    pub documents: usize,
    /// What the format could not hold, in words; empty if nothing was lost.
    pub losses: String,
}

/// Labelled documents, with their lists of pairs where the corpus has them.
#[derive(Debug)]
pub struct GoldDocuments {
    /// The documents.
    pub documents: Vec<Document>,
    /// The listed pairs of each document; `None` if every ordered pair is asked about.
    pub pairs: Option<Vec<Vec<LabelledPair>>>,
    /// What the user should be told of the file.
    pub warnings: Vec<String>,
}
