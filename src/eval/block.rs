//! Precision, recall and F1 of one group of facts. Not for: deciding which facts belong to the
//! group.

use serde::{Deserialize, Serialize};

/// Counts and scores of one group of facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoreBlock {
    /// Distinct predicted facts in the group.
    pub predicted: usize,
    /// Distinct gold facts in the group.
    pub gold: usize,
    /// Predicted facts of the group that are right.
    pub correct: usize,
    /// Gold facts of the group that were found; differs from `correct` only in `members-loose` of
    /// the inference scores.
    pub found: usize,
    /// `correct / predicted`.
    pub precision: f64,
    /// `found / gold`.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
}

impl ScoreBlock {
    /// The usual block, where the facts that are right and the facts that were found are the same.
    pub fn new(predicted: usize, gold: usize, correct: usize) -> Self {
        Self::with_found(predicted, gold, correct, correct)
    }

    /// A block whose two numerators differ.
    pub fn with_found(predicted: usize, gold: usize, correct: usize, found: usize) -> Self {
        let precision = ratio(correct as f64, predicted as f64);
        let recall = ratio(found as f64, gold as f64);
        Self { predicted, gold, correct, found, precision, recall, f1: f1(precision, recall) }
    }

    /// A block with `epsilon` added to the denominators of precision, recall and F1.
    pub fn smoothed(predicted: usize, gold: usize, correct: usize, epsilon: f64) -> Self {
        let precision = ratio(correct as f64, predicted as f64 + epsilon);
        let recall = ratio(correct as f64, gold as f64 + epsilon);
        let f1 = ratio(2.0 * precision * recall, precision + recall + epsilon);
        Self { predicted, gold, correct, found: correct, precision, recall, f1 }
    }
}

/// `a / b`, and 0 where there is nothing to divide by.
pub(crate) fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

/// Harmonic mean of precision and recall; 0 where both are 0.
pub(crate) fn f1(precision: f64, recall: f64) -> f64 {
    ratio(2.0 * precision * recall, precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_form() {
        let block = ScoreBlock::new(4, 6, 3);
        assert_eq!((block.precision, block.recall), (0.75, 0.5));
        assert!((block.f1 - 0.6).abs() < 1e-12);
    }

    #[test]
    fn smoothing_enters_every_denominator() {
        let block = ScoreBlock::smoothed(4, 6, 3, 0.5);
        let (precision, recall) = (3.0 / 4.5, 3.0 / 6.5);
        assert_eq!((block.precision, block.recall), (precision, recall));
        assert!((block.f1 - 2.0 * precision * recall / (precision + recall + 0.5)).abs() < 1e-15);
        assert_eq!(ScoreBlock::smoothed(4, 6, 3, 0.0), ScoreBlock::new(4, 6, 3));
    }

    #[test]
    fn nothing_predicted_is_zero() {
        let block = ScoreBlock::new(0, 0, 0);
        assert_eq!((block.precision, block.recall, block.f1), (0.0, 0.0, 0.0));
    }
}
