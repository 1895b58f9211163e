//! A text cut into blocks of records by one thread, parsed on all cores, with the results in the
//! order of the text: what `records` and `json_stream` share.
//!
//! Not for: finding where records end, or what they mean.

use std::thread;

use super::ordered::{self, WorkInput};
use crate::{Error, Result};

/// Text gathered before it is handed over.
pub(super) const BLOCK_BYTES: usize = 1 << 17;
/// A larger record would be held in memory whole; no document comes near.
pub(super) const MAX_RECORD_BYTES: usize = 1 << 26;

/// A run of whole records.
#[derive(Debug, Default)]
pub(super) struct RecordBlock {
    pub(super) text: Vec<u8>,
    pub(super) spans: Vec<Span>,
}

/// A record of a block: its bytes and its place in the file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Its number, from 0.
    pub(super) row: usize,
    /// Line of the file where the text starts, from 0.
    pub(super) line: usize,
    /// Bytes before it in that line.
    pub(super) column: usize,
    /// Whether the file ended inside or right after it.
    pub(super) cut: bool,
    /// Whether it is in no array: the file is one JSON object, or several.
    pub(super) alone: bool,
}

/// The results of a block, record by record.
type Parsed<O> = Vec<Result<O>>;

/// Where a scanner sends its blocks.
pub(super) struct BlockInput<O>(WorkInput<Result<RecordBlock>, Result<Parsed<O>>>);

impl<O> BlockInput<O> {
    /// Hands over a block; `false` says that nobody takes results any more.
    pub(super) fn send(&self, block: RecordBlock) -> bool {
        let bytes = block.text.len();
        self.0.send(Ok(block), bytes)
    }

    /// Ends the reading with an error, which is returned after those of earlier records.
    pub(super) fn fail(&self, error: Error) {
        self.0.send(Err(error), 0);
    }
}

/// Runs `scan` on a thread, `parse` for every record of its blocks on all cores, and `each` with
/// the results in order. Whether a bad record ends the reading is for `each` to say, whose first
/// error is returned.
pub(super) fn read_blocks<O: Send>(
    scan: impl FnOnce(&BlockInput<O>) + Send,
    parse: &(dyn Fn(&[u8], Span) -> Result<O> + Sync),
    each: &mut dyn FnMut(Result<O>) -> Result<()>,
) -> Result<()> {
    let work = |block: Result<RecordBlock>| {
        let RecordBlock { text, spans } = block?;
        Ok(spans.into_iter().map(|span| parse(&text[span.start..span.end], span)).collect())
    };
    thread::scope(|scope| {
        let (input, output) =
            ordered::start(scope, vec![&work; ordered::threads()], ordered::MOST_TEXT_BYTES);
        scope.spawn(move || scan(&BlockInput(input)));
        for parsed in output {
            parsed?.into_iter().try_for_each(&mut *each)?;
        }
        Ok(())
    })
}
