//! DocRED's evidence predictor as a stage: training, and the evidence of predicted facts.
//!
//! Not for: the scores of sentences and their threshold (`systems::evidence`).

mod fill;
mod train;

pub use fill::add_evidence;
pub use train::facts_of;
pub use train::train_evidence;

use crate::eval::Prediction;

/// Writes evidence into predictions, one entry a prediction, sentences in rising order.
pub fn fill(predictions: &mut [Prediction], evidence: Vec<Vec<usize>>) {
    for (prediction, mut sentences) in predictions.iter_mut().zip(evidence) {
        sentences.sort_unstable();
        prediction.evidence = sentences;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_get_sentences_in_order() {
        let mut predictions =
            vec![Prediction::default(), Prediction { evidence: vec![9], ..Prediction::default() }];
        fill(&mut predictions, vec![vec![2, 1], vec![]]);
        assert_eq!(
            (&predictions[0].evidence[..], &predictions[1].evidence[..]),
            (&[1, 2][..], &[][..])
        );
    }
}
