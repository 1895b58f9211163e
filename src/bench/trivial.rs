//! The trivial predictor that every system must beat: how often a relation holds between two entity
//! types, cut where dev F1 is best.
//!
//! Not for: anything that reads the text.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::eval::Prediction;
use crate::sampling::ordered_pairs;
use crate::shards::DocumentStore;
use crate::text::TokenizedDocument;

type Types = (String, String);

/// Share of the ordered pairs of two entity types between which a relation holds, for every
/// relation that ever does.
pub(crate) struct TypePrior(HashMap<Types, Vec<(usize, f64)>>);

fn types(document: &TokenizedDocument, head: u32, tail: u32) -> Types {
    let of = |entity: u32| document.entities[entity as usize].entity_type.clone();
    (of(head), of(tail))
}

impl TypePrior {
    /// Counts the training documents.
    pub(crate) fn learn(store: &DocumentStore) -> Self {
        let mut pairs: HashMap<Types, usize> = HashMap::new();
        let mut facts: HashMap<Types, BTreeMap<usize, usize>> = HashMap::new();
        for row in 0..store.len() {
            let document = store.get(row);
            for (head, tail) in ordered_pairs(document.entities.len()) {
                *pairs.entry(types(&document, head, tail)).or_default() += 1;
            }
            for fact in &document.facts {
                let key = types(&document, fact.head, fact.tail);
                *facts.entry(key).or_default().entry(fact.relation as usize).or_default() += 1;
            }
        }
        let rates = |(key, counts): (Types, BTreeMap<usize, usize>)| {
            let all = pairs.get(&key).copied().unwrap_or(1) as f64;
            (
                key,
                counts
                    .into_iter()
                    .map(|(relation, count)| (relation, count as f64 / all))
                    .collect(),
            )
        };
        Self(facts.into_iter().map(rates).collect())
    }

    /// Every (head, tail, relation, share) of a document that training has seen between such types.
    fn candidates(&self, document: &TokenizedDocument) -> Vec<(u32, u32, usize, f64)> {
        let mut all = Vec::new();
        for (head, tail) in ordered_pairs(document.entities.len()) {
            let rates = self.0.get(&types(document, head, tail)).map_or(&[][..], Vec::as_slice);
            all.extend(rates.iter().map(|&(relation, rate)| (head, tail, relation, rate)));
        }
        all
    }

    /// The smallest share that is still predicted, such that F1 on `store` is largest.
    pub(crate) fn best_cut(&self, store: &DocumentStore) -> f64 {
        // Candidates and right ones of each share; a share is positive, so its bits sort as it
        // does.
        let mut groups: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        let mut gold = 0;
        for row in 0..store.len() {
            let document = store.get(row);
            let facts: HashSet<(u32, u32, usize)> = document
                .facts
                .iter()
                .map(|fact| (fact.head, fact.tail, fact.relation as usize))
                .collect();
            gold += facts.len();
            for (head, tail, relation, rate) in self.candidates(&document) {
                let group = groups.entry(rate.to_bits()).or_default();
                group.0 += 1;
                group.1 += usize::from(facts.contains(&(head, tail, relation)));
            }
        }
        let (mut kept, mut right, mut best) = (0, 0, (0.0, f64::INFINITY));
        for (rate, (count, correct)) in groups.into_iter().rev() {
            kept += count;
            right += correct;
            let f1 = 2.0 * right as f64 / (kept + gold) as f64;
            if f1 > best.0 {
                best = (f1, f64::from_bits(rate));
            }
        }
        best.1
    }

    /// All facts whose share is at least `cut`.
    pub(crate) fn predict(&self, store: &DocumentStore, cut: f64) -> Vec<Prediction> {
        let mut predictions = Vec::new();
        for row in 0..store.len() {
            let kept =
                self.candidates(&store.get(row)).into_iter().filter(|&(_, _, _, rate)| rate >= cut);
            predictions.extend(kept.filter_map(|(head, tail, relation, rate)| {
                Some(Prediction {
                    title: store.title(row),
                    h_idx: head as usize,
                    t_idx: tail as usize,
                    r: store.relations().get(relation)?.id.clone(),
                    evidence: Vec::new(),
                    score: Some(rate),
                    confidence: None,
                })
            }));
        }
        predictions
    }
}
