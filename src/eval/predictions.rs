//! Submission files: a JSON list of `{title, h_idx, t_idx, r, evidence?, score?}` and the zip that the benchmark server takes.
//! Not for: choosing what to predict (`systems`, `threshold`).

use std::io::{Cursor, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{files::write_atomic, list};
use crate::{Error, Result};

/// One predicted fact. "No relation" is never predicted explicitly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
}

/// Reads a submission file.
///
/// # Errors
/// I/O errors, and data errors that name the row: a missing, unknown or ill-typed field.
pub fn read_predictions(path: &Path) -> Result<Vec<Prediction>> {
    let mut predictions = Vec::new();
    list::for_each(path, |_, prediction| {
        predictions.push(prediction);
        Ok(())
    })?;
    Ok(predictions)
}

/// Writes a submission file, one prediction a line, in the order given.
///
/// # Errors
/// I/O errors; the file is then as before.
pub fn write_predictions(path: &Path, predictions: &[Prediction]) -> Result<()> {
    write_atomic(path, |out| write_list(out, predictions))
}

/// Writes the zip that the benchmark server takes: it holds exactly one file, `result.json`.
///
/// # Errors
/// I/O errors; the file is then as before.
pub fn write_zip(path: &Path, predictions: &[Prediction]) -> Result<()> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("result.json", zip::write::SimpleFileOptions::default()).map_err(|error| as_bug(&error))?;
    write_list(&mut zip, predictions)?;
    let bytes = zip.finish().map_err(|error| as_bug(&error))?.into_inner();
    write_atomic(path, |out| out.write_all(&bytes))
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
        let first = Prediction { title: "a \"b\" ü".into(), h_idx: 0, t_idx: 3, r: "P17".into(), evidence: vec![2, 0], score: Some(0.5) };
        vec![first, Prediction { title: "c".into(), h_idx: 1, t_idx: 0, r: "P1".into(), ..Prediction::default() }]
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
            r#"{"title":"a","h_idx":0,"t_idx":1,"r":"P17","evidences":[]}"#,
        ];
        for row in bad {
            fs_err::write(&path, format!("[{good},{row}]")).unwrap();
            let error = read_predictions(&path).unwrap_err();
            assert_eq!(error.exit_code(), 65);
            assert!(error.to_string().contains("result.json, row 1"), "{error}");
        }
    }
}
