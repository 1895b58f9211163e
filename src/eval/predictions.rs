//! Submission files: a JSON list of `{title, h_idx, t_idx, r, evidence?, score?, confidence?}` and
//! the zip that the benchmark server takes. Not for: choosing what to predict (`systems`,
//! `threshold`).

use std::io::{Cursor, Read, Seek, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::foreign::first_bytes;
use crate::base::{json_stream, say, write_atomic};
use crate::corpus::is_no_relation;
use crate::{DataError, Error, Result};

/// A list of predictions that unpacks to more is refused: a small zip can hold any number of zeros.
const MOST_UNPACKED_BYTES: u64 = 1 << 30;
/// The one file of a submission.
const INSIDE: &str = "result.json";

/// One predicted fact. "No relation" is never predicted explicitly. Other fields of a file are
/// passed over, as DocRED's scorer does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Title of the document.
    pub title: String,
    /// Index of the head entity.
    pub h_idx: usize,
    /// Index of the tail entity.
    pub t_idx: usize,
    /// Identifier of the relation.
    pub r: String,
    /// Supporting sentences; empty where the system gives none.
    #[serde(default)]
    pub evidence: Vec<usize>,
    /// The system's score of the fact, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// The calibrated probability of the fact, if the system has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
}

/// Reads a submission file: a JSON list, plain or gzip, or a zip that holds exactly `result.json`.
/// Rows of no relation are left out, with a warning.
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
    let is_zip = path.extension().is_some_and(|extension| extension == "zip")
        || first_bytes(path).starts_with(b"PK\x03\x04");
    if is_zip {
        let unpacked = unpack(path, fs_err::File::open(path)?)?;
        json_stream::read_array_from(path, Cursor::new(unpacked), &mut take)?;
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

/// The bytes of `result.json` in a submission.
fn unpack(path: &Path, file: impl Read + Seek) -> Result<Vec<u8>> {
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
    let mut bytes = Vec::new();
    inside
        .take(MOST_UNPACKED_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| bad(format!("`{INSIDE}` cannot be unpacked: {error}")))?;
    match bytes.len() as u64 {
        0..=MOST_UNPACKED_BYTES => Ok(bytes),
        _ => Err(bad(format!("`{INSIDE}` unpacks to more than {} MiB", MOST_UNPACKED_BYTES >> 20))
            .into()),
    }
}

/// Writes a submission file, one prediction a line, in the order given.
///
/// # Errors
/// I/O errors; the file is then as before.
pub fn write_predictions(path: &Path, predictions: &[Prediction]) -> Result<()> {
    write_atomic(path, |out| write_list(out, predictions))
}

/// Writes the zip that the benchmark server takes: it holds exactly one file, `result.json`. What
/// was packed is read again before it takes its place.
///
/// # Errors
/// I/O errors; the file is then as before.
pub fn write_zip(path: &Path, predictions: &[Prediction]) -> Result<()> {
    let bytes = pack(predictions)?;
    let mut again = Vec::with_capacity(predictions.len());
    json_stream::read_array_from(
        path,
        Cursor::new(unpack(path, Cursor::new(bytes.as_slice()))?),
        &mut |_, prediction: Prediction| {
            again.push(prediction);
            Ok(())
        },
    )?;
    if again != predictions {
        return Err(Error::Bug(format!(
            "{}: the zip does not give back what was packed",
            path.display()
        )));
    }
    write_atomic(path, |out| out.write_all(&bytes))
}

fn pack(predictions: &[Prediction]) -> Result<Vec<u8>> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file(INSIDE, zip::write::SimpleFileOptions::default())
        .map_err(|error| as_bug(&error))?;
    write_list(&mut zip, predictions)?;
    Ok(zip.finish().map_err(|error| as_bug(&error))?.into_inner())
}

fn write_list(out: &mut dyn Write, predictions: &[Prediction]) -> std::io::Result<()> {
    out.write_all(b"[")?;
    for (row, prediction) in predictions.iter().enumerate() {
        out.write_all(if row == 0 { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut *out, prediction)?;
    }
    out.write_all(b"\n]\n")
}

fn as_bug(error: &zip::result::ZipError) -> Error {
    Error::Bug(format!("the zip writer failed in memory: {error}"))
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
