//! Scores of all (pair, relation) of a corpus as a Parquet file, which thresholds and curves are
//! computed from in bounded memory.
//!
//! Columns: `title`, `head`, `tail`, `relation`, `score`, and `calibrated` where the scores have
//! calibrated probabilities beside them; integers and floats of any width are taken, nulls are not.
//! Our own files carry page checksums. Not for: predictions, which are
//! decisions.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float32Array, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Float32Type, Schema, SchemaRef, UInt32Type};
use arrow::record_batch::RecordBatch;

use super::columns::{column, each_batch};
use crate::shards::WholeTable;
use crate::{DataError, Error, Result};

/// Rows of a row group that we write.
const GROUP_ROWS: usize = 1 << 18;

/// A score with what it is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRow<'a> {
    /// Title of the document.
    pub title: &'a str,
    /// Head entity.
    pub head: u32,
    /// Tail entity.
    pub tail: u32,
    /// Identifier of the relation.
    pub relation: &'a str,
    /// The score; higher is more certain.
    pub score: f32,
    /// The calibrated probability, from 0 to 1; in all rows of a file or in none.
    pub calibrated: Option<f32>,
}

/// The column that not every file has.
const CALIBRATED: &str = "calibrated";

fn schema(calibrated: bool) -> SchemaRef {
    let field = |name: &str, kind: DataType| Field::new(name, kind, false);
    let mut fields = vec![
        field("title", DataType::Utf8),
        field("head", DataType::UInt32),
        field("tail", DataType::UInt32),
        field("relation", DataType::Utf8),
        field("score", DataType::Float32),
    ];
    fields.extend(calibrated.then(|| field(CALIBRATED, DataType::Float32)));
    Arc::new(Schema::new(fields))
}

/// Hands every row of `path` to `each`, in order; returns the number of rows.
///
/// # Errors
/// I/O errors; a file that is no Parquet, lacks a column, or is damaged; a null, a negative index,
/// a score that is no number, a calibrated probability that is none, each by row; whatever `each`
/// returns.
pub fn read_scores(
    path: &Path,
    each: &mut dyn FnMut(usize, ScoreRow<'_>) -> Result<()>,
) -> Result<usize> {
    let problem = |problem: String| damaged(path, problem);
    each_batch(path, &problem, &mut |first, batch| {
        let columns =
            ScoreColumns::new(&batch).map_err(|problem| damaged(path, problem).row(first))?;
        (0..batch.num_rows()).try_for_each(|index| {
            let (row, score) = (first + index, columns.row(index));
            check_row(path, row, &score)?;
            each(row, score)
        })
    })
}

/// Refuses numbers that cannot be ranked.
fn check_row(path: &Path, row: usize, score: &ScoreRow<'_>) -> Result<()> {
    let bad = |field: &str, problem: &str, hint: &str| {
        let error = DataError::new(path, problem).row(row).title(score.title).field(field);
        Err(error.hint(hint).into())
    };
    if score.score.is_nan() {
        let hint = "every pair and relation needs a score that can be ranked";
        return bad("score", "the score is not a number", hint);
    }
    if score.calibrated.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
        let hint = "write the file again with `predict --scores`, or leave the column out";
        return bad(CALIBRATED, "a probability lies from 0 to 1", hint);
    }
    Ok(())
}

fn damaged(path: &Path, problem: impl Into<String>) -> DataError {
    DataError::new(path, problem).hint(
        "scores are a Parquet file with the columns title, head, tail, relation and score; \
            see docs/formats.md",
    )
}

/// The columns of a batch in their types.
struct ScoreColumns {
    title: StringArray,
    head: UInt32Array,
    tail: UInt32Array,
    relation: StringArray,
    score: Float32Array,
    calibrated: Option<Float32Array>,
}

impl ScoreColumns {
    fn new(batch: &RecordBatch) -> Result<Self, String> {
        let column = |name: &str| {
            let schema = schema(true);
            let field = schema.field_with_name(name).map_err(|error| error.to_string())?;
            column(batch, name, field.data_type())
        };
        Ok(Self {
            title: column("title")?.as_string().clone(),
            head: column("head")?.as_primitive::<UInt32Type>().clone(),
            tail: column("tail")?.as_primitive::<UInt32Type>().clone(),
            relation: column("relation")?.as_string().clone(),
            score: column("score")?.as_primitive::<Float32Type>().clone(),
            calibrated: match batch.column_by_name(CALIBRATED) {
                Some(_) => Some(column(CALIBRATED)?.as_primitive::<Float32Type>().clone()),
                None => None,
            },
        })
    }

    fn row(&self, index: usize) -> ScoreRow<'_> {
        ScoreRow {
            title: self.title.value(index),
            head: self.head.value(index),
            tail: self.tail.value(index),
            relation: self.relation.value(index),
            score: self.score.value(index),
            calibrated: self.calibrated.as_ref().map(|column| column.value(index)),
        }
    }
}

/// Writes a score file row by row; it takes its place when finished.
pub struct ScoreWriter {
    table: WholeTable,
    titles: Vec<String>,
    heads: Vec<u32>,
    tails: Vec<u32>,
    relations: Vec<String>,
    scores: Vec<f32>,
    /// `None` in a file without the column.
    calibrated: Option<Vec<f32>>,
}

impl ScoreWriter {
    /// Begins a file that will stand at `path`, with a column of calibrated probabilities or
    /// without.
    ///
    /// # Errors
    /// The disk.
    pub fn create(path: &Path, calibrated: bool) -> Result<Self> {
        let (titles, heads, tails, relations, scores) = Default::default();
        Ok(Self {
            table: WholeTable::create(path, schema(calibrated))?,
            titles,
            heads,
            tails,
            relations,
            scores,
            calibrated: calibrated.then(Vec::new),
        })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// The disk; [`Error::Bug`] for a row that lacks the calibrated probability of the others, or
    /// alone has one.
    pub fn push(&mut self, row: ScoreRow<'_>) -> Result<()> {
        match (&mut self.calibrated, row.calibrated) {
            (Some(column), Some(share)) => column.push(share),
            (None, None) => {}
            _ => return Err(Error::Bug("some rows of scores are calibrated".into())),
        }
        self.titles.push(row.title.to_owned());
        self.heads.push(row.head);
        self.tails.push(row.tail);
        self.relations.push(row.relation.to_owned());
        self.scores.push(row.score);
        if self.scores.len() < GROUP_ROWS { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<()> {
        let take = std::mem::take::<Vec<String>>;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(take(&mut self.titles))),
            Arc::new(UInt32Array::from(std::mem::take(&mut self.heads))),
            Arc::new(UInt32Array::from(std::mem::take(&mut self.tails))),
            Arc::new(StringArray::from(take(&mut self.relations))),
            Arc::new(Float32Array::from(std::mem::take(&mut self.scores))),
        ];
        let calibrated = self.calibrated.as_mut().map(std::mem::take);
        columns
            .extend(calibrated.map(|column| -> ArrayRef { Arc::new(Float32Array::from(column)) }));
        self.table.write_group(columns)
    }

    /// Closes the file and moves it to its place.
    ///
    /// # Errors
    /// The disk; a file that was there is then as before.
    pub fn finish(mut self) -> Result<()> {
        if !self.scores.is_empty() {
            self.flush()?;
        }
        self.table.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: [ScoreRow<'_>; 3] = [
        ScoreRow { title: "a", head: 0, tail: 1, relation: "P17", score: 0.25, calibrated: None },
        ScoreRow { title: "a", head: 1, tail: 0, relation: "P17", score: -1.5, calibrated: None },
        ScoreRow { title: "ü", head: 7, tail: 2, relation: "P1", score: 1e-20, calibrated: None },
    ];

    fn write(path: &Path, rows: &[ScoreRow<'_>]) {
        let calibrated = rows.first().is_some_and(|row| row.calibrated.is_some());
        let mut writer = ScoreWriter::create(path, calibrated).unwrap();
        rows.iter().for_each(|&row| writer.push(row).unwrap());
        writer.finish().unwrap();
    }

    /// (title, head, tail, relation, bits of the score)
    type Owned = (String, u32, u32, String, u32);

    fn read(path: &Path) -> Result<Vec<Owned>> {
        let mut rows = Vec::new();
        read_scores(path, &mut |_, row| {
            rows.push((
                row.title.to_owned(),
                row.head,
                row.tail,
                row.relation.to_owned(),
                row.score.to_bits(),
            ));
            Ok(())
        })?;
        Ok(rows)
    }

    #[test]
    fn round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/scores.parquet");
        write(&path, &ROWS);
        let expected: Vec<_> = ROWS
            .iter()
            .map(|r| (r.title.to_owned(), r.head, r.tail, r.relation.to_owned(), r.score.to_bits()))
            .collect();
        assert_eq!(read(&path).unwrap(), expected);
        assert_eq!(
            fs_err::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing else is left"
        );
        write(&path, &[]);
        assert_eq!(read(&path).unwrap(), []);
    }

    #[test]
    fn calibrated_probabilities_are_a_column_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.parquet");
        let column = |path: &Path| -> Result<Vec<Option<f32>>> {
            let mut column = Vec::new();
            read_scores(path, &mut |_, row| {
                column.push(row.calibrated);
                Ok(())
            })?;
            Ok(column)
        };
        let with = |shares: [f32; 3]| {
            let row = |(row, share): (&ScoreRow<'static>, f32)| ScoreRow {
                calibrated: Some(share),
                ..*row
            };
            ROWS.iter().zip(shares).map(row).collect::<Vec<_>>()
        };
        write(&path, &with([0.5, 0.0, 1.0]));
        assert_eq!(column(&path).unwrap(), [Some(0.5), Some(0.0), Some(1.0)]);
        write(&path, &ROWS);
        assert_eq!(column(&path).unwrap(), [None; 3]);
        for bad in [f32::NAN, -0.1, 1.1] {
            write(&path, &with([0.5, bad, 1.0]));
            let error = column(&path).unwrap_err();
            assert!(
                error.exit_code() == 65
                    && error.to_string().contains("row 1, document `a`, field `calibrated`"),
                "{error}"
            );
        }
        let mut writer = ScoreWriter::create(&path, true).unwrap();
        assert_eq!(writer.push(ROWS[0]).unwrap_err().exit_code(), 70);
    }

    #[test]
    fn scores_are_read_in_every_codec() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.parquet");
        write(&path, &ROWS);
        let expected = read(&path).unwrap();
        for (codec, bytes) in crate::shards::testing::in_every_codec(&path) {
            fs_err::write(&path, bytes).unwrap();
            let found = read(&path).unwrap_or_else(|error| panic!("{codec}: {error}"));
            assert_eq!(found, expected, "{codec}");
        }
    }

    /// A flipped byte anywhere gives an error with place and hint, or, where it means nothing to a
    /// reader, the same rows.
    #[test]
    fn no_flipped_byte_changes_a_score() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.parquet");
        write(&path, &ROWS);
        let (whole, expected) = (fs_err::read(&path).unwrap(), read(&path).unwrap());
        let mut refused = 0;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x24;
            fs_err::write(&path, bytes).unwrap();
            match read(&path) {
                Ok(rows) => assert_eq!(rows, expected, "byte {at}"),
                Err(error) => {
                    assert_eq!(error.exit_code(), 65, "byte {at}: {error}");
                    assert!(
                        error.to_string().contains("scores.parquet") && error.hint().is_some(),
                        "byte {at}: {error}"
                    );
                    refused += 1;
                }
            }
        }
        assert!(refused > whole.len() / 2, "{refused} of {}", whole.len());
    }

    #[test]
    fn foreign_files_are_read_by_their_types_or_refused_by_name() {
        use arrow::array::{ArrayRef, Float64Array, Int64Array};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.parquet");
        let columns = |head: i64, score: f64| -> Vec<(&str, ArrayRef)> {
            let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
            let (heads, tails): (ArrayRef, ArrayRef) =
                (Arc::new(Int64Array::from(vec![head])), Arc::new(Int64Array::from(vec![1])));
            vec![
                ("title", text("a")),
                ("head", heads),
                ("tail", tails),
                ("relation", text("P1")),
                ("score", Arc::new(Float64Array::from(vec![score]))),
            ]
        };
        let save = |columns: Vec<(&str, ArrayRef)>| {
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let file = fs_err::File::create(&path).unwrap().into_file();
            let mut writer =
                parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
        };
        save(columns(3, 0.5));
        assert_eq!(
            read(&path).unwrap(),
            [("a".to_owned(), 3, 1, "P1".to_owned(), 0.5f32.to_bits())]
        );
        let refused = |columns: Vec<(&str, ArrayRef)>, problem: &str| {
            save(columns);
            let error = read(&path).unwrap_err();
            assert!(error.exit_code() == 65 && error.to_string().contains(problem), "{error}");
        };
        refused(columns(-1, 0.5), "column `head`");
        refused(
            columns(0, f64::NAN),
            "row 0, document `a`, field `score`: the score is not a number",
        );
        refused(columns(0, 0.5)[..4].to_vec(), "no column `score`");
        let mut text = columns(0, 0.5);
        text[4].1 = Arc::new(StringArray::from(vec!["0.5"]));
        refused(text, "column `score` holds");
        let mut null = columns(0, 0.5);
        null[1].1 = Arc::new(Int64Array::from(vec![None::<i64>]));
        refused(null, "column `head` has nulls");
        fs_err::write(&path, b"PAR1 is not enough").unwrap();
        assert_eq!(read(&path).unwrap_err().exit_code(), 65);
    }
}
