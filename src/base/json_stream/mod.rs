//! A JSON array read element by element, from a plain or gzip file: one thread finds where elements
//! end, all cores parse them, and the caller gets them in order. A file of any size costs the
//! memory of a few blocks.
//!
//! Not for: what the elements mean. A broken file is a `DataError` with its row, line and column,
//! and with title and field where they can be known.

mod explain;
mod scan;

use std::{io::Read, path::Path, thread};

use serde::de::DeserializeOwned;

use self::scan::{Block, Scanner};
use super::ordered::{self, Input};
use super::text_file::{behind_mark, open};
use crate::{Error, Result};

const BUFFER_BYTES: usize = 1 << 18;

/// Calls `each` with the row and value of every element of the array in `path`; returns the number
/// of elements.
///
/// The first error of `each` ends the reading and is returned as it is.
pub(crate) fn read_array<T: DeserializeOwned + Send>(
    path: &Path,
    each: &mut dyn FnMut(usize, T) -> Result<()>,
) -> Result<usize> {
    read_array_with(path, &|_, element: T| Ok(element), each)
}

/// [`read_array`] of what `reader` gives; `path` is for messages.
pub(crate) fn read_array_from<T: DeserializeOwned + Send>(
    path: &Path,
    reader: impl Read + Send,
    each: &mut dyn FnMut(usize, T) -> Result<()>,
) -> Result<usize> {
    read_elements(path, behind_mark(path, reader)?, &|_, element: T| Ok(element), each)
}

/// [`read_array`] with a step between parsing and `each` that runs on all cores.
///
/// The error of the first bad row is returned, after `each` has seen all rows before it.
pub(crate) fn read_array_with<T, O>(
    path: &Path,
    work: &(dyn Fn(usize, T) -> Result<O> + Sync),
    each: &mut dyn FnMut(usize, O) -> Result<()>,
) -> Result<usize>
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
    each: &mut dyn FnMut(usize, O) -> Result<()>,
) -> Result<usize>
where
    T: DeserializeOwned,
    O: Send,
{
    thread::scope(|scope| {
        let worker = |block: Result<Block>| block.map(|block| parse(path, &block, work));
        let (input, output) =
            ordered::start(scope, vec![worker; ordered::threads()], ordered::MOST_TEXT_BYTES);
        scope.spawn(move || produce(path, reader, &input));
        let mut row = 0;
        for parsed in output {
            let (elements, failure) = parsed?;
            for element in elements {
                each(row, element)?;
                row += 1;
            }
            failure.map_or(Ok(()), Err)?;
        }
        Ok(row)
    })
}

/// The elements of a block before its first error, and that error.
type Parsed<O> = (Vec<O>, Option<Error>);

fn parse<T: DeserializeOwned, O>(
    path: &Path,
    block: &Block,
    work: &(dyn Fn(usize, T) -> Result<O> + Sync),
) -> Parsed<O> {
    let mut done = Vec::with_capacity(block.len());
    for element in block.elements() {
        let outcome = serde_json::from_slice(element.text)
            .map_err(|error| explain::element::<T>(path, &element, &error));
        match outcome.and_then(|value| {
            if element.cut { Err(explain::cut(path, &element)) } else { work(element.row, value) }
        }) {
            Ok(value) => done.push(value),
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

/// Parses one line of JSON, `line` (from 0) of the file, with the same errors as an element of an
/// array.
pub(crate) fn parse_line<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    row: usize,
    line: usize,
) -> Result<T> {
    let element = scan::Element { text: text.as_bytes(), row, line, column: 0, cut: false };
    serde_json::from_str(text).map_err(|error| explain::element::<T>(path, &element, &error))
}

/// Reads the file and sends its blocks, then the error that ended it, if any.
fn produce<O>(path: &Path, mut reader: impl Read, input: &Input<Result<Block>, O>) {
    let mut scanner = Scanner::default();
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
            Err(error) => break Err(scan::Fault::Read(error)),
        }
        if scanner.is_full() && !send(input, scanner.take()) {
            return;
        }
    };
    let row = scanner.row();
    // Rows before the fault come first: an earlier error in them is the one to report.
    if send(input, scanner.take())
        && let Err(fault) = outcome
    {
        input.send(Err(explain::fault(path, row, fault)), 0);
    }
}

fn send<O>(input: &Input<Result<Block>, O>, block: Block) -> bool {
    let bytes = block.num_bytes();
    input.send(Ok(block), bytes)
}

#[cfg(test)]
mod tests;
