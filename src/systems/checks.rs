//! What the checks of several systems' settings share.

use std::fmt::Display;
use std::ops::{RangeBounds, RangeInclusive};

use crate::{Error, Result};

/// Widths and counts that a network can be built with.
pub(super) const COUNTS: RangeInclusive<i64> = 1..=1 << 20;

/// Refuses the first of a system's settings whose value lies outside of `range`.
///
/// # Errors
/// [`Error::Recipe`] naming the setting, with the hint.
pub(super) fn check_within<T: Display + PartialOrd>(
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
