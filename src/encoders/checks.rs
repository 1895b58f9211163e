//! What the checks of the settings of encoders and systems share.

use std::fmt::Display;
use std::ops::{RangeBounds, RangeInclusive};

use crate::{Error, Result};

/// Widths and counts that a network can be built with.
pub const COUNTS: RangeInclusive<i64> = 1..=1 << 20;

/// Refuses the first of a system's settings whose value lies outside of `range`.
///
/// # Errors
/// [`Error::Recipe`] naming the setting, with the hint.
pub fn check_within<T: Display + PartialOrd>(
    system: &str,
    settings: &[(&str, T)],
    range: impl RangeBounds<T>,
    hint: &str,
) -> Result<()> {
    match settings.iter().find(|(_, value)| !range.contains(value)) {
        Some((key, value)) => {
            Err(Error::recipe(format!("{system}: `{key}` is {value}")).with_hint(hint))
        }
        None => Ok(()),
    }
}

/// Every size in `sizes` must be at least 1.
pub fn check_positive(what: &str, sizes: &[(&str, i64)]) -> Result<()> {
    match sizes.iter().find(|(_, size)| *size < 1) {
        Some((key, size)) => {
            Err(Error::recipe(format!("{what}`{key}` is {size}, but must be at least 1")))
        }
        None => Ok(()),
    }
}

/// A dropout rate lies in [0, 1).
pub fn check_rates(what: &str, rates: &[(&str, f64)]) -> Result<()> {
    match rates.iter().find(|(_, rate)| !(0.0..1.0).contains(rate)) {
        Some((key, rate)) => Err(Error::recipe(format!(
            "{what}`{key}` is {rate}, but a dropout rate lies in [0, 1)"
        ))),
        None => Ok(()),
    }
}
