//! A list of JSON values read element by element, from a plain or gzip file: one thread finds where
//! elements end, all cores parse them, and the caller gets them in order. A file of any size costs
//! the memory of a few blocks.
//!
//! The list is an array, or objects one a line (JSON lines). A single object is a list of one.
//!
//! Not for: what the elements mean. A broken file is a `DataError` with its row, line and column,
//! and with title and field where they can be known.

mod explain;
mod scan;

use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::DeserializeOwned;

use self::scan::{ArrayScanner, Fault};
use super::blocks::{BlockInput, Span, read_blocks};
use super::text_file::{behind_mark, open};
use crate::Result;

const BUFFER_BYTES: usize = 1 << 18;

/// What a file held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elements {
    /// Elements, good and bad.
    pub rows: usize,
    /// Whether they are in no array.
    pub alone: bool,
}

/// Calls `each` with the row and value of every element of the list in `path`.
///
/// The first error of `each` ends the reading and is returned as it is.
pub(crate) fn read_array<T: DeserializeOwned + Send>(
    path: &Path,
    each: &mut dyn FnMut(usize, T) -> Result<()>,
) -> Result<Elements> {
    read_array_with(path, &|_, element: T| Ok(element), &mut |row, element| each(row, element?))
}

/// [`read_array`] of what `reader` gives; `path` is for messages.
pub(crate) fn read_array_from<T: DeserializeOwned + Send>(
    path: &Path,
    reader: impl Read + Send,
    each: &mut dyn FnMut(usize, T) -> Result<()>,
) -> Result<Elements> {
    let (reader, work) = (behind_mark(path, reader)?, |_, element: T| Ok(element));
    read_elements(path, reader, &work, &mut |row, element| each(row, element?))
}

/// [`read_array`] with a step between parsing and `each` that runs on all cores. `each` gets the
/// errors of bad rows too, and says whether they end the reading.
pub(crate) fn read_array_with<T, O>(
    path: &Path,
    work: &(dyn Fn(usize, T) -> Result<O> + Sync),
    each: &mut dyn FnMut(usize, Result<O>) -> Result<()>,
) -> Result<Elements>
where
    T: DeserializeOwned,
    O: Send,
{
    read_elements(path, open(path)?, work, each)
}

fn read_elements<T, O>(
    path: &Path,
    reader: impl Read + Send,
    work: &(dyn Fn(usize, T) -> Result<O> + Sync),
    each: &mut dyn FnMut(usize, Result<O>) -> Result<()>,
) -> Result<Elements>
where
    T: DeserializeOwned,
    O: Send,
{
    let alone = AtomicBool::new(false);
    let parse = |text: &[u8], span: Span| {
        if span.alone {
            alone.store(true, Ordering::Relaxed);
        }
        let value = serde_json::from_slice(text)
            .map_err(|error| explain::element::<T>(path, text, span, &error))?;
        if span.cut { Err(explain::cut(path, span)) } else { work(span.row, value) }
    };
    let mut rows = 0;
    read_blocks(|input| scan(path, reader, input), &parse, &mut |element| {
        rows += 1;
        each(rows - 1, element)
    })?;
    Ok(Elements { rows, alone: alone.into_inner() })
}

/// Parses one line of JSON, `line` (from 0) of the file, with the same errors as an element of an
/// array.
pub(crate) fn parse_line<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    row: usize,
    line: usize,
) -> Result<T> {
    let span = Span { row, line, ..Span::default() };
    serde_json::from_str(text)
        .map_err(|error| explain::element::<T>(path, text.as_bytes(), span, &error))
}

/// Reads the file and sends its blocks, then the error that ended it, if any.
fn scan<O>(path: &Path, mut reader: impl Read, input: &BlockInput<O>) {
    let mut scanner = ArrayScanner::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    let outcome = loop {
        match reader.read(&mut buffer) {
            Ok(0) => break scanner.finish(),
            Ok(count) => {
                if let Err(fault) = scanner.feed(&buffer[..count]) {
                    break Err(fault);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => break Err(Fault::Read(error)),
        }
        if scanner.is_full() && !input.send(scanner.take()) {
            return;
        }
    };
    // Rows before the fault come first: an earlier error in them is the one to report.
    if input.send(scanner.take())
        && let Err(fault) = outcome
    {
        input.fail(explain::fault(path, scanner.row(), fault));
    }
}

#[cfg(test)]
mod tests;
