//! Finding the elements of a list without parsing them: brackets are counted, strings are skipped.
//!
//! What lies between two commas of the outermost array is an element, whatever it holds; the parser
//! judges it. In a file that begins with an object, each object is an element. If the first one is
//! a line, every line is one, so that a broken line does not reach into the next.

use crate::base::blocks::{BLOCK_BYTES, MAX_RECORD_BYTES, RecordBlock, Span};

/// What ends the reading of a file.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file cannot be read or unpacked.
    Read(std::io::Error),
    /// (problem, line, column), both from 1.
    Syntax(&'static str, usize, usize),
    /// The file holds nothing.
    Empty,
    /// The file begins with neither an array nor an object.
    NoJson,
    /// The file ends before the array does.
    Eof(&'static str, usize, usize),
    /// An element of more than [`MAX_RECORD_BYTES`].
    Large,
}

/// The part of the file that is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum ArrayPart {
    /// Before the opening bracket.
    #[default]
    Before,
    /// Inside the array.
    Inside,
    /// Behind the closing bracket.
    Behind,
    /// In a file of objects without an array.
    Objects,
}

/// The state of reading a file.
#[derive(Debug, Default)]
pub(super) struct ArrayScanner {
    part: ArrayPart,
    block: RecordBlock,
    /// The current element; its end is not known yet.
    span: Span,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Whether each object is a line; known from the end of the first line.
    lines: Option<bool>,
    /// Line of the next byte, from 0, and how many bytes of the line came before the text being
    /// scanned.
    line: usize,
    column: usize,
}

impl ArrayScanner {
    /// Takes the next bytes of the file.
    pub(super) fn feed(&mut self, mut text: &[u8]) -> Result<(), Fault> {
        while !text.is_empty() {
            let used = match self.part {
                ArrayPart::Before => self.before(text)?,
                ArrayPart::Inside => self.inside(text)?,
                ArrayPart::Behind => self.behind(text)?,
                ArrayPart::Objects => self.objects(text),
            };
            self.advance(&text[..used]);
            text = &text[used..];
            if matches!(self.part, ArrayPart::Inside | ArrayPart::Objects)
                && self.block.text.len() == self.span.start
            {
                (self.span.line, self.span.column) = (self.line, self.column);
            }
        }
        if self.block.text.len() - self.span.start > MAX_RECORD_BYTES {
            Err(Fault::Large)
        } else {
            Ok(())
        }
    }

    /// Whether a block is worth handing over.
    pub(super) fn is_full(&self) -> bool {
        self.span.start >= BLOCK_BYTES
    }

    /// The complete elements so far; the current one stays.
    pub(super) fn take(&mut self) -> RecordBlock {
        let rest = self.block.text.split_off(self.span.start);
        let next = RecordBlock { text: rest, spans: Vec::new() };
        self.span.start = 0;
        std::mem::replace(&mut self.block, next)
    }

    /// Number of complete elements.
    pub(super) fn row(&self) -> usize {
        self.span.row
    }

    /// The end of the file.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        match self.part {
            ArrayPart::Behind => Ok(()),
            ArrayPart::Before => Err(Fault::Empty),
            ArrayPart::Objects => {
                if !self.is_blank() {
                    self.close(self.depth > 0 || self.in_string);
                }
                Ok(())
            }
            // What there is of the element is judged first, since it can tell more.
            ArrayPart::Inside => {
                let fault = Fault::Eof("the array is not closed", self.line + 1, self.column);
                if !self.is_blank() {
                    self.close(true);
                }
                Err(fault)
            }
        }
    }

    fn before(&mut self, text: &[u8]) -> Result<usize, Fault> {
        match text.iter().position(|byte| !byte.is_ascii_whitespace()) {
            None => Ok(text.len()),
            Some(at) if text[at] == b'[' => {
                self.part = ArrayPart::Inside;
                Ok(at + 1)
            }
            Some(at) if text[at] == b'{' => {
                self.part = ArrayPart::Objects;
                self.span.alone = true;
                Ok(at)
            }
            Some(_) => Err(Fault::NoJson),
        }
    }

    /// Copies text up to the end of the current object, or all of it.
    fn objects(&mut self, text: &[u8]) -> usize {
        for (at, &byte) in text.iter().enumerate() {
            self.step(byte);
            if byte != b'\n' {
                continue;
            }
            let is_whole = self.depth == 0 && !self.in_string;
            if is_whole || self.lines == Some(true) {
                self.block.text.extend_from_slice(&text[..at]);
                (self.depth, self.in_string, self.escaped) = (0, false, false);
                if self.is_blank() {
                    self.block.text.truncate(self.span.start);
                } else {
                    self.close(false);
                    self.lines.get_or_insert(true);
                }
                return at + 1;
            }
            self.lines = Some(false);
        }
        self.block.text.extend_from_slice(text);
        text.len()
    }

    /// Copies text up to the end of the current element, or all of it.
    fn inside(&mut self, text: &[u8]) -> Result<usize, Fault> {
        let end = self.element_end(text);
        self.block.text.extend_from_slice(&text[..end.unwrap_or(text.len())]);
        let Some(end) = end else { return Ok(text.len()) };
        if text[end] == b']' {
            self.part = ArrayPart::Behind;
        }
        if !self.is_blank() {
            self.close(false);
        } else if text[end] == b',' || self.row() > 0 {
            return Err(self.syntax("expected a value", &text[..=end]));
        }
        self.span.start = self.block.text.len();
        Ok(end + 1)
    }

    fn element_end(&mut self, text: &[u8]) -> Option<usize> {
        for (at, &byte) in text.iter().enumerate() {
            if matches!(byte, b',' | b']') && self.depth == 0 && !self.in_string {
                return Some(at);
            }
            self.step(byte);
        }
        None
    }

    /// Counts the brackets of an element.
    fn step(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                // A closing brace too many stays in the element, whose parser refuses it.
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn behind(&self, text: &[u8]) -> Result<usize, Fault> {
        match text.iter().position(|byte| !byte.is_ascii_whitespace()) {
            None => Ok(text.len()),
            Some(at) => Err(self.syntax("trailing characters", &text[..=at])),
        }
    }

    fn is_blank(&self) -> bool {
        self.block.text[self.span.start..].iter().all(u8::is_ascii_whitespace)
    }

    fn close(&mut self, cut: bool) {
        let end = self.block.text.len();
        self.block.spans.push(Span { end, cut, ..self.span });
        self.span.start = end;
        self.span.row += 1;
    }

    fn advance(&mut self, text: &[u8]) {
        let lines = text.iter().filter(|&&byte| byte == b'\n').count();
        self.line += lines;
        self.column = match text.iter().rposition(|&byte| byte == b'\n') {
            Some(at) => text.len() - at - 1,
            None => self.column + text.len(),
        };
    }

    /// A fault at the last byte of `text`, which has not been counted yet.
    fn syntax(&self, problem: &'static str, text: &[u8]) -> Fault {
        let lines = text.iter().filter(|&&byte| byte == b'\n').count();
        let column = text.iter().rev().take_while(|&&byte| byte != b'\n').count();
        Fault::Syntax(
            problem,
            self.line + lines + 1,
            if lines == 0 { self.column + column } else { column },
        )
    }
}
