//! Scores of corpora that list the pairs they ask about: CDR and GDA (docs/scores.md, "Listed
//! pairs").
//!
//! Only relations count: "no relation" earns nothing, and a pair that was filtered out is neither
//! trained on nor scored. The scripts of EoG and GLRE compare sets of (document, arguments, label);
//! EoG's files say whether a pair crosses sentences, GLRE's how many sentences lie between its
//! arguments. Not for: reading the corpora (`corpus::eog`), the filter itself
//! (`corpus::hypernyms`).

use std::collections::HashSet;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use super::{FactKey, Gold, Prediction, ScoreBlock, Scorer};
use crate::corpus::{LabelledPair, PairLabel};

/// How far the arguments of a pair are apart, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Two mentions share a sentence (EoG: `NON-CROSS`).
    Intra,
    /// None do (EoG: `CROSS`).
    Inter,
    /// Smallest distance in sentences (GLRE); 0 is within a sentence.
    Distance(usize),
}

impl Reach {
    fn is_intra(self) -> bool {
        matches!(self, Self::Intra | Self::Distance(0))
    }

    /// Whether the distance is known and at least `low` and, where given, below `high`.
    fn within(self, low: usize, high: Option<usize>) -> bool {
        let Self::Distance(distance) = self else { return false };
        distance >= low && high.is_none_or(|high| distance < high)
    }
}

/// A fact of a list of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairFact<K> {
    /// Document, arguments and relation.
    pub key: K,
    /// How far the arguments are apart.
    pub reach: Reach,
}

/// Scores of the positive class, as the scripts of EoG and GLRE group them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PairScores {
    /// All pairs.
    pub overall: ScoreBlock,
    /// Arguments that share a sentence.
    pub intra: ScoreBlock,
    /// Arguments that do not.
    pub inter: ScoreBlock,
    /// Distance 1 or 2; `None` where distances are not known.
    pub near: Option<ScoreBlock>,
    /// Distance 3 or more; `None` likewise.
    pub far: Option<ScoreBlock>,
}

/// Compares two lists as sets. [`Scorer::Atlop`] adds 1e-5 to every denominator.
pub fn score_pairs<K: Clone + Eq + Hash>(
    gold: &[PairFact<K>],
    predicted: &[PairFact<K>],
    scorer: Scorer,
) -> PairScores {
    let group = |belongs: &dyn Fn(Reach) -> bool| {
        let set = |facts: &[PairFact<K>]| {
            facts
                .iter()
                .filter(|fact| belongs(fact.reach))
                .map(|fact| fact.key.clone())
                .collect::<HashSet<_>>()
        };
        compare(&set(gold), &set(predicted), scorer)
    };
    let distances = gold.iter().any(|fact| matches!(fact.reach, Reach::Distance(_)));
    // The scripts compare the distance too when they count all pairs.
    let whole = |facts: &[PairFact<K>]| {
        facts.iter().map(|fact| (fact.key.clone(), fact.reach)).collect::<HashSet<_>>()
    };
    PairScores {
        overall: compare(&whole(gold), &whole(predicted), scorer),
        intra: group(&|reach| reach.is_intra()),
        inter: group(&|reach| !reach.is_intra()),
        near: distances.then(|| group(&|reach| reach.within(1, Some(3)))),
        far: distances.then(|| group(&|reach| reach.within(3, None))),
    }
}

fn compare<K: Eq + Hash>(gold: &HashSet<K>, predicted: &HashSet<K>, scorer: Scorer) -> ScoreBlock {
    ScoreBlock::smoothed(
        predicted.len(),
        gold.len(),
        predicted.intersection(gold).count(),
        scorer.pair_epsilon(),
    )
}

/// What the list of pairs adds to the scores of the documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListedPairs {
    /// Pairs with a relation.
    pub positive: usize,
    /// Pairs without.
    pub negative: usize,
    /// Pairs that were filtered out: not scored.
    pub filtered: usize,
    /// Predictions on filtered pairs, left out of every score.
    pub predicted_on_filtered: usize,
    /// The scores.
    pub scores: PairScores,
    /// All pairs, with predictions on filtered pairs counted as wrong: what the scripts print if
    /// such lines are in their input.
    pub counting_filtered: ScoreBlock,
}

/// Predictions without those on pairs that gold leaves out, in order.
pub fn on_listed_pairs(gold: &Gold<'_>, predictions: &[Prediction]) -> Vec<Prediction> {
    let kept = |prediction: &&Prediction| {
        gold.row(&prediction.title)
            .is_none_or(|row| !gold.is_left_out(row, prediction.h_idx, prediction.t_idx))
    };
    predictions.iter().filter(kept).cloned().collect()
}

/// Scores predictions on listed pairs; `all` are the predictions of the file, `kept` those of
/// [`on_listed_pairs`].
pub fn score_listed(
    gold: &Gold<'_>,
    lists: &[Vec<LabelledPair>],
    all: &[Prediction],
    kept: &[Prediction],
    scorer: Scorer,
) -> ListedPairs {
    let truth: Vec<_> = gold
        .facts()
        .keys()
        .map(|key| PairFact { key: SortKey::of(key), reach: reach(gold, key) })
        .collect();
    let facts = |predictions| distinct(gold, predictions);
    let labels = || lists.iter().flatten().map(|pair| &pair.label);
    let (ours, everything) = (facts(kept), facts(all));
    ListedPairs {
        positive: labels().filter(|label| matches!(label, PairLabel::Relation(_))).count(),
        negative: labels().filter(|label| **label == PairLabel::NoRelation).count(),
        filtered: labels().filter(|label| **label == PairLabel::NotIncluded).count(),
        predicted_on_filtered: everything.len() - ours.len(),
        scores: score_pairs(&truth, &ours, scorer),
        counting_filtered: score_pairs(&truth, &everything, scorer).overall,
    }
}

/// A fact of a known document, or one of a document that gold does not have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct SortKey<'a>(Result<usize, &'a str>, usize, usize, &'a str);

impl<'a> SortKey<'a> {
    fn of(fact: &FactKey<'a>) -> Self {
        Self(Ok(fact.document), fact.head, fact.tail, fact.relation)
    }
}

fn distinct<'a>(gold: &Gold<'a>, predictions: &'a [Prediction]) -> Vec<PairFact<SortKey<'a>>> {
    let fact = |prediction: &'a Prediction| {
        let Prediction { title, h_idx, t_idx, r, .. } = prediction;
        match gold.key(prediction) {
            Some(key) => PairFact { key: SortKey::of(&key), reach: reach(gold, &key) },
            None => PairFact { key: SortKey(Err(title), *h_idx, *t_idx, r), reach: Reach::Inter },
        }
    };
    let set: HashSet<_> = predictions.iter().map(fact).collect();
    set.into_iter().collect()
}

fn reach(gold: &Gold<'_>, key: &FactKey<'_>) -> Reach {
    gold.distance(key).map_or(Reach::Inter, Reach::Distance)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{document, fact};
    use super::*;

    #[test]
    fn groups_of_the_scripts() {
        let pair = |key, distance| PairFact { key, reach: Reach::Distance(distance) };
        let gold = [pair(1, 0), pair(2, 1), pair(3, 2), pair(4, 5)];
        let predicted = [pair(1, 0), pair(1, 0), pair(2, 1), pair(9, 3)];
        let scores = score_pairs(&gold, &predicted, Scorer::Official);
        assert_eq!(
            (scores.overall, scores.intra),
            (ScoreBlock::new(3, 4, 2), ScoreBlock::new(1, 1, 1))
        );
        assert_eq!(
            (scores.inter, scores.near, scores.far),
            (
                ScoreBlock::new(2, 3, 1),
                Some(ScoreBlock::new(1, 2, 1)),
                Some(ScoreBlock::new(1, 1, 0))
            )
        );
        let flags =
            [PairFact { key: 1, reach: Reach::Intra }, PairFact { key: 2, reach: Reach::Inter }];
        let scores = score_pairs(&flags, &flags[1..], Scorer::Atlop);
        assert_eq!((scores.near, scores.far, scores.intra.predicted), (None, None, 0));
        assert_eq!(scores.inter.precision, 1.0 / (1.0 + 1e-5));
    }

    #[test]
    fn filtered_pairs_leave_the_scores() {
        let mut one = document("7", &[&[0], &[0], &[2]]);
        one.facts = Some(vec![fact(0, 1, "CID", &[])]);
        let documents = [one];
        let pair =
            |tail, label| LabelledPair { head: 0, tail, label, crosses_sentences: tail == 2 };
        let lists =
            [vec![pair(1, PairLabel::Relation("CID".into())), pair(2, PairLabel::NotIncluded)]];
        let gold = Gold::new(&documents).unwrap().without_filtered(&lists);
        let predict = |title: &str, t_idx| Prediction {
            title: title.into(),
            t_idx,
            r: "CID".into(),
            ..Prediction::default()
        };
        let all = [predict("7", 1), predict("7", 2), predict("7", 2), predict("8", 1)];
        let kept = on_listed_pairs(&gold, &all);
        let listed = score_listed(&gold, &lists, &all, &kept, Scorer::Official);
        assert_eq!(
            (listed.positive, listed.negative, listed.filtered, listed.predicted_on_filtered),
            (1, 0, 1, 1)
        );
        assert_eq!(
            (listed.scores.overall, listed.counting_filtered),
            (ScoreBlock::new(2, 1, 1), ScoreBlock::new(3, 1, 1))
        );
        assert_eq!(
            (listed.scores.intra, listed.scores.far),
            (ScoreBlock::new(1, 1, 1), Some(ScoreBlock::default()))
        );
    }
}
