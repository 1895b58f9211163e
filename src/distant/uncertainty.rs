//! Uncertainty-guided relabelling (UGDRE, Sun et al. 2023; docs/systems.md, U.1–U.3).
//!
//! Several passes with dropout give every logit a mean and a deviation. A pseudo label, read off
//! the means, replaces a pair's distant labels where its deviation is not above the threshold of
//! its class. The thresholds need all documents, so that there are two rounds: [`ThresholdSums`]
//! over the pseudo labels of all pairs, then [`relabelled`] pair by pair.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::TaughtRelation;
use crate::{Error, Result};

/// Mean and deviation of numbers over passes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PassStatistics {
    passes: usize,
    means: Vec<f64>,
    /// Sums of squared distances to the mean.
    squares: Vec<f64>,
}

impl PassStatistics {
    /// Adds the numbers of one pass, which are as many as those of the others.
    ///
    /// # Errors
    /// [`Error::Bug`] for another number of numbers, or one that is not finite.
    pub fn add(&mut self, numbers: &[f32]) -> Result<()> {
        if self.passes == 0 {
            (self.means, self.squares) = (vec![0.0; numbers.len()], vec![0.0; numbers.len()]);
        }
        if numbers.len() != self.means.len() || numbers.iter().any(|number| !number.is_finite()) {
            return Err(Error::Bug(format!(
                "a pass gave {} numbers where {} finite ones are needed",
                numbers.len(),
                self.means.len()
            )));
        }
        self.passes += 1;
        let sums = self.means.iter_mut().zip(&mut self.squares);
        for ((mean, squares), &number) in sums.zip(numbers) {
            let before = f64::from(number) - *mean;
            *mean += before / self.passes as f64;
            *squares += before * (f64::from(number) - *mean);
        }
        Ok(())
    }

    /// The means.
    pub fn means(&self) -> Vec<f32> {
        self.means.iter().map(|&mean| mean as f32).collect()
    }

    /// The standard deviations, with the number of passes as divisor.
    pub fn deviations(&self) -> Vec<f32> {
        let passes = self.passes.max(1) as f64;
        self.squares.iter().map(|squares| (squares / passes).sqrt() as f32).collect()
    }
}

/// Whose deviation the uncertainty of a pair's pseudo label is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UncertaintyIndex {
    /// Of the label's class.
    #[default]
    Class,
    /// Of class j for the pair's j-th label, counted from 0 in the order of classes (release).
    Ordinal,
}

/// A class that the model predicts for a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PseudoLabel {
    /// The class.
    pub class: usize,
    /// The deviation of its logit.
    pub uncertainty: f32,
}

impl PseudoLabel {
    /// A relation that a teacher predicts.
    pub fn of(taught: &TaughtRelation) -> Self {
        let uncertainty = f32::from(taught.deviation) / TaughtRelation::DEVIATION_UNITS;
        Self { class: taught.relation.into(), uncertainty }
    }
}

/// The pseudo labels of a pair from the classes that the means of its logits predict, in rising
/// order and without "no relation", and the deviations of all its logits, `[C]`.
pub fn pseudo_labels(
    predicted: &[usize],
    deviations: &[f32],
    index: UncertaintyIndex,
) -> Vec<PseudoLabel> {
    let label = |(ordinal, &class): (usize, &usize)| {
        let of = if index == UncertaintyIndex::Class { class } else { ordinal };
        PseudoLabel { class, uncertainty: deviations[of] }
    };
    predicted.iter().enumerate().map(label).collect()
}

/// What the thresholds of the classes are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct ThresholdSums {
    /// Number, mean, and squared distances to it, by class.
    classes: Vec<(usize, f64, f64)>,
}

impl ThresholdSums {
    /// Of no labels of so many classes.
    pub fn new(classes: usize) -> Self {
        Self { classes: vec![(0, 0.0, 0.0); classes] }
    }

    /// Adds the pseudo labels of a pair.
    pub fn add(&mut self, labels: &[PseudoLabel]) {
        for label in labels {
            let (number, mean, squares) = &mut self.classes[label.class];
            let before = f64::from(label.uncertainty) - *mean;
            *number += 1;
            *mean += before / *number as f64;
            *squares += before * (f64::from(label.uncertainty) - *mean);
        }
    }

    /// The thresholds.
    pub fn finish(&self) -> ClassThresholds {
        let threshold = |&(number, mean, squares): &(usize, f64, f64)| match number {
            0 => Some(0.0),
            1 => None,
            _ => Some(mean + (squares / (number - 1) as f64).sqrt()),
        };
        ClassThresholds(self.classes.iter().map(threshold).collect())
    }
}

/// η of each class: the mean of the uncertainties of its pseudo labels and their standard deviation
/// with one less than their number as divisor. 0 without a pseudo label; `None` with one alone,
/// which has no such deviation and is never used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassThresholds(pub Vec<Option<f64>>);

impl ClassThresholds {
    /// Whether a label may replace distant ones.
    pub fn admits(&self, label: &PseudoLabel) -> bool {
        self.0[label.class].is_some_and(|threshold| f64::from(label.uncertainty) <= threshold)
    }
}

/// The labels that replace a pair's `distant` ones, in rising order; `None`: these stay.
///
/// They stay where the pseudo labels are the same, where there are none, and where none is certain
/// enough.
pub fn relabelled(
    distant: &[usize],
    pseudo: &[PseudoLabel],
    thresholds: &ClassThresholds,
) -> Option<Vec<usize>> {
    let sorted = |mut classes: Vec<usize>| {
        classes.sort_unstable();
        classes.dedup();
        classes
    };
    let predicted = sorted(pseudo.iter().map(|label| label.class).collect());
    if predicted == sorted(distant.to_vec()) {
        return None;
    }
    let certain = pseudo.iter().filter(|label| thresholds.admits(label)).map(|label| label.class);
    Some(sorted(certain.collect())).filter(|certain| !certain.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(class: usize, uncertainty: f32) -> PseudoLabel {
        PseudoLabel { class, uncertainty }
    }

    #[test]
    fn deviations_divide_by_the_number_of_passes() {
        let mut statistics = PassStatistics::default();
        for pass in [[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]] {
            statistics.add(&pass).unwrap();
        }
        assert_eq!(statistics.means(), [3.0, 5.0]);
        // Squared distances 4, 1 and 9.
        assert_eq!(statistics.deviations(), [(14f64 / 3.0).sqrt() as f32, 0.0]);
        assert!(statistics.add(&[1.0]).is_err());
        assert!(statistics.add(&[1.0, f32::NAN]).is_err());
        assert!(PassStatistics::default().deviations().is_empty());
    }

    #[test]
    fn the_release_gives_the_first_label_the_deviation_of_the_threshold_class() {
        let deviations = [0.1, 0.2, 0.3, 0.4];
        let labels = |index| pseudo_labels(&[2, 3], &deviations, index);
        assert_eq!(labels(UncertaintyIndex::Class), [label(2, 0.3), label(3, 0.4)]);
        assert_eq!(labels(UncertaintyIndex::Ordinal), [label(2, 0.1), label(3, 0.2)]);
    }

    #[test]
    fn thresholds_are_mean_and_deviation_of_two_or_more_labels() {
        let mut sums = ThresholdSums::new(4);
        sums.add(&[label(1, 1.0), label(2, 7.0)]);
        sums.add(&[]);
        sums.add(&[label(1, 2.0)]);
        sums.add(&[label(1, 6.0)]);
        let thresholds = sums.finish();
        assert_eq!(thresholds.0[0], Some(0.0));
        assert!((thresholds.0[1].unwrap() - (3.0 + 7f64.sqrt())).abs() < 1e-12);
        assert_eq!(thresholds.0[2], None);
        assert!(!thresholds.admits(&label(2, 0.0)));
        assert!(thresholds.admits(&label(1, 5.6)) && !thresholds.admits(&label(1, 5.7)));
    }

    #[test]
    fn certain_labels_replace_and_never_delete() {
        let thresholds = ClassThresholds(vec![Some(0.0), Some(0.5), Some(0.5), None]);
        let new =
            |distant: &[usize], pseudo: &[PseudoLabel]| relabelled(distant, pseudo, &thresholds);
        let (sure, unsure) = (label(1, 0.5), label(2, 0.6));
        assert_eq!(new(&[2, 1], &[label(1, 9.0), label(2, 9.0)]), None);
        assert_eq!(new(&[2], &[]), None);
        assert_eq!(new(&[1], &[unsure]), None);
        assert_eq!(new(&[], &[label(3, 0.0)]), None);
        assert_eq!(new(&[2], &[sure, unsure]), Some(vec![1]));
        assert_eq!(new(&[], &[sure]), Some(vec![1]));
        assert_eq!(new(&[3], &[label(2, 0.1), sure]), Some(vec![1, 2]));
    }
}
