//! The documents of a folder of shards by their row, the number over all shards.
//!
//! Where all of them fit into the memory that a store may take, they stay there, in the compact
//! columns they were read in. Otherwise the store holds some blocks (row groups) at a time and
//! reads others when they are asked for, which is fast for rows that lie together and for blocks
//! that it was told of before ([`DocumentStore::read_ahead`]). A row is made into a
//! [`TokenizedDocument`] on each [`DocumentStore::get`] (a few microseconds).
//!
//! All rows are read and checked when a store is opened. A file that changes afterwards is an error
//! that [`raise`](crate::base::raise) hands on.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use ahash::AHashMap;
use rayon::prelude::*;

use super::ShardManifest;
use super::blocks::Blocks;
use super::cache::{BlockCache, ReadAhead, or_raise};
use super::columns::ShardColumns;
use super::reader::StoreOptions;
use super::remote::at_hand;
use crate::base::{give_back_memory, lock};
use crate::corpus::RelationSet;
use crate::text::{TokenizedDocument, Tokenizer};
use crate::{Error, Result};

/// The folder of the tokeniser beside the shards.
pub(super) const TOKENIZER: &str = "tokenizer";

/// All documents of a folder of shards.
#[derive(Debug)]
pub struct DocumentStore {
    blocks: Arc<Blocks>,
    rows: StoredRows,
    /// Bytes of all blocks.
    bytes: u64,
    titles: OnceLock<AHashMap<String, usize>>,
}

/// Where the rows are.
#[derive(Debug)]
enum StoredRows {
    /// All in memory, by block.
    Held(Vec<Arc<ShardColumns>>),
    /// Some blocks at a time.
    Streamed(BlockStream),
}

/// Blocks that are read when they are needed.
#[derive(Debug)]
struct BlockStream {
    cache: Arc<BlockCache>,
    /// Blocks that take half of the memory at most.
    window: usize,
    /// The thread that reads ahead, once there is one, and what it was last asked for.
    ahead: Mutex<Option<(ReadAhead, u64)>>,
}

impl DocumentStore {
    /// Reads a folder of shards, row groups in parallel. A prefix in an object store (`s3://…`) is
    /// a folder, too: what is small is copied to this machine, row groups are fetched and kept on
    /// its disk, as many as fit.
    ///
    /// Errors: a data error for a missing or newer manifest and for files that differ from it or
    /// break the format; a recipe error for memory that does not hold two row groups; those of an
    /// object store.
    pub fn open(folder: &Path, options: StoreOptions) -> Result<Self> {
        let folder = at_hand(folder)?;
        Self::load(&folder, ShardManifest::read(&folder)?, options)
    }

    /// Reads the shards of a manifest that may not be on disk yet.
    pub(super) fn load(
        folder: &Path,
        manifest: ShardManifest,
        options: StoreOptions,
    ) -> Result<Self> {
        let blocks = Arc::new(Blocks::open(folder, manifest, options)?);
        let mut held = Vec::new();
        let (mut bytes, mut largest) = (0, 0);
        let numbers: Vec<usize> = (0..blocks.len()).collect();
        for part in numbers.chunks(rayon::current_num_threads()) {
            let read: Vec<Result<ShardColumns>> =
                part.par_iter().map(|&block| blocks.read(block)).collect();
            // Collected first, so that the first broken block is the one reported, whichever thread
            // met it.
            for columns in read {
                let columns = columns?;
                let size = columns.memory_bytes() as u64;
                (bytes, largest) = (bytes + size, size.max(largest));
                if bytes <= options.memory {
                    held.push(Arc::new(columns));
                } else {
                    held.clear();
                }
            }
        }
        let rows = if bytes <= options.memory {
            StoredRows::Held(held)
        } else {
            give_back_memory();
            StoredRows::Streamed(BlockStream::new(&blocks, largest, options.memory)?)
        };
        Ok(Self { blocks, rows, bytes, titles: OnceLock::new() })
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.manifest().documents
    }

    /// Whether there is no document.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A document by its row, which must be below [`len`](Self::len) as for a slice.
    pub fn get(&self, row: usize) -> Arc<TokenizedDocument> {
        self.at(row, |columns, row| Arc::new(columns.document(row)))
    }

    /// Title of a row.
    pub fn title(&self, row: usize) -> String {
        self.at(row, |columns, row| columns.title(row).to_owned())
    }

    /// The row of a title, the first one where a title repeats. Where not all documents are in
    /// memory, their titles are read.
    pub fn find_title(&self, title: &str) -> Option<usize> {
        if let StoredRows::Streamed(_) = self.rows {
            let mut found = None;
            self.each_title(&mut |row, own| {
                found = found.or_else(|| (own == title).then_some(row));
                found.is_none()
            });
            return found;
        }
        let titles = self
            .titles
            .get_or_init(|| (0..self.len()).rev().map(|row| (self.title(row), row)).collect());
        titles.get(title).copied()
    }

    /// Calls `each` with rows and titles, in order, until it returns false. No other column is read
    /// for this.
    pub fn each_title(&self, each: &mut dyn FnMut(usize, &str) -> bool) {
        let mut row = 0;
        for block in 0..self.blocks.len() {
            let titles = match &self.rows {
                StoredRows::Held(held) => {
                    (0..held[block].len()).map(|row| held[block].title(row).to_owned()).collect()
                }
                StoredRows::Streamed(_) => or_raise(self.blocks.titles(block)),
            };
            for title in titles {
                if !each(row, &title) {
                    return;
                }
                row += 1;
            }
        }
    }

    /// What the folder says about itself.
    pub fn manifest(&self) -> &ShardManifest {
        self.blocks.manifest()
    }

    /// The relations, in class order.
    pub fn relations(&self) -> &RelationSet {
        &self.manifest().relations
    }

    /// The folder of the shards.
    pub fn folder(&self) -> &Path {
        self.blocks.folder()
    }

    /// Bytes that the rows hold in memory now.
    pub fn memory_bytes(&self) -> usize {
        match &self.rows {
            StoredRows::Held(_) => self.bytes as usize,
            StoredRows::Streamed(stream) => stream.cache.bytes() as usize,
        }
    }

    /// Bytes that all rows would take in memory.
    pub fn whole_bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether all rows are in memory.
    pub fn is_held(&self) -> bool {
        matches!(self.rows, StoredRows::Held(_))
    }

    /// First row of each block, closed by the number of rows; [blocks + 1].
    pub fn block_starts(&self) -> &[usize] {
        self.blocks.starts()
    }

    /// The rows around a row whose blocks may be in memory together: all, where they are.
    pub fn run_of(&self, row: usize) -> Range<usize> {
        let (starts, run) = (self.block_starts(), self.window_blocks());
        let first = self.block_of(row) / run * run;
        starts[first]..starts[(first + run).min(starts.len() - 1)]
    }

    /// The block of a row, which must be below [`len`](Self::len).
    pub fn block_of(&self, row: usize) -> usize {
        self.blocks.locate(row).0
    }

    /// How many blocks may be used in turns: all of them where they are in memory, or else as many
    /// as take half of it, so that as many others can be read ahead. At least 1.
    pub fn window_blocks(&self) -> usize {
        match &self.rows {
            StoredRows::Held(held) => held.len().max(1),
            StoredRows::Streamed(stream) => stream.window,
        }
    }

    /// Has the blocks that `blocks` lists read on a thread, in their order. `key` tells one list
    /// from another: a list that was asked for last is not made again. Nothing happens where all
    /// rows are in memory.
    pub fn read_ahead(&self, key: u64, blocks: impl FnOnce() -> Vec<usize>) {
        let StoredRows::Streamed(stream) = &self.rows else { return };
        let mut ahead = lock(&stream.ahead);
        if ahead.as_ref().is_some_and(|(_, last)| *last == key) {
            return;
        }
        let (thread, last) = ahead.get_or_insert_with(|| (ReadAhead::start(&stream.cache), key));
        *last = key;
        thread.wish(blocks());
    }

    /// The tokeniser that made the pieces.
    ///
    /// Errors: a data error if the folder's tokeniser is another one than the manifest names.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let folder = self.folder().join(TOKENIZER);
        let tokenizer = Tokenizer::load(&folder, None)?;
        self.manifest().check_tokenizer(&folder, &tokenizer)?;
        Ok(tokenizer)
    }

    /// What `of` makes of the columns and the place of a row.
    fn at<T>(&self, row: usize, of: impl FnOnce(&ShardColumns, usize) -> T) -> T {
        let (block, row) = self.blocks.locate(row);
        match &self.rows {
            StoredRows::Held(held) => of(&held[block], row),
            StoredRows::Streamed(stream) => {
                let columns = or_raise(stream.cache.get(block));
                of(&columns, row)
            }
        }
    }

    /// The most bytes that blocks took at a time, and how many were read, where not all are held.
    #[cfg(test)]
    pub(crate) fn peak_and_reads(&self) -> Option<(u64, u64)> {
        match &self.rows {
            StoredRows::Held(_) => None,
            StoredRows::Streamed(stream) => Some(stream.cache.peak_and_reads()),
        }
    }
}

impl BlockStream {
    fn new(blocks: &Arc<Blocks>, largest: u64, memory: u64) -> Result<Self> {
        let window = memory / 2 / largest.max(1);
        if window == 0 {
            let folder = blocks.folder().display();
            let problem = format!(
                "{folder}: {memory} bytes of memory do not hold two row groups of documents, the \
                 largest of which takes {largest}"
            );
            let least = (2 * largest).div_ceil(1_000_000);
            return Err(Error::recipe(problem)
                .with_hint(format!("set data.memory to \"{least} MB\" or more")));
        }
        let cache = Arc::new(BlockCache::new(Arc::clone(blocks), largest, memory));
        Ok(Self { cache, window: window as usize, ahead: Mutex::new(None) })
    }
}

#[cfg(test)]
mod tests;
