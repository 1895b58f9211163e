//! Infer-F1: scores of the facts that take part in a two-step inference (docs/scores.md, "Infer
//! F1"). No public implementation exists, so the four readings of the definition are all computed.
//! Not for: deciding which one a paper meant.

use serde::{Deserialize, Serialize};

use super::{FactKeySet, ScoreBlock};

/// (document, head, tail)
type PairKey = (usize, usize, usize);

/// Infer-F1 in its four readings. I(F) are the facts of F on any side of a triangle h→o, o→t, h→t
/// of F.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InferScores {
    /// I(predicted) against I(gold).
    pub members_strict: ScoreBlock,
    /// Precision of I(predicted) against all gold facts, recall of I(gold) by all predicted facts.
    pub members_loose: ScoreBlock,
    /// Only the closing sides h→t on both sides.
    pub conclusion: ScoreBlock,
    /// Predictions on the pairs of I(gold) against I(gold).
    pub gold_pairs: ScoreBlock,
}

/// Computes all four readings.
pub fn infer_scores(predicted: &FactKeySet<'_>, gold: &FactKeySet<'_>) -> InferScores {
    let (sides, gold_sides) = (Triangles::of(predicted), Triangles::of(gold));
    let (ours, theirs) = (select(predicted, &sides.members), select(gold, &gold_sides.members));
    let overlap = |a: &FactKeySet<'_>, b: &FactKeySet<'_>| a.intersection(b).count();
    let plain =
        |a: &FactKeySet<'_>, b: &FactKeySet<'_>| ScoreBlock::new(a.len(), b.len(), overlap(a, b));
    let closing = (select(predicted, &sides.closing), select(gold, &gold_sides.closing));
    InferScores {
        members_strict: plain(&ours, &theirs),
        members_loose: ScoreBlock::with_found(
            ours.len(),
            theirs.len(),
            overlap(&ours, gold),
            overlap(predicted, &theirs),
        ),
        conclusion: plain(&closing.0, &closing.1),
        gold_pairs: plain(&select(predicted, &gold_sides.members), &theirs),
    }
}

/// The pairs of a set of facts that are sides of triangles, sorted.
#[derive(Default)]
struct Triangles {
    members: Vec<PairKey>,
    closing: Vec<PairKey>,
}

impl Triangles {
    fn of(facts: &FactKeySet<'_>) -> Self {
        // Sorted by document, head and tail, as the facts are: the tails of a head are a run of
        // this list.
        let mut pairs: Vec<PairKey> = facts
            .iter()
            .filter(|fact| fact.head != fact.tail)
            .map(|fact| (fact.document, fact.head, fact.tail))
            .collect();
        pairs.dedup();
        let mut triangles = Self::default();
        for tails in pairs.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            for &(document, head, middle) in tails {
                let from = pairs.partition_point(|pair| (pair.0, pair.1) < (document, middle));
                let ends =
                    pairs[from..].iter().take_while(|pair| (pair.0, pair.1) == (document, middle));
                // `tails` holds no `head`, so the three corners are distinct.
                for &(_, _, tail) in
                    ends.filter(|end| tails.binary_search(&(document, head, end.2)).is_ok())
                {
                    triangles.members.extend([
                        (document, head, middle),
                        (document, middle, tail),
                        (document, head, tail),
                    ]);
                    triangles.closing.push((document, head, tail));
                }
            }
        }
        for sides in [&mut triangles.members, &mut triangles.closing] {
            sides.sort_unstable();
            sides.dedup();
        }
        triangles
    }
}

fn select<'a>(facts: &FactKeySet<'a>, pairs: &[PairKey]) -> FactKeySet<'a> {
    facts
        .iter()
        .filter(|fact| pairs.binary_search(&(fact.document, fact.head, fact.tail)).is_ok())
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::FactKey;

    fn facts(pairs: &[(usize, usize)]) -> FactKeySet<'static> {
        pairs
            .iter()
            .map(|&(head, tail)| FactKey { document: 0, head, tail, relation: "P1" })
            .collect()
    }

    #[test]
    fn one_triangle() {
        let gold = facts(&[(0, 1), (1, 2), (0, 2), (2, 3)]);
        let same = infer_scores(&gold, &gold);
        assert_eq!(
            (same.members_strict.gold, same.conclusion.gold, same.members_strict.f1),
            (3, 1, 1.0)
        );
        let broken = infer_scores(&facts(&[(0, 1), (1, 2)]), &gold);
        assert_eq!(broken.members_strict, ScoreBlock::new(0, 3, 0));
        assert_eq!(broken.members_loose, ScoreBlock::with_found(0, 3, 0, 2));
        assert_eq!(broken.gold_pairs, ScoreBlock::new(2, 3, 2));
    }

    #[test]
    fn going_back_and_loops_are_no_triangles() {
        assert_eq!(
            infer_scores(&facts(&[]), &facts(&[(0, 1), (1, 0), (0, 0), (1, 1)]))
                .members_strict
                .gold,
            0
        );
    }
}
