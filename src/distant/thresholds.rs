//! From which probabilities on labels of a relation are kept, dropped and added, chosen on
//! documents whose truth is known (docs/systems.md, V.2).

use serde::{Deserialize, Serialize};

/// Precision that the lower end of its interval must reach where labels are kept or added.
const PRECISION: f64 = 0.7;
/// The largest share of the true labels that may be dropped.
const LOST: f64 = 0.05;
/// Quantile of the normal distribution for an interval of 95 per cent.
const Z: f64 = 1.96;
/// Relations with fewer observations take the thresholds of all relations together.
const FEWEST: usize = 20;

/// Probabilities at which labels of a relation are kept, dropped and added.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleThresholds {
    /// A distant label of at least this probability is kept.
    pub keep: f64,
    /// A distant label below this is dropped; at most `keep`.
    pub drop: f64,
    /// A relation without a label is added from here on; at least `keep`.
    pub add: f64,
}

/// A relation of a pair, with its probability and its truth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgedLabel {
    /// The teacher's probability.
    pub probability: f64,
    /// Whether a distant label says so.
    pub labelled: bool,
    /// Whether it is true.
    pub is_true: bool,
}

impl RuleThresholds {
    /// Those of every relation where nothing could be learnt.
    pub const FIXED: Self = Self { keep: 0.5, drop: 0.05, add: 0.9 };

    /// Those of each relation from what is known of its labels, by relation.
    pub fn choose(judged: &[Vec<JudgedLabel>]) -> Vec<Self> {
        let all: Vec<JudgedLabel> = judged.concat();
        let common = Self::of(&all, Self::FIXED);
        judged.iter().map(|own| Self::of(own, common)).collect()
    }

    fn of(judged: &[JudgedLabel], otherwise: Self) -> Self {
        let group = |labelled: bool| {
            let mut group: Vec<JudgedLabel> =
                judged.iter().copied().filter(|one| one.labelled == labelled).collect();
            group.sort_by(|a, b| b.probability.total_cmp(&a.probability));
            group
        };
        let (labelled, others) = (group(true), group(false));
        let enough = |group: &[JudgedLabel]| group.len() >= FEWEST;
        let keep = match enough(&labelled) {
            true => precise_from(&labelled).unwrap_or(1.0),
            false => otherwise.keep,
        };
        let drop = if enough(&labelled) { losing_few(&labelled) } else { otherwise.drop };
        let add = match enough(&others) {
            true => precise_from(&others).unwrap_or(1.0),
            false => otherwise.add,
        };
        Self { keep, drop: drop.min(keep), add: add.max(keep) }
    }
}

/// The smallest probability from which on the labels are precise enough; `None` if there is none.
/// `sorted` falls.
fn precise_from(sorted: &[JudgedLabel]) -> Option<f64> {
    let (mut right, mut found) = (0, None);
    for (place, one) in sorted.iter().enumerate() {
        right += usize::from(one.is_true);
        let ends = sorted.get(place + 1).is_none_or(|next| next.probability < one.probability);
        if ends && wilson_low(right, place + 1) >= PRECISION {
            found = Some(one.probability);
        }
    }
    found
}

/// The largest probability below which at most [`LOST`] of the true labels lie. `sorted` falls.
fn losing_few(sorted: &[JudgedLabel]) -> f64 {
    let total = sorted.iter().filter(|one| one.is_true).count();
    let (mut lost, mut least) = (0, 0.0);
    for tied in sorted.chunk_by(|a, b| a.probability == b.probability).rev() {
        // Everything below this group is dropped if the threshold lies here.
        if lost as f64 <= LOST * total as f64 {
            least = tied[0].probability;
        }
        lost += tied.iter().filter(|one| one.is_true).count();
    }
    least
}

/// The lower end of Wilson's interval of a share.
fn wilson_low(right: usize, of: usize) -> f64 {
    if of == 0 {
        return 0.0;
    }
    let (n, p) = (of as f64, right as f64 / of as f64);
    let middle = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - half) / (1.0 + Z * Z / n)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(labelled: bool, rows: &[(f64, usize, usize)]) -> Vec<JudgedLabel> {
        let row = |&(probability, right, wrong): &(f64, usize, usize)| {
            let one = move |is_true| JudgedLabel { probability, labelled, is_true };
            std::iter::repeat_n(one(true), right).chain(std::iter::repeat_n(one(false), wrong))
        };
        rows.iter().flat_map(row).collect()
    }

    #[test]
    fn wilsons_interval_by_hand() {
        // Brown, Cai and DasGupta's formula for 8 of 10.
        assert!((wilson_low(8, 10) - 0.4902).abs() < 1e-4, "{}", wilson_low(8, 10));
        assert_eq!((wilson_low(0, 10), wilson_low(0, 0)), (0.0, 0.0));
    }

    #[test]
    fn thresholds_by_hand() {
        let mut labels = judged(true, &[(0.9, 50, 2), (0.6, 30, 10), (0.3, 10, 40), (0.1, 3, 80)]);
        labels.extend(judged(false, &[(0.95, 40, 1), (0.7, 5, 30), (0.2, 0, 500)]));
        let thresholds = RuleThresholds::choose(&[labels])[0];
        // From 0.6 on, 80 of 92 are right: at least 0.786; from 0.3 on only 90 of 142.
        assert_eq!(thresholds.keep, 0.6);
        // Below 0.3 lie 3 of 93 true labels, below 0.6 are 13.
        assert_eq!(thresholds.drop, 0.3);
        assert_eq!(thresholds.add, 0.95);
    }

    #[test]
    fn relations_with_few_labels_take_the_thresholds_of_all() {
        let many = judged(true, &[(0.8, 90, 5), (0.2, 1, 90)]);
        let few = judged(true, &[(0.9, 3, 0)]);
        let thresholds = RuleThresholds::choose(&[many, few]);
        assert_eq!(thresholds[0].keep, thresholds[1].keep);
        assert!(thresholds.iter().all(|one| one.drop <= one.keep && one.keep <= one.add));
    }
}
