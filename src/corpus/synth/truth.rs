//! Reading `truth.json`: which labels of a generated world's distant documents are true.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use crate::{DataError, Result};

/// Which distant labels the documents express.
#[derive(Clone, Debug)]
pub struct Truth(HashMap<String, Vec<bool>>);

impl Truth {
    /// Reads `truth.json`.
    ///
    /// # Errors
    /// A file that cannot be read, or holds something else.
    pub fn load(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Known {
            labels: Vec<bool>,
        }
        let documents: HashMap<String, Known> = serde_json::from_slice(&fs_err::read(path)?)
            .map_err(|error| DataError::new(path, error.to_string()))?;
        Ok(Self(documents.into_iter().map(|(title, known)| (title, known.labels)).collect()))
    }

    /// Whether the document of this title expresses its label of this number; `None` for a title or
    /// a label that the world does not know.
    pub fn of(&self, title: &str, label: usize) -> Option<bool> {
        self.0.get(title)?.get(label).copied()
    }
}
