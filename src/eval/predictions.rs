//! Files of predictions: a JSON list of `{title, h_idx, t_idx, r, evidence?, score?, confidence?}`,
//! the zip of one that the benchmark server takes, and a Parquet table with the same columns.
//! Not for: choosing what to predict (`systems`, `threshold`).

use std::fs::File;
use std::io::{BufReader, BufWriter, Cursor, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::prediction::Prediction;
use super::prediction_table::{PredictionTable, read_table};
use crate::base::files::{AtomicFile, folder_of};
use crate::base::foreign::first_bytes;
use crate::base::{json_stream, say};
use crate::corpus::is_no_relation;
use crate::{DataError, Error, Result};

/// A list of predictions that unpacks to more is refused: a small zip can hold any number of zeros.
const MOST_UNPACKED_BYTES: u64 = 1 << 30;
/// The one file of a submission.
const INSIDE: &str = "result.json";
/// The first bytes of a Parquet file.
const PARQUET: &[u8] = b"PAR1";

/// Reads a file of predictions: a JSON list, plain or gzip, a zip that holds exactly `result.json`,
/// or a Parquet table. Rows of no relation are left out, with a warning.
///
/// # Errors
/// I/O errors, and data errors that name row, line and field: a missing or ill-typed field, JSON
/// that is none.
pub fn read_predictions(path: &Path) -> Result<Vec<Prediction>> {
    let (mut predictions, mut no_relation) = (Vec::new(), 0);
    let mut take = |_, prediction: Prediction| {
        if is_no_relation(&prediction.r) {
            no_relation += 1;
        } else {
            predictions.push(prediction);
        }
        Ok(())
    };
    let start = first_bytes(path);
    let named = |name: &str| path.extension().is_some_and(|extension| extension == name);
    if named("zip") || start.starts_with(b"PK\x03\x04") {
        let mut unpacked = Vec::new();
        unpack(path, fs_err::File::open(path)?, &mut unpacked)?;
        json_stream::read_array_from(path, Cursor::new(unpacked), &mut take)?;
    } else if named("parquet") || start.starts_with(PARQUET) {
        read_table(path, &mut take)?;
    } else {
        json_stream::read_array(path, &mut take)?;
    }
    if no_relation > 0 {
        let file = path.display();
        say(format!(
            "warning: {file}: {no_relation} predictions of \"no relation\" (NA) were left out"
        ));
    }
    Ok(predictions)
}

/// Copies the bytes of `result.json` out of a submission.
fn unpack(path: &Path, file: impl Read + Seek, out: &mut dyn Write) -> Result<()> {
    let bad = |problem: String| {
        DataError::new(path, problem)
            .hint("a submission is a zip that holds `result.json` and nothing else")
    };
    let mut zip =
        zip::ZipArchive::new(file).map_err(|error| bad(format!("no readable zip: {error}")))?;
    let names: Vec<String> = zip.file_names().map(str::to_owned).collect();
    if names != [INSIDE] {
        let found =
            names.iter().take(5).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return Err(bad(format!("the zip holds {} files: {found}", names.len())).into());
    }
    let inside =
        zip.by_index(0).map_err(|error| bad(format!("`{INSIDE}` cannot be read: {error}")))?;
    let bytes = std::io::copy(&mut inside.take(MOST_UNPACKED_BYTES + 1), out)
        .map_err(|error| bad(format!("`{INSIDE}` cannot be unpacked: {error}")))?;
    if bytes > MOST_UNPACKED_BYTES {
        let most = MOST_UNPACKED_BYTES >> 20;
        return Err(bad(format!("`{INSIDE}` unpacks to more than {most} MiB")).into());
    }
    Ok(())
}

/// Passes bytes on, and hashes them.
struct HashedWriter<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for HashedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// A JSON list under way, one prediction a line.
struct ListWriter<W> {
    out: W,
    rows: usize,
}

impl<W: Write> ListWriter<W> {
    fn new(out: W) -> Self {
        Self { out, rows: 0 }
    }

    fn push(&mut self, prediction: &Prediction) -> std::io::Result<()> {
        if self.rows == 0 {
            self.out.write_all(b"[")?;
        }
        self.out.write_all(if self.rows == 0 { b"\n" } else { b",\n" })?;
        self.rows += 1;
        Ok(serde_json::to_writer(&mut self.out, prediction)?)
    }

    /// Closes the list, and gives what it was written to.
    fn finish(mut self) -> std::io::Result<W> {
        if self.rows == 0 {
            self.out.write_all(b"[")?;
        }
        self.out.write_all(b"\n]\n")?;
        Ok(self.out)
    }
}

/// A file of predictions under way; it appears when it is finished. A name that ends in `.parquet`
/// makes a table, any other a JSON list.
pub struct PredictionWriter(PredictionForm);

enum PredictionForm {
    List(ListWriter<AtomicFile>),
    Table(Box<PredictionTable>),
}

impl PredictionWriter {
    /// Starts a file. Missing folders are made.
    ///
    /// # Errors
    /// The disk.
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self(if path.extension().is_some_and(|extension| extension == "parquet") {
            PredictionForm::Table(Box::new(PredictionTable::create(path)?))
        } else {
            PredictionForm::List(ListWriter::new(AtomicFile::create(path)?))
        }))
    }

    /// Adds a prediction.
    ///
    /// # Errors
    /// The disk; the file does not appear then.
    pub fn push(&mut self, prediction: &Prediction) -> Result<()> {
        match &mut self.0 {
            PredictionForm::List(list) => Ok(list.push(prediction)?),
            PredictionForm::Table(table) => table.push(prediction.clone()),
        }
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// The disk; a file that was there is then as before.
    pub fn finish(self) -> Result<()> {
        match self.0 {
            PredictionForm::List(list) => list.finish()?.finish(),
            PredictionForm::Table(table) => table.finish(),
        }
    }
}

/// Writes a file of predictions, in the order given.
///
/// # Errors
/// I/O errors; the file is then as before.
pub fn write_predictions(path: &Path, predictions: &[Prediction]) -> Result<()> {
    let mut writer = PredictionWriter::create(path)?;
    predictions.iter().try_for_each(|prediction| writer.push(prediction))?;
    writer.finish()
}

/// The zip that the benchmark server takes, under way: it holds exactly one file, `result.json`.
pub struct SubmissionZip {
    target: PathBuf,
    list: ListWriter<HashedWriter<zip::ZipWriter<BufWriter<File>>>>,
}

impl SubmissionZip {
    /// Starts a zip in a file without a name. Missing folders are made.
    ///
    /// # Errors
    /// The disk.
    pub fn create(target: &Path) -> Result<Self> {
        let folder = folder_of(target);
        fs_err::create_dir_all(folder)?;
        let mut zip = zip::ZipWriter::new(BufWriter::new(tempfile::tempfile_in(folder)?));
        zip.start_file(INSIDE, zip::write::SimpleFileOptions::default()).map_err(zip_error)?;
        let out = HashedWriter { out: zip, hasher: blake3::Hasher::new() };
        Ok(Self { target: target.to_owned(), list: ListWriter::new(out) })
    }

    /// Adds a prediction.
    ///
    /// # Errors
    /// The disk.
    pub fn push(&mut self, prediction: &Prediction) -> Result<()> {
        Ok(self.list.push(prediction)?)
    }

    /// Reads what was packed again, and gives the zip its name.
    ///
    /// # Errors
    /// The disk; a file that was there is then as before.
    pub fn finish(self) -> Result<()> {
        let HashedWriter { out: zip, hasher } = self.list.finish()?;
        let file = zip.finish().map_err(zip_error)?;
        let mut file = file.into_inner().map_err(|error| Error::Io(error.into_error()))?;
        let mut unpacked = blake3::Hasher::new();
        unpack(&self.target, BufReader::new(&mut file), &mut unpacked)?;
        if unpacked.finalize() != hasher.finalize() {
            return Err(Error::Bug(format!(
                "{}: the zip does not give back what was packed",
                self.target.display()
            )));
        }
        file.rewind()?;
        let mut named = AtomicFile::create(&self.target)?;
        std::io::copy(&mut file, &mut named)?;
        named.finish()
    }
}

/// Writes the zip that the benchmark server takes. What was packed is read again before it takes
/// its place.
///
/// # Errors
/// I/O errors; the file is then as before.
pub fn write_zip(path: &Path, predictions: &[Prediction]) -> Result<()> {
    let mut zip = SubmissionZip::create(path)?;
    predictions.iter().try_for_each(|prediction| zip.push(prediction))?;
    zip.finish()
}

fn zip_error(error: zip::result::ZipError) -> Error {
    match error {
        zip::result::ZipError::Io(error) => Error::Io(error),
        other => Error::Bug(format!("the zip writer failed: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn example() -> Vec<Prediction> {
        let first = Prediction {
            title: "a \"b\" ü".into(),
            h_idx: 0,
            t_idx: 3,
            r: "P17".into(),
            evidence: vec![2, 0],
            score: Some(0.5),
            confidence: Some(0.25),
        };
        vec![
            first,
            Prediction {
                title: "c".into(),
                h_idx: 1,
                t_idx: 0,
                r: "P1".into(),
                ..Prediction::default()
            },
        ]
    }

    /// Also from a file that does not say by its name what it is.
    #[test]
    fn a_table_gives_back_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let (table, other) = (folder.path().join("r.parquet"), folder.path().join("r.json"));
        for predictions in [example(), Vec::new()] {
            write_predictions(&table, &predictions).unwrap();
            fs_err::copy(&table, &other).unwrap();
            for path in [&table, &other] {
                assert_eq!(read_predictions(path).unwrap(), predictions);
            }
        }
        fs_err::write(&table, b"PAR1 no table").unwrap();
        let error = read_predictions(&table).unwrap_err();
        assert!(error.exit_code() == 65 && error.hint().is_some(), "{error}");
    }

    #[test]
    fn round_trip_and_zip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        write_predictions(&path, &example()).unwrap();
        assert_eq!(read_predictions(&path).unwrap(), example());
        write_predictions(&path, &[]).unwrap();
        assert_eq!(read_predictions(&path).unwrap(), []);

        let path = folder.path().join("result.zip");
        write_zip(&path, &example()).unwrap();
        let mut zip = zip::ZipArchive::new(fs_err::File::open(&path).unwrap()).unwrap();
        assert_eq!(zip.file_names().collect::<Vec<_>>(), ["result.json"]);
        let mut text = String::new();
        zip.by_index(0).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Prediction>>(&text).unwrap(), example());
    }

    #[test]
    fn errors_name_the_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        let good = r#"{"title":"a","h_idx":0,"t_idx":1,"r":"P17"}"#;
        let bad = [
            r#"{"title":"a","h_idx":0,"t_idx":1}"#,
            r#"{"title":"a","h_idx":-1,"t_idx":1,"r":"P17"}"#,
            r#"{"title":"a","h_idx":0,"t_idx":1,"r_idx":17}"#,
        ];
        for row in bad {
            fs_err::write(&path, format!("[{good},{row}]")).unwrap();
            let error = read_predictions(&path).unwrap_err();
            assert_eq!(error.exit_code(), 65);
            assert!(error.to_string().contains("result.json, row 1"), "{error}");
        }
    }

    /// DocRED's own test.py writes `index` and `r_idx`; results of others carry names.
    #[test]
    fn other_fields_are_passed_over_and_no_relation_is_no_prediction() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        let row = |r: &str| {
            format!(
                r#"{{"index":3,"h_idx":1,"t_idx":0,"r_idx":5,"r":"{r}","title":"c","h_name":"x"}}"#
            )
        };
        let rows = ["NA", "P1", "n/a", "no_relation"].map(row);
        for text in [format!("[{}]", rows.join(",")), rows.join("\n")] {
            fs_err::write(&path, text).unwrap();
            assert_eq!(read_predictions(&path).unwrap(), example()[1..]);
        }
    }

    fn zip_of(names: &[&str], text: &[u8]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for name in names {
            zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(text).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    /// Every way of being no list of predictions is a data error with the file's name and a hint.
    #[test]
    fn hostile_files_are_explained() {
        let folder = tempfile::tempdir().unwrap();
        let good = br#"[{"title":"a","h_idx":0,"t_idx":1,"r":"P17","score":0.5}]"#;
        let whole = zip_of(&["result.json"], good);
        let mut flipped = whole.clone();
        // Inside the packed data, behind the local header of 30 bytes and the name.
        flipped[30 + "result.json".len() + 4] ^= 0x55;
        let nested = format!("[{}{}]", "[".repeat(1_000_000), "]".repeat(1_000_000));
        let deep = format!(
            r#"[{{"title":"a","h_idx":0,"t_idx":1,"r":"P17","evidence":{}}}]"#,
            "[".repeat(1_000_000)
        );
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("empty.json", Vec::new()),
            ("truncated.json", good[..40].to_vec()),
            ("object.json", br#"{"title":"a"}"#.to_vec()),
            ("text.json", br#"[{"title":1,"h_idx":0,"t_idx":1,"r":"P17"}]"#.to_vec()),
            ("nan.json", br#"[{"title":"a","h_idx":0,"t_idx":1,"r":"P17","score":NaN}]"#.to_vec()),
            (
                "infinite.json",
                br#"[{"title":"a","h_idx":0,"t_idx":1,"r":"P17","score":1e999}]"#.to_vec(),
            ),
            (
                "large.json",
                br#"[{"title":"a","h_idx":99999999999999999999999,"t_idx":1,"r":"P17"}]"#.to_vec(),
            ),
            (
                "bytes.json",
                b"[{\"title\":\"\xff\xfe\",\"h_idx\":0,\"t_idx\":1,\"r\":\"P17\"}]".to_vec(),
            ),
            ("nested.json", nested.into_bytes()),
            ("deep.json", deep.into_bytes()),
            ("trailing.json", [good.as_slice(), b" x"].concat()),
            ("damaged.json.gz", b"\x1f\x8b\x08\x00 no gzip".to_vec()),
            ("none.zip", b"PK no zip".to_vec()),
            ("other.zip", zip_of(&["dev.json"], good)),
            ("two.zip", zip_of(&["result.json", "readme.txt"], good)),
            ("flipped.zip", flipped),
            ("cut.zip", whole[..whole.len() - 10].to_vec()),
        ];
        for (name, bytes) in cases {
            let path = folder.path().join(name);
            fs_err::write(&path, bytes).unwrap();
            let error = read_predictions(&path).unwrap_err();
            assert_eq!(error.exit_code(), 65, "{name}: {error}");
            assert!(error.to_string().contains(name) && error.hint().is_some(), "{name}: {error}");
        }
        for name in ["good.zip", "good.json"] {
            fs_err::write(folder.path().join(name), &whole).unwrap();
            assert_eq!(read_predictions(&folder.path().join(name)).unwrap().len(), 1);
        }
    }
}
