//! The place of a document in its file, for error messages.

use std::path::Path;

use crate::DataError;

/// File, row and title of a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DocumentPlace<'a> {
    pub file: &'a Path,
    /// Index of the document in the file, from 0.
    pub row: usize,
    pub title: &'a str,
}

impl DocumentPlace<'_> {
    /// An error about one field of the document.
    pub(crate) fn error(self, field: impl Into<String>, problem: impl Into<String>) -> DataError {
        DataError::new(self.file, problem).row(self.row).title(self.title).field(field)
    }
}
