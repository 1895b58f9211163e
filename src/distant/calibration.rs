//! From a model's margins to probabilities that hold: a logistic function of the margin for each
//! relation, fitted on documents whose truth is known (docs/systems.md, V.1).
//!
//! The relations share what they have in common. One function is fitted over all of them first;
//! that of a relation is drawn to it, and stays it where there is too little to learn from.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Relations with fewer true facts keep the common function.
const FEWEST_FACTS: usize = 5;
/// Standard deviation of a relation's numbers around the common ones.
const RELATION_WIDTH: f64 = 0.5;
/// The same of the common ones around the plain logistic function: hardly a prior.
const COMMON_WIDTH: f64 = 10.0;
/// Newton's steps at most; a fit needs about ten.
const MOST_STEPS: usize = 100;
/// A fit ends when no number changes by more.
const TOLERANCE: f64 = 1e-10;

/// A pair and relation of a document whose truth is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// The model's margin: above 0 where it predicts the relation.
    pub margin: f32,
    /// Whether a distant label says so.
    pub labelled: bool,
    /// Whether it is true.
    pub is_true: bool,
}

/// p = σ(slope · margin + intercept + label · δ), where δ is 1 for a pair with a distant label of
/// the relation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogisticFit {
    /// Factor of the margin.
    pub slope: f64,
    /// What is added.
    pub intercept: f64,
    /// What is added for a distant label.
    pub label: f64,
}

impl LogisticFit {
    /// The logistic function itself.
    pub const PLAIN: Self = Self { slope: 1.0, intercept: 0.0, label: 0.0 };

    fn numbers(self) -> [f64; 3] {
        [self.slope, self.intercept, self.label]
    }

    fn of([slope, intercept, label]: [f64; 3]) -> Self {
        Self { slope, intercept, label }
    }

    /// The probability of an observation.
    pub fn probability(self, margin: f32, labelled: bool) -> f64 {
        sigmoid(self.logit(margin, labelled))
    }

    fn logit(self, margin: f32, labelled: bool) -> f64 {
        self.slope * f64::from(margin) + self.intercept + f64::from(u8::from(labelled)) * self.label
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The functions of all relations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The function over all relations.
    pub common: LogisticFit,
    /// By relation.
    pub relations: Vec<LogisticFit>,
}

impl Calibration {
    /// The logistic function of the margin for every relation.
    pub fn plain(relations: usize) -> Self {
        Self { common: LogisticFit::PLAIN, relations: vec![LogisticFit::PLAIN; relations] }
    }

    /// Fits the observations of each relation. Distant labels have a share only if some observation
    /// has one.
    pub fn fit(observations: &[Vec<Observation>]) -> Self {
        let all = || observations.iter().flatten();
        let labels = all().any(|one| one.labelled);
        let start = LogisticFit::PLAIN;
        let whole: Vec<Observation> = all().copied().collect();
        let common = maximum(&whole, &Prior { centre: start, width: COMMON_WIDTH }, labels);
        let of_relation = |own: &Vec<Observation>| {
            let facts = own.iter().filter(|one| one.is_true).count();
            if facts < FEWEST_FACTS {
                return common;
            }
            maximum(own, &Prior { centre: common, width: RELATION_WIDTH }, labels)
        };
        Self { common, relations: observations.par_iter().map(of_relation).collect() }
    }

    /// The probability of a pair's relation.
    pub fn probability(&self, relation: usize, margin: f32, labelled: bool) -> f64 {
        self.relations.get(relation).unwrap_or(&self.common).probability(margin, labelled)
    }
}

/// Independent normal distributions of the three numbers.
struct Prior {
    centre: LogisticFit,
    width: f64,
}

/// The most probable function, by Newton's method. The objective is concave, and a step that does
/// not raise it is halved.
fn maximum(observations: &[Observation], prior: &Prior, labels: bool) -> LogisticFit {
    let free = if labels { 3 } else { 2 };
    let (mut fit, mut value) = (prior.centre, objective(observations, prior, prior.centre));
    for _ in 0..MOST_STEPS {
        let (gradient, hessian) = slopes(observations, prior, fit);
        let step = solve(&hessian, &gradient, free);
        let mut factor = 1.0;
        let (next, raised) = loop {
            let numbers = fit.numbers();
            let next = LogisticFit::of(std::array::from_fn(|i| numbers[i] + factor * step[i]));
            let raised = objective(observations, prior, next);
            if raised >= value || factor < 1e-9 {
                break (next, raised);
            }
            factor /= 2.0;
        };
        if raised < value {
            break;
        }
        let change = step.iter().fold(0.0f64, |most, step| most.max((factor * step).abs()));
        (fit, value) = (next, raised);
        if change < TOLERANCE {
            break;
        }
    }
    fit
}

/// The logarithm of the probability of all observations and of the function.
fn objective(observations: &[Observation], prior: &Prior, fit: LogisticFit) -> f64 {
    let of_one = |one: &Observation| {
        let logit = fit.logit(one.margin, one.labelled);
        // log σ(x) without overflow
        let signed = if one.is_true { logit } else { -logit };
        signed.min(0.0) - (-signed.abs()).exp().ln_1p()
    };
    let apart: f64 = fit
        .numbers()
        .iter()
        .zip(prior.centre.numbers())
        .map(|(own, centre)| (own - centre).powi(2))
        .sum();
    observations.iter().map(of_one).sum::<f64>() - apart / (2.0 * prior.width * prior.width)
}

/// The gradient and the negative of the matrix of second derivatives.
fn slopes(
    observations: &[Observation],
    prior: &Prior,
    fit: LogisticFit,
) -> ([f64; 3], [[f64; 3]; 3]) {
    let precision = 1.0 / (prior.width * prior.width);
    let centre = prior.centre.numbers();
    let mut gradient = std::array::from_fn(|i| (centre[i] - fit.numbers()[i]) * precision);
    let mut hessian = [[0.0; 3]; 3];
    (0..3).for_each(|i| hessian[i][i] = precision);
    for one in observations {
        let x = [f64::from(one.margin), 1.0, f64::from(u8::from(one.labelled))];
        let p = fit.probability(one.margin, one.labelled);
        let (residual, weight) = (f64::from(u8::from(one.is_true)) - p, p * (1.0 - p));
        for i in 0..3 {
            gradient[i] += residual * x[i];
            for j in 0..3 {
                hessian[i][j] += weight * x[i] * x[j];
            }
        }
    }
    (gradient, hessian)
}

/// The solution of the first `free` equations of a positive definite system; 0 for the others.
fn solve(matrix: &[[f64; 3]; 3], right: &[f64; 3], free: usize) -> [f64; 3] {
    let (mut a, mut b) = (*matrix, *right);
    for pivot in 0..free {
        for row in pivot + 1..free {
            let factor = a[row][pivot] / a[pivot][pivot];
            for column in pivot..free {
                a[row][column] -= factor * a[pivot][column];
            }
            b[row] -= factor * b[pivot];
        }
    }
    let mut solution = [0.0; 3];
    for row in (0..free).rev() {
        let known: f64 = (row + 1..free).map(|column| a[row][column] * solution[column]).sum();
        solution[row] = (b[row] - known) / a[row][row];
    }
    solution
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Observations whose truth is drawn from a known function.
    fn drawn(count: usize, seed: u64, fit: LogisticFit) -> Vec<Observation> {
        let mut stream = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = || (stream.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut one = || {
            let (margin, labelled) = ((8.0 * draw() - 4.0) as f32, draw() < 0.3);
            let is_true = draw() < fit.probability(margin, labelled);
            Observation { margin, labelled, is_true }
        };
        (0..count).map(|_| one()).collect()
    }

    fn close(a: LogisticFit, b: LogisticFit, tolerance: f64) {
        for (a, b) in a.numbers().into_iter().zip(b.numbers()) {
            assert!((a - b).abs() < tolerance, "{a} and {b}");
        }
    }

    #[test]
    fn the_function_that_truth_was_drawn_from_is_found() {
        let truth = LogisticFit { slope: 1.7, intercept: -1.2, label: 0.8 };
        let fitted = Calibration::fit(&[drawn(40_000, 1, truth)]);
        close(fitted.relations[0], truth, 0.08);
    }

    #[test]
    fn the_gradient_is_zero_at_the_maximum() {
        let observations = drawn(500, 2, LogisticFit { slope: 0.5, intercept: 1.0, label: -0.4 });
        let prior = Prior { centre: LogisticFit::PLAIN, width: COMMON_WIDTH };
        let fit = maximum(&observations, &prior, true);
        let (gradient, _) = slopes(&observations, &prior, fit);
        assert!(gradient.iter().all(|slope| slope.abs() < 1e-6), "{gradient:?}");
        // And it is what small steps of the objective say elsewhere.
        let other = LogisticFit { slope: 0.9, intercept: 0.3, label: 0.2 };
        let (gradient, _) = slopes(&observations, &prior, other);
        for i in 0..3 {
            let moved = |by: f64| {
                let mut numbers = other.numbers();
                numbers[i] += by;
                objective(&observations, &prior, LogisticFit::of(numbers))
            };
            let measured = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((measured - gradient[i]).abs() < 1e-4 * gradient[i].abs().max(1.0));
        }
    }

    #[test]
    fn rare_relations_keep_the_common_function_and_others_have_their_own() {
        let [steep, flat] = [2.0, 0.6].map(|slope| LogisticFit { slope, ..LogisticFit::PLAIN });
        let mut rare = drawn(300, 5, flat);
        rare.iter_mut().skip(4).for_each(|one| one.is_true = false);
        let fitted = Calibration::fit(&[drawn(20_000, 3, steep), drawn(20_000, 4, flat), rare]);
        let slopes: Vec<f64> = fitted.relations.iter().map(|fit| fit.slope).collect();
        assert!(slopes[0] > 1.8 && slopes[1] < 0.75, "{slopes:?}");
        assert_eq!(fitted.relations[2], fitted.common);
        assert_eq!(fitted.probability(9, 0.5, false), fitted.common.probability(0.5, false));
    }

    #[test]
    fn without_distant_labels_they_have_no_share() {
        let mut observations = drawn(1_000, 6, LogisticFit::PLAIN);
        observations.iter_mut().for_each(|one| one.labelled = false);
        let fitted = Calibration::fit(&[observations]);
        assert_eq!((fitted.common.label, fitted.relations[0].label), (0.0, 0.0));
    }

    #[test]
    fn observations_that_can_be_parted_give_finite_numbers() {
        let one =
            |margin: f32| Observation { margin, labelled: margin > 0.0, is_true: margin > 0.0 };
        let parted: Vec<Observation> = (-50..50).map(|i| one(i as f32 + 0.5)).collect();
        let fit = Calibration::fit(&[parted]).relations[0];
        assert!(fit.numbers().iter().all(|number| number.is_finite()), "{fit:?}");
        assert!(fit.probability(30.0, true) > 0.99 && fit.probability(-30.0, false) < 0.01);
    }
}
