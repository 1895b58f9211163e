//! Files of documents in any format, as the stages take them.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::corpus::formats::{ReadOptions, ReadSummary};
use crate::corpus::{Document, Format};

/// A file of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
}

impl Input {
    /// A file in DocRED's form, as this program writes them.
    pub fn docred(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), format: Format::DOCRED }
    }

    /// Files of one format.
    pub fn all(paths: &[PathBuf], format: Format) -> Vec<Self> {
        paths.iter().map(|path| Self { path: path.clone(), format }).collect()
    }

    /// Hands every document to `each`, in file order.
    ///
    /// # Errors
    /// As [`Format::read`].
    pub fn read(
        &self,
        options: &ReadOptions,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<ReadSummary> {
        self.format.read(&self.path, options, each)
    }
}
