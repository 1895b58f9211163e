//! The facts of two runs put together, and the threshold of those that only their sum decides
//! (docs/systems.md, E.7 and E.8).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a fact loses that one of the runs did not have among its largest classes.
const MISSING: f32 = 10.0;

/// What holds at the threshold of fused scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FusionForm {
    /// A fact with exactly the threshold is kept, as it was when the threshold was chosen; equal
    /// scores are kept or dropped together.
    #[default]
    AtLeast,
    /// It is not kept, and F1 is compared in 32 bits when the threshold is chosen (the release).
    Above,
}

/// The `top` largest logits of a row with their classes, largest first, the first of equal ones
/// first; 0: all.
pub fn top_classes(row: &[f32], top: usize) -> Vec<(usize, f32)> {
    let mut classes: Vec<(usize, f32)> = row.iter().copied().enumerate().collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    classes.truncate(if top == 0 { usize::MAX } else { top });
    classes
}

/// The `top` largest classes of a row with their scores relative to the threshold class 0, which
/// stands 1 below the last of them where it is not one of them.
pub fn relative_scores(row: &[f32], top: usize) -> Vec<(usize, f32)> {
    let mut classes = top_classes(row, top);
    let threshold = classes.iter().find(|(class, _)| *class == 0).map(|&(_, logit)| logit);
    let last = classes.last().map_or(0.0, |&(_, logit)| logit);
    let threshold = threshold.unwrap_or(last - 1.0);
    classes.iter_mut().for_each(|(_, logit)| *logit -= threshold);
    classes
}

/// The facts of a set of documents after both runs. `K` tells facts apart.
#[derive(Clone, Debug)]
pub struct FusedFacts<K> {
    /// Facts above the threshold class in both runs: kept whatever the threshold.
    outright: Vec<(K, f32)>,
    /// The others, with their fused scores.
    candidates: Vec<(K, f32)>,
}

/// A threshold that was chosen on documents with labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// The fused score of the last candidate that is kept.
    pub threshold: f32,
    /// Number of candidates that are kept.
    pub candidates: usize,
    /// F1 of all that is kept.
    pub f1: f64,
}

impl<K> Default for FusedFacts<K> {
    fn default() -> Self {
        Self { outright: Vec::new(), candidates: Vec::new() }
    }
}

impl<K: Ord + Clone> FusedFacts<K> {
    /// Puts together the facts of a document: each with its score in the run over all of it, and
    /// its scores in the pseudo documents, of which the largest counts.
    pub fn add(&mut self, full: Vec<(K, f32)>, pseudo: Vec<(K, f32)>) {
        let (full, pseudo) = (largest(full), largest(pseudo));
        let (mut full, mut pseudo) = (full.into_iter().peekable(), pseudo.into_iter().peekable());
        loop {
            let order = match (full.peek(), pseudo.peek()) {
                (None, None) => return,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.0.cmp(&b.0),
            };
            let one = full.next_if(|_| order.is_le());
            let other = pseudo.next_if(|_| order.is_ge());
            match (one, other) {
                (Some((fact, a)), Some((_, b))) if a > 0.0 && b > 0.0 => {
                    self.outright.push((fact, a + b));
                }
                (Some((fact, a)), Some((_, b))) => self.candidates.push((fact, a + b)),
                (Some((fact, score)), None) | (None, Some((fact, score))) => {
                    self.candidates.push((fact, score - MISSING));
                }
                (None, None) => return,
            }
        }
    }

    /// Candidates from the largest score down; equal scores in the order of the facts.
    pub fn ranked(&self) -> Vec<&(K, f32)> {
        let mut ranked: Vec<&(K, f32)> = self.candidates.iter().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        ranked
    }

    /// The threshold whose facts have the best F1 on documents with `gold` facts; at least one
    /// candidate is kept. `None` without candidates.
    pub fn choose(
        &self,
        form: FusionForm,
        gold: usize,
        is_gold: impl Fn(&K) -> bool,
    ) -> Option<Chosen> {
        let ranked = self.ranked();
        let mut correct = self.outright.iter().filter(|(fact, _)| is_gold(fact)).count();
        let mut best: Option<Chosen> = None;
        for (index, (fact, score)) in ranked.iter().enumerate() {
            correct += usize::from(is_gold(fact));
            let is_tied = ranked.get(index + 1).is_some_and(|next| next.1 == *score);
            if form == FusionForm::AtLeast && is_tied {
                continue;
            }
            let f1 = f1(form, correct, self.outright.len() + index + 1, gold);
            if best.is_none_or(|best| f1 > best.f1) {
                best = Some(Chosen { threshold: *score, candidates: index + 1, f1 });
            }
        }
        best
    }

    /// The facts that are kept with the candidates of [`Self::choose`], with their fused scores.
    pub fn chosen(&self, chosen: Option<Chosen>) -> Vec<(K, f32)> {
        let kept = chosen.map_or(0, |chosen| chosen.candidates);
        let candidates = self.ranked().into_iter().take(kept);
        self.outright.iter().chain(candidates).cloned().collect()
    }

    /// The facts that are kept at a threshold from other documents, with their fused scores;
    /// without one, no candidate.
    pub fn at(&self, form: FusionForm, threshold: Option<f32>) -> Vec<(K, f32)> {
        let holds = |score: f32| {
            threshold.is_some_and(|threshold| match form {
                FusionForm::AtLeast => score >= threshold,
                FusionForm::Above => score > threshold,
            })
        };
        let candidates = self.candidates.iter().filter(|(_, score)| holds(*score));
        self.outright.iter().chain(candidates).cloned().collect()
    }
}

/// Each fact once, with its largest score, in order.
fn largest<K: Ord>(mut facts: Vec<(K, f32)>) -> Vec<(K, f32)> {
    facts.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.total_cmp(&a.1)));
    facts.dedup_by(|later, first| later.0 == first.0);
    facts
}

fn f1(form: FusionForm, correct: usize, kept: usize, gold: usize) -> f64 {
    let precision = correct as f64 / kept as f64;
    let recall = if gold == 0 { 0.0 } else { correct as f64 / gold as f64 };
    if form == FusionForm::AtLeast {
        return if correct == 0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) };
    }
    let (precision, recall) = (precision as f32, recall as f32);
    f64::from(2.0 * recall * precision / (recall + precision + 1e-20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_relative_to_the_threshold_class_or_to_one_below_the_last() {
        let row = [1.0, 5.0, -2.0, 3.0, 3.0];
        assert_eq!(top_classes(&row, 2), [(1, 5.0), (3, 3.0)]);
        assert_eq!(relative_scores(&row, 2), [(1, 3.0), (3, 1.0)]);
        assert_eq!(relative_scores(&row, 4), [(1, 4.0), (3, 2.0), (4, 2.0), (0, 0.0)]);
        assert_eq!(relative_scores(&row, 0).len(), 5);
    }

    /// Facts 0 and 1 in both runs, 2 in the first, 3 in the second alone.
    fn facts() -> FusedFacts<u32> {
        let mut facts = FusedFacts::default();
        let pseudo = vec![(3, 9.0), (0, -7.0), (1, 2.0), (0, 1.5), (3, 4.0)];
        facts.add(vec![(0, 1.0), (1, -1.5), (2, 8.0)], pseudo);
        facts
    }

    #[test]
    fn facts_above_the_threshold_class_in_both_runs_are_kept_outright() {
        assert_eq!(facts().at(FusionForm::AtLeast, None), [(0, 2.5)]);
        let mut all = facts().at(FusionForm::AtLeast, Some(f32::MIN));
        all.sort_by_key(|fact| fact.0);
        assert_eq!(all, [(0, 2.5), (1, 0.5), (2, -2.0), (3, -1.0)]);
    }

    #[test]
    fn the_threshold_has_the_best_f1_and_holds_as_the_form_says() {
        // Ranked: 1 (0.5, wrong), 3 (-1, right), 2 (-2, wrong); 0 is right and kept outright.
        let gold = |fact: &u32| [0, 3].contains(fact);
        for form in [FusionForm::AtLeast, FusionForm::Above] {
            let chosen = facts().choose(form, 2, gold).unwrap();
            assert_eq!((chosen.threshold, chosen.candidates), (-1.0, 2));
            assert!((chosen.f1 - 0.8).abs() < 1e-6);
            assert_eq!(facts().chosen(Some(chosen)), [(0, 2.5), (1, 0.5), (3, -1.0)]);
        }
        assert_eq!(facts().at(FusionForm::AtLeast, Some(-1.0)).len(), 3);
        assert_eq!(facts().at(FusionForm::Above, Some(-1.0)), [(0, 2.5), (1, 0.5)]);
    }

    #[test]
    fn equal_scores_are_kept_together_and_nothing_is_no_trouble() {
        let mut facts = FusedFacts::default();
        facts.add(vec![(0, 1.0), (1, 1.0), (2, -1.0)], vec![]);
        let gold = |fact: &u32| *fact == 0;
        assert_eq!(facts.choose(FusionForm::AtLeast, 1, gold).unwrap().candidates, 2);
        assert_eq!(facts.choose(FusionForm::Above, 1, gold).unwrap().candidates, 1);
        let none = FusedFacts::<u32>::default();
        assert_eq!(none.choose(FusionForm::AtLeast, 1, gold), None);
        assert!(none.chosen(None).is_empty());
        // No fact is gold: the first candidate is kept all the same.
        assert_eq!(facts.choose(FusionForm::AtLeast, 0, |_| false).unwrap().candidates, 2);
    }
}
