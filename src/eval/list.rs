//! Reading a JSON list element by element, so that a file of any length needs the memory of one element and errors name their row.
//! Not for: documents, which `corpus` reads and checks in full.

use std::cell::Cell;
use std::io::BufReader;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, SeqAccess, Visitor};

use crate::{DataError, Error, Result};

/// Calls `take(row, element)` for every element of the JSON list in `path`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Data`] with the row if an element is not a `T`, and whatever `take` returns.
pub(crate) fn for_each<T: DeserializeOwned>(path: &Path, take: impl FnMut(usize, T) -> Result<()>) -> Result<()> {
    let reader = BufReader::with_capacity(1 << 20, fs_err::File::open(path)?);
    let mut json = serde_json::Deserializer::from_reader(reader);
    let row = Cell::new(0);
    let failure = Cell::new(None);
    let list = List { take, row: &row, failure: &failure, element: PhantomData::<T> };
    let read = json.deserialize_seq(list).and_then(|()| json.end());
    if let Some(error) = failure.take() {
        return Err(error);
    }
    read.map_err(|error| as_error(path, row.get(), error))
}

struct List<'a, T, F> {
    take: F,
    row: &'a Cell<usize>,
    /// Where an error of `take` waits while serde carries its own error outwards.
    failure: &'a Cell<Option<Error>>,
    element: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>, F: FnMut(usize, T) -> Result<()>> Visitor<'de> for List<'_, T, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element::<T>()? {
            if let Err(error) = (self.take)(self.row.get(), element) {
                self.failure.set(Some(error));
                return Err(serde::de::Error::custom("stopped"));
            }
            self.row.set(self.row.get() + 1);
        }
        Ok(())
    }
}

fn as_error(path: &Path, row: usize, error: serde_json::Error) -> Error {
    if error.is_io() {
        return Error::Io(error.into());
    }
    DataError::new(path, error.to_string()).row(row).hint("the file must be one JSON list").into()
}
