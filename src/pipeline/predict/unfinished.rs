//! What `predict` has done so far, chunk by chunk, in a folder beside its output. Work that was
//! broken off goes on from there, and the files are made of it at the end.
//!
//! Not for: the files themselves (`outputs`).

use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;

use super::super::predictor::DocumentScores;
use super::super::review::UncertainPairs;
use crate::base::{entries, read_json, say, to_json, write_atomic, write_whole};
use crate::eval::Prediction;
use crate::{DataError, Error, Result};

/// The file that says whose work it is.
const TASK: &str = "task.json";

/// What is kept of a document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct DocumentRecord {
    /// Its title.
    pub title: String,
    /// Its facts.
    pub facts: Vec<Prediction>,
    /// Facts that were left out because of `--min-confidence`.
    pub below: usize,
    /// Its uncertain pairs, where they are asked for.
    pub uncertain: UncertainPairs,
}

/// Where the record of a document lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RecordPlace {
    part: usize,
    offset: u64,
}

/// A chunk that is done.
#[derive(Clone, Debug)]
struct FinishedPart {
    records: PathBuf,
    len: usize,
}

/// The work so far.
pub(super) struct UnfinishedPredictions {
    folder: PathBuf,
    /// Where the output is no file, so that nothing can lie beside it.
    elsewhere: Option<TempDir>,
    parts: Vec<FinishedPart>,
    done: usize,
}

impl UnfinishedPredictions {
    /// Begins the work on `output`, or goes on with it where `resume` says so. `task` says what is
    /// predicted of what and how.
    ///
    /// # Errors
    /// Work of another task that was to be resumed; the disk.
    pub(super) fn begin(output: &Path, task: &Value, resume: bool) -> Result<Self> {
        let is_device = std::fs::metadata(output).is_ok_and(|found| !found.is_file());
        if is_device && !output.is_dir() {
            let elsewhere = tempfile::tempdir()?;
            let folder = elsewhere.path().to_owned();
            return Ok(Self { folder, elsewhere: Some(elsewhere), parts: Vec::new(), done: 0 });
        }
        let mut name = output.file_name().unwrap_or_default().to_os_string();
        name.push(".unfinished");
        let folder = output.with_file_name(name);
        if !resume && folder.is_dir() {
            say(format!(
                "{}: what an earlier prediction left is removed; --resume goes on with it",
                folder.display()
            ));
            fs_err::remove_dir_all(&folder)?;
        }
        let path = folder.join(TASK);
        if path.is_file() {
            if read_json::<Value>(&path)? != *task {
                let problem = "was begun with other options, another checkpoint or other documents";
                return Err(DataError::new(&folder, problem)
                    .hint("leave --resume out to begin anew, or name another --output")
                    .into());
            }
        } else {
            fs_err::create_dir_all(&folder)?;
            write_atomic(&path, |out| out.write_all(format!("{task:#}\n").as_bytes()))?;
        }
        let mut unfinished = Self { folder, elsewhere: None, parts: Vec::new(), done: 0 };
        unfinished.find_parts()?;
        Ok(unfinished)
    }

    /// Documents that are done.
    pub(super) fn done(&self) -> usize {
        self.done
    }

    /// The parts that follow each other from the first document on.
    fn find_parts(&mut self) -> Result<()> {
        let mut found: Vec<(usize, usize, PathBuf)> = entries(&self.folder)?
            .into_iter()
            .filter_map(|(name, path)| {
                let (first, len) =
                    name.strip_prefix("part-")?.strip_suffix(".jsonl")?.split_once('-')?;
                Some((first.parse().ok()?, len.parse().ok()?, path))
            })
            .collect();
        found.sort();
        for (first, len, records) in found {
            if first == self.done {
                self.parts.push(FinishedPart { records, len });
                self.done += len;
            }
        }
        Ok(())
    }

    /// Keeps the records of the next documents, and their scores where they are written too.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn keep(
        &mut self,
        records: &[DocumentRecord],
        scores: Option<&[DocumentScores]>,
    ) -> Result<()> {
        let name = format!("part-{:012}-{}.jsonl", self.done, records.len());
        let path = self.folder.join(name);
        if let Some(scores) = scores {
            write_whole(&scores_beside(&path), &DocumentScores::encode(scores))?;
        }
        let mut lines = Vec::new();
        for record in records {
            lines.extend(to_json(record)?);
            lines.push(b'\n');
        }
        write_whole(&path, &lines)?;
        self.parts.push(FinishedPart { records: path, len: records.len() });
        self.done += records.len();
        Ok(())
    }

    /// Number of parts.
    pub(super) fn num_parts(&self) -> usize {
        self.parts.len()
    }

    /// Hands the records of a part to `each`, in order.
    ///
    /// # Errors
    /// A part that is damaged; those of `each`.
    pub(super) fn records(
        &self,
        part: usize,
        each: &mut dyn FnMut(RecordPlace, DocumentRecord) -> Result<()>,
    ) -> Result<()> {
        let FinishedPart { records: path, len } = &self.parts[part];
        let mut reader = BufReader::new(fs_err::File::open(path)?);
        let (mut line, mut offset) = (Vec::new(), 0);
        for _ in 0..*len {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)?;
            each(RecordPlace { part, offset }, parsed(path, &line)?)?;
            offset += length as u64;
        }
        Ok(())
    }

    /// The record at a place.
    ///
    /// # Errors
    /// A part that is damaged.
    pub(super) fn record(&self, place: RecordPlace) -> Result<DocumentRecord> {
        let path = &self.parts[place.part].records;
        let mut file = BufReader::new(fs_err::File::open(path)?);
        file.seek(SeekFrom::Start(place.offset))?;
        let mut line = Vec::new();
        file.read_until(b'\n', &mut line)?;
        parsed(path, &line)
    }

    /// The scores of the documents of a part.
    ///
    /// # Errors
    /// A part that is damaged.
    pub(super) fn scores(&self, part: usize) -> Result<Vec<DocumentScores>> {
        let FinishedPart { records, len } = &self.parts[part];
        let path = scores_beside(records);
        let scores = DocumentScores::decode(&fs_err::read(&path)?);
        if scores.len() != *len {
            return Err(damaged(&path, format!("{} documents, not {len}", scores.len())));
        }
        Ok(scores)
    }

    /// Removes the folder, once all files are written.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn remove(self) -> Result<()> {
        match self.elsewhere {
            Some(folder) => Ok(folder.close()?),
            None => Ok(fs_err::remove_dir_all(&self.folder)?),
        }
    }
}

fn scores_beside(records: &Path) -> PathBuf {
    records.with_extension("scores")
}

fn parsed(path: &Path, line: &[u8]) -> Result<DocumentRecord> {
    serde_json::from_slice(line).map_err(|error| damaged(path, error.to_string()))
}

fn damaged(path: &Path, problem: String) -> Error {
    DataError::new(path, problem).hint("predict again without --resume").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(title: &str, score: f64) -> DocumentRecord {
        let fact = Prediction { title: title.into(), score: Some(score), ..Prediction::default() };
        DocumentRecord { title: title.into(), facts: vec![fact], below: 1, ..Default::default() }
    }

    fn all(work: &UnfinishedPredictions) -> Vec<(RecordPlace, DocumentRecord)> {
        let mut all = Vec::new();
        for part in 0..work.num_parts() {
            work.records(part, &mut |place, record| {
                all.push((place, record));
                Ok(())
            })
            .unwrap();
        }
        all
    }

    #[test]
    fn what_was_kept_is_there_on_resume_and_gone_without() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("deep/result.json");
        let task = json!({"checkpoint": "a"});
        let mut work = UnfinishedPredictions::begin(&output, &task, true).unwrap();
        let records = [record("ü", 0.1 + 0.2), record("b", 1e-9), record("c", 0.5)];
        let scores = DocumentScores { pairs: vec![(0, 1)], ..DocumentScores::default() };
        work.keep(&records[..2], Some(&[scores.clone(), DocumentScores::default()])).unwrap();
        work.keep(&records[2..], Some(std::slice::from_ref(&scores))).unwrap();
        assert_eq!(work.done(), 3);
        drop(work);

        let work = UnfinishedPredictions::begin(&output, &task, true).unwrap();
        assert_eq!((work.done(), work.num_parts()), (3, 2));
        let found = all(&work);
        assert!(found.iter().map(|(_, record)| record).eq(&records));
        for (place, record) in &found {
            assert_eq!(work.record(*place).unwrap(), *record);
        }
        assert_eq!(work.scores(0).unwrap(), [scores, DocumentScores::default()]);
        drop(work);

        let other = UnfinishedPredictions::begin(&output, &json!({"checkpoint": "b"}), true);
        let error = other.err().unwrap();
        assert!(error.exit_code() == 65 && error.hint().is_some(), "{error}");
        let work = UnfinishedPredictions::begin(&output, &task, false).unwrap();
        assert_eq!(work.done(), 0);
        work.remove().unwrap();
        assert_eq!(fs_err::read_dir(output.parent().unwrap()).unwrap().count(), 0);
    }

    /// A part counts once its records are there; what lies behind a gap is done again.
    #[test]
    fn parts_behind_a_gap_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("r.json");
        let task = json!({});
        let mut work = UnfinishedPredictions::begin(&output, &task, true).unwrap();
        for title in ["a", "b", "c"] {
            work.keep(&[record(title, 0.5)], None).unwrap();
        }
        fs_err::remove_file(&work.parts[1].records).unwrap();
        let mut work = UnfinishedPredictions::begin(&output, &task, true).unwrap();
        assert_eq!(work.done(), 1);
        work.keep(&[record("new", 0.5)], None).unwrap();
        let titles: Vec<_> = all(&work).into_iter().map(|(_, record)| record.title).collect();
        assert_eq!(titles, ["a", "new"]);
    }
}
