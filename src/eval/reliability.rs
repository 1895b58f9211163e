//! Whether scores are probabilities: calibration error, log loss, reliability by bins, and what is
//! wrong among the most certain predictions (docs/scores.md, "Calibration"). Not for: making
//! probabilities of scores.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::block::ratio;
use super::threshold::{ScoredFact, sorted};

/// Bins of equal mass.
const BINS: usize = 15;
/// Pairs and relations with a smaller score are no candidates: nearly all are, and they are right
/// to be near 0.
pub(super) const FLOOR: f32 = 0.01;
/// Probabilities are cut to this distance from 0 and 1 before a logarithm.
const LEAST: f64 = 1e-6;
/// The most points of a curve.
const MOST_POINTS: usize = 100;

/// How well scores serve as probabilities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Pairs and relations with a score of at least 0.01.
    pub candidates: usize,
    /// Expected calibration error over bins of equal mass.
    pub ece: f64,
    /// Mean −log of the probability of what is true.
    pub log_loss: f64,
    /// The bins, from the largest scores down.
    pub bins: Vec<ReliabilityBin>,
    /// Share of wrong predictions among the most certain ones, from few to all predictions.
    pub risk_coverage: Vec<RiskAtCoverage>,
    /// Area under that curve; 0 is best.
    pub risk_area: f64,
}

impl fmt::Display for Reliability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected error {:.1} %, log loss {:.3} over {} candidates with a score \
             of at least 1 %",
            100.0 * self.ece,
            self.log_loss,
            self.candidates
        )?;
        let half = self.risk_coverage.iter().find(|at| at.coverage >= 0.5);
        let Some((half, all)) = half.zip(self.risk_coverage.last()) else { return Ok(()) };
        write!(
            f,
            "; wrong: {:.1} % of the most certain half of the predictions, {:.1} % of all",
            100.0 * half.risk,
            100.0 * all.risk
        )
    }
}

/// Candidates of similar score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Candidates.
    pub candidates: usize,
    /// Their mean score.
    pub score: f64,
    /// Share of them that is right.
    pub right: f64,
}

/// What is wrong if only the most certain predictions are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RiskAtCoverage {
    /// Share of the predictions that is made.
    pub coverage: f64,
    /// The least score among them.
    pub score: f32,
    /// Share of them that is wrong.
    pub risk: f64,
}

/// Judges scores in memory, of which so many are predictions; `None` where they are no
/// probabilities, or all are tiny.
pub fn reliability(entries: &[ScoredFact], predicted: usize) -> Option<Reliability> {
    let mut builder = ReliabilityBuilder::default();
    sorted(entries).iter().for_each(|entry| builder.push(entry.score, entry.correct));
    builder.finish(predicted)
}

/// Collects the candidates of a list that is sorted by falling score.
#[derive(Debug, Default)]
pub(crate) struct ReliabilityBuilder {
    candidates: Vec<(f32, bool)>,
    no_probabilities: bool,
}

impl ReliabilityBuilder {
    pub(crate) fn push(&mut self, score: f32, right: bool) {
        self.no_probabilities |= !(0.0..=1.0).contains(&score);
        if score >= FLOOR && !self.no_probabilities {
            self.candidates.push((score, right));
        }
    }

    /// `None` where a score is no probability, or nothing is a candidate. `predicted` of the
    /// entries are predictions.
    pub(crate) fn finish(self, predicted: usize) -> Option<Reliability> {
        let all = self.candidates;
        if self.no_probabilities || all.is_empty() {
            return None;
        }
        let bins: Vec<ReliabilityBin> = (0..BINS)
            .map(|bin| bin_of(&all[bin * all.len() / BINS..(bin + 1) * all.len() / BINS]))
            .filter(|bin| bin.candidates > 0)
            .collect();
        let share = |bin: &ReliabilityBin| bin.candidates as f64 / all.len() as f64;
        let ece = bins.iter().map(|bin| share(bin) * (bin.score - bin.right).abs()).sum();
        let loss = |&(score, right): &(f32, bool)| {
            let score = f64::from(score).clamp(LEAST, 1.0 - LEAST);
            -(if right { score } else { 1.0 - score }).ln()
        };
        let (risk_coverage, risk_area) = risk_coverage(&all[..predicted.min(all.len())]);
        Some(Reliability {
            candidates: all.len(),
            ece,
            log_loss: all.iter().map(loss).sum::<f64>() / all.len() as f64,
            bins,
            risk_coverage,
            risk_area,
        })
    }
}

fn bin_of(candidates: &[(f32, bool)]) -> ReliabilityBin {
    let number = candidates.len() as f64;
    ReliabilityBin {
        candidates: candidates.len(),
        score: ratio(candidates.iter().map(|one| f64::from(one.0)).sum(), number),
        right: ratio(candidates.iter().filter(|one| one.1).count() as f64, number),
    }
}

/// The curve over the prefixes of predictions, thinned, and the area below all of it.
fn risk_coverage(predictions: &[(f32, bool)]) -> (Vec<RiskAtCoverage>, f64) {
    let stride = predictions.len().div_ceil(MOST_POINTS).max(1);
    let (mut wrong, mut area, mut curve) = (0, 0.0, Vec::new());
    for (place, &(score, right)) in predictions.iter().enumerate() {
        wrong += usize::from(!right);
        let made = place + 1;
        let risk = wrong as f64 / made as f64;
        area += risk / predictions.len() as f64;
        if made % stride == 0 || made == predictions.len() {
            let coverage = made as f64 / predictions.len() as f64;
            curve.push(RiskAtCoverage { coverage, score, risk });
        }
    }
    (curve, area)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(entries: &[(f32, bool)], predicted: usize) -> Option<Reliability> {
        let fact = |&(score, correct): &(f32, bool)| ScoredFact { score, correct, in_train: false };
        reliability(&entries.iter().map(fact).collect::<Vec<_>>(), predicted)
    }

    #[test]
    fn by_hand() {
        let entries = [(0.9, true), (0.8, false), (0.5, true), (0.001, false)];
        let found = judged(&entries, 3).unwrap();
        // Three candidates, each a bin of its own.
        assert_eq!((found.candidates, found.bins.len()), (3, 3));
        let ece = (0.1 + 0.8 + 0.5) / 3.0;
        assert!((found.ece - ece).abs() < 1e-6, "{}", found.ece);
        let loss = -(0.9f64.ln() + 0.2f64.ln() + 0.5f64.ln()) / 3.0;
        assert!((found.log_loss - loss).abs() < 1e-6, "{}", found.log_loss);
        let risks: Vec<f64> = found.risk_coverage.iter().map(|point| point.risk).collect();
        assert_eq!(risks, [0.0, 0.5, 1.0 / 3.0]);
        assert!((found.risk_area - (0.5 + 1.0 / 3.0) / 3.0).abs() < 1e-12);
    }

    /// Truths drawn with the probability that the score states.
    #[test]
    fn honest_scores_have_no_error_and_bold_ones_do() {
        let honest: Vec<(f32, bool)> = (0..30_000)
            .map(|i| {
                let score = 1.0 - 0.98 * i as f32 / 30_000.0;
                // A low-discrepancy sequence in place of luck.
                let luck = (f64::from(i) * 0.618_033_988_75).fract();
                (score, luck < f64::from(score))
            })
            .collect();
        let found = judged(&honest, 10_000).unwrap();
        assert!(found.ece < 0.01, "{}", found.ece);
        let bold: Vec<(f32, bool)> =
            honest.iter().map(|&(score, right)| (score.sqrt(), right)).collect();
        assert!(judged(&bold, 10_000).unwrap().ece > 0.1);
        assert!(found.risk_coverage.len() <= MOST_POINTS + 1);
        assert!(found.risk_coverage.is_sorted_by_key(|point| point.coverage));
    }

    #[test]
    fn scores_that_are_no_probabilities_are_not_judged() {
        assert_eq!(judged(&[(1.5, true), (0.5, true)], 1), None);
        assert_eq!(judged(&[(f32::NAN, true)], 1), None);
        assert_eq!(judged(&[(0.001, true)], 1), None);
    }
}
