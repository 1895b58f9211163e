//! What becomes of a distant label, and of a pair without one, by a teacher's probability
//! (docs/systems.md, V.2 and V.3).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Precision that the lower end of its interval must reach where labels are kept or added.
const PRECISION: f64 = 0.7;
/// The largest share of the true labels that may be dropped.
const LOST: f64 = 0.05;
/// Quantile of the normal distribution for an interval of 95 per cent.
const Z: f64 = 1.96;
/// Relations with fewer observations take the thresholds of all relations together.
const FEWEST: usize = 20;

/// How probabilities are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RuleMode {
    /// Not at all: distant labels are what they say.
    AsIs,
    /// By the thresholds: keep, drop, add; what lies between them is a soft target.
    #[default]
    Mixed,
    /// Every stored probability is a soft target.
    Soft,
    /// Targets are 0 or 1: as `mixed`, and what lies between is rounded at 0.5.
    Hard,
}

/// What was decided on a relation of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LabelAction {
    /// A distant label that is believed.
    Keep,
    /// A distant label that is not believed: the relation does not hold.
    Drop,
    /// A distant label that is not believed and neither trained on.
    Ignore,
    /// A relation without a label that is believed to hold.
    Add,
    /// The probability is the target.
    Soft,
    /// No label, and no reason to add one.
    Negative,
}

/// The target of a relation of a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelDecision {
    /// What was decided.
    pub action: LabelAction,
    /// The target, from 0 to 1.
    pub target: f32,
    /// Its weight in the loss.
    pub weight: f32,
}

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
    /// Those of each relation from what is known of its labels, by relation.
    pub fn choose(judged: &[Vec<JudgedLabel>]) -> Vec<Self> {
        let all: Vec<JudgedLabel> = judged.concat();
        let common = Self::of(&all, Self { keep: 0.5, drop: 0.0, add: 1.0 });
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
    (middle - half) / (1.0 + Z * Z / n)
}

/// The rules of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelRules {
    /// How probabilities are used.
    pub mode: RuleMode,
    /// By relation.
    pub thresholds: Vec<RuleThresholds>,
    /// Whether dropped labels are left out of the loss.
    pub ignore_dropped: bool,
    /// Weight of soft targets without a label.
    pub soft_weight: f32,
}

impl LabelRules {
    /// What becomes of a relation of a pair. `probability` is `None` where the teacher stored none:
    /// it is next to 0.
    pub fn decide(
        &self,
        relation: usize,
        labelled: bool,
        probability: Option<f64>,
    ) -> LabelDecision {
        let decision =
            |action, target: f64, weight| LabelDecision { action, target: target as f32, weight };
        if self.mode == RuleMode::AsIs {
            return match labelled {
                true => decision(LabelAction::Keep, 1.0, 1.0),
                false => decision(LabelAction::Negative, 0.0, 1.0),
            };
        }
        let stored = probability.is_some() || labelled;
        let p = probability.unwrap_or(0.0);
        if !stored {
            return decision(LabelAction::Negative, 0.0, 1.0);
        }
        let weight = if labelled { 1.0 } else { self.soft_weight };
        if self.mode == RuleMode::Soft {
            return decision(LabelAction::Soft, p, weight);
        }
        let thresholds = &self.thresholds[relation];
        match labelled {
            true if p >= thresholds.keep => decision(LabelAction::Keep, 1.0, 1.0),
            true if p < thresholds.drop && self.ignore_dropped => {
                decision(LabelAction::Ignore, 0.0, 0.0)
            }
            true if p < thresholds.drop => decision(LabelAction::Drop, 0.0, 1.0),
            false if p >= thresholds.add => decision(LabelAction::Add, 1.0, 1.0),
            _ if self.mode == RuleMode::Hard => match (labelled, p >= 0.5) {
                (true, true) => decision(LabelAction::Keep, 1.0, 1.0),
                (true, false) => decision(LabelAction::Drop, 0.0, 1.0),
                (false, true) => decision(LabelAction::Add, 1.0, 1.0),
                (false, false) => decision(LabelAction::Negative, 0.0, 1.0),
            },
            _ => decision(LabelAction::Soft, p, weight),
        }
    }
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
        let few = judged(true, &[(0.4, 3, 0)]);
        let thresholds = RuleThresholds::choose(&[many, few]);
        assert_eq!(thresholds[0].keep, thresholds[1].keep);
        assert!(thresholds.iter().all(|one| one.drop <= one.keep && one.keep <= one.add));
    }

    fn rules(mode: RuleMode) -> LabelRules {
        let thresholds = vec![RuleThresholds { keep: 0.6, drop: 0.2, add: 0.9 }];
        LabelRules { mode, thresholds, ignore_dropped: false, soft_weight: 0.5 }
    }

    #[test]
    fn the_table_of_the_rules() {
        use LabelAction::{Add, Drop, Keep, Negative, Soft};
        let mixed = |labelled, p| {
            let found = rules(RuleMode::Mixed).decide(0, labelled, p);
            (found.action, found.target, found.weight)
        };
        assert_eq!(mixed(true, Some(0.7)), (Keep, 1.0, 1.0));
        assert_eq!(mixed(true, Some(0.1)), (Drop, 0.0, 1.0));
        assert_eq!(mixed(true, Some(0.5)), (Soft, 0.5, 1.0));
        assert_eq!(mixed(false, Some(0.95)), (Add, 1.0, 1.0));
        assert_eq!(mixed(false, Some(0.5)), (Soft, 0.5, 0.5));
        assert_eq!(mixed(false, None), (Negative, 0.0, 1.0));
        let hard = |labelled, p| rules(RuleMode::Hard).decide(0, labelled, Some(p)).action;
        assert_eq!([hard(true, 0.5), hard(true, 0.4)], [Keep, Drop]);
        assert_eq!([hard(false, 0.5), hard(false, 0.4)], [Add, Negative]);
        let ignoring = LabelRules { ignore_dropped: true, ..rules(RuleMode::Mixed) };
        assert_eq!(ignoring.decide(0, true, Some(0.1)).weight, 0.0);
        // A label that the teacher stored nothing of is not believed.
        assert_eq!(rules(RuleMode::Mixed).decide(0, true, None).action, Drop);
    }

    #[test]
    fn as_is_labels_are_what_they_say_whatever_the_teacher_says() {
        for p in [None, Some(0.01), Some(0.99)] {
            let found = rules(RuleMode::AsIs);
            assert_eq!(found.decide(0, true, p).target, 1.0);
            assert_eq!(found.decide(0, false, p).target, 0.0);
        }
    }
}
