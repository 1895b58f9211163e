//! Fills in the places of a launch file: `@NAME@` becomes a value.
//!
//! Not for what the values are, and how a format quotes them.

use crate::{Error, Result};

/// Values by the name of their place.
pub(super) type PlaceValues = Vec<(&'static str, String)>;

/// A launch file with every place filled in. Values are not searched for places.
///
/// # Errors
/// A bug (70) if a place has no value.
pub(super) fn fill(template: &str, values: &PlaceValues) -> Result<String> {
    let (mut filled, mut rest) = (String::with_capacity(template.len()), template);
    while let Some(start) = rest.find('@') {
        filled += &rest[..start];
        rest = &rest[start + 1..];
        match rest.split_once('@').filter(|(name, _)| is_name(name)) {
            Some((name, after)) => {
                let value = values.iter().find(|(known, _)| *known == name);
                let missing = || Error::Bug(format!("a launch file has a place @{name}@"));
                filled += &value.ok_or_else(missing)?.1;
                rest = after;
            }
            None => filled.push('@'),
        }
    }
    Ok(filled + rest)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once_and_other_signs_stay() {
        let values = vec![("A", "@B@".to_owned()), ("B", "2".to_owned())];
        assert_eq!(fill("USR1@@B@ x@A@ a@b @…@ @B", &values).unwrap(), "USR1@2 x@B@ a@b @…@ @B");
        assert_eq!(fill("@C@", &values).unwrap_err().exit_code(), 70);
    }
}
