//! Expected numbers of a scorer's case beside ours.

use serde_json::Value;

use super::case::Case;
use crate::Result;
use crate::eval::ScoreBlock;

/// What one expected number is called, and ours; `None` where we compute no such number.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<f64>;

/// Compares every number of `expected` (numbers in `ignored` keys, texts, lists and nulls aside)
/// with ours.
pub(super) fn compare(
    case: &mut Case,
    place: &str,
    expected: &Value,
    tolerance: f64,
    ours: Lookup<'_>,
) -> Result<()> {
    let fields =
        expected.as_object().ok_or_else(|| case.error(format!("{place} is not an object")))?;
    let (mut numbers, mut references) = (Vec::new(), Vec::new());
    for (key, value) in fields {
        let Some(theirs) = value.as_f64() else { continue };
        let value = ours(key)
            .ok_or_else(|| case.error(format!("{place} expects `{key}`, which is not computed")))?;
        numbers.push(value);
        references.push(theirs);
    }
    if numbers.is_empty() {
        return Err(case.error(format!("{place} expects no number")));
    }
    case.compare_numbers(place, &numbers, &references, |_| (tolerance, 0.0));
    Ok(())
}

/// The tolerance of numbers that the scripts computed in double precision.
pub(super) fn exact(case: &Case) -> f64 {
    case.at("/accept/atol").as_f64().unwrap_or(0.0)
}

/// The name of a set of expected numbers.
pub(super) fn name(case: &Case, set: &Value) -> Result<String> {
    set["name"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| case.error("a set of expected.json has no name"))
}

/// A number of a block by its name in the fixtures.
pub(super) fn of_block(block: &ScoreBlock, key: &str) -> Option<f64> {
    match key {
        "pred" | "kept" => Some(block.predicted as f64),
        "gold" => Some(block.gold as f64),
        "correct" | "correct_pred" | "tp" => Some(block.correct as f64),
        "correct_gold" => Some(block.found as f64),
        "fp" => Some((block.predicted - block.correct) as f64),
        "fn" => Some((block.gold - block.found) as f64),
        "precision" => Some(block.precision),
        "recall" => Some(block.recall),
        "f1" => Some(block.f1),
        _ => None,
    }
}
