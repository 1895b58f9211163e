//! Ordered entity pairs of one document: asked about, kept by the ranker, labelled, good (labelled
//! and kept), unlabelled.

use std::fmt;
use std::str::FromStr;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::Stream;
use super::draw::take;
use crate::text::{ScoredPair, TokenizedDocument};
use crate::{DataError, Error, Result};

/// An ordered pair of entities, (head, tail).
pub type Pair = (u32, u32);

/// A labelled relation of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Head and tail.
    pub pair: Pair,
    /// Relation class.
    pub relation: u32,
}

/// All pairs (i, j), i ≠ j, of `entities` entities in row-major order: the order of score vectors
/// (docs/systems.md, D.8).
pub fn ordered_pairs(entities: usize) -> impl Iterator<Item = Pair> {
    (0..entities * entities.saturating_sub(1)).map(move |index| pair_at(index, entities))
}

/// The pair at an index of the row-major order.
fn pair_at(index: usize, entities: usize) -> Pair {
    let (head, rest) = (index / (entities - 1), index % (entities - 1));
    (head as u32, (rest + usize::from(rest >= head)) as u32)
}

/// The pairs of a document that are to be classified, in training as in evaluation: those that its
/// corpus asks about, or every ordered pair. Pairs that were taken out of the data are not among
/// them.
pub fn asked_pairs(document: &TokenizedDocument) -> Vec<Pair> {
    match &document.candidates {
        Some(list) => {
            list.iter().filter(|pair| !pair.excluded).map(|pair| (pair.head, pair.tail)).collect()
        }
        None => ordered_pairs(document.entities.len()).collect(),
    }
}

/// The `k` best-scored pairs among those that `document` asks about, as [`top_pairs`]. `scores`
/// belong to all ordered pairs.
pub fn top_asked_pairs(document: &TokenizedDocument, scores: &[f32], k: usize) -> Vec<ScoredPair> {
    let all = top_pairs(
        scores,
        document.entities.len(),
        if document.candidates.is_some() { usize::MAX } else { k },
    );
    let Some(list) = &document.candidates else { return all };
    let asked: ahash::AHashSet<Pair> =
        list.iter().filter(|pair| !pair.excluded).map(|pair| (pair.head, pair.tail)).collect();
    all.into_iter().filter(|pair| asked.contains(&(pair.head, pair.tail))).take(k).collect()
}

/// The `k` best-scored pairs of a document with `entities` entities, best first; among equal
/// scores the earlier pair wins. `scores` belong to [`ordered_pairs`]; what follows them (padding)
/// is not read.
pub fn top_pairs(scores: &[f32], entities: usize, k: usize) -> Vec<ScoredPair> {
    let scored = ordered_pairs(entities).zip(scores).map(|((head, tail), &score)| ScoredPair {
        head,
        tail,
        score,
    });
    let mut pairs: Vec<_> = scored.collect();
    // Adding zero makes a negative zero equal to zero.
    pairs.sort_by(|a, b| (b.score + 0.0).total_cmp(&(a.score + 0.0)));
    pairs.truncate(k);
    pairs
}

/// How many pairs of a document are kept, best-ranked first. Written as `30`, `2n` (n: the number
/// of entities) or, for the larger of two, `60,3n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptPairs {
    /// At least so many.
    #[serde(skip_serializing_if = "is_zero")]
    pub pairs: usize,
    /// At least so many for each entity.
    #[serde(skip_serializing_if = "is_zero")]
    pub times: usize,
    /// At most so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap: Option<usize>,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl KeptPairs {
    /// A fixed number.
    pub const fn fixed(pairs: usize) -> Self {
        Self { pairs, times: 0, cap: None }
    }

    /// A multiple of the number of entities.
    pub const fn times(times: usize) -> Self {
        Self { pairs: 0, times, cap: None }
    }

    /// The number for a document with `entities` entities; it may exceed the number of its pairs.
    pub fn count(self, entities: usize) -> usize {
        self.pairs.max(self.times * entities).min(self.cap.unwrap_or(usize::MAX))
    }
}

impl FromStr for KeptPairs {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::recipe(format!("--keep {text} is neither a number nor a multiple of n"))
                .with_hint("such as 30, 2n or 60,3n")
        };
        let mut kept = Self::default();
        for part in text.split(',') {
            match part.trim().strip_suffix(['n', 'N']) {
                Some(times) => kept.times = times.parse().map_err(|_| bad())?,
                None => kept.pairs = part.trim().parse().map_err(|_| bad())?,
            }
        }
        if kept.count(1) == 0 { Err(bad()) } else { Ok(kept) }
    }
}

impl fmt::Display for KeptPairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pairs, self.times) {
            (pairs, 0) => write!(f, "{pairs}"),
            (0, times) => write!(f, "{times}n"),
            (pairs, times) => write!(f, "{pairs},{times}n"),
        }
    }
}

/// The kept pairs of a document. Labelled pairs are not forced in.
///
/// # Errors
/// [`Error::Data`] where the document holds fewer ranked pairs than are to be kept.
pub fn kept_pairs(document: &TokenizedDocument, kept: KeptPairs) -> Result<Vec<Pair>> {
    let entities = document.entities.len();
    let asked = document.candidates.as_ref().map_or_else(
        || entities * entities.saturating_sub(1),
        |list| list.iter().filter(|pair| !pair.excluded).count(),
    );
    let count = kept.count(entities).min(asked);
    let pairs: Vec<_> = kept_prefix(document, count).into_iter().flatten().collect();
    if pairs.len() < count {
        let problem = format!(
            "{} ranked pairs are stored, {count} are needed",
            document.kept.as_ref().map_or(0, Vec::len)
        );
        let hint = "score the documents with a ranker, keeping at least so many pairs";
        return Err(DataError::new("shards", problem).title(&document.title).hint(hint).into());
    }
    Ok(pairs)
}

/// The labels of a document whose pair is among its first `k` kept pairs, sorted and without
/// repetition (docs/systems.md, D.9). A document that no ranker has seen keeps all its labels.
pub fn good_labels(document: &TokenizedDocument, k: usize) -> Vec<Label> {
    let mut labels: Vec<_> = document
        .facts
        .iter()
        .map(|fact| Label { pair: (fact.head, fact.tail), relation: fact.relation })
        .collect();
    labels.sort_unstable();
    labels.dedup();
    if let Some(kept) = kept_prefix(document, k) {
        let mut kept: Vec<Pair> = kept.collect();
        kept.sort_unstable();
        labels.retain(|label| kept.binary_search(&label.pair).is_ok());
    }
    labels
}

/// The first `k` pairs that the ranker kept; `None` where there was no ranker.
pub fn kept_prefix(document: &TokenizedDocument, k: usize) -> Option<impl Iterator<Item = Pair>> {
    document.kept.as_ref().map(|kept| kept.iter().take(k).map(|pair| (pair.head, pair.tail)))
}

/// The distinct pairs of sorted labels.
pub fn distinct_pairs(labels: &[Label]) -> Vec<Pair> {
    let mut pairs: Vec<_> = labels.iter().map(|label| label.pair).collect();
    pairs.dedup();
    pairs
}

/// The pairs of a document without any label, from which negatives are drawn.
#[derive(Clone, Debug)]
pub struct UnlabelledPairs {
    entities: usize,
    /// Labelled pairs, sorted, without repetition.
    labelled: Vec<Pair>,
    /// Where negatives come from a list instead of all pairs.
    pool: Option<Vec<Pair>>,
}

/// Random pairs that are tried for each negative before the unlabelled pairs are listed one by one.
const TRIES: usize = 8;

impl UnlabelledPairs {
    /// All unlabelled pairs (i, j), i ≠ j, that the document asks about.
    pub fn new(document: &TokenizedDocument) -> Self {
        let mut labelled: Vec<_> =
            document.facts.iter().map(|fact| (fact.head, fact.tail)).collect();
        labelled.sort_unstable();
        labelled.dedup();
        let all = Self { entities: document.entities.len(), labelled, pool: None };
        let asked = document.candidates.as_ref().map(|_| asked_pairs(document));
        let pool =
            asked.map(|pairs| pairs.into_iter().filter(|pair| !all.is_labelled(*pair)).collect());
        Self { pool, ..all }
    }

    /// The unlabelled pairs among the first `k` kept ones; all of them where there was no
    /// ranker.
    pub fn among_kept(document: &TokenizedDocument, k: usize) -> Self {
        let all = Self::new(document);
        let Some(kept) = kept_prefix(document, k) else { return all };
        let pool = kept.filter(|pair| !all.is_labelled(*pair)).collect();
        Self { pool: Some(pool), ..all }
    }

    /// Whether a pair has a label.
    pub fn is_labelled(&self, pair: Pair) -> bool {
        self.labelled.binary_search(&pair).is_ok()
    }

    /// Number of pairs to draw from.
    pub fn len(&self) -> usize {
        let labelled = || self.labelled.iter().filter(|(head, tail)| head != tail).count();
        let all = self.entities * self.entities.saturating_sub(1);
        self.pool.as_ref().map_or_else(|| all.saturating_sub(labelled()), Vec::len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pairs one by one.
    pub fn list(&self) -> Vec<Pair> {
        self.pool.clone().unwrap_or_else(|| {
            ordered_pairs(self.entities).filter(|&pair| !self.is_labelled(pair)).collect()
        })
    }

    /// Draws `count` pairs without replacement; the list is doubled where there are fewer, and
    /// nothing comes of an empty one.
    ///
    /// Pairs are drawn by rejection for a bounded number of tries and then from the list of what
    /// remains. Either way each draw is uniform over the pairs not drawn yet.
    pub fn draw(&self, rng: &mut Stream, count: usize) -> Vec<Pair> {
        if count == 0 {
            return Vec::new();
        }
        if self.pool.is_some() || self.len() < 2 * count {
            return take(rng, &self.list(), count);
        }
        let all = self.entities * (self.entities - 1);
        let mut drawn: Vec<Pair> = Vec::with_capacity(count);
        for _ in 0..TRIES * count {
            let pair = pair_at(rng.random_range(0..all), self.entities);
            if drawn.len() == count {
                return drawn;
            }
            if !self.is_labelled(pair) && !drawn.contains(&pair) {
                drawn.push(pair);
            }
        }
        let rest: Vec<_> = self.list().into_iter().filter(|pair| !drawn.contains(pair)).collect();
        drawn.extend(take(rng, &rest, count - drawn.len()));
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::testing::{self, ask, assert_uniform, document, facts, keep};
    use crate::sampling::{Purpose, rng};
    use crate::text::testing::{FixtureTensor, case};

    #[test]
    fn only_what_is_asked_about_is_taken() {
        let listed = ask(facts(document(4), &[(1, 0, 0)]), &[(1, 0), (3, 2), (0, 3)], &[(2, 0)]);
        assert_eq!(asked_pairs(&listed), [(1, 0), (3, 2), (0, 3)]);
        assert_eq!(asked_pairs(&document(2)), [(0, 1), (1, 0)]);
        let negatives = UnlabelledPairs::new(&listed);
        assert_eq!((negatives.len(), negatives.list()), (2, vec![(3, 2), (0, 3)]));
        // Scores rise along the row-major order: (3, 2), …, (2, 0), …, (1, 0), (0, 3).
        let scores: Vec<f32> = (0..12).map(|index| index as f32).collect();
        let pairs = |keep| {
            top_asked_pairs(&listed, &scores, keep)
                .iter()
                .map(|pair| (pair.head, pair.tail))
                .collect::<Vec<_>>()
        };
        assert_eq!((pairs(2), pairs(9)), (vec![(3, 2), (1, 0)], vec![(3, 2), (1, 0), (0, 3)]));
        assert_eq!(top_asked_pairs(&document(4), &scores, 5), top_pairs(&scores, 4, 5));
    }

    #[test]
    fn pairs_are_row_major() {
        assert_eq!(
            ordered_pairs(3).collect::<Vec<_>>(),
            [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
        );
        assert_eq!(
            [ordered_pairs(0).count(), ordered_pairs(1).count(), ordered_pairs(42).count()],
            [0, 0, 1722]
        );
    }

    #[test]
    fn top_pairs_are_stable() {
        let pairs = top_pairs(&[1.0, -0.0, 3.0, 0.0, 1.0, 2.0, 99.0], 3, 5);
        let pairs: Vec<_> = pairs.iter().map(|pair| (pair.head, pair.tail)).collect();
        assert_eq!(pairs, [(1, 0), (2, 1), (0, 1), (2, 0), (0, 2)]);
        assert!(top_pairs(&[], 1, 5).is_empty());
    }

    #[test]
    #[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
    fn top_pairs_match_the_reference() {
        let folder = case("dsdocre-finetune");
        let read = |name: &str| FixtureTensor::read(&folder, name);
        let (entities, kept) = (read("num_entities").ints(&[]), read("label_mask"));
        for (i, &entities) in entities.iter().enumerate() {
            let scores: Vec<_> =
                read("score_vector").row(&[i]).iter().map(|&score| score as f32).collect();
            let count = kept.ints(&[i]).iter().sum::<i64>() as usize;
            let pairs = top_pairs(&scores, entities as usize, count);
            let heads: Vec<_> = pairs.iter().map(|pair| i64::from(pair.head)).collect();
            let tails: Vec<_> = pairs.iter().map(|pair| i64::from(pair.tail)).collect();
            assert_eq!(
                (heads.as_slice(), tails.as_slice()),
                (&read("pair_head").ints(&[i])[..count], &read("pair_tail").ints(&[i])[..count])
            );
        }
    }

    #[test]
    fn rules_keep_as_many_pairs_as_the_paper_and_the_release() {
        let counts = |kept: KeptPairs| [1, 3, 20, 42].map(|entities| kept.count(entities));
        assert_eq!(counts(KeptPairs::times(2)), [2, 6, 40, 84]);
        assert_eq!(counts(KeptPairs { cap: Some(60), ..KeptPairs::times(2) }), [2, 6, 40, 60]);
        assert_eq!(counts(KeptPairs::fixed(30)), [30; 4]);
        assert_eq!(counts("60,3n".parse().unwrap()), [60, 60, 60, 126]);
    }

    #[test]
    fn rules_read_and_print_the_same() {
        for text in ["30", "2n", "60,3n"] {
            assert_eq!(text.parse::<KeptPairs>().unwrap().to_string(), text);
        }
        for text in ["", "0", "n2", "-1", "0n"] {
            assert!(text.parse::<KeptPairs>().is_err(), "{text}");
        }
        let json = |kept| serde_json::to_string(&kept).unwrap();
        assert_eq!(json(KeptPairs::times(2)), r#"{"times":2}"#);
        assert_eq!(json(KeptPairs::fixed(20)), r#"{"pairs":20}"#);
    }

    #[test]
    #[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
    fn the_reference_keeps_as_many_pairs() {
        let folder = case("dsdocre-finetune");
        let (entities, kept) = (
            FixtureTensor::read(&folder, "num_entities").ints(&[]),
            FixtureTensor::read(&folder, "label_mask"),
        );
        for (i, &entities) in entities.iter().enumerate() {
            let count = KeptPairs { cap: Some(60), ..KeptPairs::times(2) }.count(entities as usize);
            assert_eq!(count as i64, kept.ints(&[i]).iter().sum::<i64>());
        }
    }

    #[test]
    fn kept_pairs_are_the_best_ranked_prefix() {
        let document = keep(facts(document(3), &[(2, 0, 0)]), &[(1, 0), (0, 2), (2, 1)]);
        assert_eq!(kept_pairs(&document, KeptPairs::fixed(2)).unwrap(), [(1, 0), (0, 2)]);
        let listed = ask(facts(testing::document(4), &[(0, 1, 0)]), &[(0, 1), (2, 3)], &[(0, 2)]);
        let ranked = keep(listed, &[(2, 3), (0, 1)]);
        assert_eq!(kept_pairs(&ranked, KeptPairs::times(2)).unwrap(), [(2, 3), (0, 1)]);
    }

    #[test]
    fn missing_scores_are_an_error() {
        let error = kept_pairs(&document(3), KeptPairs::times(2)).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        let few = keep(document(3), &[(0, 1)]);
        assert!(kept_pairs(&few, KeptPairs::times(2)).is_err());
        assert!(kept_pairs(&few, KeptPairs::fixed(1)).is_ok());
        assert!(kept_pairs(&document(1), KeptPairs::fixed(5)).unwrap().is_empty());
        // A document of two entities has two pairs, fewer than 2n.
        assert_eq!(
            kept_pairs(&keep(document(2), &[(1, 0), (0, 1)]), KeptPairs::times(2)).unwrap(),
            [(1, 0), (0, 1)]
        );
    }

    #[test]
    fn good_labels_lie_in_the_kept_prefix() {
        let mut document =
            facts(document(3), &[(1, 0, 5), (0, 1, 4), (0, 1, 2), (0, 1, 2), (2, 1, 0)]);
        let label = |pair, relation| Label { pair, relation };
        assert_eq!(
            good_labels(&document, 2).len(),
            4,
            "without a ranker every label is good, once"
        );
        document = keep(document, &[(0, 1), (1, 2), (1, 0)]);
        assert_eq!(good_labels(&document, 2), [label((0, 1), 2), label((0, 1), 4)]);
        assert_eq!(good_labels(&document, 3).len(), 3);
        assert!(good_labels(&document, 0).is_empty());
    }

    #[test]
    fn negatives_are_uniform_over_the_unlabelled_pairs() {
        // 12 pairs, 3 of them labelled, (2, 2) is none: 9 remain, drawn by rejection (4 · 2 ≤ 9)
        // and by listing (5 · 2 > 9).
        let document = facts(document(4), &[(0, 1, 0), (0, 1, 1), (1, 0, 0), (3, 2, 0), (2, 2, 0)]);
        let pairs = UnlabelledPairs::new(&document);
        let expected: Vec<_> =
            ordered_pairs(4).filter(|pair| ![(0, 1), (1, 0), (3, 2)].contains(pair)).collect();
        assert_eq!(pairs.len(), 9);
        for count in [4, 5] {
            let mut counts = vec![vec![0; 9]; count];
            for item in 0..9000 {
                let drawn = pairs.draw(&mut rng(3, Purpose::Rank, 0, item), count);
                for (slot, pair) in drawn.iter().enumerate() {
                    assert!(!drawn[..slot].contains(pair));
                    counts[slot][expected.iter().position(|other| other == pair).unwrap()] += 1;
                }
            }
            counts.iter().for_each(|row| assert_uniform(row));
        }
    }

    #[test]
    fn a_crowded_document_still_gives_all_its_negatives() {
        // All but 4 of 42 · 41 pairs are labelled, so that 16 tries rarely find two.
        let labelled: Vec<_> = ordered_pairs(42)
            .filter(|pair| pair.0 != 7 || pair.1 > 3)
            .map(|(h, t)| (h, t, 0))
            .collect();
        let pairs = UnlabelledPairs::new(&facts(document(42), &labelled));
        assert_eq!(pairs.len(), 4);
        let mut counts = [0; 4];
        for item in 0..2000 {
            let drawn = pairs.draw(&mut rng(4, Purpose::Rank, 0, item), 2);
            assert!(drawn.len() == 2 && drawn[0] != drawn[1]);
            drawn.iter().for_each(|pair| counts[pair.1 as usize] += 1);
        }
        assert_uniform(&counts);
    }

    #[test]
    fn few_negatives_are_doubled_and_none_give_none() {
        let mut stream = rng(5, Purpose::Rank, 0, 0);
        let one_left = UnlabelledPairs::new(&facts(document(2), &[(0, 1, 0)]));
        assert_eq!(one_left.draw(&mut stream, 5), [(1, 0); 5]);
        let none_left = UnlabelledPairs::new(&facts(document(2), &[(0, 1, 0), (1, 0, 0)]));
        assert!(none_left.is_empty() && none_left.draw(&mut stream, 5).is_empty());
        for lonely in [document(0), document(1)] {
            assert!(UnlabelledPairs::new(&lonely).draw(&mut stream, 5).is_empty());
            assert!(UnlabelledPairs::new(&lonely).draw(&mut stream, 0).is_empty());
        }
    }

    #[test]
    fn negatives_can_be_limited_to_the_kept_pairs() {
        let document = keep(facts(document(5), &[(0, 1, 0)]), &[(0, 1), (2, 3), (3, 4), (4, 0)]);
        let pairs = UnlabelledPairs::among_kept(&document, 3);
        let mut drawn = pairs.draw(&mut rng(6, Purpose::Rank, 0, 0), 2);
        drawn.sort_unstable();
        assert_eq!((pairs.len(), drawn), (2, vec![(2, 3), (3, 4)]));
    }
}
