//! Relational fact alignment: which pair of the other document stands in the same fact
//! (docs/systems.md, D.17; Xiao et al. 2020, eq. 4).

use super::draw::{pick, place, take};
use super::pretrain::{PretrainSettings, Side};
use super::{Pair, Stream};
use crate::shards::FactInstance;

/// A pair of one document and candidates for the same fact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlignmentInstance {
    /// The pair asked about.
    pub query: Pair,
    /// The candidate pairs.
    pub candidates: Vec<Pair>,
    /// Index of the candidate that stands in the query's fact.
    pub answer: usize,
}

/// Alignment in both directions: `[0]` asks for the fact of the first document among the pairs of
/// the second.
pub(super) fn instances(
    rng: &mut Stream,
    facts: &[FactInstance; 2],
    sides: &[Side; 2],
    settings: &PretrainSettings,
) -> [Option<AlignmentInstance>; 2] {
    [(0, 1), (1, 0)].map(|(from, to): (usize, usize)| {
        let answer = (facts[to].head, facts[to].tail);
        let (candidates, answer) =
            candidates(rng, &sides[to], answer, facts[to].relation, settings)?;
        Some(AlignmentInstance { query: (facts[from].head, facts[from].tail), candidates, answer })
    })
}

/// Two facts of one document with the same relation: the optional sixth task. `None` where no
/// relation holds between two good pairs.
pub(super) fn intra_instance(
    rng: &mut Stream,
    side: &Side,
    settings: &PretrainSettings,
) -> Option<AlignmentInstance> {
    let mut twins = Vec::new();
    for a in &side.good {
        let same = side.good.iter().filter(|b| a.relation == b.relation && a.pair != b.pair);
        twins.extend(same.map(|b| (a.pair, *b)));
    }
    let (query, answer) = pick(rng, &twins)?;
    let (candidates, answer) = candidates(rng, side, answer.pair, answer.relation, settings)?;
    Some(AlignmentInstance { query, candidates, answer })
}

/// The answer among good pairs without its relation (unlabelled ones where there are none) and
/// unlabelled pairs; `None` where no pair is unlabelled.
fn candidates(
    rng: &mut Stream,
    side: &Side,
    answer: Pair,
    relation: u32,
    settings: &PretrainSettings,
) -> Option<(Vec<Pair>, usize)> {
    let has_relation = |pair: &Pair| {
        side.good.iter().any(|label| label.pair == *pair && label.relation == relation)
    };
    let different: Vec<_> = side
        .good_pairs
        .iter()
        .copied()
        .filter(|pair| *pair != answer && !has_relation(pair))
        .collect();
    let mut others = take(rng, &different, settings.alignment_hard);
    let missing = settings.alignment_hard - others.len() + settings.alignment_random;
    let random = side.negatives.draw(rng, missing);
    if random.len() < missing {
        return None;
    }
    others.extend(random);
    let count = others.len();
    let shuffled = take(rng, &others, count);
    Some(place(rng, shuffled, answer))
}
