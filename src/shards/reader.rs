//! Reading shards, one row group at a time.
//!
//! Whatever a file holds, the answer is rows that pass [`validate`] or a
//! [`DataError`](crate::DataError) that names the shard and the row group: Parquet errors and
//! panics inside the decoder are both caught.

use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::reader::{ChunkReader, Length};

use super::columns::ShardColumns;
use super::files::{self, read_error};
use super::remote::{RemoteFile, RemoteShards};
use super::validate::{self, Limits};
use super::{FileEntry, ShardManifest, schema};
use crate::Result;
use crate::base::{catch_panic, panics};
#[cfg(test)]
use crate::text::TokenizedDocument;

/// Row groups with more rows are refused: no writer of this format makes them, and their size would
/// be asked of the memory.
const MAX_GROUP_ROWS: usize = 1 << 20;

/// How shards are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Read the words themselves; only people and reports need them.
    pub with_words: bool,
    /// Compare every file with its hash first.
    pub verify: bool,
    /// Bytes that the documents of a store may take; where all of them take more, the store holds
    /// some blocks at a time.
    pub memory: u64,
    /// Bytes of this machine's disk that row groups from an object store may take.
    pub disk: u64,
}

impl StoreOptions {
    /// Bytes that the documents of a store may take unless a recipe says otherwise. The same on
    /// every machine, because the order of documents follows from it.
    pub const MEMORY: u64 = 400_000_000;
    /// Bytes of disk for row groups from an object store unless a recipe says otherwise.
    pub const DISK: u64 = 50_000_000_000;
}

impl Default for StoreOptions {
    fn default() -> Self {
        let (memory, disk) = (Self::MEMORY, Self::DISK);
        Self { with_words: false, verify: true, memory, disk }
    }
}

/// Where the shards of a folder are.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShardPlace<'a> {
    /// The folder.
    pub folder: &'a Path,
    /// The object store, where the folder holds all but the shards.
    pub remote: Option<&'a RemoteShards>,
}

/// An open shard.
#[derive(Debug)]
pub struct ShardReader {
    table: TableReader,
    limits: Limits,
}

impl ShardReader {
    /// Opens a shard of a folder.
    pub(super) fn open(
        place: ShardPlace<'_>,
        manifest: &ShardManifest,
        shard: &FileEntry,
        options: StoreOptions,
    ) -> Result<Self> {
        let table = match place.remote {
            Some(remote) => TableReader::open_remote(remote.file(&shard.file, shard.bytes), shard)?,
            None => TableReader::open(place.folder, shard, options.verify)?,
        };
        let (relations, vocab_size) = (manifest.relations.len(), manifest.tokenizer.vocab_size);
        Ok(Self { table, limits: Limits { relations, vocab_size, with_words: options.with_words } })
    }

    /// Number of row groups.
    #[cfg(test)]
    pub fn num_row_groups(&self) -> usize {
        self.table.num_row_groups()
    }

    /// All rows of one row group, checked.
    #[cfg(test)]
    pub fn read_group(&self, group: usize) -> Result<Vec<TokenizedDocument>> {
        let columns = self.columns(group)?;
        Ok((0..columns.len()).map(|row| columns.document(row)).collect())
    }

    /// Number of rows of each row group.
    pub(super) fn group_rows(&self) -> Vec<usize> {
        self.table.group_rows().collect()
    }

    /// The titles of one row group.
    pub(super) fn titles(&self, group: usize) -> Result<Vec<String>> {
        let wanted = |column: &str| column == schema::TITLE;
        self.table.fetch(group, &wanted)?;
        self.table.guarded(group, || {
            let batch = self.table.batch(group, &wanted)?;
            schema::check_column(&batch, schema::shard_schema().field(0))?;
            let titles = batch[schema::TITLE].as_string::<i32>();
            Ok((0..titles.len()).map(|row| titles.value(row).to_owned()).collect())
        })
    }

    /// The typed columns of one row group, every row checked.
    pub(super) fn columns(&self, group: usize) -> Result<ShardColumns> {
        let wanted = |column: &str| self.limits.with_words || column != "words";
        self.table.fetch(group, &wanted)?;
        let checked = self.table.guarded(group, || {
            let columns = ShardColumns::new(self.table.batch(group, &wanted)?)?;
            let bad = (0..columns.len()).find_map(|row| {
                let document = columns.document(row);
                validate::check(&document, self.limits)
                    .err()
                    .map(|(field, problem)| (row, document.title, field, problem))
            });
            Ok((columns, bad))
        })?;
        match checked {
            (columns, None) => Ok(columns),
            (_, Some((row, title, field, problem))) => {
                let row = self.table.first_row(group) + row;
                Err(read_error(&self.table.path, problem).row(row).title(title).field(field).into())
            }
        }
    }
}

/// An open Parquet file of any of our schemas.
#[derive(Debug)]
pub(super) struct TableReader {
    path: PathBuf,
    /// The file, where it is in an object store.
    remote: Option<RemoteFile>,
    metadata: ArrowReaderMetadata,
    bytes: u64,
}

impl TableReader {
    /// Opens a file named by the manifest and compares the two.
    pub(super) fn open(folder: &Path, entry: &FileEntry, verify: bool) -> Result<Self> {
        files::check(folder, entry, verify)?;
        Self::open_alone(&folder.join(&entry.file))?.compared(entry)
    }

    /// Opens a file in an object store, which is as long as the manifest says, and compares the
    /// two. Its hash is not compared, as it is not read as a whole.
    fn open_remote(file: RemoteFile, entry: &FileEntry) -> Result<Self> {
        let tail = file.tail()?;
        Self::of(file.path(), &tail, tail.len(), Some(file))?.compared(entry)
    }

    fn compared(self, entry: &FileEntry) -> Result<Self> {
        let rows: i64 = self
            .metadata
            .metadata()
            .row_groups()
            .iter()
            .map(|group| group.num_rows().max(0))
            .fold(0, i64::saturating_add);
        if rows != entry.rows as i64 || self.num_row_groups() != entry.row_groups {
            let found = format!("{rows} rows in {} row groups", self.num_row_groups());
            let problem =
                format!("{found}, but the manifest says {} in {}", entry.rows, entry.row_groups);
            return Err(read_error(&self.path, problem).into());
        }
        Ok(self)
    }

    /// Opens a file that no manifest names.
    pub(super) fn open_alone(path: &Path) -> Result<Self> {
        let bytes = fs_err::metadata(path)?.len();
        let file = fs_err::File::open(path)?.into_file();
        Self::of(path.to_owned(), &file, bytes, None)
    }

    fn of(
        path: PathBuf,
        file: &impl ChunkReader,
        bytes: u64,
        remote: Option<RemoteFile>,
    ) -> Result<Self> {
        // The Arrow schema inside the file's metadata is not needed and one more thing that can
        // lie.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata =
            catch(|| ArrowReaderMetadata::load(file, options).map_err(|error| error.to_string()));
        let metadata = metadata.map_err(|problem| read_error(&path, problem))?;
        Ok(Self { path, remote, metadata, bytes })
    }

    /// Number of row groups.
    pub(super) fn num_row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    /// Rows in the groups before `group`.
    fn first_row(&self, group: usize) -> usize {
        self.group_rows().take(group).sum()
    }

    /// Number of rows of each row group.
    fn group_rows(&self) -> impl Iterator<Item = usize> + '_ {
        let groups = self.metadata.metadata().row_groups().iter();
        groups.map(|group| group.num_rows().max(0) as usize)
    }

    /// Runs a decoder; its errors and panics become a data error that names the file and the row
    /// group.
    pub(super) fn guarded<T>(
        &self,
        group: usize,
        decode: impl FnOnce() -> Result<T, String>,
    ) -> Result<T> {
        catch(decode).map_err(|problem| {
            read_error(&self.path, format!("row group {group}: {problem}")).into()
        })
    }

    /// Bytes of a column in the file, compressed.
    pub(super) fn column_bytes(&self, name: &str) -> u64 {
        let groups = self.metadata.metadata().row_groups().iter();
        let own = groups
            .flat_map(|group| group.columns())
            .filter(|column| column.column_path().parts().first().is_some_and(|root| root == name));
        own.map(|column| column.compressed_size().max(0) as u64).sum()
    }

    /// Where the wanted columns of a row group lie.
    fn range(&self, group: usize, wanted: &dyn Fn(&str) -> bool) -> Option<Range<u64>> {
        let columns = self.metadata.metadata().row_groups().get(group)?.columns().iter();
        let named = columns
            .filter(|column| column.column_path().parts().first().is_some_and(|root| wanted(root)));
        let ranges = named.map(|column| {
            let (start, length) = column.byte_range();
            start..start.saturating_add(length).min(self.bytes)
        });
        ranges.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).filter(|all| !all.is_empty())
    }

    /// Brings the wanted columns of a row group to this machine, if they are elsewhere.
    fn fetch(&self, group: usize, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
        let Some(file) = &self.remote else { return Ok(()) };
        // A file may lie about places, at which the decoder panics.
        let range = self.guarded(group, || Ok(self.range(group, wanted)))?;
        range.map_or(Ok(()), |range| file.piece(range).map(drop))
    }

    /// One row group as a batch of the columns that are wanted.
    pub(super) fn batch(
        &self,
        group: usize,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<RecordBatch, String> {
        let rows = self.check_group(group)?;
        if let Some(file) = &self.remote
            && let Some(range) = self.range(group, wanted)
        {
            let piece = file.piece(range).map_err(|error| error.to_string())?;
            return self.decoded(piece, group, rows, wanted);
        }
        // Each reader opens the file itself: clones of one handle share their position, so they
        // cannot be used from several threads.
        let file = fs_err::File::open(&self.path).map_err(|error| error.to_string())?.into_file();
        self.decoded(file, group, rows, wanted)
    }

    fn decoded(
        &self,
        file: impl ChunkReader + 'static,
        group: usize,
        rows: usize,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<RecordBatch, String> {
        let schema = self.metadata.schema();
        let wanted =
            (0..schema.fields().len()).filter(|&column| wanted(schema.field(column).name()));
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), wanted);
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let builder =
            builder.with_row_groups(vec![group]).with_projection(mask).with_batch_size(rows.max(1));
        let mut reader = builder.build().map_err(|error| error.to_string())?;
        let batches: Vec<RecordBatch> =
            reader.by_ref().collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let schema = arrow::record_batch::RecordBatchReader::schema(&reader);
        let batch = concat_batches(&schema, &batches).map_err(|error| error.to_string())?;
        if batch.num_rows() == rows {
            Ok(batch)
        } else {
            Err(format!("{} rows were found, {rows} announced", batch.num_rows()))
        }
    }

    /// Refuses row groups whose announced sizes no honest file has; gives the number of rows.
    fn check_group(&self, group: usize) -> Result<usize, String> {
        let Some(metadata) = self.metadata.metadata().row_groups().get(group) else {
            return Err("it does not exist".into());
        };
        let rows = usize::try_from(metadata.num_rows()).ok().filter(|&rows| rows <= MAX_GROUP_ROWS);
        for column in metadata.columns() {
            let (start, length) = column.byte_range();
            if start.checked_add(length).is_none_or(|end| end > self.bytes) {
                return Err(format!(
                    "column `{}` lies beyond the end of the file",
                    column.column_path()
                ));
            }
        }
        rows.ok_or_else(|| {
            format!("{} rows announced, at most {MAX_GROUP_ROWS} are read", metadata.num_rows())
        })
    }
}

/// Runs `work`, turning a panic into an error.
pub(crate) fn catch<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_panic(work).unwrap_or_else(|panic| {
        let text = panics::message(panic.as_ref()).unwrap_or("no reason given");
        Err(format!("the decoder failed: {text}"))
    })
}

#[cfg(test)]
mod tests;
