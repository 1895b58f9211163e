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
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.more.insert(name.to_owned(), Value::from(value));
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
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut reader = BufReader::new(fs_err::File::open(path)?);
    let mut lines: BTreeMap<usize, MetricLine> = BTreeMap::new();
    let mut latest: BTreeMap<(String, u64), usize> = BTreeMap::new();
    let mut text = Vec::new();
    for row in 0.. {
        text.clear();
        if reader.read_until(b'\n', &mut text)? == 0 || text.last() != Some(&b'\n') {
            break;
        }
        let line: MetricLine = serde_json::from_slice(&text)
            .map_err(|error| DataError::new(path, error.to_string()).row(row))?;
        if let Some(older) = latest.insert((line.stage.clone(), line.step), row) {
            lines.remove(&older);
        }
        lines.insert(row, line);
    }
    Ok(lines.into_values().collect())
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
    fn broken_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = MetricsWriter::path(folder.path());
        fs_err::write(&path, "{\"stage\":\"a\",\"step\":1}\n{\"stage\":\n").unwrap();
        assert!(read_metrics(&path).unwrap_err().to_string().contains("row 1"));
    }
}
