//! What a teacher attends to, as a target for the pairs of a batch: the tokens of each pair that
//! hold most of its attention, and the rest of it. Host data, filled by whoever prepares a batch.
//!
//! Not for: the loss (`systems::dreeam`).

use crate::{DataError, Result};

/// A teacher's attention for the ordered pairs of a batch, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionTargets {
    pairs: Vec<PairTarget>,
}

/// A teacher's attention for one pair.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PairTarget {
    /// Kept tokens: positions in the document, its first special piece at 0.
    pub tokens: Vec<u16>,
    /// Their share of the attention.
    pub weights: Vec<f32>,
    /// The share of all other tokens together; 0 where all are kept.
    pub rest: f32,
}

impl PairTarget {
    /// The `most` largest shares of a row, the first of equal ones, and the rest of it.
    pub fn largest(row: &[f32], most: usize) -> Self {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        let kept = &order[..most.min(row.len())];
        let sum = |tokens: &[usize]| tokens.iter().map(|&token| f64::from(row[token])).sum::<f64>();
        Self {
            tokens: kept.iter().map(|&token| token as u16).collect(),
            weights: kept.iter().map(|&token| row[token]).collect(),
            rest: sum(&order[kept.len()..]) as f32,
        }
    }

    /// Refuses what is no distribution over the tokens of a document of `tokens` tokens.
    fn check(&self, tokens: i64) -> std::result::Result<(), String> {
        if self.tokens.len() != self.weights.len() {
            let (kept, weights) = (self.tokens.len(), self.weights.len());
            return Err(format!("{kept} tokens have {weights} weights"));
        }
        if let Some(token) = self.tokens.iter().find(|&&token| i64::from(token) >= tokens) {
            return Err(format!("token {token} is not in its document of {tokens} tokens"));
        }
        let mut sorted = self.tokens.clone();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("token {} occurs twice", twice[0]));
        }
        let shares = self.weights.iter().chain([&self.rest]);
        match shares.into_iter().find(|share| !(0.0..=1.001).contains(*share)) {
            Some(share) => Err(format!("{share} is no share of attention")),
            None => Ok(()),
        }
    }
}

impl FromIterator<PairTarget> for AttentionTargets {
    fn from_iter<T: IntoIterator<Item = PairTarget>>(pairs: T) -> Self {
        Self { pairs: pairs.into_iter().collect() }
    }
}

impl AttentionTargets {
    /// The pairs, for a batch whose pairs lie in documents of `tokens` tokens, `[P]`.
    ///
    /// # Errors
    /// Targets of other pairs or documents, or that are no distribution.
    pub fn of_batch(&self, tokens: &[i64]) -> Result<&[PairTarget]> {
        let wrong = |problem: String| {
            DataError::new("stored attention", problem)
                .hint("teacher and student must read the same documents with the same pieces")
        };
        if self.pairs.len() != tokens.len() {
            let problem =
                format!("is of {} pairs, the batch has {}", self.pairs.len(), tokens.len());
            return Err(wrong(problem).into());
        }
        for (row, (pair, &tokens)) in self.pairs.iter().zip(tokens).enumerate() {
            pair.check(tokens).map_err(|problem| wrong(problem).row(row))?;
        }
        Ok(&self.pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_shares_are_kept_and_the_rest_is_added_up() {
        let kept = PairTarget::largest(&[0.1, 0.3, 0.3, 0.05, 0.25], 3);
        assert_eq!((kept.tokens, kept.weights), (vec![1, 2, 4], vec![0.3, 0.3, 0.25]));
        assert!((kept.rest - 0.15).abs() < 1e-7);
        let all = PairTarget::largest(&[0.5, 0.5], 9);
        assert_eq!((all.tokens, all.rest), (vec![0, 1], 0.0));
    }

    #[test]
    fn what_is_no_distribution_over_the_tokens_of_a_document_is_refused() {
        let good = || PairTarget { tokens: vec![0, 3], weights: vec![0.5, 0.25], rest: 0.25 };
        let of = |pair: PairTarget| {
            let targets: AttentionTargets = [good(), pair].into_iter().collect();
            targets.of_batch(&[4, 4]).map(<[_]>::len).map_err(|error| error.to_string())
        };
        assert_eq!(of(good()), Ok(2));
        let bad = [
            (PairTarget { tokens: vec![0, 4], ..good() }, "row 1: token 4 is not in its document"),
            (PairTarget { tokens: vec![3, 3], ..good() }, "token 3 occurs twice"),
            (PairTarget { weights: vec![0.5], ..good() }, "2 tokens have 1 weights"),
            (PairTarget { rest: f32::NAN, ..good() }, "NaN is no share"),
            (PairTarget { weights: vec![-0.5, 1.0], ..good() }, "-0.5 is no share"),
        ];
        for (pair, why) in bad {
            let error = of(pair).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
        let targets: AttentionTargets = [good()].into_iter().collect();
        let error = targets.of_batch(&[4, 4]).unwrap_err();
        assert!(error.to_string().contains("1 pairs, the batch has 2") && error.hint().is_some());
    }
}
