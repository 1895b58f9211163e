//! `facts.parquet`: the fact index as a table, sorted by key.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt64Array};
use arrow::datatypes::{UInt32Type, UInt64Type};
use arrow::record_batch::RecordBatch;

use super::{FILE, FactIndex, FactInstance};
use crate::shards::arrays::u32s;
use crate::shards::files::read_error;
use crate::shards::groups::GroupBuilder;
use crate::shards::reader::TableReader;
use crate::shards::writer::TableWriter;
use crate::shards::{DocumentStore, FileEntry, schema};
use crate::{DataError, Error, Result};

/// Instances in a row group.
const GROUP_ROWS: usize = 65_536;

/// Takes the key and the instances of a fact.
type EachFact<'a> = dyn FnMut(&[(u64, FactInstance)]) + 'a;

/// Writes the table, key after key.
pub(super) struct Writer {
    table: TableWriter,
    builder: GroupBuilder,
    rows: Vec<(u64, FactInstance)>,
}

impl Writer {
    /// Creates `facts.parquet` in a folder.
    pub(super) fn create(folder: &Path) -> Result<Self> {
        let builder = GroupBuilder::new(schema::fact_schema())?;
        Ok(Self {
            table: TableWriter::create(folder, FILE.to_owned(), schema::fact_schema())?,
            builder,
            rows: Vec::new(),
        })
    }

    /// Adds the instances of a key, which must be above all keys before it.
    pub(super) fn push(&mut self, key: &[(u64, FactInstance)]) -> Result<()> {
        self.rows.extend_from_slice(key);
        if self.rows.len() >= GROUP_ROWS { self.flush() } else { Ok(()) }
    }

    /// Closes the file and describes it.
    pub(super) fn finish(mut self) -> Result<FileEntry> {
        self.flush()?;
        self.table.close()
    }

    fn flush(&mut self) -> Result<()> {
        for group in self.rows.chunks(GROUP_ROWS) {
            let batch = to_batch(group)
                .map_err(|error| Error::Bug(format!("building the fact index: {error}")))?;
            self.table.write_group(self.builder.build(batch)?)?;
        }
        self.rows.clear();
        Ok(())
    }
}

fn to_batch(rows: &[(u64, FactInstance)]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let keys = UInt64Array::from_iter_values(rows.iter().map(|&(key, _)| key));
    let columns = vec![
        Arc::new(keys) as ArrayRef,
        u32s(rows.iter().map(|(_, instance)| instance.row)),
        u32s(rows.iter().map(|(_, instance)| instance.head)),
        u32s(rows.iter().map(|(_, instance)| instance.tail)),
        u32s(rows.iter().map(|(_, instance)| instance.relation)),
    ];
    RecordBatch::try_new(schema::fact_schema(), columns)
}

impl DocumentStore {
    /// The fact index that was prepared with the shards, checked against the rows. It is in memory
    /// as a whole; where the documents are not, [`Self::facts_among`] and [`Self::each_fact_key`]
    /// give parts of it.
    ///
    /// # Errors
    /// A data error if the shards have no fact index (no document was labelled) or it is broken.
    pub fn fact_index(&self) -> Result<FactIndex> {
        read(self.folder(), self.fact_entry()?, self)
    }

    /// The fact index of some rows: their instances, with keys that two of them share. The file is
    /// read once.
    ///
    /// # Errors
    /// As [`Self::fact_index`], but entities are not compared with those of the documents.
    pub fn facts_among(&self, wanted: &dyn Fn(u32) -> bool) -> Result<FactIndex> {
        let mut rows = Vec::new();
        each_key(self.folder(), self.fact_entry()?, self.len(), &mut |key| {
            let start = rows.len();
            rows.extend(key.iter().filter(|(_, instance)| wanted(instance.row)));
            if !super::gives_pairs(&rows[start..]) {
                rows.truncate(start);
            }
        })?;
        Ok(FactIndex::from_sorted(&rows))
    }

    /// Calls `each` with the key and the instances of every fact, in order of the keys. The file is
    /// read once, and one fact is in memory at a time.
    ///
    /// # Errors
    /// As [`Self::facts_among`].
    pub fn each_fact_key(&self, each: &mut EachFact) -> Result<()> {
        each_key(self.folder(), self.fact_entry()?, self.len(), each)
    }

    fn fact_entry(&self) -> Result<&FileEntry> {
        self.manifest().fact_index.as_ref().ok_or_else(|| {
            DataError::new(self.folder(), "the shards have no fact index")
                .hint("prepare them from labelled documents")
                .into()
        })
    }
}

/// Calls `each` with the rows of every row group of the index that `entry` names, which must rise
/// and be of the first `documents` documents.
fn each_group(
    folder: &Path,
    entry: &FileEntry,
    documents: usize,
    each: &mut dyn FnMut(Vec<(u64, FactInstance)>),
) -> Result<()> {
    let table = TableReader::open(folder, entry, true)?;
    let (mut last, mut before) = (None, 0);
    for group in 0..table.num_row_groups() {
        let rows = table.guarded(group, || from_batch(&table.batch(group, &|_| true)?))?;
        if !rows.is_sorted() || rows.first().copied() < last.filter(|_| !rows.is_empty()) {
            let path = folder.join(&entry.file);
            return Err(read_error(&path, "the instances are not sorted by key").into());
        }
        if let Some(at) = rows.iter().position(|(_, one)| one.row as usize >= documents) {
            let problem = format!("the store does not hold {:?}", rows[at].1);
            return Err(read_error(&folder.join(&entry.file), problem).row(before + at).into());
        }
        before += rows.len();
        last = rows.last().copied().or(last);
        each(rows);
    }
    Ok(())
}

/// Calls `each` with all instances of one key after another.
pub(super) fn each_key(
    folder: &Path,
    entry: &FileEntry,
    documents: usize,
    each: &mut EachFact,
) -> Result<()> {
    // The instances of the last key of a row group may go on in the next.
    let mut open: Vec<(u64, FactInstance)> = Vec::new();
    each_group(folder, entry, documents, &mut |rows| {
        open.extend(rows);
        let Some(&(last, _)) = open.last() else { return };
        let whole = open.partition_point(|&(key, _)| key < last);
        open[..whole].chunk_by(|a, b| a.0 == b.0).for_each(&mut *each);
        open.drain(..whole);
    })?;
    open.chunk_by(|a, b| a.0 == b.0).for_each(each);
    Ok(())
}

/// Reads the index that `entry` names and checks its order, and every instance against the rows of
/// `store`.
pub(super) fn read(folder: &Path, entry: &FileEntry, store: &DocumentStore) -> Result<FactIndex> {
    // Grows with what is there: the number of rows in the file is not checked yet.
    let mut rows = Vec::new();
    each_group(folder, entry, store.len(), &mut |group| rows.extend(group))?;
    let path = folder.join(&entry.file);
    // Visiting the documents once each, in order, makes one document a row instead of one an
    // instance.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_unstable_by_key(|&at| rows[at].1.row);
    for group in order.chunk_by(|&a, &b| rows[a].1.row == rows[b].1.row) {
        let entities = store.get(rows[group[0]].1.row as usize).entities.len();
        let fits = |i: &FactInstance| {
            (i.head.max(i.tail) as usize) < entities
                && (i.relation as usize) < store.relations().len()
        };
        if let Some(&at) = group.iter().find(|&&at| !fits(&rows[at].1)) {
            return Err(read_error(&path, format!("the store does not hold {:?}", rows[at].1))
                .row(at)
                .into());
        }
    }
    Ok(FactIndex::from_sorted(&rows))
}

fn from_batch(batch: &RecordBatch) -> Result<Vec<(u64, FactInstance)>, String> {
    let schema = schema::fact_schema();
    schema.fields().iter().try_for_each(|field| schema::check_column(batch, field))?;
    let keys = batch["key"].as_primitive::<UInt64Type>();
    let [rows, heads, tails, relations] =
        ["row", "head", "tail", "relation"].map(|name| batch[name].as_primitive::<UInt32Type>());
    let instance = |at: usize| FactInstance {
        row: rows.value(at),
        head: heads.value(at),
        tail: tails.value(at),
        relation: relations.value(at),
    };
    Ok((0..batch.num_rows()).map(|at| (keys.value(at), instance(at))).collect())
}
