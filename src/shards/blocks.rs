//! The row groups of all shards of a folder, numbered through: blocks, the unit in which documents
//! are read.
//!
//! Only places are kept, so a folder of any size costs little. Not for: holding blocks in memory
//! (`cache`).

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::columns::ShardColumns;
use super::files::read_error;
use super::reader::{ShardPlace, ShardReader, StoreOptions};
use super::remote::RemoteShards;
use super::{FileEntry, ShardManifest};
use crate::text::TokenizedDocument;
use crate::{Error, Result};

/// Where the blocks of a folder of shards are.
#[derive(Debug)]
pub(super) struct Blocks {
    folder: PathBuf,
    manifest: ShardManifest,
    options: StoreOptions,
    /// Where the shards are, if not in the folder.
    remote: Option<RemoteShards>,
    /// Shard and row group of each block.
    places: Vec<(usize, usize)>,
    /// First row of each block, closed by the number of rows.
    starts: Vec<usize>,
}

impl Blocks {
    /// Opens all shards of a manifest, which may not be on disk yet, and notes where their row
    /// groups are.
    ///
    /// Errors: a data error for files that differ from the manifest.
    pub(super) fn open(
        folder: &Path,
        manifest: ShardManifest,
        options: StoreOptions,
    ) -> Result<Self> {
        let remote = RemoteShards::of(folder, options.disk)?;
        Self::over(folder, manifest, options, remote)
    }

    /// As [`Self::open`], of shards that may lie elsewhere.
    pub(super) fn over(
        folder: &Path,
        manifest: ShardManifest,
        options: StoreOptions,
        remote: Option<RemoteShards>,
    ) -> Result<Self> {
        let rows = |shard: &FileEntry| {
            let place = ShardPlace { folder, remote: remote.as_ref() };
            Ok(ShardReader::open(place, &manifest, shard, options)?.group_rows())
        };
        let rows: Vec<Result<Vec<usize>>> = manifest.shards.par_iter().map(rows).collect();
        let (mut places, mut starts) = (Vec::new(), vec![0]);
        for (shard, rows) in rows.into_iter().enumerate() {
            for (group, rows) in rows?.into_iter().enumerate() {
                places.push((shard, group));
                starts.push(starts[starts.len() - 1] + rows);
            }
        }
        // Later reads find the files by length and footer; their hashes are known.
        let options = StoreOptions { verify: false, ..options };
        let folder = folder.to_owned();
        Ok(Self { folder, manifest, options, remote, places, starts })
    }

    /// Number of blocks.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// First row of each block, closed by the number of rows; [blocks + 1].
    pub(super) fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// The block of a row, and its row there.
    pub(super) fn locate(&self, row: usize) -> (usize, usize) {
        let block = self.starts.partition_point(|&start| start <= row) - 1;
        (block, row - self.starts[block])
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the folder says about itself.
    pub(super) fn manifest(&self) -> &ShardManifest {
        &self.manifest
    }

    /// The columns of a block, every row checked.
    ///
    /// Errors: a data error for a file that is damaged or was replaced.
    pub(super) fn read(&self, block: usize) -> Result<ShardColumns> {
        let columns = self.reader(block)?.columns(self.places[block].1)?;
        let rows = self.starts[block + 1] - self.starts[block];
        if columns.len() == rows {
            return Ok(columns);
        }
        let (shard, group) = self.places[block];
        let path = self.folder.join(&self.manifest.shards[shard].file);
        let problem = format!("row group {group} had {rows} rows and has {} now", columns.len());
        Err(read_error(&path, problem).into())
    }

    /// The documents of a block.
    ///
    /// Errors: as [`Self::read`].
    pub(super) fn documents(&self, block: usize) -> Result<Vec<TokenizedDocument>> {
        let columns = self.read(block)?;
        Ok((0..columns.len()).map(|row| columns.document(row)).collect())
    }

    /// The titles of a block; no other column is read.
    ///
    /// Errors: as [`Self::read`].
    pub(super) fn titles(&self, block: usize) -> Result<Vec<String>> {
        self.reader(block)?.titles(self.places[block].1)
    }

    fn reader(&self, block: usize) -> Result<ShardReader> {
        let shard = &self.manifest.shards[self.places[block].0];
        let place = ShardPlace { folder: &self.folder, remote: self.remote.as_ref() };
        ShardReader::open(place, &self.manifest, shard, self.options)
    }
}

/// The items of lists one by one; a list that is an error is one item.
pub(super) fn each_or_error<T>(
    lists: impl Iterator<Item = Result<Vec<T>, Error>>,
) -> impl Iterator<Item = Result<T>> {
    lists.flat_map(|list| match list {
        Ok(items) => items.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    })
}
