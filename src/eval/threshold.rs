//! The best global threshold of systems that score every (pair, relation): the prefix of the sorted
//! list with the largest F1 (docs/scores.md, S.4). Recall always divides by all distinct gold
//! facts, reachable or not. Not for: per-pair thresholds, which are logits.

use serde::{Deserialize, Serialize};

use super::block::{f1, ratio};

/// A scored candidate fact.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScoredFact {
    /// The system's score; a NaN ranks last.
    pub score: f32,
    /// Whether it is a gold fact.
    pub correct: bool,
    /// Whether it is known from training data; only looked at where it is correct.
    pub in_train: bool,
}

/// The best prefix of a sorted list, and the areas under its curves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BestPrefix {
    /// Last index of the prefix, from 0; the first of equals.
    pub prefix: usize,
    /// Score at that index: θ. Other data keeps scores > θ.
    pub theta: f32,
    /// Precision of the prefix.
    pub precision: f64,
    /// Recall of the prefix.
    pub recall: f64,
    /// F1 of the prefix.
    pub f1: f64,
    /// Area under the precision–recall curve, by trapezoids from the first prefix on.
    pub auc: f64,
    /// Ign precision at the same prefix (GLRE's rule).
    pub ign_precision: f64,
    /// Ign F1 at the same prefix (GLRE's rule).
    pub ign_f1: f64,
    /// Ign F1 of the scores > θ, which leaves out the entry at θ and its ties (what DocRED's
    /// trainer prints).
    pub ign_f1_above_theta: f64,
    /// Ign F1 maximised on its own (what DocRED's trainer selects checkpoints by).
    pub ign_f1_max: f64,
    /// Last index of the prefix that maximises it.
    pub ign_prefix: usize,
    /// Area under the curve of Ign precision over recall.
    pub ign_auc: f64,
}

/// Scores of the entries above a threshold that was chosen elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AtTheta {
    /// Entries with score > θ.
    pub kept: usize,
    /// Precision among them.
    pub precision: f64,
    /// Recall.
    pub recall: f64,
    /// F1.
    pub f1: f64,
    /// Ign F1.
    pub ign_f1: f64,
}

/// Running scores of one prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Prefix {
    /// Number of entries.
    pub entries: usize,
    /// Score of the last entry.
    pub score: f32,
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
    pub ign_precision: f64,
    pub ign_f1: f64,
}

/// A walk down a list sorted by falling score. It holds a few numbers, whatever the length of the
/// list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    total_gold: usize,
    correct: usize,
    known: usize,
    last: Prefix,
    /// The prefix that ends before the ties of the last entry.
    above: Prefix,
    best: Prefix,
    /// What stood above the best prefix's ties.
    above_best: Prefix,
    ign_best: Prefix,
    auc: f64,
    ign_auc: f64,
}

impl Walk {
    /// Before the first entry; `total_gold` is the number of distinct gold facts.
    pub fn new(total_gold: usize) -> Self {
        Self { total_gold, ..Self::default() }
    }

    /// Goes on to the next entry, whose score is not above that of the last one.
    pub(crate) fn push(&mut self, entry: &ScoredFact) -> Prefix {
        let last = self.last;
        let prefix = self.prefix(entry);
        if last.entries > 0 {
            let width = prefix.recall - last.recall;
            self.auc += width * (prefix.precision + last.precision) / 2.0;
            self.ign_auc += width * (prefix.ign_precision + last.ign_precision) / 2.0;
        }
        // A NaN equals nothing, itself included; it ranks last, so that only other NaNs follow.
        if prefix.score != last.score {
            self.above = last;
        }
        if self.best.entries == 0 || prefix.f1 > self.best.f1 {
            (self.best, self.above_best) = (prefix, self.above);
        }
        if self.ign_best.entries == 0 || prefix.ign_f1 > self.ign_best.ign_f1 {
            self.ign_best = prefix;
        }
        self.last = prefix;
        prefix
    }

    fn prefix(&mut self, entry: &ScoredFact) -> Prefix {
        self.correct += usize::from(entry.correct);
        self.known += usize::from(entry.correct && entry.in_train);
        let entries = self.last.entries + 1;
        let precision = ratio(self.correct as f64, entries as f64);
        let recall = ratio(self.correct as f64, self.total_gold as f64);
        let ign_precision =
            ratio((self.correct - self.known) as f64, (entries - self.known) as f64);
        let (f1, ign_f1) = (f1(precision, recall), f1(ign_precision, recall));
        Prefix { entries, score: entry.score, precision, recall, f1, ign_precision, ign_f1 }
    }

    /// The best prefix of all entries so far; `None` without an entry.
    pub fn best(&self) -> Option<BestPrefix> {
        let best = self.best;
        Some(BestPrefix {
            prefix: best.entries.checked_sub(1)?,
            theta: best.score,
            precision: best.precision,
            recall: best.recall,
            f1: best.f1,
            auc: self.auc,
            ign_precision: best.ign_precision,
            ign_f1: best.ign_f1,
            ign_f1_above_theta: self.above_best.ign_f1,
            ign_f1_max: self.ign_best.ign_f1,
            ign_prefix: self.ign_best.entries.checked_sub(1)?,
            ign_auc: self.ign_auc,
        })
    }
}

/// The list by falling score; equal scores keep their order.
pub(crate) fn sorted(entries: &[ScoredFact]) -> Vec<ScoredFact> {
    let mut sorted = entries.to_vec();
    let rank = |score: f32| if score.is_nan() { f32::NEG_INFINITY } else { score };
    sorted.sort_by(|a, b| rank(b.score).total_cmp(&rank(a.score)));
    sorted
}

/// The prefix with the largest F1; `None` for an empty list. `total_gold` is the number of distinct
/// gold facts.
pub fn best_prefix(entries: &[ScoredFact], total_gold: usize) -> Option<BestPrefix> {
    let mut walk = Walk::new(total_gold);
    for entry in &sorted(entries) {
        walk.push(entry);
    }
    walk.best()
}

/// The scores of the entries with score > `theta`, in any order.
pub fn at_theta<'a>(
    entries: impl IntoIterator<Item = &'a ScoredFact>,
    total_gold: usize,
    theta: f32,
) -> AtTheta {
    let mut walk = Walk::new(total_gold);
    for entry in entries.into_iter().filter(|entry| entry.score > theta) {
        walk.prefix_of_set(entry);
    }
    walk.kept()
}

impl Walk {
    /// Counts an entry where only the scores of the whole set are wanted.
    pub(crate) fn prefix_of_set(&mut self, entry: &ScoredFact) {
        self.last = self.prefix(entry);
    }

    /// The scores of all entries so far.
    pub(crate) fn kept(&self) -> AtTheta {
        let Prefix { entries, precision, recall, f1, ign_f1, .. } = self.last;
        AtTheta { kept: entries, precision, recall, f1, ign_f1 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{case, close, json};
    use super::*;

    fn entry(score: f32, correct: bool) -> ScoredFact {
        ScoredFact { score, correct, in_train: false }
    }

    #[test]
    fn closed_form() {
        // Sorted: right, wrong, right, wrong of 4 gold facts: F1 is 2/5, 2/6, 4/7, 4/8.
        let best = best_prefix(
            &[entry(0.1, false), entry(0.9, true), entry(0.5, true), entry(0.7, false)],
            4,
        )
        .unwrap();
        assert_eq!((best.prefix, best.theta), (2, 0.5));
        assert!((best.f1 - 4.0 / 7.0).abs() < 1e-12);
        // From (1/4, 1) to (1/4, 1/2) to (2/4, 2/3) to (2/4, 1/2).
        assert!((best.auc - 0.25 * (0.5 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        assert_eq!(at_theta(&[entry(0.9, true), entry(0.5, true)], 4, 0.5).kept, 1);
    }

    #[test]
    fn nothing_and_nan() {
        assert_eq!(best_prefix(&[], 3), None);
        assert_eq!(at_theta(&[entry(0.1, true)], 3, 0.5), AtTheta::default());
        let best = best_prefix(&[entry(f32::NAN, false), entry(0.2, true)], 1).unwrap();
        assert_eq!((best.prefix, best.f1), (0, 1.0));
    }

    fn lists(path: &std::path::Path, name: &str) -> Vec<ScoredFact> {
        let bytes = fs_err::read(path).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let data = |part: &str| tensors.tensor(&format!("{name}.{part}")).unwrap().data().to_vec();
        let scores = data("scores")
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect::<Vec<_>>();
        let flags = data("correct").into_iter().zip(data("in_train"));
        scores
            .into_iter()
            .zip(flags)
            .map(|(score, (correct, known))| ScoredFact {
                score,
                correct: correct == 1,
                in_train: known == 1,
            })
            .collect()
    }

    #[test]
    #[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
    fn parity() {
        let folder = case("scorer-threshold");
        let expected = json(&folder.join("expected.json"));
        for list in expected.as_array().unwrap() {
            let name = list["name"].as_str().unwrap();
            let entries = lists(&folder.join("lists.safetensors"), name);
            let total = list["total_recall"].as_u64().unwrap() as usize;
            let (ours, theirs) = (best_prefix(&entries, total).unwrap(), &list["float64"]);
            assert_eq!(Some(ours.prefix as u64), theirs["prefix_index"].as_u64(), "{name}");
            assert_eq!(
                Some(ours.ign_prefix as u64),
                theirs["ign_prefix_index_max"].as_u64(),
                "{name}"
            );
            assert_eq!(ours.theta, theirs["theta"].as_f64().unwrap() as f32, "{name}");
            let numbers = [
                ("precision", ours.precision),
                ("recall", ours.recall),
                ("f1", ours.f1),
                ("auc", ours.auc),
                ("ign_f1_same_prefix", ours.ign_f1),
                ("ign_precision_same_prefix", ours.ign_precision),
                ("ign_f1_max", ours.ign_f1_max),
                ("ign_auc", ours.ign_auc),
            ];
            for (key, value) in numbers {
                close(&format!("{name} {key}"), value, &theirs[key], 1e-9);
            }
            let reference = &list["reference"];
            if let Some(printed) = reference.get("ign_f1_at_printed_w") {
                close(&format!("{name} above theta"), ours.ign_f1_above_theta, printed, 2e-6);
            }
            let fixed = &theirs["fixed_theta"];
            let at = at_theta(&entries, total, fixed["theta"].as_f64().unwrap() as f32);
            assert_eq!(Some(at.kept as u64), fixed["kept"].as_u64(), "{name}");
            for (key, value) in [
                ("f1", at.f1),
                ("precision", at.precision),
                ("recall", at.recall),
                ("ign_f1", at.ign_f1),
            ] {
                close(&format!("{name} fixed {key}"), value, &fixed[key], 1e-9);
            }
        }
        assert_eq!(expected.as_array().unwrap().len(), 24);
    }
}
