//! Ranker training: a labelled pair among unlabelled ones (docs/systems.md, D.7; Xiao et al. 2020,
//! eq. 3).

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::draw::place;
use super::pretrain::draw_blanked;
use super::{PairInstance, Purpose, UnlabelledPairs, rng};
use crate::text::{TokenizedDocument, ViewChoices};

/// Numbers of ranker training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RankSettings {
    /// Instances for each visit of a document.
    pub instances: usize,
    /// Pairs of an instance, the labelled one included.
    pub candidates: usize,
    /// Probability that an entity is blanked at a visit, as in pre-training; the papers' ranker
    /// sees all names.
    pub blank_probability: f64,
}

impl Default for RankSettings {
    fn default() -> Self {
        Self { instances: 3, candidates: 6, blank_probability: 0.0 }
    }
}

/// One visit of the ranker to a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RankItem {
    /// Row of the document.
    pub row: usize,
    /// Blanked entities.
    pub choices: ViewChoices,
    /// The instances.
    pub instances: Vec<PairInstance>,
}

/// Draws a visit. Positives are drawn from the labels, so a pair with two relations is twice as
/// likely. `None` for a document without labels or without an unlabelled pair.
pub fn rank_item(
    document: &TokenizedDocument,
    row: usize,
    settings: &RankSettings,
    seed: u64,
    step: u64,
    item: u64,
) -> Option<RankItem> {
    let negatives = UnlabelledPairs::new(document);
    if document.facts.is_empty() || negatives.is_empty() {
        return None;
    }
    let mut stream = rng(seed, Purpose::Rank, step, item);
    let mut instance = || {
        let fact = &document.facts[stream.random_range(0..document.facts.len())];
        let others = negatives.draw(&mut stream, settings.candidates.saturating_sub(1));
        let (pairs, answer) = place(&mut stream, others, (fact.head, fact.tail));
        PairInstance { pairs, answer }
    };
    let instances = (0..settings.instances).map(|_| instance()).collect();
    let choices = draw_blanked(
        &mut rng(seed, Purpose::RankBlanking, step, item),
        document,
        settings.blank_probability,
    );
    Some(RankItem { row, choices, instances })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::testing::{assert_proportional, assert_uniform, document, facts};

    #[test]
    fn an_instance_is_one_label_among_five_unlabelled_pairs() {
        // The pair (0, 1) has two relations, so it is drawn twice as often as the others.
        let labelled = [(0, 1), (2, 3), (4, 0)];
        let document = facts(document(6), &[(0, 1, 0), (0, 1, 1), (2, 3, 0), (4, 0, 2)]);
        let (mut slots, mut positives) = ([0; 6], [0; 3]);
        for item in 0..3000 {
            let drawn = rank_item(&document, 9, &RankSettings::default(), 1, 2, item).unwrap();
            assert_eq!((drawn.row, drawn.instances.len()), (9, 3));
            for PairInstance { pairs, answer } in &drawn.instances {
                assert_eq!(pairs.len(), 6);
                for (i, pair) in pairs.iter().enumerate() {
                    assert!(pair.0 != pair.1 && !pairs[..i].contains(pair));
                    assert_eq!(labelled.contains(pair), i == *answer);
                }
                slots[*answer] += 1;
                positives[labelled.iter().position(|pair| *pair == pairs[*answer]).unwrap()] += 1;
            }
        }
        assert_uniform(&slots);
        assert_proportional(&positives, &[2.0, 1.0, 1.0]);
    }

    #[test]
    fn documents_without_labels_or_without_negatives_are_skipped() {
        let draw = |document| rank_item(&document, 0, &RankSettings::default(), 1, 1, 1);
        assert_eq!(draw(document(5)), None);
        assert_eq!(draw(document(0)), None);
        assert_eq!(draw(facts(document(2), &[(0, 1, 0), (1, 0, 0)])), None);
        let doubled = draw(facts(document(2), &[(0, 1, 0)])).unwrap();
        assert!(
            doubled.instances.iter().all(|instance| instance
                .pairs
                .iter()
                .filter(|pair| **pair == (1, 0))
                .count()
                == 5)
        );
    }

    #[test]
    fn blanking_is_a_draw_of_its_own() {
        let document = facts(document(6), &[(0, 1, 0), (2, 3, 0)]);
        let draw = |blank_probability, item| {
            let settings = RankSettings { blank_probability, ..RankSettings::default() };
            rank_item(&document, 0, &settings, 1, 1, item).unwrap()
        };
        let mut blanked = 0;
        for item in 0..1000 {
            let (plain, half) = (draw(0.0, item), draw(0.3, item));
            assert_eq!(
                (&plain.instances, plain.choices.blanked),
                (&half.instances, vec![false; 6])
            );
            blanked += half.choices.blanked.iter().filter(|is_blank| **is_blank).count();
        }
        // 6,000 draws: five standard deviations are 0.03.
        assert!((blanked as f64 / 6000.0 - 0.3).abs() < 0.03, "{blanked}");
    }

    #[test]
    fn the_same_arguments_give_the_same_item() {
        let document = facts(document(6), &[(0, 1, 0), (2, 3, 0)]);
        let draw =
            |step, item| rank_item(&document, 0, &RankSettings::default(), 1, step, item).unwrap();
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(2, 1));
    }
}
