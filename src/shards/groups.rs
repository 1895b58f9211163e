//! Record batches as encoded row groups, whose pages carry the checksums that the Parquet library
//! reads but does not write.
//!
//! The library's encoder hands every finished page to a [`PageStore`] as a header and a body. Ours
//! puts the CRC-32 of the body (as it will stand in the file: compressed, with its levels) into the
//! header's field 4, which the format provides for it. Encoding needs no file, so groups are made
//! on any thread; [`TableWriter`](super::writer::TableWriter) appends them in order.

use std::sync::{Arc, Mutex};

use arrow::array::ArrayRef;
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{
    ArrowRowGroupWriterFactory, ArrowWriterOptions, PageKey, PageStore, PageStoreArgs,
    PageStoreFactory, compute_leaves,
};
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::Error;
use crate::base::lock;

/// How all tables are written.
pub(super) fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // Row groups are cut by the caller, and no reader filters by value or seeks inside a group.
        .set_max_row_group_row_count(None)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_created_by(concat!("docre-pretrain ", env!("CARGO_PKG_VERSION")).to_owned())
        .build()
}

/// An encoded row group that waits for its place in a file.
#[derive(Debug)]
pub(super) struct RowGroup {
    pub(super) rows: usize,
    /// The bytes of each column chunk, and what the footer says about it.
    pub(super) columns: Vec<(Bytes, ColumnCloseResult)>,
}

/// Encodes batches of one schema; for one thread at a time.
#[derive(Debug)]
pub(super) struct GroupBuilder {
    schema: SchemaRef,
    factory: ArrowRowGroupWriterFactory,
    chunks: Arc<OpenChunks>,
}

impl GroupBuilder {
    /// Errors: an internal error for a schema that Parquet does not have.
    pub(super) fn new(schema: SchemaRef) -> crate::Result<Self> {
        Self::try_new(schema).map_err(|error| Error::Bug(format!("encoding a table: {error}")))
    }

    /// Encodes a batch as one row group. In memory that fails only where this program is wrong.
    pub(super) fn build(&mut self, batch: RecordBatch) -> crate::Result<RowGroup> {
        self.build_joined(vec![batch])
    }

    /// Encodes batches, one after another, as one row group: the same bytes as for a single batch
    /// of all their rows.
    pub(super) fn build_joined(&mut self, batches: Vec<RecordBatch>) -> crate::Result<RowGroup> {
        self.try_build(batches)
            .map_err(|error| Error::Bug(format!("encoding a row group: {error}")))
    }

    fn try_new(schema: SchemaRef) -> Result<Self> {
        let chunks = Arc::new(OpenChunks::default());
        let options = ArrowWriterOptions::new()
            .with_properties(properties())
            .with_page_store_factory(Arc::clone(&chunks) as _);
        // The factory of column encoders is made from a file writer, which is not needed any
        // further.
        let (_, factory) =
            ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), options)?
                .into_serialized_writer()?;
        Ok(Self { schema, factory, chunks })
    }

    fn try_build(&mut self, batches: Vec<RecordBatch>) -> Result<RowGroup> {
        let writers = self.factory.create_column_writers(0)?;
        let chunks = std::mem::take(&mut *lock(&self.chunks.0));
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        let mut columns = Vec::with_capacity(writers.len());
        let mut open = writers.into_iter().zip(chunks);
        // One column after another is joined, encoded and dropped: levels and copies of all at once
        // would be larger than the batches.
        let mut parts: Vec<_> =
            batches.into_iter().map(|batch| batch.into_parts().1.into_iter()).collect();
        for field in self.schema.fields() {
            let column = join(parts.iter_mut().filter_map(Iterator::next).collect())?;
            for (leaf, (mut writer, chunk)) in
                compute_leaves(field, &column)?.into_iter().zip(&mut open)
            {
                writer.write(&leaf)?;
                drop(leaf);
                let close = writer.close()?.close().clone();
                columns.push(std::mem::take(&mut *lock(&chunk)).seal(close)?);
            }
        }
        Ok(RowGroup { rows, columns })
    }
}

/// Pages are cut by the rows that a writer gets at once, so parts of a column are written as one.
fn join(mut parts: Vec<ArrayRef>) -> Result<ArrayRef> {
    match parts.pop() {
        Some(only) if parts.is_empty() => Ok(only),
        last => {
            parts.extend(last);
            Ok(concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?)
        }
    }
}

/// The pages of a column chunk under construction.
#[derive(Debug, Default)]
struct Chunk {
    /// The header whose body is still to come.
    header: Option<Bytes>,
    /// The dictionary page comes first in the file and last from the encoder.
    dictionary: Vec<u8>,
    data: Vec<u8>,
    /// Bytes that the checksums added to the headers.
    added: usize,
}

impl Chunk {
    fn push(&mut self, bytes: Bytes) -> Result<()> {
        let Some(header) = self.header.take() else {
            self.header = Some(bytes);
            return Ok(());
        };
        let sealed = PageHeader::parse(&header).filter(|parts| parts.body_bytes == bytes.len());
        let parts = sealed.ok_or_else(|| {
            ParquetError::General("the encoder gave a page in another form than expected".into())
        })?;
        let place = if parts.is_dictionary { &mut self.dictionary } else { &mut self.data };
        let before = place.len();
        parts.write(crc32fast::hash(&bytes), place);
        self.added += place.len() - before - header.len();
        place.extend_from_slice(&bytes);
        Ok(())
    }

    /// The bytes as they will stand in the file, and what the encoder said of them corrected by
    /// what was added.
    fn seal(self, close: ColumnCloseResult) -> Result<(Bytes, ColumnCloseResult)> {
        let mut close = close.update_dictionary_location(self.dictionary.len())?;
        let mut bytes = self.dictionary;
        bytes.extend_from_slice(&self.data);
        let unpacked = close.metadata.uncompressed_size() + self.added as i64;
        let builder = close.metadata.into_builder().set_total_compressed_size(bytes.len() as i64);
        close.metadata = builder.set_total_uncompressed_size(unpacked).build()?;
        close.bytes_written = bytes.len() as u64;
        Ok((bytes.into(), close))
    }
}

type SharedChunk = Arc<Mutex<Chunk>>;

/// Chunks whose column encoders were just made, in the order of the columns.
#[derive(Debug, Default)]
struct OpenChunks(Mutex<Vec<SharedChunk>>);

impl PageStoreFactory for OpenChunks {
    fn create(&self, _: &PageStoreArgs<'_>) -> Result<Box<dyn PageStore>> {
        let chunk = SharedChunk::default();
        lock(&self.0).push(Arc::clone(&chunk));
        Ok(Box::new(SealingStore(chunk)))
    }
}

/// Takes pages from an encoder. They are given out as a [`Chunk`], never one by one.
struct SealingStore(SharedChunk);

impl PageStore for SealingStore {
    fn put(&mut self, value: Bytes) -> Result<PageKey> {
        lock(&self.0).push(value)?;
        Ok(PageKey::new(0))
    }

    fn take(&mut self, _: PageKey) -> Result<Bytes> {
        Err(ParquetError::General("the pages are taken as a chunk".into()))
    }
}

/// A Parquet page header without checksum, in Thrift's compact protocol: three numbers (kind, bytes
/// unpacked, bytes packed) and one structure that depends on the kind. A field is a byte
/// (difference to the last field's number, type) and its value.
struct PageHeader<'a> {
    /// Fields 1 to 3.
    front: &'a [u8],
    /// The structure's field byte.
    structure: u8,
    /// Everything behind it.
    rest: &'a [u8],
    is_dictionary: bool,
    body_bytes: usize,
}

/// Field byte of a 32-bit number that follows the field before it.
const NEXT_I32: u8 = 0x15;
/// Type of a structure.
const STRUCTURE: u8 = 0x0c;
const DICTIONARY_PAGE: u64 = 2;

impl<'a> PageHeader<'a> {
    fn parse(header: &'a [u8]) -> Option<Self> {
        let mut at = 0;
        let mut numbers = [0; 3];
        for number in &mut numbers {
            let (value, length) =
                (*header.get(at)? == NEXT_I32).then(|| varint(&header[at + 1..])).flatten()?;
            // Zigzag: none of the three is negative.
            *number = (value % 2 == 0).then_some(value / 2)?;
            at += 1 + length;
        }
        let structure = *header.get(at)?;
        let is_later = structure >> 4 >= 2 && structure & 0x0f == STRUCTURE;
        let (front, rest) = (&header[..at], &header[at + 1..]);
        let [kind, _, body_bytes] = numbers;
        is_later.then_some(Self {
            front,
            structure,
            rest,
            is_dictionary: kind == DICTIONARY_PAGE,
            body_bytes: body_bytes as usize,
        })
    }

    /// Writes the header with the checksum as field 4.
    fn write(&self, crc: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(self.front);
        out.push(NEXT_I32);
        let crc = crc as i32;
        let mut zigzag = ((crc << 1) ^ (crc >> 31)) as u32;
        while zigzag >= 0x80 {
            out.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        out.push(zigzag as u8);
        // The structure now follows field 4 instead of 3.
        out.push(self.structure - 0x10);
        out.extend_from_slice(self.rest);
    }
}

/// A number of up to 32 bits and its length in bytes.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests;
