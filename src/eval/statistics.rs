//! Means over seeds and a paired bootstrap over documents: is one system better than another, or
//! lucky? Not for: significance of anything but micro F1.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::ScoreBlock;
use crate::{Error, Result};

/// Mean and sample standard deviation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeanSd {
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation (n − 1); 0 for a single value.
    pub sd: f64,
    /// Number of values.
    pub n: usize,
}

impl std::fmt::Display for MeanSd {
    /// In per cent: `57.42 ± 0.31`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2}", 100.0 * self.mean)?;
        if self.n > 1 { write!(f, " ± {:.2}", 100.0 * self.sd) } else { Ok(()) }
    }
}

/// Mean and standard deviation of values; `None` for none.
pub fn mean_sd(values: &[f64]) -> Option<MeanSd> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some(MeanSd { mean, sd: if n > 1 { (squares / (n - 1) as f64).sqrt() } else { 0.0 }, n })
}

/// Counts of one document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentCounts {
    /// Right predictions.
    pub correct: usize,
    /// Distinct predictions.
    pub predicted: usize,
    /// Distinct gold facts.
    pub gold: usize,
}

/// What the bootstrap says about F1(a) − F1(b).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// The difference on all documents.
    pub difference: f64,
    /// Lower end of the 95 % percentile interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Twice the smaller share of resamples in which a is not better, or not worse, than b
    /// (two-sided; at most 1).
    pub p_value: f64,
}

/// The counts of two systems on the same documents.
#[derive(Clone, Copy, Debug)]
pub struct Paired<'a> {
    /// System a by document.
    pub a: &'a [DocumentCounts],
    /// System b by document.
    pub b: &'a [DocumentCounts],
}

/// Resamples documents with replacement and compares the micro F1 of two systems on the same
/// documents, for several groups of facts. Deterministic in `seed`. All groups see the same
/// resamples, so that the result of one does not depend on which others there are.
///
/// # Errors
/// A bug error where the lists do not belong together or are empty, or `samples` is 0.
pub fn paired_bootstraps(
    groups: &[Paired<'_>],
    samples: usize,
    seed: u64,
) -> Result<Vec<Bootstrap>> {
    let documents = groups.first().map_or(0, |group| group.a.len());
    if documents == 0
        || samples == 0
        || groups.iter().any(|group| [group.a.len(), group.b.len()] != [documents; 2])
    {
        return Err(Error::Bug(format!(
            "paired bootstrap of {documents} documents, {samples} samples"
        )));
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut differences = vec![Vec::with_capacity(samples); groups.len()];
    let mut weights = vec![0usize; documents];
    for _ in 0..samples {
        weights.fill(0);
        for _ in 0..documents {
            weights[random.random_range(0..documents)] += 1;
        }
        for (group, differences) in groups.iter().zip(&mut differences) {
            differences.push(micro_f1(group.a, &weights) - micro_f1(group.b, &weights));
        }
    }
    let once = vec![1; documents];
    let of = |(group, differences): (&Paired<'_>, Vec<f64>)| {
        summary(micro_f1(group.a, &once) - micro_f1(group.b, &once), differences)
    };
    Ok(groups.iter().zip(differences).map(of).collect())
}

fn summary(difference: f64, mut differences: Vec<f64>) -> Bootstrap {
    differences.sort_by(f64::total_cmp);
    let samples = differences.len();
    let quantile = |share: f64| differences[(share * (samples - 1) as f64).round() as usize];
    let share = |belongs: fn(f64) -> bool| {
        differences.iter().filter(|value| belongs(**value)).count() as f64 / samples as f64
    };
    let p_value = (2.0 * share(|value| value <= 0.0).min(share(|value| value >= 0.0))).min(1.0);
    Bootstrap { difference, low: quantile(0.025), high: quantile(0.975), p_value }
}

/// F1 of documents taken `weights` times each.
fn micro_f1(counts: &[DocumentCounts], weights: &[usize]) -> f64 {
    let add = |sum: (usize, usize, usize), (c, weight): (&DocumentCounts, &usize)| {
        (sum.0 + weight * c.predicted, sum.1 + weight * c.gold, sum.2 + weight * c.correct)
    };
    let (predicted, gold, correct) = counts.iter().zip(weights).fold((0, 0, 0), add);
    ScoreBlock::new(predicted, gold, correct).f1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation() {
        let result = mean_sd(&[0.2, 0.4, 0.4, 0.4, 0.5, 0.5, 0.7, 0.9]).unwrap();
        assert!(
            (result.mean - 0.5).abs() < 1e-12
                && (result.sd - (0.32_f64 / 7.0).sqrt()).abs() < 1e-12
        );
        assert_eq!(result.to_string(), "50.00 ± 21.38");
        assert_eq!((mean_sd(&[]), mean_sd(&[0.5]).unwrap().to_string().as_str()), (None, "50.00"));
    }

    fn paired_bootstrap(
        a: &[DocumentCounts],
        b: &[DocumentCounts],
        samples: usize,
        seed: u64,
    ) -> Result<Bootstrap> {
        Ok(paired_bootstraps(&[Paired { a, b }], samples, seed)?[0])
    }

    #[test]
    fn bootstrap() {
        let system = |correct| vec![DocumentCounts { correct, predicted: 10, gold: 10 }; 50];
        let clear = paired_bootstrap(&system(8), &system(6), 200, 7).unwrap();
        for (ours, expected) in
            [(clear.difference, 0.2), (clear.low, 0.2), (clear.high, 0.2), (clear.p_value, 0.0)]
        {
            assert!((ours - expected).abs() < 1e-9, "{clear:?}");
        }
        // One document better, one worse: no difference, and about half of the resamples on either
        // side.
        let (mut a, mut b) = (system(5), system(5));
        (a[0].correct, b[1].correct) = (9, 9);
        let even = paired_bootstrap(&a, &b, 2000, 7).unwrap();
        assert!(
            even.difference == 0.0 && even.low < 0.0 && even.high > 0.0 && even.p_value > 0.5,
            "{even:?}"
        );
        assert_eq!(even, paired_bootstrap(&a, &b, 2000, 7).unwrap());
        let turned = paired_bootstrap(&b, &a, 2000, 7).unwrap();
        assert_eq!((turned.low, turned.p_value), (-even.high, even.p_value));
        assert!(
            paired_bootstrap(&a, &b[1..], 10, 7).is_err()
                && paired_bootstrap(&a, &b, 0, 7).is_err()
        );
    }
}
