//! Which relations are taken for which (pairs of entities are the items, "none" is no relation).
//! Not for: scores.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{FactKey, Gold, Prediction};

/// A cell of the confusion of relations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confused {
    /// The gold relation; `None` where gold has none on the pair.
    pub gold: Option<String>,
    /// The predicted relation; `None` where none is predicted on the pair.
    pub predicted: Option<String>,
    /// Pairs of entities.
    pub pairs: usize,
}

type RelationIds<'a> = BTreeSet<&'a str>;

/// Counts pairs by gold and predicted relation, most pairs first. A relation that is both is right.
/// A gold relation that was missed meets every wrong prediction on its pair, or none; a wrong
/// prediction on a pair where nothing was missed meets none.
pub fn confusion(gold: &Gold<'_>, predictions: &[Prediction]) -> Vec<Confused> {
    let mut pairs: BTreeMap<(usize, usize, usize), (RelationIds<'_>, RelationIds<'_>)> =
        BTreeMap::new();
    let place = |fact: &FactKey<'_>| (fact.document, fact.head, fact.tail);
    for fact in gold.facts().keys() {
        pairs.entry(place(fact)).or_default().0.insert(fact.relation);
    }
    for fact in gold.predicted(predictions) {
        pairs.entry(place(&fact)).or_default().1.insert(fact.relation);
    }
    let mut counts: BTreeMap<(Option<&str>, Option<&str>), usize> = BTreeMap::new();
    for cell in pairs.values().flat_map(|(gold, predicted)| cells(gold, predicted)) {
        *counts.entry(cell).or_default() += 1;
    }
    let owned = |name: Option<&str>| name.map(str::to_owned);
    let cell = |((gold, predicted), pairs)| Confused {
        gold: owned(gold),
        predicted: owned(predicted),
        pairs,
    };
    let mut confused: Vec<_> = counts.into_iter().map(cell).collect();
    confused.sort_by_key(|cell| std::cmp::Reverse(cell.pairs));
    confused
}

/// The cells of one pair of entities.
fn cells<'a>(
    gold: &RelationIds<'a>,
    predicted: &RelationIds<'a>,
) -> Vec<(Option<&'a str>, Option<&'a str>)> {
    let missed: Vec<_> = gold.difference(predicted).map(|&relation| Some(relation)).collect();
    let wrong: Vec<_> = predicted.difference(gold).map(|&relation| Some(relation)).collect();
    let or_none = |side: Vec<Option<&'a str>>, other: usize| {
        if side.is_empty() && other > 0 { vec![None] } else { side }
    };
    let (rows, columns) = (or_none(missed.clone(), wrong.len()), or_none(wrong, missed.len()));
    let right = gold.intersection(predicted).map(|&relation| (Some(relation), Some(relation)));
    right
        .chain(rows.iter().flat_map(|&row| columns.iter().map(move |&column| (row, column))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{document, fact};
    use super::*;

    #[test]
    fn cells_of_a_pair() {
        let set = |names: &[&'static str]| names.iter().copied().collect::<RelationIds<'_>>();
        assert_eq!(
            cells(&set(&["a", "b"]), &set(&["a"])),
            [(Some("a"), Some("a")), (Some("b"), None)]
        );
        assert_eq!(
            cells(&set(&["a"]), &set(&["b", "c"])),
            [(Some("a"), Some("b")), (Some("a"), Some("c"))]
        );
        assert_eq!(
            cells(&set(&["a"]), &set(&["a", "b"])),
            [(Some("a"), Some("a")), (None, Some("b"))]
        );
        assert_eq!(cells(&set(&[]), &set(&["b"])), [(None, Some("b"))]);
    }

    #[test]
    fn counted_over_pairs_with_repeats_dropped() {
        let mut one = document("x", &[&[0], &[0], &[0]]);
        one.facts = Some(vec![fact(0, 1, "a", &[]), fact(1, 0, "a", &[]), fact(0, 2, "b", &[])]);
        let documents = [one];
        let predict = |h_idx, t_idx, r: &str| Prediction {
            title: "x".into(),
            h_idx,
            t_idx,
            r: r.into(),
            ..Prediction::default()
        };
        let predictions =
            [predict(0, 1, "a"), predict(0, 1, "a"), predict(1, 0, "a"), predict(0, 2, "a")];
        let cells = confusion(&Gold::new(&documents).unwrap(), &predictions);
        let found: Vec<_> = cells
            .iter()
            .map(|cell| (cell.gold.as_deref(), cell.predicted.as_deref(), cell.pairs))
            .collect();
        assert_eq!(found, [(Some("a"), Some("a"), 2), (Some("b"), Some("a"), 1)]);
    }
}
