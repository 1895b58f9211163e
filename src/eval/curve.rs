//! The precision–recall curve, thinned for drawing. Not for: choosing a threshold (`threshold`).

use serde::{Deserialize, Serialize};

use super::threshold::{Prefix, ScoredFact, Walk, sorted};

/// A point of the curve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The score at which the prefix ends.
    pub theta: f32,
    /// Recall, divided by all gold facts.
    pub recall: f64,
    /// Precision.
    pub precision: f64,
    /// F1.
    pub f1: f64,
}

/// The curve over all prefixes in order of rising recall, thinned to about `points`: at most one
/// point for each step of 1 / `points` in recall, and always the first, the best and the last.
pub fn precision_recall(
    entries: &[ScoredFact],
    total_gold: usize,
    points: usize,
) -> Vec<CurvePoint> {
    let (mut walk, mut curve) = (Walk::new(total_gold), CurveBuilder::new(points));
    for entry in &sorted(entries) {
        curve.push(walk.push(entry));
    }
    curve.finish()
}

/// A curve in the making: memory for its points only.
#[derive(Clone, Debug, Default)]
pub(crate) struct CurveBuilder {
    step: f64,
    next: f64,
    taken: Vec<Prefix>,
    best: Prefix,
    last: Prefix,
}

impl CurveBuilder {
    pub(crate) fn new(points: usize) -> Self {
        Self { step: 1.0 / points.max(1) as f64, ..Self::default() }
    }

    pub(crate) fn push(&mut self, prefix: Prefix) {
        if self.taken.is_empty() || prefix.recall >= self.next {
            self.taken.push(prefix);
            self.next = prefix.recall + self.step;
        }
        if self.best.entries == 0 || prefix.f1 > self.best.f1 {
            self.best = prefix;
        }
        self.last = prefix;
    }

    pub(crate) fn finish(mut self) -> Vec<CurvePoint> {
        for prefix in [self.best, self.last] {
            if let Err(place) =
                self.taken.binary_search_by_key(&prefix.entries, |taken| taken.entries)
                && prefix.entries > 0
            {
                self.taken.insert(place, prefix);
            }
        }
        self.taken.iter().map(point).collect()
    }
}

fn point(prefix: &Prefix) -> CurvePoint {
    CurvePoint {
        theta: prefix.score,
        recall: prefix.recall,
        precision: prefix.precision,
        f1: prefix.f1,
    }
}

#[cfg(test)]
mod tests {
    use super::super::best_prefix;
    use super::*;

    #[test]
    fn thinned_but_with_its_ends_and_its_best() {
        let entry = |i: u32| ScoredFact {
            score: 1.0 - i as f32 / 1000.0,
            correct: i.is_multiple_of(1 + i / 100),
            in_train: false,
        };
        let entries: Vec<_> = (0..1000).map(entry).collect();
        let total = entries.iter().filter(|entry| entry.correct).count();
        let curve = precision_recall(&entries, total, 50);
        assert!((40..=53).contains(&curve.len()), "{}", curve.len());
        assert_eq!((curve[0].precision, curve[curve.len() - 1].recall), (1.0, 1.0));
        let best = best_prefix(&entries, total).unwrap();
        assert!(curve.iter().any(|point| point.f1 == best.f1 && point.theta == best.theta));
        assert!(curve.is_sorted_by_key(|point| point.recall));
        assert_eq!(precision_recall(&[], 3, 50), []);
    }
}
