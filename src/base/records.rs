//! A text file read record by record, plain or gzip: one thread finds where records end, all cores
//! parse them, and the caller gets them in order. A file of any size costs the memory of a few
//! blocks.
//!
//! A record is a line, or a paragraph (lines up to a blank one). Not for: JSON arrays
//! (`json_stream`), or what the records mean.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::blocks::{BLOCK_BYTES, BlockInput, MAX_RECORD_BYTES, RecordBlock, Span, read_blocks};
use super::text_file::{open, unreadable};
use crate::{DataError, Result};

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A line that is not blank.
    Line,
    /// Lines up to a blank one.
    Paragraph,
}

/// A record and its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// The text, without the last line break.
    pub text: &'a str,
    /// Its number, from 0: that of its line for [`Unit::Line`].
    pub row: usize,
    /// Its first line in the file, from 0.
    pub line: usize,
}

/// Calls `work` for every record of `path` on all cores, and `each` with the results in the order
/// of the file.
///
/// The error of the first bad record is returned, after `each` has seen all records before it.
pub(crate) fn read_records<O: Send>(
    path: &Path,
    unit: Unit,
    work: &(dyn Fn(Record<'_>) -> Result<O> + Sync),
    each: &mut dyn FnMut(O) -> Result<()>,
) -> Result<()> {
    read_all_records(path, unit, work, &mut |record| each(record?))
}

/// [`read_records`] where `each` gets the errors of bad records too, and says whether they end the
/// reading.
pub(crate) fn read_all_records<O: Send>(
    path: &Path,
    unit: Unit,
    work: &(dyn Fn(Record<'_>) -> Result<O> + Sync),
    each: &mut dyn FnMut(Result<O>) -> Result<()>,
) -> Result<()> {
    let reader = BufReader::new(open(path)?);
    let scanner = LineScanner { unit, block: RecordBlock::default(), open: None, line: 0, row: 0 };
    let parse = |text: &[u8], Span { row, line, .. }: Span| {
        let text = std::str::from_utf8(text).map_err(|error| {
            let (byte, line) = (error.valid_up_to(), line + 1);
            DataError::new(path, format!("not valid UTF-8 from byte {byte} of line {line}"))
                .row(row)
                .hint("save the file as UTF-8")
        })?;
        work(Record { text: text.trim_end_matches(['\n', '\r']), row, line })
    };
    read_blocks(|input| scanner.run(path, reader, input), &parse, each)
}

/// The state of reading a file.
struct LineScanner {
    unit: Unit,
    block: RecordBlock,
    /// Start and first line of a paragraph that has begun.
    open: Option<(usize, usize)>,
    line: usize,
    row: usize,
}

impl LineScanner {
    fn run<O>(mut self, path: &Path, mut reader: impl BufRead, input: &BlockInput<O>) {
        loop {
            match self.next_line(&mut reader) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    // Rows before the fault come first: an earlier error in them is the one to
                    // report.
                    if input.send(std::mem::take(&mut self.block)) {
                        input.fail(unreadable(path, self.row, error));
                    }
                    return;
                }
            }
            let unfinished = self.open.map_or(0, |open| self.block.text.len() - open.0);
            if unfinished > MAX_RECORD_BYTES {
                let problem = format!(
                    "the record that begins before line {} is larger than 64 MiB",
                    self.line + 1
                );
                let error = DataError::new(path, problem).row(self.row);
                input.fail(error.hint("is this the right format?").into());
                return;
            }
            if self.open.is_none()
                && self.block.text.len() >= BLOCK_BYTES
                && !input.send(std::mem::take(&mut self.block))
            {
                return;
            }
        }
        self.close();
        input.send(self.block);
    }

    /// Adds a line to the block and gives its length; a line without end is cut at the limit, where
    /// it is refused.
    fn next_line(&mut self, reader: &mut impl BufRead) -> std::io::Result<usize> {
        let start = self.block.text.len();
        let length = reader
            .by_ref()
            .take(MAX_RECORD_BYTES as u64 + 2)
            .read_until(b'\n', &mut self.block.text)?;
        if self.block.text[start..].iter().all(u8::is_ascii_whitespace) {
            self.block.text.truncate(start);
            self.close();
        } else if self.open.is_none() {
            self.open = Some((start, self.line));
        }
        let whole = length <= MAX_RECORD_BYTES;
        self.line += usize::from(length > 0);
        if self.unit == Unit::Line && whole {
            self.close();
        }
        Ok(length)
    }

    fn close(&mut self) {
        let Some((start, line)) = self.open.take() else { return };
        let row = if self.unit == Unit::Line { line } else { self.row };
        self.row += 1;
        let end = self.block.text.len();
        self.block.spans.push(Span { start, end, row, line, ..Span::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &[u8], unit: Unit) -> Result<Vec<(String, usize, usize)>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.txt");
        fs_err::write(&path, text).unwrap();
        let mut all = Vec::new();
        read_records(
            &path,
            unit,
            &|record| Ok((record.text.to_owned(), record.row, record.line)),
            &mut |record| {
                all.push(record);
                Ok(())
            },
        )?;
        Ok(all)
    }

    #[test]
    fn lines_and_paragraphs_keep_their_places() {
        let text = b"\na\r\nb\n \n\nc\nd";
        let lines = records(text, Unit::Line).unwrap();
        assert_eq!(
            lines,
            [("a".into(), 1, 1), ("b".into(), 2, 2), ("c".into(), 5, 5), ("d".into(), 6, 6)]
        );
        let paragraphs = records(text, Unit::Paragraph).unwrap();
        assert_eq!(paragraphs, [("a\r\nb".into(), 0, 1), ("c\nd".into(), 1, 5)]);
        assert_eq!(records(b"", Unit::Line).unwrap(), []);
        assert_eq!(records(b"\xef\xbb\xbfa\nb", Unit::Paragraph).unwrap(), [("a\nb".into(), 0, 0)]);
    }

    #[test]
    fn many_records_come_in_order() {
        let text: String = (0..50_000).map(|number| format!("record {number}\nmore\n\n")).collect();
        let all = records(text.as_bytes(), Unit::Paragraph).unwrap();
        assert_eq!(all.len(), 50_000);
        assert!(all.iter().enumerate().all(|(at, (text, row, line))| {
            *text == format!("record {at}\nmore") && *row == at && *line == 3 * at
        }));
    }

    #[test]
    fn bad_text_is_named() {
        let error = records(b"good\nb\xffd\n", Unit::Line).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(
            error.to_string().contains("row 1") && error.to_string().contains("byte 1 of line 2"),
            "{error}"
        );
    }
}
