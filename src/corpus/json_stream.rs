//! A JSON array read element by element, from a plain or gzip file, so that a file of any size costs the memory of one element.
//!
//! Not for: what the elements mean. A broken file is a `DataError` with its row, line and column.

use std::{
    cell::RefCell,
    fmt,
    io::{BufReader, Read},
    marker::PhantomData,
    path::Path,
};

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use crate::{DataError, Error, Result};

const BUFFER_BYTES: usize = 1 << 18;

/// Opens a file for reading; a name that ends in `.gz` is unpacked on the way.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = fs_err::File::open(path)?;
    if is_gzip(path) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, flate2::read::MultiGzDecoder::new(file))));
    }
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, file)))
}

/// Whether a file is compressed, by its name.
pub(crate) fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// Calls `each` with the row and value of every element of the array in `path`; returns the number of elements.
///
/// The first error of `each` ends the reading and is returned as it is.
pub(crate) fn read_array<T: DeserializeOwned>(path: &Path, each: &mut dyn FnMut(usize, T) -> Result<()>) -> Result<usize> {
    let state = RefCell::new(State::default());
    let mut deserializer = serde_json::Deserializer::from_reader(open(path)?);
    let seed = ArraySeed::<T> { each, state: &state, element: PhantomData };
    let outcome = seed.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    let state = state.into_inner();
    match (outcome, state.failure) {
        (_, Some(failure)) => Err(failure),
        (Err(error), None) => Err(broken(path, &state.position, &error)),
        (Ok(()), None) => Ok(state.position.unwrap_or(0)),
    }
}

#[derive(Default)]
struct State {
    /// Rows begun and finished so far; `None` before the array was seen.
    position: Option<usize>,
    /// An error of the caller, which serde could only carry as text.
    failure: Option<Error>,
}

struct ArraySeed<'a, T> {
    each: &'a mut dyn FnMut(usize, T) -> Result<()>,
    state: &'a RefCell<State>,
    element: PhantomData<T>,
}

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for ArraySeed<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for ArraySeed<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> std::result::Result<(), A::Error> {
        let mut row = 0;
        self.state.borrow_mut().position = Some(row);
        while let Some(element) = array.next_element::<T>()? {
            if let Err(error) = (self.each)(row, element) {
                self.state.borrow_mut().failure = Some(error);
                return Err(A::Error::custom("stopped"));
            }
            row += 1;
            self.state.borrow_mut().position = Some(row);
        }
        Ok(())
    }
}

fn broken(path: &Path, row: &Option<usize>, error: &serde_json::Error) -> Error {
    if error.is_io() && !is_gzip(path) {
        let kind = error.io_error_kind().unwrap_or(std::io::ErrorKind::Other);
        return std::io::Error::new(kind, format!("failed to read `{}`: {error}", path.display())).into();
    }
    let (problem, hint) = describe(error);
    let mut data = DataError::new(path, problem).hint(hint);
    data.row = *row;
    data.into()
}

fn describe(error: &serde_json::Error) -> (String, &'static str) {
    use serde_json::error::Category;
    match error.classify() {
        Category::Io => (format!("the compressed data cannot be unpacked: {error}"), "the file is damaged or was cut off; fetch it again"),
        Category::Eof => (format!("the JSON ends too early: {error}"), "the file was cut off; fetch or write it again"),
        Category::Syntax => {
            (format!("not valid JSON: {error}"), "check the file with a JSON tool at that line and column (NaN and Infinity are not JSON)")
        }
        Category::Data => (format!("unexpected JSON: {error}"), "the format is described in `docs/formats.md`"),
    }
}
