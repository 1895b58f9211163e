//! Predictions as a Parquet table: `title`, `h_idx`, `t_idx`, `r`, `evidence`, `score`,
//! `confidence`, as in the JSON list. The last three may be missing in a table of others.
//!
//! Not for: telling a table from a list (`predictions`).

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, Int32Builder, Int64Array, ListBuilder,
    StringArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::columns::{column, each_batch, optional_column};
use super::prediction::Prediction;
use crate::shards::WholeTable;
use crate::{DataError, Error, Result};

/// Rows of a row group that we write.
const GROUP_ROWS: usize = 1 << 16;

fn element(kind: DataType) -> Arc<Field> {
    Arc::new(Field::new("element", kind, false))
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("title", DataType::Utf8, false),
        Field::new("h_idx", DataType::Int32, false),
        Field::new("t_idx", DataType::Int32, false),
        Field::new("r", DataType::Utf8, false),
        Field::new("evidence", DataType::List(element(DataType::Int32)), false),
        Field::new("score", DataType::Float64, true),
        Field::new("confidence", DataType::Float64, true),
    ]))
}

/// A table under way; it appears when it is finished.
pub(super) struct PredictionTable {
    table: WholeTable,
    rows: Vec<Prediction>,
}

impl PredictionTable {
    pub(super) fn create(path: &Path) -> Result<Self> {
        Ok(Self { table: WholeTable::create(path, schema())?, rows: Vec::new() })
    }

    pub(super) fn push(&mut self, prediction: Prediction) -> Result<()> {
        self.rows.push(prediction);
        if self.rows.len() < GROUP_ROWS { Ok(()) } else { self.flush() }
    }

    pub(super) fn finish(mut self) -> Result<()> {
        if !self.rows.is_empty() {
            self.flush()?;
        }
        self.table.finish()
    }

    fn flush(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        let titles = rows.iter().map(|row| row.title.as_str());
        let relations = rows.iter().map(|row| row.r.as_str());
        let mut evidence =
            ListBuilder::new(Int32Builder::new()).with_field(element(DataType::Int32));
        for row in &rows {
            for &sentence in &row.evidence {
                evidence.values().append_value(small(sentence)?);
            }
            evidence.append(true);
        }
        let numbers = |of: fn(&Prediction) -> usize| -> Result<ArrayRef> {
            let numbers = rows.iter().map(|row| small(of(row)));
            Ok(Arc::new(Int32Array::from_iter_values(numbers.collect::<Result<Vec<_>>>()?)))
        };
        let shares = |of: fn(&Prediction) -> Option<f64>| -> ArrayRef {
            Arc::new(Float64Array::from_iter(rows.iter().map(of)))
        };
        self.table.write_group(vec![
            Arc::new(StringArray::from_iter_values(titles)),
            numbers(|row| row.h_idx)?,
            numbers(|row| row.t_idx)?,
            Arc::new(StringArray::from_iter_values(relations)),
            Arc::new(evidence.finish()),
            shares(|row| row.score),
            shares(|row| row.confidence),
        ])
    }
}

/// A number of the table; no document has so many entities or sentences that it does not fit.
fn small(number: usize) -> Result<i32> {
    i32::try_from(number).map_err(|_| Error::Bug(format!("{number} is no index in a document")))
}

/// Hands every row to `each`, in order.
pub(super) fn read_table(
    path: &Path,
    each: &mut dyn FnMut(usize, Prediction) -> Result<()>,
) -> Result<()> {
    let damaged = |problem: String| {
        DataError::new(path, problem).hint(
            "predictions are a table with the columns title, h_idx, t_idx and r, and if known \
             evidence, score and confidence; see docs/formats.md",
        )
    };
    let all = each_batch(path, &damaged, &mut |first, batch| {
        let columns = TableColumns::new(&batch).map_err(|problem| damaged(problem).row(first))?;
        (0..batch.num_rows()).try_for_each(|index| {
            let row = columns
                .row(index)
                .map_err(|(field, problem)| damaged(problem).row(first + index).field(field))?;
            each(first + index, row)
        })
    });
    all.map(drop)
}

/// The columns of a batch in their types.
struct TableColumns {
    title: StringArray,
    head: Int64Array,
    tail: Int64Array,
    relation: StringArray,
    evidence: Option<ArrayRef>,
    score: Option<Float64Array>,
    confidence: Option<Float64Array>,
}

impl TableColumns {
    fn new(batch: &RecordBatch) -> Result<Self, String> {
        let text =
            |name| Ok::<_, String>(column(batch, name, &DataType::Utf8)?.as_string().clone());
        let number = |name| {
            let column = column(batch, name, &DataType::Int64)?;
            Ok::<_, String>(column.as_primitive::<Int64Type>().clone())
        };
        let share = |name| {
            let column = optional_column(batch, name, &DataType::Float64)?;
            Ok::<_, String>(column.map(|column| column.as_primitive::<Float64Type>().clone()))
        };
        let lists = DataType::List(Arc::new(Field::new("element", DataType::Int64, true)));
        Ok(Self {
            title: text("title")?,
            head: number("h_idx")?,
            tail: number("t_idx")?,
            relation: text("r")?,
            evidence: optional_column(batch, "evidence", &lists)?,
            score: share("score")?,
            confidence: share("confidence")?,
        })
    }

    /// A row, or the field that is wrong and why.
    fn row(&self, index: usize) -> Result<Prediction, (&'static str, String)> {
        let place = |field: &'static str, number: i64| {
            usize::try_from(number).map_err(|_| (field, format!("{number} is no index")))
        };
        let share = |field: &'static str, column: &Option<Float64Array>| {
            let column = column.as_ref().filter(|column| column.is_valid(index));
            match column.map(|column| column.value(index)) {
                Some(share) if !share.is_finite() => Err((field, format!("{share} is no number"))),
                share => Ok(share),
            }
        };
        let lists = self.evidence.as_ref().map(|column| column.as_list::<i32>());
        let evidence = match lists.filter(|lists| lists.is_valid(index)) {
            None => Vec::new(),
            Some(lists) => {
                let sentences = lists.value(index);
                let sentences = sentences.as_primitive::<Int64Type>();
                let sentence = |sentence: Option<i64>| place("evidence", sentence.unwrap_or(-1));
                sentences.iter().map(sentence).collect::<Result<_, _>>()?
            }
        };
        Ok(Prediction {
            title: self.title.value(index).to_owned(),
            h_idx: place("h_idx", self.head.value(index))?,
            t_idx: place("t_idx", self.tail.value(index))?,
            r: self.relation.value(index).to_owned(),
            evidence,
            score: share("score", &self.score)?,
            confidence: share("confidence", &self.confidence)?,
        })
    }
}
