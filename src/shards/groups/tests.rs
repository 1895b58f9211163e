use arrow::array::{ArrayRef, AsArray, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::*;

/// Header of a data page by hand (fields 1, 2, 3, 5) with the CRC-32 of "123456789", which is
/// 0xcbf43926 by the definition of the checksum.
#[test]
fn the_checksum_becomes_field_four() {
    assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
    let header = [0x15, 0x00, 0x15, 0x90, 0x01, 0x15, 0x12, 0x2c, 0x15, 0x02, 0x00, 0x00];
    let parts = PageHeader::parse(&header).unwrap();
    assert_eq!((parts.is_dictionary, parts.body_bytes), (false, 9));
    let mut sealed = Vec::new();
    parts.write(0xcbf4_3926, &mut sealed);
    // As a signed number it is −873187034; zigzag 1746374067 = 0x6817_8db3, in groups of seven bits
    // from below.
    let expected = [
        0x15, 0x00, 0x15, 0x90, 0x01, 0x15, 0x12, 0x15, 0xb3, 0x9b, 0xde, 0xc0, 0x06, 0x1c, 0x15,
        0x02, 0x00, 0x00,
    ];
    assert_eq!(sealed, expected);
}

#[test]
fn other_headers_are_not_touched() {
    for header in [
        &[][..],
        &[0x15],
        &[0x15, 0x80],
        &[0x15, 0, 0x15, 0, 0x15, 0],
        &[0x15, 0, 0x15, 0, 0x15, 0, 0x1c],
        &[0x19, 0, 0x15, 0],
    ] {
        assert!(PageHeader::parse(header).is_none(), "{header:?}");
    }
    let mut chunk = Chunk::default();
    chunk.push(Bytes::from_static(&[0x15, 0x00, 0x15, 0x02, 0x15, 0x02, 0x2c, 0x00])).unwrap();
    assert!(
        chunk.push(Bytes::from_static(b"two")).is_err(),
        "the body is not as long as announced"
    );
}

/// A table of several pages with and without dictionaries, as one file in memory.
fn file() -> (RecordBatch, Vec<u8>) {
    let schema = Arc::new(Schema::new(vec![
        Field::new("number", DataType::UInt32, false),
        Field::new("text", DataType::Utf8, false),
    ]));
    let numbers =
        UInt32Array::from_iter_values((0..200_000u32).map(|row| row.wrapping_mul(2_654_435_761)));
    let texts =
        StringArray::from_iter_values((0..200_000).map(|row| ["red", "green", "blue"][row % 3]));
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![Arc::new(numbers) as ArrayRef, Arc::new(texts)],
    )
    .unwrap();
    let mut builder = GroupBuilder::new(Arc::clone(&schema)).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties()))
        .unwrap()
        .into_serialized_writer()
        .unwrap()
        .0;
    for _ in 0..2 {
        let mut group = writer.next_row_group().unwrap();
        for (bytes, close) in builder.build(batch.clone()).unwrap().columns {
            group.append_column(&bytes, close).unwrap();
        }
        group.close().unwrap();
    }
    (batch, writer.into_inner().unwrap())
}

#[test]
fn what_was_built_is_read() {
    let (batch, bytes) = file();
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes))
        .unwrap()
        .with_batch_size(200_000)
        .build()
        .unwrap();
    let read: Vec<RecordBatch> = reader.map(|batch| batch.unwrap()).collect();
    assert_eq!(read.len(), 2);
    for again in read {
        assert_eq!(
            again.column(0).as_primitive::<UInt32Type>(),
            batch.column(0).as_primitive::<UInt32Type>()
        );
        assert_eq!(again.column(1).as_string::<i32>(), batch.column(1).as_string::<i32>());
    }
}

/// The footer's sizes and offsets follow one another without gaps, and every byte of every page
/// body is covered by a checksum.
#[test]
fn every_flipped_byte_of_a_page_is_noticed() {
    let (_, bytes) = file();
    let reader = SerializedFileReader::new(Bytes::from(bytes.clone())).unwrap();
    let mut end = 4;
    for group in reader.metadata().row_groups() {
        for column in group.columns() {
            let (start, length) = column.byte_range();
            assert_eq!(start, end, "chunks are contiguous");
            end = start + length;
        }
    }
    assert_eq!(
        end as usize,
        bytes.len() - 8 - footer_bytes(&bytes),
        "the footer follows the last chunk"
    );
    let read = |bytes: Vec<u8>| -> Result<usize> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes))?.build()?;
        reader.map(|batch| batch.map(|batch| batch.num_rows()).map_err(ParquetError::from)).sum()
    };
    assert_eq!(read(bytes.clone()).unwrap(), 400_000);
    let (headers, bodies) = pages(&bytes, end as usize);
    assert!(headers >= 8, "{headers} pages");
    for body in bodies {
        for at in [body.start, (body.start + body.end) / 2, body.end - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("CRC checksum mismatch"), "byte {at}: {error}");
        }
    }
}

fn footer_bytes(bytes: &[u8]) -> usize {
    let at = bytes.len() - 8;
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Number of pages before `end` and where their bodies lie, found by their headers alone.
fn pages(bytes: &[u8], end: usize) -> (usize, Vec<std::ops::Range<usize>>) {
    let (mut at, mut bodies) = (4, Vec::new());
    while at < end {
        let header = &bytes[at..];
        let (mut from, mut size) = (0, 0);
        for field in 0..4 {
            let (value, length) = varint(&header[from + 1..]).unwrap();
            assert_eq!(header[from], NEXT_I32, "field {} is there", field + 1);
            size = if field == 2 { value as usize / 2 } else { size };
            from += 1 + length;
        }
        // The structure holds small numbers and, for dictionaries, a flag; it and the header end
        // with a zero byte each.
        let tail = header[from..].windows(2).position(|pair| pair == [0, 0]).unwrap();
        let start = at + from + tail + 2;
        bodies.push(start..start + size);
        at = start + size;
    }
    (bodies.len(), bodies)
}

/// Cut anywhere, even into parts without rows, a table gives the same bytes as whole.
#[test]
fn parts_are_built_as_if_they_were_one() {
    let (batch, _) = file();
    let build = |parts: Vec<RecordBatch>| -> Vec<Bytes> {
        let mut builder = GroupBuilder::new(batch.schema()).unwrap();
        builder.build_joined(parts).unwrap().columns.into_iter().map(|(bytes, _)| bytes).collect()
    };
    let whole = build(vec![batch.clone()]);
    for cuts in [vec![0, 1, 200_000], vec![0, 0, 777, 150_000, 150_000, 200_000]] {
        let parts = cuts.windows(2).map(|cut| batch.slice(cut[0], cut[1] - cut[0])).collect();
        assert_eq!(build(parts), whole, "{cuts:?}");
    }
}
