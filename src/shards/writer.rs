//! Writing encoded documents as Parquet shards.
//!
//! The number of shards is part of their names and known only at the end, so shards carry a temporary name until [`ShardWriter::finish`].
//! The Parquet library writes no page checksums; each file's hash stands in the manifest instead.

use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::files::HashingFile;
use super::{FileEntry, columns, schema};
use crate::text::EncodedDocument;
use crate::{DataError, Error, Result};

/// How rows are cut into files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// Documents in a shard, but for the last one.
    pub rows_per_shard: usize,
    /// Documents in a row group, the unit of reading.
    pub row_group_rows: usize,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { rows_per_shard: 16_384, row_group_rows: 1_024 }
    }
}

/// Writes shards into a folder; the caller publishes the folder.
#[derive(Debug)]
pub struct ShardWriter {
    folder: PathBuf,
    options: WriteOptions,
    pending: Vec<EncodedDocument>,
    current: Option<TableWriter>,
    done: Vec<FileEntry>,
    totals: Totals,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// The shards, in order.
    pub shards: Vec<FileEntry>,
    /// Counts over all rows.
    pub totals: Totals,
}

/// Counts over the rows of a corpus; see [`Manifest`](super::Manifest).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Documents with labels.
    pub labelled: usize,
    /// Facts.
    pub facts: usize,
    /// Entity types, sorted.
    pub entity_types: std::collections::BTreeSet<String>,
    /// Pieces of the longest document.
    pub max_pieces: usize,
    /// Entities of the document with the most.
    pub max_entities: usize,
    /// Mentions of the entity with the most.
    pub max_mentions: usize,
}

impl Totals {
    fn add(&mut self, document: &EncodedDocument) {
        self.labelled += usize::from(document.labelled);
        self.facts += document.facts.len();
        self.max_pieces = self.max_pieces.max(document.pieces.len());
        self.max_entities = self.max_entities.max(document.entities.len());
        for entity in &document.entities {
            self.max_mentions = self.max_mentions.max(entity.mentions.len());
            if !self.entity_types.contains(&entity.entity_type) {
                self.entity_types.insert(entity.entity_type.clone());
            }
        }
    }
}

impl ShardWriter {
    /// Starts writing into a folder that exists.
    ///
    /// Errors: a recipe error for shards or row groups of no rows.
    pub fn new(folder: &Path, options: WriteOptions) -> Result<Self> {
        if options.rows_per_shard == 0 || options.row_group_rows == 0 {
            return Err(Error::recipe("a shard or row group of 0 rows").with_hint("give at least 1 row a shard and row group"));
        }
        Ok(Self { folder: folder.to_owned(), options, pending: Vec::new(), current: None, done: Vec::new(), totals: Totals::default() })
    }

    /// Appends a row.
    pub fn push(&mut self, document: EncodedDocument) -> Result<()> {
        self.totals.add(&document);
        self.pending.push(document);
        let rows = self.current.as_ref().map_or(0, |shard| shard.rows) + self.pending.len();
        if self.pending.len() == self.options.row_group_rows || rows == self.options.rows_per_shard {
            self.write_group()?;
        }
        if rows == self.options.rows_per_shard { self.close_shard() } else { Ok(()) }
    }

    /// Writes what is pending, renames the shards and reports them.
    pub fn finish(mut self) -> Result<Written> {
        self.write_group()?;
        self.close_shard()?;
        let count = self.done.len();
        for (number, entry) in self.done.iter_mut().enumerate() {
            let name = format!("train-{number:05}-of-{count:05}.parquet");
            fs_err::rename(self.folder.join(&entry.file), self.folder.join(&name))?;
            entry.file = name;
        }
        Ok(Written { shards: self.done, totals: self.totals })
    }

    fn write_group(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut shard = match self.current.take() {
            Some(shard) => shard,
            None => TableWriter::create(&self.folder, format!("train-{:05}.partial", self.done.len()), schema::shard_schema())?,
        };
        let batch = columns::to_batch(&self.pending).map_err(|error| Error::Bug(format!("building a row group: {error}")))?;
        shard.write_group(&batch)?;
        self.pending.clear();
        self.current = Some(shard);
        Ok(())
    }

    fn close_shard(&mut self) -> Result<()> {
        if let Some(shard) = self.current.take() {
            self.done.push(shard.close()?);
        }
        Ok(())
    }
}

/// Writes one Parquet file, a row group a batch.
#[derive(Debug)]
pub(super) struct TableWriter {
    path: PathBuf,
    file: String,
    writer: ArrowWriter<HashingFile>,
    rows: usize,
    row_groups: usize,
}

impl TableWriter {
    /// Creates `folder/file`.
    pub(super) fn create(folder: &Path, file: String, schema: SchemaRef) -> Result<Self> {
        let path = folder.join(&file);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            // Row groups are cut by the caller, and no reader filters by value.
            .set_max_row_group_row_count(None)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_created_by(concat!("docre-pretrain ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let output = HashingFile::create(&path)?;
        let writer = ArrowWriter::try_new(output, schema, Some(properties)).map_err(|error| write_error(&path, error))?;
        Ok(Self { path, file, writer, rows: 0, row_groups: 0 })
    }

    /// Writes a batch as a row group.
    pub(super) fn write_group(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).and_then(|()| self.writer.flush()).map_err(|error| write_error(&self.path, error))?;
        self.rows += batch.num_rows();
        self.row_groups += 1;
        Ok(())
    }

    /// Closes the file and describes it.
    pub(super) fn close(self) -> Result<FileEntry> {
        // Writes the footer too.
        let output = self.writer.into_inner().map_err(|error| write_error(&self.path, error))?;
        let (bytes, blake3) = output.seal()?;
        Ok(FileEntry { file: self.file, rows: self.rows, row_groups: self.row_groups, bytes, blake3 })
    }
}

/// A disk that fails while writing is an I/O error; anything else is ours.
fn write_error(path: &Path, error: ParquetError) -> Error {
    match error {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(error) => Error::Io(*error),
            Err(source) => Error::Bug(format!("writing {}: {source}", path.display())),
        },
        other => Error::Bug(format!("writing {}: {other}", path.display())),
    }
}

/// A broken Parquet file, for readers.
pub(super) fn read_error(path: &Path, problem: impl std::fmt::Display) -> DataError {
    DataError::new(path, problem.to_string()).hint("the file is damaged or was not written by docre-pretrain; prepare the shards again")
}

#[cfg(test)]
mod tests;
