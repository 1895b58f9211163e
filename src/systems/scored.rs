//! What a system says of the pairs of a batch: logits and, where its attention tells it, the
//! sentences that speak for a pair.
//!
//! Not for: how attention becomes evidence (`reading`), or facts (`pipeline::predictor`).

use tch::{Device, Tensor};

use super::fusion::FusionForm;
use crate::Result;

/// The outcome of one forward pass.
#[derive(Debug)]
pub struct ScoredBatch {
    /// Class logits; [P, C].
    pub logits: Tensor,
    /// Evidence of the same pairs; `None` for a system that does not attend.
    pub evidence: Option<EvidenceWeights>,
}

/// How much of a pair's attention lies in each sentence: s (docs/systems.md, E.2). The rows of
/// documents have their own lengths, and both directions of a pair share one row.
#[derive(Debug)]
pub struct EvidenceWeights {
    /// All rows, one after the other.
    pub weights: Tensor,
    /// First number and length of each pair's row, `[P]`.
    rows: Vec<(usize, usize)>,
}

/// How evidence is decided on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvidenceRule {
    /// A sentence is evidence if it holds more than this share of the pair's attention.
    pub threshold: f64,
    /// Sentences from this one on are never evidence; 0: no limit.
    pub most: usize,
    /// Whether a second run over the evidence takes part in prediction, and in which form.
    pub fusion: Option<FusionForm>,
}

impl EvidenceWeights {
    /// The rows of pairs, which begin at `firsts` and have `lengths`.
    pub fn new(weights: Tensor, firsts: &[i64], lengths: &[i64]) -> Self {
        let row = |(&first, &length): (&i64, &i64)| (first as usize, length as usize);
        Self { weights, rows: firsts.iter().zip(lengths).map(row).collect() }
    }

    /// The rows of these pairs alone, in this order.
    #[must_use]
    pub fn of(self, pairs: impl IntoIterator<Item = usize>) -> Self {
        let rows = pairs.into_iter().map(|pair| self.rows[pair]).collect();
        Self { rows, ..self }
    }

    /// The row of each pair, on the host.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn to_rows(&self) -> Result<Vec<Vec<f32>>> {
        let flat = Vec::<f32>::try_from(self.weights.detach().f_to_device(Device::Cpu)?)?;
        let row = |&(first, length): &(usize, usize)| flat[first..first + length].to_vec();
        Ok(self.rows.iter().map(row).collect())
    }
}

impl EvidenceRule {
    /// The evidence sentences of a pair.
    pub fn sentences(self, weights: &[f32]) -> Vec<usize> {
        let most = if self.most == 0 { usize::MAX } else { self.most };
        let above = |&(_, &weight): &(usize, &f32)| f64::from(weight) > self.threshold;
        let chosen = weights.iter().enumerate().take(most).filter(above);
        chosen.map(|(sentence, _)| sentence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_above_the_threshold_are_evidence_up_to_the_limit() {
        let rule = EvidenceRule { threshold: 0.25, most: 0, fusion: None };
        let weights = [0.25, 0.3, f32::NAN, 0.0, 0.26];
        assert_eq!(rule.sentences(&weights), [1, 4]);
        assert_eq!(EvidenceRule { most: 4, ..rule }.sentences(&weights), [1]);
        assert!(rule.sentences(&[]).is_empty());
    }

    #[test]
    fn pairs_can_share_a_row() {
        let weights = || {
            let all = Tensor::from_slice(&[0.1f32, 0.2, 0.3]);
            EvidenceWeights::new(all, &[1, 0, 1], &[2, 1, 2])
        };
        let rows = weights().to_rows().unwrap();
        assert_eq!(rows, [vec![0.2, 0.3], vec![0.1], vec![0.2, 0.3]]);
        assert_eq!(weights().of([1, 0]).to_rows().unwrap(), [vec![0.1], vec![0.2, 0.3]]);
    }
}
