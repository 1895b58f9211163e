//! Lines of documents read, parsed and tokenised on a thread, ahead of the model, and the bounded
//! queue in which they wait for it.
//!
//! Not for: what is answered (`stream`).

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::predictor::PREDICT_TOKENS;
use crate::base::ordered::MOST_TEXT_BYTES;
use crate::base::{catch_panic, lock, panics};
use crate::corpus::formats::{LoneDocument, read_one};
use crate::corpus::{Document, RelationSet};
use crate::text::{TokenizedDocument, Tokenizer, tokenize};
use crate::{DataError, Error, Result};

/// What stands in messages in place of a file.
pub(super) const SOURCE: &str = "the input";
/// A longer line is passed over without being held.
const MOST_LINE_BYTES: usize = 1 << 26;
/// Pieces and pairs that wait for the model, as many as a few passes take: documents of similar
/// cost then share a pass.
const MOST_WAITING: usize = 4 * PREDICT_TOKENS;
/// What a line counts at least, so that the number of those that wait is bounded too.
const LEAST_COST: usize = 16;
/// How long the model waits for a line before it looks for a request to stop.
const GLANCE: Duration = Duration::from_millis(100);
/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A line of the input.
pub(super) struct InputLine {
    /// Its number, from 1.
    pub number: usize,
    /// Its document, or why there is none.
    pub read: Result<LineDocument>,
    bytes: usize,
}

/// The document of a line.
pub(super) struct LineDocument {
    /// As it was read.
    pub document: Document,
    /// The same in word pieces.
    pub tokenized: Arc<TokenizedDocument>,
    /// Whether it came as running text.
    pub from_text: bool,
}

impl InputLine {
    /// What it counts among those that wait: pieces and pairs.
    fn cost(&self) -> usize {
        let of_document = |line: &LineDocument| {
            let document = &line.tokenized;
            let pairs = document.candidates.as_ref().map_or(document.num_pairs(), Vec::len);
            document.pieces.len() + pairs
        };
        self.read.as_ref().map_or(0, of_document).max(LEAST_COST)
    }
}

/// Lines that wait for the model.
#[derive(Default)]
pub(super) struct LineQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    lines: VecDeque<InputLine>,
    cost: usize,
    bytes: usize,
    /// Whether a line has been read that does not wait yet.
    parsing: bool,
    /// Whether no line is read any more, at the end of the input or on request.
    ended: bool,
    failed: Option<io::Error>,
}

impl LineQueue {
    /// All lines that wait, in order, once there is one; none after the last. Once `stopped`, no
    /// further line is read, and those that were read still come.
    ///
    /// # Errors
    /// That of the input, after the lines before it.
    pub(super) fn take(&self, stopped: &dyn Fn() -> bool) -> Result<Vec<InputLine>> {
        let mut state = lock(&self.state);
        while state.lines.is_empty() {
            state.ended |= stopped();
            if state.ended && !state.parsing {
                return state.failed.take().map_or(Ok(Vec::new()), |error| Err(error.into()));
            }
            let waited = self.changed.wait_timeout(state, GLANCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        (state.cost, state.bytes) = (0, 0);
        let lines = std::mem::take(&mut state.lines).into();
        self.changed.notify_all();
        Ok(lines)
    }

    /// Begins a line, unless no more are wanted.
    fn begin(&self) -> bool {
        let mut state = lock(&self.state);
        state.parsing = !state.ended;
        state.parsing
    }

    /// Adds a line, waiting while too much is there.
    fn push(&self, line: InputLine) {
        let (cost, bytes) = (line.cost(), line.bytes);
        let full = |state: &mut QueueState| {
            let over = state.cost + cost > MOST_WAITING || state.bytes + bytes > MOST_TEXT_BYTES;
            over && !state.lines.is_empty()
        };
        let state = self.changed.wait_while(lock(&self.state), full);
        let mut state: MutexGuard<QueueState> = state.unwrap_or_else(PoisonError::into_inner);
        (state.cost, state.bytes) = (state.cost + cost, state.bytes + bytes);
        state.lines.push_back(line);
        state.parsing = false;
        self.changed.notify_all();
    }

    /// No line comes any more.
    fn end(&self, outcome: io::Result<()>) {
        let mut state = lock(&self.state);
        (state.ended, state.parsing, state.failed) = (true, false, outcome.err());
        self.changed.notify_all();
    }
}

/// Makes documents of lines.
pub(super) struct LineParser {
    tokenizer: Tokenizer,
    /// Documents carry no labels, so none is needed.
    relations: RelationSet,
}

impl LineParser {
    pub(super) fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, relations: RelationSet::default() }
    }

    /// Reads lines into the queue until the input ends or no more are wanted.
    pub(super) fn run(mut self, input: impl Read, queue: &LineQueue) {
        let mut reader = BufReader::with_capacity(1 << 16, input);
        let (mut text, mut row) = (Vec::new(), 0);
        let outcome = loop {
            text.clear();
            let length = match read_line(&mut reader, &mut text) {
                Ok(0) => break Ok(()),
                Ok(length) => length,
                Err(error) => break Err(error),
            };
            if !queue.begin() {
                break Ok(());
            }
            let line = text.strip_prefix(BYTE_ORDER_MARK).filter(|_| row == 0).unwrap_or(&text);
            let read = self.guarded(line, length, row);
            row += 1;
            queue.push(InputLine { number: row, read, bytes: text.len() });
        };
        queue.end(outcome);
    }

    /// As [`Self::parse`]; a panic is a bug, and costs this line alone.
    fn guarded(&mut self, text: &[u8], length: usize, row: usize) -> Result<LineDocument> {
        let parsed = catch_panic(|| self.parse(text, length, row));
        parsed.unwrap_or_else(|panic| {
            let message = panics::message(panic.as_ref()).unwrap_or("a panic");
            Err(Error::Bug(format!("reading line {}: {message}", row + 1)))
        })
    }

    fn parse(&mut self, text: &[u8], length: usize, row: usize) -> Result<LineDocument> {
        let source = Path::new(SOURCE);
        if length > MOST_LINE_BYTES {
            return Err(DataError::new(source, "the line is larger than 64 MiB")
                .row(row)
                .hint("send one document a line")
                .into());
        }
        let text = std::str::from_utf8(text).map_err(|error| {
            let byte = error.valid_up_to();
            DataError::new(source, format!("not valid UTF-8 from byte {byte} of the line"))
                .row(row)
                .hint("send UTF-8")
        })?;
        let LoneDocument { document, from_text } = read_one(source, text, row)?;
        let tokenized = Arc::new(tokenize(&document, &mut self.tokenizer, &self.relations)?);
        Ok(LineDocument { document, tokenized, from_text })
    }
}

/// Reads a line and gives its length, 0 at the end; of one that is too long, the text is cut.
fn read_line(reader: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<usize> {
    let mut length = reader.by_ref().take(MOST_LINE_BYTES as u64 + 1).read_until(b'\n', text)?;
    while length > MOST_LINE_BYTES && text.last() != Some(&b'\n') {
        // Nobody needs the rest, nor what there was.
        text.clear();
        let rest = reader.by_ref().take(1 << 16).read_until(b'\n', text)?;
        length += rest;
        if rest == 0 {
            break;
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_next_is_read() {
        let long = "x".repeat(MOST_LINE_BYTES + 10);
        let text = format!("a\n{long}\nb");
        let mut reader = BufReader::new(text.as_bytes());
        let mut line = Vec::new();
        let mut lines = Vec::new();
        loop {
            line.clear();
            match read_line(&mut reader, &mut line).unwrap() {
                0 => break,
                length if length > MOST_LINE_BYTES => lines.push("long".to_owned()),
                _ => lines.push(String::from_utf8(line.clone()).unwrap()),
            }
        }
        assert_eq!(lines, ["a\n", "long", "b"]);
        // The largest line that is read is not over the limit.
        let most = "x".repeat(MOST_LINE_BYTES);
        line.clear();
        let read = read_line(&mut BufReader::new(most.as_bytes()), &mut line).unwrap();
        assert_eq!((read, line.len()), (MOST_LINE_BYTES, MOST_LINE_BYTES));
    }

    fn line(number: usize) -> InputLine {
        let read = Err(DataError::new(SOURCE, "no document").into());
        InputLine { number, read, bytes: MOST_TEXT_BYTES / 4 + 1 }
    }

    #[test]
    fn a_full_queue_waits_for_its_lines_to_be_taken_and_keeps_their_order() {
        let queue = LineQueue::default();
        let waiting = || lock(&queue.state).lines.len();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (1..=20).for_each(|number| queue.push(line(number)));
                queue.end(Ok(()));
            });
            let mut numbers = Vec::new();
            loop {
                std::thread::sleep(Duration::from_millis(1));
                assert!(waiting() <= 3, "{}", waiting());
                let lines = queue.take(&|| false).unwrap();
                if lines.is_empty() {
                    break;
                }
                numbers.extend(lines.iter().map(|line| line.number));
            }
            assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
        });
    }

    #[test]
    fn once_asked_to_stop_the_queue_gives_what_was_read_and_takes_no_more() {
        let queue = LineQueue::default();
        assert!(queue.begin());
        queue.push(line(1));
        assert_eq!(queue.take(&|| true).unwrap().len(), 1);
        assert!(queue.take(&|| true).unwrap().is_empty() && !queue.begin());
        // An input that fails does so after its lines.
        let queue = LineQueue::default();
        queue.push(line(1));
        queue.end(Err(io::Error::other("gone")));
        assert_eq!(queue.take(&|| false).unwrap().len(), 1);
        assert_eq!(queue.take(&|| false).err().unwrap().exit_code(), 74);
    }
}
