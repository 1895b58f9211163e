//! Pairs of fine-tuning: the ranker's best, or labels and random negatives where there is no ranker
//! (docs/systems.md, D.20 and D.22).

use serde::{Deserialize, Serialize};

use super::draw::take;
use super::pairs::kept_prefix;
use super::{Pair, Purpose, UnlabelledPairs, asked_pairs, rng};
use crate::text::TokenizedDocument;
use crate::{DataError, Result};

/// How many of a document's pairs are kept, best-ranked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepRule {
    /// A multiple of the number of entities (the paper: 2), at most `cap` (the release: 60).
    PerEntity {
        /// Pairs for each entity.
        times: usize,
        /// The most pairs of a document.
        cap: Option<usize>,
    },
    /// A fixed number.
    Top(usize),
    /// Every pair that the document asks about, all ordered pairs in row-major order where it lists
    /// none; needs no ranker.
    All,
}

impl KeepRule {
    /// Number of pairs kept of a document with `entities` entities.
    pub fn count(self, entities: usize) -> usize {
        let all = entities * entities.saturating_sub(1);
        match self {
            Self::PerEntity { times, cap } => {
                all.min(times * entities).min(cap.unwrap_or(usize::MAX))
            }
            Self::Top(count) => all.min(count),
            Self::All => all,
        }
    }
}

/// The kept pairs of a document. Labelled pairs are not forced in.
///
/// # Errors
/// [`Error::Data`](crate::Error::Data) where the rule needs a ranker and the document holds fewer
/// ranked pairs than the rule keeps.
pub fn kept_pairs(document: &TokenizedDocument, rule: KeepRule) -> Result<Vec<Pair>> {
    if rule == KeepRule::All {
        return Ok(asked_pairs(document));
    }
    let asked = document
        .candidates
        .as_ref()
        .map_or(usize::MAX, |list| list.iter().filter(|pair| !pair.excluded).count());
    let count = rule.count(document.entities.len()).min(asked);
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

/// Entities by first appearance in a list of pairs, head before tail: the numbering of the
/// release's fine-tuner (docs/systems.md, "D. DSDocRE").
pub fn marker_order(pairs: &[Pair]) -> Vec<u32> {
    let mut order = Vec::new();
    for entity in pairs.iter().flat_map(|&(head, tail)| [head, tail]) {
        if !order.contains(&entity) {
            order.push(entity);
        }
    }
    order
}

/// Numbers of fine-tuning without a ranker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BaselineSettings {
    /// Unlabelled pairs for each labelled one.
    pub negatives_per_positive: usize,
    /// Most pairs of a document.
    pub cap: usize,
}

impl Default for BaselineSettings {
    fn default() -> Self {
        Self { negatives_per_positive: 3, cap: 90 }
    }
}

/// Training pairs of a document without a ranker: its labelled pairs, then random unlabelled ones,
/// without repetition; a new draw in every epoch. More labelled pairs than the cap are thinned out
/// at random.
pub fn baseline_pairs(
    document: &TokenizedDocument,
    settings: &BaselineSettings,
    seed: u64,
    epoch: u64,
    row: u64,
) -> Vec<Pair> {
    let mut stream = rng(seed, Purpose::Finetune, epoch, row);
    let mut pairs: Vec<Pair> = document.facts.iter().map(|fact| (fact.head, fact.tail)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    if pairs.len() > settings.cap {
        return take(&mut stream, &pairs, settings.cap);
    }
    let negatives = UnlabelledPairs::new(document);
    let wanted = settings.negatives_per_positive * pairs.len();
    let count = wanted.min(settings.cap - pairs.len()).min(negatives.len());
    pairs.extend(negatives.draw(&mut stream, count));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::ordered_pairs;
    use crate::sampling::testing::{ask, assert_uniform, document, facts, keep};
    use crate::text::testing::{FixtureTensor, case};

    #[test]
    fn rules_keep_as_many_pairs_as_the_paper_and_the_release() {
        let counts = |rule: KeepRule| [1, 2, 3, 20, 42].map(|entities| rule.count(entities));
        assert_eq!(counts(KeepRule::PerEntity { times: 2, cap: None }), [0, 2, 6, 40, 84]);
        assert_eq!(counts(KeepRule::PerEntity { times: 2, cap: Some(60) }), [0, 2, 6, 40, 60]);
        assert_eq!(counts(KeepRule::Top(30)), [0, 2, 6, 30, 30]);
        assert_eq!(counts(KeepRule::All), [0, 2, 6, 380, 1722]);
    }

    #[test]
    fn the_reference_keeps_as_many_pairs() {
        let Some(folder) = case("dsdocre-finetune") else { return };
        let (entities, kept) = (
            FixtureTensor::read(&folder, "num_entities").ints(&[]),
            FixtureTensor::read(&folder, "label_mask"),
        );
        for (i, &entities) in entities.iter().enumerate() {
            let count = KeepRule::PerEntity { times: 2, cap: Some(60) }.count(entities as usize);
            assert_eq!(count as i64, kept.ints(&[i]).iter().sum::<i64>());
        }
    }

    #[test]
    fn kept_pairs_are_the_best_ranked_prefix() {
        let document = keep(facts(document(3), &[(2, 0, 0)]), &[(1, 0), (0, 2), (2, 1)]);
        assert_eq!(kept_pairs(&document, KeepRule::Top(2)).unwrap(), [(1, 0), (0, 2)]);
        assert_eq!(kept_pairs(&document, KeepRule::All).unwrap().len(), 6);
    }

    #[test]
    fn pairs_that_are_not_asked_about_are_never_taken() {
        let listed = ask(facts(document(4), &[(0, 1, 0)]), &[(0, 1), (2, 3), (3, 0)], &[(0, 2)]);
        assert_eq!(kept_pairs(&listed, KeepRule::All).unwrap(), [(0, 1), (2, 3), (3, 0)]);
        let ranked = keep(listed.clone(), &[(2, 3), (0, 1), (3, 0)]);
        assert_eq!(
            kept_pairs(&ranked, KeepRule::PerEntity { times: 2, cap: None }).unwrap(),
            [(2, 3), (0, 1), (3, 0)]
        );
        for epoch in 0..50 {
            let mut pairs = baseline_pairs(&listed, &BaselineSettings::default(), 1, epoch, 7);
            pairs.sort_unstable();
            assert_eq!(pairs, [(0, 1), (2, 3), (3, 0)]);
        }
    }

    #[test]
    fn missing_scores_are_an_error() {
        let error =
            kept_pairs(&document(3), KeepRule::PerEntity { times: 2, cap: None }).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        let few = keep(document(3), &[(0, 1)]);
        assert!(
            kept_pairs(&few, KeepRule::PerEntity { times: 2, cap: None }).is_err()
                && kept_pairs(&few, KeepRule::Top(1)).is_ok()
        );
        assert!(kept_pairs(&document(1), KeepRule::Top(5)).unwrap().is_empty());
    }

    #[test]
    fn entities_are_numbered_by_first_appearance() {
        assert_eq!(marker_order(&[(4, 2), (2, 0), (0, 4), (1, 2)]), [4, 2, 0, 1]);
    }

    #[test]
    fn the_baseline_takes_all_labels_and_thrice_as_many_negatives() {
        let document = facts(document(5), &[(0, 1, 0), (0, 1, 3), (2, 4, 1)]);
        let mut counts = [0; 18];
        let negatives: Vec<_> =
            ordered_pairs(5).filter(|pair| ![(0, 1), (2, 4)].contains(pair)).collect();
        for epoch in 0..3000 {
            let pairs = baseline_pairs(&document, &BaselineSettings::default(), 1, epoch, 7);
            assert_eq!((&pairs[..2], pairs.len()), (&[(0, 1), (2, 4)][..], 8));
            pairs[2..].iter().for_each(|pair| {
                counts[negatives.iter().position(|other| other == pair).unwrap()] += 1
            });
        }
        assert_uniform(&counts);
    }

    #[test]
    fn the_baseline_stays_below_its_cap_and_repeats_nothing() {
        let settings = BaselineSettings { negatives_per_positive: 3, cap: 4 };
        let pairs = |n: u32, labels: &[(u32, u32, u32)]| {
            baseline_pairs(&facts(document(n), labels), &settings, 1, 1, 1)
        };
        assert_eq!(pairs(5, &[(0, 1, 0), (1, 0, 0)]).len(), 4);
        let many = [(0, 1, 0), (0, 2, 0), (0, 3, 0), (1, 0, 0), (1, 2, 0)];
        assert_eq!(pairs(5, &many).len(), 4);
        assert_eq!(pairs(2, &[(0, 1, 0)]), [(0, 1), (1, 0)]);
        assert!(pairs(2, &[]).is_empty() && pairs(0, &[]).is_empty());
    }
}
