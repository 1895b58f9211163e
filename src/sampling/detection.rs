//! Relation detection: find the related pair among unrelated ones, inside one document and across
//! two (docs/systems.md, D.15 and D.16; Xiao et al. 2020, eq. 3).

use rand::RngExt;

use super::draw::{pick, place};
use super::pretrain::{PretrainSettings, Side};
use super::{Pair, Stream};

/// One related pair among unlabelled ones of the same document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairInstance {
    /// The candidates.
    pub pairs: Vec<Pair>,
    /// Index of the related pair.
    pub answer: usize,
}

/// One related pair among unlabelled ones of two documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrossPairInstance {
    /// The candidates in each document.
    pub pairs: [Vec<Pair>; 2],
    /// Index of the related pair in the first document's candidates followed by the second's.
    pub answer: usize,
}

/// Detection instances of one document; none where it has no good label or no unlabelled pair.
pub(super) fn instances(
    rng: &mut Stream,
    side: &Side,
    settings: &PretrainSettings,
) -> Vec<PairInstance> {
    if side.negatives.is_empty() {
        return Vec::new();
    }
    let instance = |_| {
        let positive = pick(rng, &side.good_pairs)?;
        let others = side.negatives.draw(rng, settings.detection_candidates - 1);
        let (pairs, answer) = place(rng, others, positive);
        Some(PairInstance { pairs, answer })
    };
    (0..settings.detection_instances).filter_map(instance).collect()
}

/// Detection instances across two documents; none where either has no good label or no unlabelled
/// pair.
pub(super) fn cross_instances(
    rng: &mut Stream,
    sides: &[Side; 2],
    settings: &PretrainSettings,
) -> Vec<CrossPairInstance> {
    let width = settings.cross_detection_per_document;
    if sides.iter().any(|side| side.good_pairs.is_empty() || side.negatives.is_empty()) {
        return Vec::new();
    }
    let instance = |_| {
        let mut pairs = [0, 1].map(|document: usize| sides[document].negatives.draw(rng, width));
        let (document, slot) = (usize::from(rng.random_bool(0.5)), rng.random_range(0..width));
        pairs[document][slot] = pick(rng, &sides[document].good_pairs)?;
        Some(CrossPairInstance { pairs, answer: document * width + slot })
    };
    (0..settings.detection_instances).filter_map(instance).collect()
}
