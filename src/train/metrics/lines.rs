//! `metrics.jsonl`: one JSON object a line, only ever appended to. Not for: scores (`scores.json`)
//! or the log.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::base::run_files;
use crate::{DataError, Result};

/// One line. A number that was not finite is written as `null` and read as `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricLine {
    /// The stage (`rank`, `pretrain`, `finetune`).
    pub stage: String,
    /// The step inside the stage, from 1.
    pub step: u64,
    /// Total loss, averaged over the global batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Learning rate of the encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Norm of the gradient before clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Documents a second, over all ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents_per_s: Option<f64>,
    /// Word pieces a second, over all ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_s: Option<f64>,
    /// Hash of the order of all items up to this step, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_hash: Option<String>,
    /// Everything else, such as `loss/<task>`, `epoch` or `dev/f1`.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl MetricLine {
    /// Adds a number under any name, such as `loss/RelDet`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// A number of `more`.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.more.get(name)?.as_f64()
    }

    /// The losses of the single tasks: what follows `loss/`, with the value.
    pub fn tasks(&self) -> impl Iterator<Item = (&str, f64)> {
        self.more
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix("loss/")?, value.as_f64()?)))
    }
}

/// Appends lines to the file; each is written whole and at once.
#[derive(Debug)]
pub struct MetricsWriter {
    file: fs_err::File,
}

impl MetricsWriter {
    /// The metrics file of a run folder.
    pub fn path(run: &Path) -> PathBuf {
        run.join(run_files::METRICS)
    }

    /// Opens the file for appending. What a killed process left of an unfinished last line is cut
    /// off.
    ///
    /// # Errors
    /// I/O errors.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file =
            fs_err::OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let whole = end_of_last_line(&mut file)?;
        file.set_len(whole)?;
        Ok(Self { file })
    }

    /// Appends one line.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write(&mut self, line: &MetricLine) -> Result<()> {
        let mut text = serde_json::to_vec(line).map_err(std::io::Error::from)?;
        text.push(b'\n');
        self.file.write_all(&text)?;
        Ok(())
    }
}

/// Reads the lines in order of writing. A step that was repeated after a resume counts once, with
/// its last line; an unfinished last line is left out. Without a file there are none: a run that
/// came back from its mirror with nothing left to train has none.
///
/// # Errors
/// I/O errors, and a data error naming the line (from 0) if any other line cannot be read.
pub fn read_metrics(path: &Path) -> Result<Vec<MetricLine>> {
    let mut lines: BTreeMap<usize, MetricLine> = BTreeMap::new();
    let mut latest: BTreeMap<(String, u64), usize> = BTreeMap::new();
    for (row, line) in MetricsTail::new(path).read_on()?.lines.into_iter().enumerate() {
        if let Some(older) = latest.insert((line.stage.clone(), line.step), row) {
            lines.remove(&older);
        }
        lines.insert(row, line);
    }
    Ok(lines.into_values().collect())
}

/// Follows a file that grows, line by line.
#[derive(Debug)]
pub struct MetricsTail {
    path: PathBuf,
    /// Where the next line begins, and its number.
    at: u64,
    row: usize,
}

/// What was found at one look.
#[derive(Debug, Default)]
pub struct NewLines {
    /// Whether the file is another one than before: what was read of it no longer counts.
    pub anew: bool,
    /// The lines that were not read before, in order of writing.
    pub lines: Vec<MetricLine>,
}

impl MetricsTail {
    /// Begins with the first line.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), at: 0, row: 0 }
    }

    /// The whole lines that were not read before. There are none without a file.
    ///
    /// # Errors
    /// I/O errors, and a data error naming the line (from 0) if one cannot be read.
    pub fn read_on(&mut self) -> Result<NewLines> {
        let mut found = NewLines::default();
        if !self.path.exists() {
            found.anew = self.at > 0;
            (self.at, self.row) = (0, 0);
            return Ok(found);
        }
        let mut file = fs_err::File::open(&self.path)?;
        if file.metadata()?.len() < self.at {
            (found.anew, self.at, self.row) = (true, 0, 0);
        }
        file.seek(SeekFrom::Start(self.at))?;
        let mut reader = BufReader::new(file);
        let mut text = Vec::new();
        while reader.read_until(b'\n', &mut text)? > 0 && text.last() == Some(&b'\n') {
            let line = serde_json::from_slice(&text)
                .map_err(|error| DataError::new(&self.path, error.to_string()).row(self.row))?;
            found.lines.push(line);
            (self.at, self.row) = (self.at + text.len() as u64, self.row + 1);
            text.clear();
        }
        Ok(found)
    }
}

/// Length of the file up to and with its last line break.
fn end_of_last_line(file: &mut fs_err::File) -> std::io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        file.seek(SeekFrom::Start(start))?;
        let part = &mut block[..(end - start) as usize];
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64, loss: f64) -> MetricLine {
        MetricLine { stage: "pretrain".into(), step, loss: Some(loss), ..MetricLine::default() }
            .with("loss/RelDet", loss / 2.0)
    }

    #[test]
    fn torn_lines_and_repeated_steps() {
        let folder = tempfile::tempdir().unwrap();
        let path = MetricsWriter::path(folder.path());
        let mut writer = MetricsWriter::open(&path).unwrap();
        for step in 1..=3 {
            writer.write(&line(step, step as f64)).unwrap();
        }
        drop(writer);
        let whole = fs_err::read(&path).unwrap();
        fs_err::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(read_metrics(&path).unwrap(), [line(1, 1.0), line(2, 2.0)]);

        let mut writer = MetricsWriter::open(&path).unwrap();
        writer.write(&line(2, 20.0)).unwrap();
        assert_eq!(read_metrics(&path).unwrap(), [line(1, 1.0), line(2, 20.0)]);
        assert_eq!(line(1, 4.0).tasks().collect::<Vec<_>>(), [("RelDet", 2.0)]);
    }

    #[test]
    fn exact_line_and_numbers_that_are_not() {
        let text = serde_json::to_string(&line(7, 1.5)).unwrap();
        assert_eq!(text, r#"{"stage":"pretrain","step":7,"loss":1.5,"loss/RelDet":0.75}"#);
        let text = serde_json::to_string(&line(7, f64::NAN)).unwrap();
        let back: MetricLine = serde_json::from_str(&text).unwrap();
        assert_eq!((back.loss, back.tasks().count()), (None, 0));
    }

    #[test]
    fn a_growing_file_is_read_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = MetricsWriter::path(folder.path());
        let mut tail = MetricsTail::new(&path);
        assert!(tail.read_on().unwrap().lines.is_empty());
        fs_err::write(&path, "{\"stage\":\"a\",\"step\":1}\n{\"stage\":\"a\",").unwrap();
        assert_eq!(tail.read_on().unwrap().lines.len(), 1);
        assert!(tail.read_on().unwrap().lines.is_empty());
        let text = fs_err::read_to_string(&path).unwrap() + "\"step\":2}\n";
        fs_err::write(&path, text).unwrap();
        let second = tail.read_on().unwrap();
        assert_eq!((second.anew, second.lines[0].step), (false, 2));
        fs_err::write(&path, "{\"stage\":\"b\",\"step\":1}\n").unwrap();
        let again = tail.read_on().unwrap();
        assert_eq!((again.anew, again.lines[0].stage.as_str()), (true, "b"));
        fs_err::remove_file(&path).unwrap();
        assert!(tail.read_on().unwrap().anew);
    }

    #[test]
    fn broken_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = MetricsWriter::path(folder.path());
        fs_err::write(&path, "{\"stage\":\"a\",\"step\":1}\n{\"stage\":\n").unwrap();
        assert!(read_metrics(&path).unwrap_err().to_string().contains("row 1"));
    }
}
