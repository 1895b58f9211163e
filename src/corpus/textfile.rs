//! A text file in the making, compressed where its name ends in `.gz`; it appears whole or not at all.

use std::{
    io::{self, Write},
    path::Path,
};

use flate2::{Compression, write::GzEncoder};

use super::{atomic::AtomicFile, json_stream::is_gzip};
use crate::Result;

/// Dropped before [`TextFile::finish`], it leaves nothing behind.
pub(crate) enum TextFile {
    Plain(AtomicFile),
    Gzip(Box<GzEncoder<AtomicFile>>),
}

impl TextFile {
    /// Starts a file. Missing folders are made.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = AtomicFile::create(path)?;
        Ok(if is_gzip(path) { Self::Gzip(Box::new(GzEncoder::new(file, Compression::default()))) } else { Self::Plain(file) })
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
