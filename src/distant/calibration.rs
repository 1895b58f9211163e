//! From a model's margins to probabilities that hold: a logistic function of the margin for each
//! relation, fitted on documents whose truth is known (docs/scores.md, S.12).
//!
//! The relations share what they have in common. One function is fitted over all of them first;
//! that of a relation is drawn to it, and stays it where there is too little to learn from.
//!
//! The numbers do not depend on the number of threads. Not for: how good probabilities are
//! (`eval::reliability`).

use ahash::AHashMap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Relations with fewer true facts keep the common function.
const FEWEST_FACTS: usize = 5;
/// Standard deviation of a relation's numbers around the common ones; that of the slope is this
/// share of the common slope, whatever the scale of the margins is.
const RELATION_WIDTH: f64 = 0.5;
/// The smallest standard deviation of a slope.
const LEAST_WIDTH: f64 = 1e-6;
/// The same of the common ones around the plain logistic function: hardly a prior.
const COMMON_WIDTH: f64 = 10.0;
/// Newton's steps at most; a fit needs about ten.
const MOST_STEPS: usize = 100;
/// A fit ends when no number changes by more.
const TOLERANCE: f64 = 1e-10;

/// Pairs and a relation whose truth is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// The model's margin: above 0 where it predicts the relation.
    pub margin: f32,
    /// Whether a distant label says so.
    pub labelled: bool,
    /// Whether it is true.
    pub is_true: bool,
    /// How many pairs it stands for.
    pub weight: f32,
}

/// Bits of a margin that are dropped to find its bin: 512 bins from one power of two to the next.
const BIN_BITS: u32 = 14;
/// Margins are cut to this distance from 0; no probability can be told from 0 or 1 long before.
const LARGEST_MARGIN: f32 = 1e6;

/// The observations of one relation in the making. Nearly all pairs have no relation, so that wrong
/// ones of almost the same margin become one observation at their mean.
#[derive(Clone, Debug, Default)]
pub struct ObservationBins {
    right: Vec<Observation>,
    /// (label, bin) → sum of the margins, and their number.
    wrong: AHashMap<(bool, u32), (f64, u32)>,
}

impl ObservationBins {
    /// Adds a pair. A margin that is not a number says nothing and is passed over.
    pub fn push(&mut self, margin: f32, labelled: bool, is_true: bool) {
        if margin.is_nan() {
            return;
        }
        let margin = margin.clamp(-LARGEST_MARGIN, LARGEST_MARGIN);
        if is_true {
            self.right.push(Observation { margin, labelled, is_true, weight: 1.0 });
            return;
        }
        let (sum, number) = self.wrong.entry((labelled, margin.to_bits() >> BIN_BITS)).or_default();
        *sum += f64::from(margin);
        *number += 1;
    }

    /// The observations: those that are true in the order in which they came, then the others by
    /// label and bin.
    pub fn finish(self) -> Vec<Observation> {
        let mut wrong: Vec<_> = self.wrong.into_iter().collect();
        wrong.sort_unstable_by_key(|(bin, _)| *bin);
        let wrong = wrong.into_iter().map(|((labelled, _), (sum, number))| Observation {
            margin: (sum / f64::from(number)) as f32,
            labelled,
            is_true: false,
            weight: number as f32,
        });
        self.right.into_iter().chain(wrong).collect()
    }
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
        let whole: Vec<Observation> = all().copied().collect();
        let common = rising(&whole, &Prior::weak(&whole), labels);
        let of_relation = |own: &Vec<Observation>| {
            let facts = own.iter().filter(|one| one.is_true).count();
            if facts < FEWEST_FACTS {
                return common;
            }
            rising(own, &Prior::around(common), labels)
        };
        Self { common, relations: observations.par_iter().map(of_relation).collect() }
    }

    /// The probability of a pair's relation.
    pub fn probability(&self, relation: usize, margin: f32, labelled: bool) -> f64 {
        sigmoid(self.logit(relation, margin, labelled))
    }

    /// The logit of that probability, which costs no exponential.
    pub fn logit(&self, relation: usize, margin: f32, labelled: bool) -> f64 {
        self.relations.get(relation).unwrap_or(&self.common).logit(margin, labelled)
    }
}

/// Independent normal distributions of the three numbers.
struct Prior {
    centre: LogisticFit,
    widths: [f64; 3],
}

impl Prior {
    /// Of the common function: wider for the slope where margins are small, as those of a model
    /// that has hardly been trained.
    fn weak(observations: &[Observation]) -> Self {
        let square = |one: &Observation| f64::from(one.weight) * f64::from(one.margin).powi(2);
        let number: f64 = observations.iter().map(|one| f64::from(one.weight)).sum();
        let mean_square = observations.iter().map(square).sum::<f64>() / number.max(1.0);
        let slope = COMMON_WIDTH / mean_square.sqrt().clamp(LEAST_WIDTH, 1.0);
        Self { centre: LogisticFit::PLAIN, widths: [slope, COMMON_WIDTH, COMMON_WIDTH] }
    }

    /// Of a relation's function.
    fn around(common: LogisticFit) -> Self {
        let slope = (RELATION_WIDTH * common.slope.abs()).max(LEAST_WIDTH);
        Self { centre: common, widths: [slope, RELATION_WIDTH, RELATION_WIDTH] }
    }

    /// Distances of a function's numbers from the centre, in standard deviations.
    fn distances(&self, fit: LogisticFit) -> [f64; 3] {
        let (own, centre) = (fit.numbers(), self.centre.numbers());
        std::array::from_fn(|i| (own[i] - centre[i]) / self.widths[i])
    }
}

/// The most probable function that does not fall: a model whose larger margins are less often right
/// says nothing by them, and its order is not turned around.
fn rising(observations: &[Observation], prior: &Prior, labels: bool) -> LogisticFit {
    let fit = maximum(observations, prior, labels);
    if fit.slope >= 0.0 {
        return fit;
    }
    let [_, intercept, label] = prior.widths;
    let centre = LogisticFit { slope: 0.0, ..prior.centre };
    let flat = Prior { centre, widths: [LEAST_WIDTH, intercept, label] };
    LogisticFit { slope: 0.0, ..maximum(observations, &flat, labels) }
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
        f64::from(one.weight) * (signed.min(0.0) - (-signed.abs()).exp().ln_1p())
    };
    let apart: f64 = prior.distances(fit).iter().map(|distance| distance * distance).sum();
    observations.iter().map(of_one).sum::<f64>() - apart / 2.0
}

/// The gradient and the negative of the matrix of second derivatives.
fn slopes(
    observations: &[Observation],
    prior: &Prior,
    fit: LogisticFit,
) -> ([f64; 3], [[f64; 3]; 3]) {
    let distances = prior.distances(fit);
    let mut gradient = std::array::from_fn(|i| -distances[i] / prior.widths[i]);
    let mut hessian = [[0.0; 3]; 3];
    (0..3).for_each(|i| hessian[i][i] = 1.0 / (prior.widths[i] * prior.widths[i]));
    for one in observations {
        let x = [f64::from(one.margin), 1.0, f64::from(u8::from(one.labelled))];
        let (p, count) = (fit.probability(one.margin, one.labelled), f64::from(one.weight));
        let residual = count * (f64::from(u8::from(one.is_true)) - p);
        let weight = count * p * (1.0 - p);
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
            let above = a[pivot];
            let factor = a[row][pivot] / above[pivot];
            a[row].iter_mut().zip(above).for_each(|(own, above)| *own -= factor * above);
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
            Observation { margin, labelled, is_true, weight: 1.0 }
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
        let prior = Prior::around(LogisticFit { slope: 0.8, ..LogisticFit::PLAIN });
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
        let one = |margin: f32| Observation {
            margin,
            labelled: margin > 0.0,
            is_true: margin > 0.0,
            weight: 1.0,
        };
        let parted: Vec<Observation> = (-50..50).map(|i| one(i as f32 + 0.5)).collect();
        let fit = Calibration::fit(&[parted]).relations[0];
        assert!(fit.numbers().iter().all(|number| number.is_finite()), "{fit:?}");
        assert!(fit.probability(30.0, true) > 0.99 && fit.probability(-30.0, false) < 0.01);
    }
    fn binned(observations: &[Observation]) -> Vec<Observation> {
        let mut bins = ObservationBins::default();
        for one in observations {
            bins.push(one.margin, one.labelled, one.is_true);
        }
        bins.finish()
    }

    /// Nine of ten pairs are far below 0, as those of a trained model are.
    #[test]
    fn binned_observations_give_the_function_of_all() {
        let truth = LogisticFit { slope: 0.9, intercept: -0.7, label: 1.1 };
        let relation = |seed: u64| {
            let mut stream = ChaCha8Rng::seed_from_u64(seed);
            let mut draw = || (stream.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            let mut one = || {
                let margin = if draw() < 0.1 { 8.0 * draw() - 4.0 } else { -4.0 - 10.0 * draw() };
                let (margin, labelled) = (margin as f32, draw() < 0.05);
                let is_true = draw() < truth.probability(margin, labelled);
                Observation { margin, labelled, is_true, weight: 1.0 }
            };
            (0..20_000).map(|_| one()).collect::<Vec<_>>()
        };
        let all: Vec<Vec<Observation>> = (10..13).map(relation).collect();
        let few: Vec<Vec<Observation>> = all.iter().map(|own| binned(own)).collect();
        let [of_all, of_few] = [&all, &few].map(|some| Calibration::fit(some));
        close(of_all.common, of_few.common, 1e-3);
        for (own, other) in of_all.relations.iter().zip(&of_few.relations) {
            close(*own, *other, 1e-3);
        }
        let [whole, bins] = [&all, &few].map(|some| some.iter().map(Vec::len).sum::<usize>());
        assert!(bins < whole / 4, "{bins} of {whole}");
        let weight: f32 = few.iter().flatten().map(|one| one.weight).sum();
        assert_eq!(weight, whole as f32);
    }

    #[test]
    fn bins_keep_what_is_true_and_pass_over_what_is_no_number() {
        /// Half a bin between 2 and 4.
        const STEP: f32 = 1.0 / 512.0;
        let one =
            |margin, is_true, weight| Observation { margin, labelled: false, is_true, weight };
        let found = binned(&[
            one(-3.0, false, 1.0),
            one(f32::NAN, true, 1.0),
            one(2.5, true, 1.0),
            one(-3.0 - STEP, false, 1.0),
            one(f32::NEG_INFINITY, false, 1.0),
            one(1.5, true, 1.0),
        ]);
        let expected = [
            one(2.5, true, 1.0),
            one(1.5, true, 1.0),
            one(-3.0 - STEP / 2.0, false, 2.0),
            one(-LARGEST_MARGIN, false, 1.0),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_scale_of_the_margins_plays_no_part() {
        let truth = LogisticFit { slope: 1.3, intercept: -0.5, label: 0.0 };
        let all = [drawn(5_000, 20, truth), drawn(400, 21, LogisticFit::PLAIN)];
        let scaled = |factor: f32| -> Vec<Vec<Observation>> {
            let one = |one: &Observation| Observation { margin: factor * one.margin, ..*one };
            all.iter().map(|own| own.iter().map(one).collect()).collect()
        };
        let (small, large) = (Calibration::fit(&scaled(0.01)), Calibration::fit(&scaled(64.0)));
        for margin in [-3.0, -0.5, 0.0, 1.0, 2.0] {
            for relation in 0..2 {
                let p = small.probability(relation, 0.01 * margin, false);
                let q = large.probability(relation, 64.0 * margin, false);
                assert!((p - q).abs() < 5e-3, "{relation} {margin}: {p} and {q}");
            }
        }
    }

    #[test]
    fn margins_that_point_the_wrong_way_say_nothing() {
        let falling = LogisticFit { slope: -0.6, intercept: -1.0, label: 0.0 };
        let drawn = drawn(4_000, 30, falling);
        let share = drawn.iter().filter(|one| one.is_true).count() as f64 / drawn.len() as f64;
        let fitted = Calibration::fit(&[drawn]);
        for fit in [fitted.common, fitted.relations[0]] {
            assert_eq!(fit.slope, 0.0);
            let unlabelled = fit.probability(0.0, false);
            assert!((unlabelled - share).abs() < 0.03, "{unlabelled} and {share}");
        }
    }

    #[test]
    fn nothing_to_learn_from_is_no_panic() {
        let fitted = Calibration::fit(&[vec![], vec![]]);
        assert_eq!(fitted, Calibration::plain(2));
    }
}
