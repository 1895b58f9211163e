//! Arrow arrays out of rows, and rows out of Arrow arrays: what the tables of this room share.
//!
//! Not for: which columns a table has (`schema`).

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, ListArray, PrimitiveArray,
    StringArray, StructArray, UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::Fields;
use arrow::error::ArrowError;

use super::schema;

/// A column under construction.
pub(super) type Built = Result<ArrayRef, ArrowError>;

pub(super) fn texts(values: impl IntoIterator<Item = impl AsRef<str>>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

pub(super) fn optional_texts<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(StringArray::from_iter(values))
}

pub(super) fn u32s(values: impl IntoIterator<Item = u32>) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(values))
}

/// A column of numbers of another width.
pub(super) fn smalls<T: ArrowPrimitiveType>(
    values: impl IntoIterator<Item = T::Native>,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::from_iter_values(values))
}

pub(super) fn flags(values: impl IntoIterator<Item = bool>) -> ArrayRef {
    Arc::new(BooleanArray::from_iter(values.into_iter().map(Some)))
}

pub(super) fn structs(fields: Fields, columns: Vec<ArrayRef>) -> Built {
    Ok(Arc::new(StructArray::try_new(fields, columns, None)?))
}

/// A list for each row: `of` gives its items, and `items` makes an array of those of all rows.
pub(super) fn lists<R, T>(
    rows: &[R],
    of: impl Fn(&R) -> &[T],
    items: impl FnOnce(&[&T]) -> Built,
) -> Built {
    list_array(rows, |row| Some(of(row)), items, None)
}

/// As [`lists`], for rows that may have no list, which is not the same as an empty one.
pub(super) fn optional_lists<R, T>(
    rows: &[R],
    of: impl Fn(&R) -> Option<&[T]>,
    items: impl FnOnce(&[&T]) -> Built,
) -> Built {
    let nulls = NullBuffer::from_iter(rows.iter().map(|row| of(row).is_some()));
    list_array(rows, of, items, Some(nulls))
}

/// A list of numbers for each row.
pub(super) fn number_lists<R>(rows: &[R], of: impl Fn(&R) -> &[u32]) -> Built {
    lists(rows, of, |numbers| Ok(u32s(numbers.iter().map(|number| **number))))
}

fn list_array<R, T>(
    rows: &[R],
    of: impl Fn(&R) -> Option<&[T]>,
    items: impl FnOnce(&[&T]) -> Built,
    nulls: Option<NullBuffer>,
) -> Built {
    let all: Vec<&T> = rows.iter().filter_map(&of).flatten().collect();
    let values = items(&all)?;
    let lengths = rows.iter().map(|row| of(row).map_or(0, <[T]>::len));
    let offsets = OffsetBuffer::try_from_lengths(lengths)
        .map_err(|error| ArrowError::ComputeError(error.to_string()))?;
    let item = schema::item_field(values.data_type().clone());
    Ok(Arc::new(ListArray::try_new(item, offsets, values, nulls)?))
}

/// Where the items of a row lie among those of all rows.
pub(super) fn range(list: &ListArray, row: usize) -> Range<usize> {
    list.offsets()[row] as usize..list.offsets()[row + 1] as usize
}

/// The numbers of a row.
pub(super) fn numbers_of(list: &ListArray, row: usize) -> Vec<u32> {
    let values: &UInt32Array = list.values().as_primitive();
    values.values()[range(list, row)].to_vec()
}

/// The small numbers of a row.
pub(super) fn smalls_of<T: ArrowPrimitiveType>(list: &ListArray, row: usize) -> Vec<T::Native> {
    list.values().as_primitive::<T>().values()[range(list, row)].to_vec()
}

/// The texts of a row.
pub(super) fn texts_of(list: &ListArray, row: usize) -> Vec<String> {
    let values = list.values().as_string::<i32>();
    range(list, row).map(|at| values.value(at).to_owned()).collect()
}

/// A field of numbers, whose type is known.
pub(super) fn numbers<'a>(fields: &'a StructArray, name: &str) -> &'a UInt32Array {
    fields[name].as_primitive()
}

/// A field of texts, whose type is known.
pub(super) fn strings<'a>(fields: &'a StructArray, name: &str) -> &'a StringArray {
    fields[name].as_string()
}
