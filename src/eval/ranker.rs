//! What the ranker's pruning costs and what it removes: recall of labelled pairs by k, and the kept
//! share of true and false distant labels where the truth is known (docs/scores.md, "Ranker
//! recall", S.8). Not for: scoring pairs.

use std::borrow::Borrow;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::block::ratio;
use crate::sampling::KeptPairs;

/// The k that every report shows: N, 2N, 3N, 20, 30, 60.
pub const KEPT_IN_REPORTS: [KeptPairs; 6] = [
    KeptPairs::times(1),
    KeptPairs::times(2),
    KeptPairs::times(3),
    KeptPairs::fixed(20),
    KeptPairs::fixed(30),
    KeptPairs::fixed(60),
];

/// One document with its ranking. The ranking must reach as deep as the largest k asked for; pairs
/// that it lacks count as dropped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RankedDocument {
    /// Number of entities N.
    pub entities: usize,
    /// Ordered pairs (head, tail), best first.
    pub ranking: Vec<(usize, usize)>,
    /// Labelled facts.
    pub facts: Vec<RankedFact>,
}

/// A labelled fact of a ranked document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RankedFact {
    /// Head entity.
    pub head: usize,
    /// Tail entity.
    pub tail: usize,
    /// Whether the label is true, where that is known.
    pub truth: Option<bool>,
}

/// How many of a group of labels survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeptLabels {
    /// Labels of the group.
    pub total: usize,
    /// Those on kept pairs.
    pub kept: usize,
    /// `kept / total`, 0 for an empty group.
    pub share: f64,
}

/// What one value of k keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecallAt {
    /// The value of k.
    pub keep: KeptPairs,
    /// Mean number of pairs kept in a document.
    pub pairs_per_document: f64,
    /// All labels; the share is the recall ceiling of anything that only sees kept pairs.
    pub labels: KeptLabels,
    /// Labels known to be true; `None` where no truth is known.
    pub true_labels: Option<KeptLabels>,
    /// Labels known to be false; `None` where no truth is known.
    pub false_labels: Option<KeptLabels>,
}

impl RecallAt {
    /// The value of k as tables show it, N for the number of entities.
    pub fn k(&self) -> String {
        match self.keep {
            KeptPairs { pairs: 0, times: 1, .. } => "N".to_owned(),
            keep => keep.to_string().to_uppercase(),
        }
    }
}

/// Measures every value of k over all documents, in one pass over the rankings.
pub fn recall_at(
    documents: impl IntoIterator<Item = impl Borrow<RankedDocument>>,
    keeps: &[KeptPairs],
) -> Vec<RecallAt> {
    let mut tallies = vec![Tally::default(); keeps.len()];
    let mut count = 0;
    for document in documents {
        let document = document.borrow();
        count += 1;
        let ranks: HashMap<_, _> =
            document.ranking.iter().enumerate().map(|(rank, pair)| (*pair, rank)).collect();
        for (tally, keep) in tallies.iter_mut().zip(keeps) {
            let limit = keep.count(document.entities);
            tally.pairs += limit.min(document.ranking.len());
            for fact in &document.facts {
                let kept = ranks.get(&(fact.head, fact.tail)).is_some_and(|rank| *rank < limit);
                tally.count(fact.truth, kept);
            }
        }
    }
    tallies.iter().zip(keeps).map(|(tally, keep)| tally.finish(*keep, count)).collect()
}

#[derive(Clone, Copy, Default)]
struct Tally {
    pairs: usize,
    labels: KeptLabels,
    right: KeptLabels,
    wrong: KeptLabels,
}

impl Tally {
    fn count(&mut self, truth: Option<bool>, kept: bool) {
        let groups = match truth {
            Some(true) => [Some(&mut self.labels), Some(&mut self.right)],
            Some(false) => [Some(&mut self.labels), Some(&mut self.wrong)],
            None => [Some(&mut self.labels), None],
        };
        for group in groups.into_iter().flatten() {
            group.total += 1;
            group.kept += usize::from(kept);
        }
    }

    fn finish(self, keep: KeptPairs, documents: usize) -> RecallAt {
        let known = self.right.total + self.wrong.total > 0;
        let share = |group: KeptLabels| KeptLabels {
            share: ratio(group.kept as f64, group.total as f64),
            ..group
        };
        RecallAt {
            keep,
            pairs_per_document: ratio(self.pairs as f64, documents as f64),
            labels: share(self.labels),
            true_labels: known.then(|| share(self.right)),
            false_labels: known.then(|| share(self.wrong)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_form() {
        let label = |head, tail, truth| RankedFact { head, tail, truth };
        let document = RankedDocument {
            entities: 2,
            ranking: vec![(0, 1), (2, 0), (1, 0), (0, 2)],
            facts: vec![
                label(0, 1, Some(true)),
                label(1, 0, Some(true)),
                label(0, 2, Some(false)),
                label(1, 2, Some(false)),
            ],
        };
        let result =
            recall_at([document], &[KeptPairs::times(1), KeptPairs::fixed(3), KeptPairs::times(3)]);
        let kept: Vec<_> = result
            .iter()
            .map(|r| (r.labels.kept, r.true_labels.unwrap().share, r.false_labels.unwrap().share))
            .collect();
        assert_eq!(kept, [(1, 0.5, 0.0), (2, 1.0, 0.0), (3, 1.0, 0.5)]);
        assert_eq!(
            result.iter().map(|r| r.pairs_per_document).collect::<Vec<_>>(),
            [2.0, 3.0, 4.0]
        );
        assert_eq!(result.iter().map(|r| r.k()).collect::<Vec<_>>(), ["N", "3", "3N"]);
    }

    #[test]
    fn without_truth_and_without_documents() {
        let document =
            RankedDocument { facts: vec![RankedFact::default()], ..RankedDocument::default() };
        assert_eq!(recall_at([document], &[KeptPairs::fixed(1)])[0].true_labels, None);
        assert_eq!(
            recall_at(Vec::<RankedDocument>::new(), &KEPT_IN_REPORTS)[5].labels,
            KeptLabels::default()
        );
    }
}
