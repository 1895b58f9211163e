//! The fine-tuned extractor on hand-made documents, and the pairs that it takes.

use super::extractor::{marker_order, unranked_pairs};
use super::{Dsdocre, DsdocreSettings};
use crate::sampling::testing::{ask, assert_uniform, document, facts};
use crate::sampling::{asked_pairs, ordered_pairs};
use crate::systems::reading::testing::{batch, documents, foundation, overfit};

#[test]
fn it_learns_four_documents_by_heart() {
    let settings = DsdocreSettings { relation_width: 8, ..DsdocreSettings::default() };
    let system = Dsdocre::new(foundation(64), &settings, false).unwrap();
    let (before, after) = overfit(&system, &batch(&system, &documents(), true), 200, 1e-2);
    assert!(after < 0.1 * before, "{before} → {after}");
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
        let pairs = unranked_pairs(&document, &DsdocreSettings::default(), 1, epoch, 7);
        assert_eq!((&pairs[..2], pairs.len()), (&[(0, 1), (2, 4)][..], 8));
        pairs[2..].iter().for_each(|pair| {
            counts[negatives.iter().position(|other| other == pair).unwrap()] += 1;
        });
    }
    assert_uniform(&counts);
}

#[test]
fn the_baseline_stays_below_its_cap_and_repeats_nothing() {
    let settings = DsdocreSettings { baseline_max_pairs: 4, ..DsdocreSettings::default() };
    let pairs = |n: u32, labels: &[(u32, u32, u32)]| {
        unranked_pairs(&facts(document(n), labels), &settings, 1, 1, 1)
    };
    assert_eq!(pairs(5, &[(0, 1, 0), (1, 0, 0)]).len(), 4);
    let many = [(0, 1, 0), (0, 2, 0), (0, 3, 0), (1, 0, 0), (1, 2, 0)];
    assert_eq!(pairs(5, &many).len(), 4);
    assert_eq!(pairs(2, &[(0, 1, 0)]), [(0, 1), (1, 0)]);
    assert!(pairs(2, &[]).is_empty() && pairs(0, &[]).is_empty());
}

#[test]
fn pairs_that_are_not_asked_about_are_never_taken() {
    let listed = ask(facts(document(4), &[(0, 1, 0)]), &[(0, 1), (2, 3), (3, 0)], &[(0, 2)]);
    assert_eq!(asked_pairs(&listed), [(0, 1), (2, 3), (3, 0)]);
    for epoch in 0..50 {
        let mut pairs = unranked_pairs(&listed, &DsdocreSettings::default(), 1, epoch, 7);
        pairs.sort_unstable();
        assert_eq!(pairs, [(0, 1), (2, 3), (3, 0)]);
    }
}
