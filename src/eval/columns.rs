//! Reading the columns of Parquet tables that others may have written.
//!
//! Not for: shards, whose files are known by their hashes (`shards`).

use std::path::Path;

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};

use crate::shards::catch;
use crate::{DataError, Result};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8_192;

/// Calls `each` with the batches of a table, and the number of the first row of each; gives the
/// number of rows. `damaged` makes the error of a table that cannot be read.
pub(super) fn each_batch(
    path: &Path,
    damaged: &dyn Fn(String) -> DataError,
    each: &mut dyn FnMut(usize, RecordBatch) -> Result<()>,
) -> Result<usize> {
    let mut reader = open(path, damaged)?;
    let mut row = 0;
    loop {
        let batch = catch(|| reader.next().transpose().map_err(|error| error.to_string()));
        let Some(batch) =
            batch.map_err(|problem| damaged(format!("after row {row}: {problem}")))?
        else {
            return Ok(row);
        };
        let rows = batch.num_rows();
        each(row, batch)?;
        row += rows;
    }
}

fn open(path: &Path, damaged: &dyn Fn(String) -> DataError) -> Result<ParquetRecordBatchReader> {
    let file = fs_err::File::open(path)?.into_file();
    let build = || {
        // Without the Arrow schema of its writer, a file says by its own types what it holds.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata =
            ArrowReaderMetadata::load(&file, options).map_err(|error| error.to_string())?;
        let file = file.try_clone().map_err(|error| error.to_string())?;
        ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|error| error.to_string())
    };
    Ok(catch(build).map_err(damaged)?)
}

/// A column in the type that is needed; `None` where the table does not have it. Text is not made
/// of other types, nor whole numbers of fractions.
pub(super) fn optional_column(
    batch: &RecordBatch,
    name: &str,
    target: &DataType,
) -> Result<Option<ArrayRef>, String> {
    let Some(column) = batch.column_by_name(name) else { return Ok(None) };
    if !fits(column.data_type(), target) {
        return Err(format!("column `{name}` holds {}", column.data_type()));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let cast = cast_with_options(column, target, &options)
        .map_err(|error| format!("column `{name}`: {error}"))?;
    Ok(Some(cast))
}

/// A column that must be there, without nulls.
pub(super) fn column(
    batch: &RecordBatch,
    name: &str,
    target: &DataType,
) -> Result<ArrayRef, String> {
    let column = optional_column(batch, name, target)?
        .ok_or_else(|| format!("there is no column `{name}`"))?;
    if column.null_count() > 0 { Err(format!("column `{name}` has nulls")) } else { Ok(column) }
}

fn fits(found: &DataType, target: &DataType) -> bool {
    let is_text =
        |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match (found, target) {
        (DataType::List(own) | DataType::LargeList(own), DataType::List(target)) => {
            fits(own.data_type(), target.data_type())
        }
        (_, target) if is_text(target) => is_text(found),
        (_, target) if target.is_integer() => found.is_integer(),
        _ => found.is_numeric(),
    }
}
