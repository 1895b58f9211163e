//! The file formats of documents, one folder or file each, and the list of them.
//!
//! Not for: what a document is (`corpus::document`) or what is checked in every document
//! (`corpus::check`).

mod annotated;
mod chemdisgene;
pub mod docred;
pub mod eog;
pub mod jsonl;
pub mod pubtator;
mod reading;
mod segment;

pub use docred::{DocredWriter, load_relations, read_all, read_documents, read_gold};
pub use eog::{
    EogDocument, EogLosses, EogSummary, EogWriter, LabelledPair, PairLabel, read_all_eog, read_eog,
};
pub use jsonl::JsonlWriter;
pub use reading::{ReadOptions, ReadSummary, TitleKey, title_key};

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::chemdisgene::read_chemdisgene;
use self::eog::read_eog_documents;
use self::jsonl::read_jsonl;
use self::pubtator::read_pubtator;
use super::Document;

use crate::Result;

/// A format of documents.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// DocRED's JSON array: DocRED, Re-DocRED, DWIE, the generated world
    #[default]
    Docred,
    /// CDR as edge-oriented-graph's table
    Cdr,
    /// GDA as edge-oriented-graph's table
    Gda,
    /// BioRED as edge-oriented-graph's table
    Biored,
    /// PubTator text
    Pubtator,
    /// ChemDisGene: human annotation (JSON) or distant labels (PubTator with a table of relations)
    Chemdisgene,
    /// A document a line, as text or as words
    Jsonl,
}

impl Format {
    /// Reads `path` (gzip if it ends in `.gz`) and hands every checked document to `each`, in file
    /// order. Documents are parsed on all cores, some hundred of them ahead of `each`; a file of
    /// any size costs the memory of a few blocks.
    ///
    /// # Errors
    /// A [`DataError`](crate::DataError) naming file, row, title and field for everything that
    /// breaks the format; an I/O error for an unreadable file; whatever `each` returns.
    pub fn read(
        self,
        path: &Path,
        options: &ReadOptions,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<ReadSummary> {
        match self {
            Self::Docred => read_documents(path, options, each),
            Self::Cdr | Self::Gda | Self::Biored => read_eog_documents(path, options, each),
            Self::Pubtator => read_pubtator(path, options, each),
            Self::Chemdisgene => read_chemdisgene(path, options, each),
            Self::Jsonl => read_jsonl(path, options, each),
        }
    }

    /// All documents of a file at once, for corpora that fit into memory.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub fn read_all(
        self,
        path: &Path,
        options: &ReadOptions,
    ) -> Result<(Vec<Document>, ReadSummary)> {
        let mut documents = Vec::new();
        let summary = self.read(path, options, &mut |document| {
            documents.push(document);
            Ok(())
        })?;
        Ok((documents, summary))
    }
}
