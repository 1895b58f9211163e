//! Writing tokenised documents as Parquet shards.
//!
//! Documents become [`DocumentGroup`]s on any thread and are appended in order. The number of
//! shards is part of their names and known only at the end, so shards carry a temporary name until
//! [`ShardWriter::finish`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedFileWriter;
use tempfile::TempDir;

use super::files::{self, HashingFile};
use super::groups::{self, GroupBuilder, RowGroup};
use super::{FileEntry, columns, schema};
use crate::base::files::{folder_of, plain_target};
use crate::text::TokenizedDocument;
use crate::{Error, Result};

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

impl WriteOptions {
    /// Rows of the group that begins with row `row` of the corpus: groups end where shards end.
    pub(super) fn group_rows(&self, row: usize) -> usize {
        self.row_group_rows.min(self.rows_per_shard - row % self.rows_per_shard)
    }
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct WrittenShards {
    /// The shards, in order.
    pub(super) shards: Vec<FileEntry>,
    /// Counts over all rows.
    pub(super) totals: Totals,
}

/// Counts over rows; see [`ShardManifest`](super::ShardManifest).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) labelled: usize,
    pub(super) facts: usize,
    pub(super) entity_types: std::collections::BTreeSet<String>,
    pub(super) max_pieces: usize,
    pub(super) max_entities: usize,
    pub(super) max_mentions: usize,
}

impl Totals {
    fn add(&mut self, document: &TokenizedDocument) {
        self.labelled += usize::from(document.labelled);
        self.facts += document.facts.len();
        self.max_pieces = self.max_pieces.max(document.pieces.len());
        self.max_entities = self.max_entities.max(document.entities.len());
        for entity in &document.entities {
            self.max_mentions = self.max_mentions.max(entity.mentions.len());
            let own = entity.mentions.iter().filter_map(|mention| mention.own_type.as_ref());
            for name in own
                .chain([&entity.entity_type])
                .filter(|name| !self.entity_types.contains(*name))
                .collect::<Vec<_>>()
            {
                self.entity_types.insert(name.clone());
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.labelled += other.labelled;
        self.facts += other.facts;
        self.entity_types.extend(other.entity_types);
        self.max_pieces = self.max_pieces.max(other.max_pieces);
        self.max_entities = self.max_entities.max(other.max_entities);
        self.max_mentions = self.max_mentions.max(other.max_mentions);
    }
}

/// Documents as columns, a part of a row group or all of it: a fifth of what they take as single
/// strings.
#[derive(Debug)]
pub(super) struct DocumentColumns {
    batch: RecordBatch,
    totals: Totals,
}

impl DocumentColumns {
    pub(super) fn of(documents: &[TokenizedDocument]) -> Result<Self> {
        let mut totals = Totals::default();
        documents.iter().for_each(|document| totals.add(document));
        let batch = columns::to_batch(documents)
            .map_err(|error| Error::Bug(format!("building a row group: {error}")))?;
        Ok(Self { batch, totals })
    }

    /// Bytes of the columns.
    #[cfg(test)]
    pub(super) fn num_bytes(&self) -> usize {
        self.batch
            .columns()
            .iter()
            .map(|column| column.to_data().get_slice_memory_size().unwrap())
            .sum()
    }
}

/// A row group of documents with their counts.
#[derive(Debug)]
pub(super) struct DocumentGroup {
    group: RowGroup,
    totals: Totals,
}

impl DocumentGroup {
    /// Builds a row group from its parts, in order.
    pub(super) fn build(builder: &mut GroupBuilder, parts: Vec<DocumentColumns>) -> Result<Self> {
        let mut totals = Totals::default();
        let take = |part: DocumentColumns| {
            totals.merge(part.totals);
            part.batch
        };
        let group = builder.build_joined(parts.into_iter().map(take).collect())?;
        Ok(Self { group, totals })
    }
}

/// Writes shards into a folder; the caller publishes the folder.
#[derive(Debug)]
pub(super) struct ShardWriter {
    folder: PathBuf,
    rows_per_shard: usize,
    current: Option<TableWriter>,
    done: Vec<FileEntry>,
    totals: Totals,
}

impl ShardWriter {
    /// Starts writing into a folder that exists.
    ///
    /// Errors: a recipe error for shards or row groups of no rows.
    pub(super) fn new(folder: &Path, options: WriteOptions) -> Result<Self> {
        if options.rows_per_shard == 0 || options.row_group_rows == 0 {
            return Err(Error::recipe("a shard or row group of 0 rows")
                .with_hint("give at least 1 row a shard and row group"));
        }
        let rows_per_shard = options.rows_per_shard;
        Ok(Self {
            folder: folder.to_owned(),
            rows_per_shard,
            current: None,
            done: Vec::new(),
            totals: Totals::default(),
        })
    }

    /// Appends a row group of [`WriteOptions::group_rows`] rows.
    pub(super) fn push(&mut self, group: DocumentGroup) -> Result<()> {
        self.totals.merge(group.totals);
        let mut shard = match self.current.take() {
            Some(shard) => shard,
            None => TableWriter::create(
                &self.folder,
                format!("train-{:05}.partial", self.done.len()),
                schema::shard_schema(),
            )?,
        };
        shard.write_group(group.group)?;
        if shard.rows >= self.rows_per_shard {
            self.done.push(shard.close()?);
        } else {
            self.current = Some(shard);
        }
        Ok(())
    }

    /// Closes the last shard, renames all and reports them.
    pub(super) fn finish(mut self) -> Result<WrittenShards> {
        if let Some(shard) = self.current.take() {
            self.done.push(shard.close()?);
        }
        let count = self.done.len();
        for (number, entry) in self.done.iter_mut().enumerate() {
            let name = format!("train-{number:05}-of-{count:05}.parquet");
            fs_err::rename(self.folder.join(&entry.file), self.folder.join(&name))?;
            entry.file = name;
        }
        Ok(WrittenShards { shards: self.done, totals: self.totals })
    }
}

/// Writes documents one after another on this thread.
pub(super) fn write_documents(
    folder: &Path,
    options: WriteOptions,
    documents: impl IntoIterator<Item = Result<TokenizedDocument>>,
) -> Result<WrittenShards> {
    let mut writer = ShardWriter::new(folder, options)?;
    let mut builder = GroupBuilder::new(schema::shard_schema())?;
    let mut group = |documents: &[TokenizedDocument]| {
        DocumentGroup::build(&mut builder, vec![DocumentColumns::of(documents)?])
    };
    let (mut row, mut pending) = (0, Vec::new());
    for document in documents {
        pending.push(document?);
        if pending.len() == options.group_rows(row) {
            row += pending.len();
            writer.push(group(&std::mem::take(&mut pending))?)?;
        }
    }
    if !pending.is_empty() {
        writer.push(group(&pending)?)?;
    }
    writer.finish()
}

/// Writes one Parquet file, row group after row group.
#[derive(Debug)]
pub(super) struct TableWriter {
    path: PathBuf,
    file: String,
    writer: SerializedFileWriter<HashingFile>,
    rows: usize,
    row_groups: usize,
}

impl TableWriter {
    /// Creates `folder/file`.
    pub(super) fn create(folder: &Path, file: String, schema: SchemaRef) -> Result<Self> {
        let path = folder.join(&file);
        let output = HashingFile::create(&path)?;
        let writer = ArrowWriter::try_new(output, schema, Some(groups::properties()))
            .and_then(ArrowWriter::into_serialized_writer);
        let (writer, _) = writer.map_err(|error| write_error(&path, error))?;
        Ok(Self { path, file, writer, rows: 0, row_groups: 0 })
    }

    /// Appends a row group.
    pub(super) fn write_group(&mut self, group: RowGroup) -> Result<()> {
        append(&mut self.writer, group.columns).map_err(|error| write_error(&self.path, error))?;
        self.rows += group.rows;
        self.row_groups += 1;
        Ok(())
    }

    /// Closes the file and describes it.
    pub(super) fn close(mut self) -> Result<FileEntry> {
        // Writes the footer and what is buffered. `into_inner` would do so too, but turns an error
        // of the disk into text.
        self.writer.finish().map_err(|error| write_error(&self.path, error))?;
        let (bytes, blake3) = self.writer.inner_mut().seal()?;
        Ok(FileEntry {
            file: self.file,
            rows: self.rows,
            row_groups: self.row_groups,
            bytes,
            blake3,
        })
    }
}

/// A Parquet file that appears whole or not at all: it is written in a folder beside its place, and
/// moved there when finished.
#[derive(Debug)]
pub(crate) struct WholeTable {
    target: PathBuf,
    folder: TempDir,
    schema: SchemaRef,
    table: TableWriter,
    builder: GroupBuilder,
}

impl WholeTable {
    /// Name of the table while it is being made.
    const PARTIAL: &str = "table.parquet";

    /// Starts a table that will stand at `target`; missing folders are made.
    pub(crate) fn create(target: &Path, schema: SchemaRef) -> Result<Self> {
        let target = plain_target(target)?;
        let parent = folder_of(&target);
        fs_err::create_dir_all(parent)?;
        let folder = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(parent)?;
        let table =
            TableWriter::create(folder.path(), Self::PARTIAL.to_owned(), Arc::clone(&schema))?;
        let builder = GroupBuilder::new(Arc::clone(&schema))?;
        Ok(Self { target, folder, schema, table, builder })
    }

    /// Appends a row group of these columns, in the order of the schema.
    pub(crate) fn write_group(&mut self, columns: Vec<ArrayRef>) -> Result<()> {
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        let batch = batch.map_err(|error| {
            Error::Bug(format!("a row group of {}: {error}", self.target.display()))
        })?;
        self.table.write_group(self.builder.build(batch)?)
    }

    /// Closes the table and moves it to its place; what was there before an error stays.
    pub(crate) fn finish(self) -> Result<()> {
        self.table.close()?;
        fs_err::rename(self.folder.path().join(Self::PARTIAL), &self.target)?;
        Ok(())
    }
}

fn append(
    writer: &mut SerializedFileWriter<HashingFile>,
    columns: Vec<(Bytes, ColumnCloseResult)>,
) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    for (bytes, close) in columns {
        group.append_column(&bytes, close)?;
    }
    group.close().map(drop)
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

/// Copies a file of a folder of shards, which is checked first.
pub(super) fn copy_beside(folder: &Path, entry: &FileEntry, target: &Path) -> Result<()> {
    files::check(folder, entry, true)?;
    fs_err::copy(folder.join(&entry.file), target.join(&entry.file))?;
    Ok(())
}

#[cfg(test)]
mod tests;
