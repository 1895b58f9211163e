//! All rows of a folder of shards in memory, in the compact columns they were read in; row = number
//! over all shards.
//!
//! A row is made into an [`TokenizedDocument`] on each [`DocumentStore::get`] (a few microseconds),
//! so the store costs little more than the numbers themselves. Not for: corpora beyond the memory
//! of a rank, see "Scale" in `docs/design.md`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ahash::AHashMap;
use rayon::prelude::*;

use super::ShardManifest;
use super::columns::ShardColumns;
use super::reader::{ShardReader, StoreOptions};
use crate::Result;
use crate::corpus::RelationSet;
use crate::text::{TokenizedDocument, Tokenizer};

/// The folder of the tokeniser beside the shards.
pub(super) const TOKENIZER: &str = "tokenizer";

/// All documents of a folder of shards.
#[derive(Debug)]
pub struct DocumentStore {
    folder: PathBuf,
    manifest: ShardManifest,
    groups: Vec<ShardColumns>,
    /// First row of each group, closed by the number of rows.
    starts: Vec<usize>,
    titles: OnceLock<AHashMap<String, usize>>,
}

impl DocumentStore {
    /// Reads a folder of shards, row groups in parallel.
    ///
    /// Errors: a data error for a missing or newer manifest and for files that differ from it or
    /// break the format.
    pub fn open(folder: &Path, options: StoreOptions) -> Result<Self> {
        Self::load(folder, ShardManifest::read(folder)?, options)
    }

    /// Reads the shards of a manifest that may not be on disk yet.
    pub(super) fn load(
        folder: &Path,
        manifest: ShardManifest,
        options: StoreOptions,
    ) -> Result<Self> {
        let readers: Vec<Result<ShardReader>> = manifest
            .shards
            .par_iter()
            .map(|shard| ShardReader::open(folder, &manifest, shard, options))
            .collect();
        let readers = readers.into_iter().collect::<Result<Vec<_>>>()?;
        let tasks: Vec<(&ShardReader, usize)> = readers
            .iter()
            .flat_map(|reader| (0..reader.num_row_groups()).map(move |group| (reader, group)))
            .collect();
        let groups: Vec<Result<ShardColumns>> =
            tasks.into_par_iter().map(|(reader, group)| reader.columns(group)).collect();
        // Collected twice so that the first broken group is the one reported, whichever thread met
        // it.
        let groups = groups.into_iter().collect::<Result<Vec<_>>>()?;
        let mut starts = vec![0];
        starts.extend(groups.iter().scan(0, |rows, group| {
            *rows += group.len();
            Some(*rows)
        }));
        Ok(Self { folder: folder.to_owned(), manifest, groups, starts, titles: OnceLock::new() })
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.manifest.documents
    }

    /// Whether there is no document.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A document by its row, which must be below [`len`](Self::len) as for a slice.
    pub fn get(&self, row: usize) -> Arc<TokenizedDocument> {
        let (group, row) = self.locate(row);
        Arc::new(group.document(row))
    }

    /// Title of a row.
    pub fn title(&self, row: usize) -> &str {
        let (group, row) = self.locate(row);
        group.title(row)
    }

    /// The row of a title, the first one where a title repeats.
    pub fn find_title(&self, title: &str) -> Option<usize> {
        let titles = self.titles.get_or_init(|| {
            (0..self.len()).rev().map(|row| (self.title(row).to_owned(), row)).collect()
        });
        titles.get(title).copied()
    }

    /// What the folder says about itself.
    pub fn manifest(&self) -> &ShardManifest {
        &self.manifest
    }

    /// The relations, in class order.
    pub fn relations(&self) -> &RelationSet {
        &self.manifest.relations
    }

    /// The folder of the shards.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes that the rows hold in memory.
    pub fn memory_bytes(&self) -> usize {
        self.groups.iter().map(ShardColumns::memory_bytes).sum()
    }

    /// The tokeniser that made the pieces.
    ///
    /// Errors: a data error if the folder's tokeniser is another one than the manifest names.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let folder = self.folder.join(TOKENIZER);
        let tokenizer = Tokenizer::load(&folder, None)?;
        self.manifest.check_tokenizer(&folder, &tokenizer)?;
        Ok(tokenizer)
    }

    fn locate(&self, row: usize) -> (&ShardColumns, usize) {
        let group = self.starts.partition_point(|&start| start <= row) - 1;
        (&self.groups[group], row - self.starts[group])
    }
}

#[cfg(test)]
mod tests;
