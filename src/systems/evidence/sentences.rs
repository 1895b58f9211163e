//! Scored sentences of facts: the threshold that keeps the best of them, and their F1.

use super::EvidenceItem;
use crate::eval::{BestPrefix, ScoredFact, best_prefix};

/// A sentence of a fact with its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoredSentence {
    /// Index of the fact.
    pub fact: usize,
    /// Index of the sentence in its document.
    pub sentence: usize,
    /// Probability of being evidence.
    pub score: f32,
    /// Whether it is, where that is known.
    pub gold: bool,
}

/// Sorts by falling score, equal ones in their order.
pub fn rank_sentences(sentences: &mut [ScoredSentence]) {
    sentences.sort_by(|a, b| b.score.total_cmp(&a.score));
}

/// The prefix of a ranked list with the largest F1, the first of equals; recall divides by `total`,
/// the evidence sentences of all labels (the release's rule: at least 1). `None` for an empty list.
pub fn best_threshold(ranked: &[ScoredSentence], total: usize) -> Option<BestPrefix> {
    let entry = |sentence: &ScoredSentence| ScoredFact {
        score: sentence.score,
        correct: sentence.gold,
        in_train: false,
    };
    let entries: Vec<ScoredFact> = ranked.iter().map(entry).collect();
    best_prefix(&entries, total.max(1))
}

/// The sentences of each fact that are kept, best first: those of the ranked list whose score is at
/// least `theta`.
pub fn evidence(ranked: &[ScoredSentence], facts: usize, theta: f32) -> Vec<Vec<usize>> {
    let mut evidence = vec![Vec::new(); facts];
    for sentence in ranked.iter().take_while(|sentence| sentence.score >= theta) {
        evidence[sentence.fact].push(sentence.sentence);
    }
    evidence
}

/// The sentences of items with their scores, ranked; an item's own evidence is gold.
pub fn sentences_of(items: &[EvidenceItem], scores: Vec<Vec<f32>>) -> Vec<ScoredSentence> {
    let of_fact = |(fact, (item, scores)): (usize, (&EvidenceItem, Vec<f32>))| {
        let gold = |sentence: usize| item.fact.evidence.contains(&(sentence as u32));
        let sentence =
            |(sentence, score)| ScoredSentence { fact, sentence, score, gold: gold(sentence) };
        scores.into_iter().enumerate().map(sentence).collect::<Vec<_>>()
    };
    let mut ranked: Vec<ScoredSentence> =
        items.iter().zip(scores).enumerate().flat_map(of_fact).collect();
    rank_sentences(&mut ranked);
    ranked
}

/// F1 of the sentences whose score is at least `theta`, of `total` that are evidence.
pub fn f1_at(ranked: &[ScoredSentence], theta: f32, total: usize) -> f64 {
    let kept = ranked.iter().take_while(|sentence| sentence.score >= theta);
    let (kept, right) =
        kept.fold((0, 0), |(kept, right), sentence| (kept + 1, right + usize::from(sentence.gold)));
    2.0 * right as f64 / (kept + total).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(fact: usize, sentence: usize, score: f32, gold: bool) -> ScoredSentence {
        ScoredSentence { fact, sentence, score, gold }
    }

    /// Sorted: 0.9 (gold), 0.8, 0.7 (gold), 0.6; three gold sentences in all. F1 of the prefixes:
    /// 1/2, 2/5, 2/3, 4/7.
    fn ranked() -> Vec<ScoredSentence> {
        let mut list = vec![
            sentence(1, 3, 0.7, true),
            sentence(0, 2, 0.9, true),
            sentence(0, 0, 0.6, false),
            sentence(0, 1, 0.8, false),
        ];
        rank_sentences(&mut list);
        list
    }

    #[test]
    fn the_best_prefix_is_found_and_cut_there() {
        let best = best_threshold(&ranked(), 3).unwrap();
        assert_eq!((best.prefix, best.theta), (2, 0.7));
        assert!((best.f1 - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(evidence(&ranked(), 3, best.theta), [vec![2, 1], vec![3], vec![]]);
        assert_eq!(evidence(&ranked(), 2, 2.0), [Vec::<usize>::new(), vec![]]);
        assert!(best_threshold(&[], 3).is_none());
        assert!((f1_at(&ranked(), best.theta, 3) - best.f1).abs() < 1e-12);
        assert!((f1_at(&ranked(), 0.8, 3) - 0.4).abs() < 1e-12 && f1_at(&[], 0.5, 0) == 0.0);
    }
}
