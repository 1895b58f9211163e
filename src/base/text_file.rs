//! Text files, plain or gzip: opening them, and writing them so that they appear whole or not at
//! all. A file is read as what its first bytes say, and written as what its name says.

use std::{
    io::{self, BufReader, Cursor, Read, Write},
    path::Path,
};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

use super::files::AtomicFile;
use super::foreign::{START, recognise};
use crate::{DataError, Error, Result};

const BUFFER_BYTES: usize = 1 << 18;
/// U+FEFF in UTF-8, which some editors put before all text.
const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// The first bytes of gzip.
const GZIP: [u8; 2] = [0x1F, 0x8B];

/// Opens a file for reading. Gzip is unpacked on the way, whatever the file is called, and a byte
/// order mark is passed over.
///
/// # Errors
/// A [`DataError`] that says what the file is, if its first bytes are those of no text.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    let (start, file) = begin(path, fs_err::File::open(path)?)?;
    let (start, reader): (_, Box<dyn Read + Send>) = if start.starts_with(&GZIP) {
        let (start, rest) = begin(path, MultiGzDecoder::new(Cursor::new(start).chain(file)))?;
        (start, Box::new(rest))
    } else {
        (start, Box::new(file))
    };
    if let Some(foreign) = recognise(&start) {
        let error = DataError::new(path, format!("is {}", foreign.what));
        return Err(error.hint(foreign.hint).into());
    }
    let whole = Cursor::new(start).chain(reader);
    Ok(Box::new(behind_mark(path, BufReader::with_capacity(BUFFER_BYTES, whole))?))
}

/// The first bytes of a reader, and the reader behind them.
fn begin<R: Read>(path: &Path, mut reader: R) -> Result<(Vec<u8>, R)> {
    let mut start = Vec::with_capacity(START);
    let read = reader.by_ref().take(START as u64).read_to_end(&mut start);
    read.map_err(|error| unreadable(path, 0, error))?;
    Ok((start, reader))
}

/// What a reader gives behind its byte order mark, or all of it; `path` is for messages.
pub(super) fn behind_mark<R: Read>(
    path: &Path,
    mut reader: R,
) -> Result<io::Chain<Cursor<Vec<u8>>, R>> {
    let mut start = Vec::with_capacity(BYTE_ORDER_MARK.len());
    let read = reader.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut start);
    read.map_err(|error| unreadable(path, 0, error))?;
    if start == BYTE_ORDER_MARK {
        start.clear();
    }
    Ok(Cursor::new(start).chain(reader))
}

/// All of a file, as [`open`] gives it; for those that are small.
pub(crate) fn read_whole(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(|error| unreadable(path, 0, error))?;
    Ok(bytes)
}

/// The first byte of a file that is not white space.
pub(crate) fn first_byte(path: &Path) -> Result<Option<u8>> {
    for byte in BufReader::new(open(path)?).bytes() {
        let byte = byte.map_err(|error| unreadable(path, 0, error))?;
        if !byte.is_ascii_whitespace() {
            return Ok(Some(byte));
        }
    }
    Ok(None)
}

/// The error of a file that cannot be read on after `row` rows: damaged compression, or the disk.
pub(crate) fn unreadable(path: &Path, row: usize, error: io::Error) -> Error {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    // What the decoder says; the disk fails in other ways.
    if !matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) {
        return error.into();
    }
    DataError::new(path, format!("the compressed data cannot be unpacked: {error}"))
        .row(row)
        .hint("the file is damaged or cut off; fetch it again")
        .into()
}

/// Whether a file is written compressed, by its name.
fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// Dropped before [`TextFile::finish`], it leaves nothing behind.
pub(crate) enum TextFile {
    Plain(AtomicFile),
    Gzip(Box<GzEncoder<AtomicFile>>),
}

impl TextFile {
    /// Starts a file. Missing folders are made.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = AtomicFile::create(path)?;
        Ok(if is_gzip(path) {
            Self::Gzip(Box::new(GzEncoder::new(file, Compression::default())))
        } else {
            Self::Plain(file)
        })
    }

    /// Gives the file its name.
    pub(crate) fn finish(self) -> Result<()> {
        match self {
            Self::Plain(file) => file.finish(),
            Self::Gzip(encoder) => encoder.finish()?.finish(),
        }
    }
}

impl Write for TextFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Gzip(encoder) => encoder.flush(),
        }
    }
}
