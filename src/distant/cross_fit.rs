//! Calibration and thresholds from documents whose truth is known, judged on documents that took no
//! part in their making (docs/systems.md, V.1 and V.2).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Calibration, JudgedLabel, Observation, RuleThresholds};

/// Parts of the documents, each judged by what the others say.
pub const FOLDS: usize = 5;

/// Observations by relation.
pub type ByRelation = Vec<Vec<Observation>>;

/// How well probabilities hold on documents that they were not fitted on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CalibrationFit {
    /// Documents.
    pub documents: usize,
    /// Pairs and relations with a probability over the floor.
    pub candidates: usize,
    /// Their expected calibration error.
    pub error: f64,
    /// Their mean −log of the probability of what is true.
    pub log_loss: f64,
    /// The expected calibration error of the plain logistic function of the margins, over the pairs
    /// and relations that it gives such a probability.
    pub error_of_margins: f64,
}

impl fmt::Display for CalibrationFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} annotated documents: expected calibration error {:.1} % (of the margins as they \
             are: {:.1} %), log loss {:.3}",
            self.documents,
            100.0 * self.error,
            100.0 * self.error_of_margins,
            self.log_loss
        )
    }
}

/// What was learnt from documents whose truth is known.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossFit {
    /// Fitted on all of them.
    pub calibration: Calibration,
    /// By relation, from probabilities that the other folds gave.
    pub thresholds: Vec<RuleThresholds>,
    /// These probabilities, by relation.
    pub judged: Vec<Vec<JudgedLabel>>,
}

impl CrossFit {
    /// Fits on folds of documents. A pair and relation counts for the thresholds if its probability
    /// is at least `floor` or if it has a label: only such are stored.
    pub fn new(folds: &[ByRelation], relations: usize, floor: f64) -> Self {
        let without = |left_out: usize| {
            let mut all = vec![Vec::new(); relations];
            let others = folds.iter().enumerate().filter(|(fold, _)| *fold != left_out);
            for (_, fold) in others {
                all.iter_mut().zip(fold).for_each(|(all, own)| all.extend_from_slice(own));
            }
            Calibration::fit(&all)
        };
        let mut judged = vec![Vec::new(); relations];
        for (number, fold) in folds.iter().enumerate() {
            let calibration = without(number);
            for (relation, observations) in fold.iter().enumerate() {
                let judge = |one: &Observation| {
                    let probability = calibration.probability(relation, one.margin, one.labelled);
                    let Observation { labelled, is_true, weight, .. } = *one;
                    let counts = labelled || probability >= floor;
                    let judged = JudgedLabel { probability, labelled, is_true };
                    std::iter::repeat_n(judged, if counts { weight as usize } else { 0 })
                };
                judged[relation].extend(observations.iter().flat_map(judge));
            }
        }
        let thresholds = RuleThresholds::choose(&judged);
        Self { calibration: without(folds.len()), thresholds, judged }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_is_judged_by_the_others() {
        // One fold says the contrary of the rest: on it the probabilities are wrong, as the
        // calibration of the others is.
        let fold = |sign: f32| {
            let one = |at: i32| {
                let margin = sign * (at as f32 - 19.5) / 4.0;
                Observation { margin, labelled: false, is_true: at >= 20, weight: 1.0 }
            };
            vec![(0..40).map(one).collect::<Vec<_>>()]
        };
        let folds = [fold(1.0), fold(1.0), fold(1.0), fold(1.0), fold(-1.0)];
        let found = CrossFit::new(&folds, 1, 0.0);
        let judged = &found.judged[0];
        assert_eq!(judged.len(), 200);
        let right = |part: &[JudgedLabel]| {
            part.iter().filter(|one| (one.probability >= 0.5) == one.is_true).count()
        };
        assert!(right(&judged[..160]) == 160 && right(&judged[160..]) == 0);
        assert!(CrossFit::new(&folds, 1, 0.9).judged[0].len() < 200);
    }
}
