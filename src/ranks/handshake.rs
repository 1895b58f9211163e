//! Comparing what must be the same on all ranks before they start to train together.
//!
//! Not for values that always differ (rank, host, device number).

use crate::{Error, Result};

/// Longest value that a message shows in full.
const SHOWN: usize = 60;

/// Finds the first name whose values differ; `lists[rank]` are (name, value).
///
/// # Errors
/// A recipe error (64) naming the value, the ranks that differ from the most frequent one (from
/// rank 0's of equally frequent), and both values, cut around the first difference.
pub(super) fn compare(lists: &[Vec<(String, String)>]) -> Result<()> {
    let Some(first) = lists.first() else { return Ok(()) };
    for (index, (name, _)) in first.iter().enumerate() {
        let values: Vec<&str> =
            lists.iter().map(|list| list.get(index).map_or("", |(_, value)| value)).collect();
        let count = |value: &str| values.iter().filter(|other| **other == value).count();
        let most = values.iter().map(|value| count(value)).max().unwrap_or(0);
        let usual = values.iter().find(|value| count(value) == most).copied().unwrap_or_default();
        let others: Vec<usize> = (0..values.len()).filter(|&rank| values[rank] != usual).collect();
        if let Some(&odd) = others.first() {
            return Err(differs(name, &others, values[odd], usual));
        }
    }
    Ok(())
}

fn differs(name: &str, ranks: &[usize], odd: &str, usual: &str) -> Error {
    let list = ranks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let same = odd.bytes().zip(usual.bytes()).take_while(|(a, b)| a == b).count();
    let (odd, usual) = (around(odd, same), around(usual, same));
    let plural = if ranks.len() == 1 { "rank" } else { "ranks" };
    let message = format!(
        "{name} differs between ranks: {plural} {list} has `{odd}`, the others have `{usual}`"
    );
    Error::recipe(message).with_hint(
        "start all ranks with the same program, recipe and data; if machines have their own \
         copies, copy the files again",
    )
}

/// The part of a text around the byte `at`, on its line.
fn around(text: &str, at: usize) -> String {
    if text.len() <= SHOWN {
        return text.to_owned();
    }
    let from = text.as_bytes()[..at.min(text.len())]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |line| line + 1);
    let from = from.max(at.saturating_sub(SHOWN / 2));
    let start =
        (from..=text.len()).find(|&start| text.is_char_boundary(start)).unwrap_or(text.len());
    text[start..].chars().take_while(|letter| *letter != '\n').take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(values: &[&str]) -> Vec<(String, String)> {
        ["the program's version", "the recipe"]
            .iter()
            .zip(values)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn equal_lists_pass() {
        compare(&[list(&["1", "a"]), list(&["1", "a"])]).unwrap();
        compare(&[]).unwrap();
    }

    #[test]
    fn the_odd_rank_and_both_values_are_named() {
        let error =
            compare(&[list(&["1", "a"]), list(&["1", "a"]), list(&["1", "b"])]).unwrap_err();
        assert_eq!(error.exit_code(), 64);
        assert_eq!(
            error.to_string(),
            "the recipe differs between ranks: rank 2 has `b`, the others have `a`"
        );
        let error =
            compare(&[list(&["2", "a"]), list(&["1", "a"]), list(&["1", "b"])]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the program's version differs between ranks: rank 0 has `2`"),
            "{error}"
        );
    }

    #[test]
    fn long_values_are_cut_to_the_line_that_differs() {
        let text =
            |steps: u32| format!("name = \"a\"\n{}\nsteps = {steps}\nclip = 1", "# é\n".repeat(40));
        let error = compare(&[list(&["1", &text(4)]), list(&["1", &text(5)])]).unwrap_err();
        assert!(
            error.to_string().ends_with("rank 1 has `steps = 5`, the others have `steps = 4`"),
            "{error}"
        );
    }
}
