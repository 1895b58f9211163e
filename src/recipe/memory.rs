//! Sizes of memory as a recipe writes them: "400 MB".

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number of bytes, read and written with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct MemorySize {
    /// The bytes; at least 1.
    pub bytes: u64,
}

/// Units and their bytes, the largest first.
const UNITS: [(&str, u64); 5] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000), ("B", 1)];

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no size of memory: a number and KB, MB, GB or TB, as in \"400 MB\""
            )
        };
        let unit = UNITS.iter().find(|(name, _)| text.ends_with(name)).ok_or_else(wrong)?;
        let number = text[..text.len() - unit.0.len()].trim_end();
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let bytes = number * unit.1 as f64;
        if (1.0..=1e18).contains(&bytes) {
            Ok(Self { bytes: bytes.round() as u64 })
        } else {
            Err(wrong())
        }
    }
}

impl TryFrom<String> for MemorySize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MemorySize> for String {
    fn from(size: MemorySize) -> Self {
        size.to_string()
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The largest unit that loses nothing.
        let whole = UNITS.iter().find(|(_, unit)| self.bytes.is_multiple_of(*unit));
        let (name, unit) = whole.copied().unwrap_or(("B", 1));
        write!(f, "{} {name}", self.bytes / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit_and_written_without_a_loss() {
        for (text, bytes, shown) in [
            ("400 MB", 400_000_000, "400 MB"),
            ("400MB", 400_000_000, "400 MB"),
            ("1.5 GB", 1_500_000_000, "1500 MB"),
            ("2 TB", 2_000_000_000_000, "2 TB"),
            ("64 KB", 64_000, "64 KB"),
            ("1001 B", 1001, "1001 B"),
        ] {
            let size: MemorySize = text.parse().unwrap();
            assert_eq!((size.bytes, size.to_string().as_str()), (bytes, shown));
            assert_eq!(shown.parse(), Ok(size));
        }
        for text in
            ["", "MB", "400", "-1 MB", "0 MB", "nan MB", "inf GB", "4 MiB", "1e30 TB", "x B"]
        {
            let error = text.parse::<MemorySize>().unwrap_err();
            assert!(error.contains("400 MB"), "{text}: {error}");
        }
    }

    #[test]
    fn a_recipe_names_the_memory_for_documents() {
        let recipe = |text: &str| crate::recipe::Recipe::parse(text, "x", &[]);
        let named = recipe("[data]\nmemory = \"1.5 GB\"").unwrap();
        assert_eq!(named.data.memory(), 1_500_000_000);
        assert!(named.to_toml().unwrap().contains("memory = \"1500 MB\""));
        let plain = recipe("").unwrap();
        assert_eq!(plain.data.memory(), crate::shards::StoreOptions::MEMORY);
        assert!(!plain.to_toml().unwrap().contains("\nmemory ="));
        let error = recipe("[data]\nmemory = \"much\"").unwrap_err();
        assert_eq!(error.exit_code(), 64);
        assert!(error.to_string().contains("`much` is no size of memory"), "{error}");
    }
}
