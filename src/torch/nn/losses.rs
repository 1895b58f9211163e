//! Losses as sums over rows; the caller divides by global counts.
//!
//! Rows to be ignored are never given, so that no row has to be masked. Sums are made in fp32.

use tch::{Device, Kind, Reduction, Tensor};

use crate::torch::on;
use crate::{Error, Result};

/// Σ over rows of −log softmax(logits)`[answer]`; `logits`: `[R, C]`, one answer in 0..C a row.
/// Without rows: 0, and backward gives zeros.
///
/// # Errors
/// [`Error::Bug`] where the number of answers or an answer does not fit.
pub fn cross_entropy_sum(logits: &Tensor, answers: &[i64]) -> Result<Tensor> {
    cross_entropy_sum_of(logits, answers, |device| on(answers, device))
}

/// The same with a way to get the answers on the device of the logits; int64 `[R]`.
///
/// # Errors
/// As [`cross_entropy_sum`].
pub fn cross_entropy_sum_of(
    logits: &Tensor,
    answers: &[i64],
    uploaded: impl FnOnce(Device) -> Result<Tensor>,
) -> Result<Tensor> {
    let (rows, classes) = logits.size2()?;
    if answers.len() as i64 != rows || answers.iter().any(|answer| !(0..classes).contains(answer)) {
        return Err(Error::Bug(format!(
            "answers {answers:?} do not fit logits [{rows}, {classes}]"
        )));
    }
    let logits = logits.f_to_kind(Kind::Float)?;
    if rows == 0 {
        return Ok(logits.f_sum(Kind::Float)?);
    }
    let answers = uploaded(logits.device())?;
    let no_weight: Option<Tensor> = None;
    // Answers are in 0..C, so libtorch's customary "ignore" value never occurs.
    Ok(logits.f_cross_entropy_loss(&answers, no_weight, Reduction::Sum, -100, 0.0)?)
}

/// Σ over all elements of the binary cross-entropy of sigmoid(logits) with `targets` in [0, 1],
/// both of one shape.
///
/// # Errors
/// If the shapes differ.
pub fn bce_sum(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let logits = logits.f_to_kind(Kind::Float)?;
    let no_weight: Option<Tensor> = None;
    Ok(logits.f_binary_cross_entropy_with_logits(
        &targets.f_to_kind(Kind::Float)?,
        no_weight,
        None,
        Reduction::Sum,
    )?)
}

/// Σ over all elements of a weight times the binary cross-entropy of sigmoid(logits) with `targets`
/// in [0, 1], all of one shape.
///
/// # Errors
/// If the shapes differ.
pub fn weighted_bce_sum(logits: &Tensor, targets: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let logits = logits.f_to_kind(Kind::Float)?;
    Ok(logits.f_binary_cross_entropy_with_logits(
        &targets.f_to_kind(Kind::Float)?,
        Some(weights.f_to_kind(Kind::Float)?),
        None,
        Reduction::Sum,
    )?)
}

/// Σ over pairs and relations of a weight times the binary cross-entropy of σ(l_r − l_TH) with
/// `targets` in [0, 1] (docs/systems.md, V.4); `logits`, `targets` and `weights`: [P, C], class 0
/// the threshold, whose targets and weights are not read.
///
/// # Errors
/// If the shapes differ.
pub fn soft_margin_sum(logits: &Tensor, targets: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let logits = logits.f_to_kind(Kind::Float)?;
    let relations = |all: &Tensor| all.f_narrow(1, 1, all.size()[1] - 1);
    let margins = relations(&logits)?.f_sub(&logits.f_narrow(1, 0, 1)?)?;
    weighted_bce_sum(&margins, &relations(targets)?, &relations(weights)?)
}

/// Σ over pairs of ATLOP's adaptive-threshold loss (docs/systems.md, C.11); `logits` and multi-hot
/// `targets`: [P, C], class 0 the threshold.
///
/// The positive part ranks every true relation above the threshold class, the negative part the
/// threshold above every other relation. In 32 bits.
///
/// # Errors
/// If the shapes differ.
pub fn adaptive_threshold_sum(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let logits = logits.f_to_kind(Kind::Float)?;
    let Relations { positive, threshold } = Relations::of(targets)?;
    let without_negatives = logits.f_add(&((1.0 - &positive - &threshold) * HIDDEN))?;
    let of_positives =
        without_negatives.f_log_softmax(1, Kind::Float)?.f_mul(&positive)?.f_sum(Kind::Float)?;
    Ok((of_positives + of_threshold(&logits, &positive)?).f_neg()?)
}

/// The weight w(p) of a positive class in [`adaptive_focal_sum`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FocalWeight {
    /// What is added to (1 − p)^γ.
    pub base: f64,
    /// γ, at least 0.
    pub gamma: f64,
}

/// Σ over pairs of KD-DocRE's adaptive focal loss (docs/systems.md, K.6); `logits` and multi-hot
/// `targets`: [P, C], class 0 the threshold.
///
/// The positive part compares each true relation with the threshold class alone, weighted by how
/// unsure it is; the negative part is that of [`adaptive_threshold_sum`]. In 32 bits.
///
/// # Errors
/// If the shapes differ.
pub fn adaptive_focal_sum(
    logits: &Tensor,
    targets: &Tensor,
    weight: FocalWeight,
) -> Result<Tensor> {
    let logits = logits.f_to_kind(Kind::Float)?;
    let Relations { positive, .. } = Relations::of(targets)?;
    let margins = logits.f_sub(&logits.f_narrow(1, 0, 1)?)?;
    // (1 − p)^γ by its logarithm: it has a gradient at p = 1 as well.
    let unsure = margins.f_neg()?.f_log_sigmoid()?.f_mul_scalar(weight.gamma)?.f_exp()?;
    let weights = unsure.f_add_scalar(weight.base)?.f_mul(&positive)?;
    let of_positives = margins.f_log_sigmoid()?.f_mul(&weights)?.f_sum(Kind::Float)?;
    Ok((of_positives + of_threshold(&logits, &positive)?).f_neg()?)
}

/// Hides a logit from a softmax.
const HIDDEN: f64 = -1e30;

/// Targets [P, C] by their part: true relations, and the threshold class.
struct Relations {
    positive: Tensor,
    threshold: Tensor,
}

impl Relations {
    fn of(targets: &Tensor) -> Result<Self> {
        let threshold = Tensor::f_zeros_like(targets)?.f_to_kind(Kind::Float)?;
        let _filled = threshold.f_narrow(1, 0, 1)?.f_fill_(1.0)?;
        // The threshold is not a relation, even where the targets mark NA.
        let positive = targets.f_to_kind(Kind::Float)?.f_mul(&(1.0 - &threshold))?;
        Ok(Self { positive, threshold })
    }
}

/// Σ over pairs of the threshold's log-share among itself and the relations that do not hold.
fn of_threshold(logits: &Tensor, positive: &Tensor) -> Result<Tensor> {
    let without_positives = logits.f_add(&(positive * HIDDEN))?;
    Ok(without_positives.f_log_softmax(1, Kind::Float)?.f_narrow(1, 0, 1)?.f_sum(Kind::Float)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_of_hand_made_rows() {
        // Row 1: two equal candidates, ln 2. Row 2: odds 3 : 1 for the wrong one, ln 4.
        let logits = Tensor::from_slice(&[0.0, 0.0, 0.0, 3f64.ln()])
            .view([2, 2])
            .to_kind(Kind::Float)
            .set_requires_grad(true);
        let loss = cross_entropy_sum(&logits, &[1, 0]).unwrap();
        assert!((loss.double_value(&[]) - (2f64.ln() + 4f64.ln())).abs() < 1e-6);
        loss.backward();
        let expected = Tensor::from_slice(&[0.5f32, -0.5, -0.75, 0.75]).view([2, 2]);
        assert!((logits.grad() - expected).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn no_rows_cost_nothing_and_can_be_propagated() {
        let weight = Tensor::ones([3, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let loss = cross_entropy_sum(&weight.narrow(0, 0, 0), &[]).unwrap()
            + bce_sum(&weight.narrow(0, 0, 0), &Tensor::zeros([0, 4], (Kind::Float, Device::Cpu)))
                .unwrap();
        assert_eq!(loss.double_value(&[]), 0.0);
        loss.backward();
        assert_eq!(weight.grad(), weight.zeros_like());
    }

    #[test]
    fn answers_must_fit() {
        let logits = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        for answers in [&[0][..], &[0, 3], &[-100, 0]] {
            assert!(cross_entropy_sum(&logits, answers).is_err(), "{answers:?}");
        }
    }

    #[test]
    fn adaptive_threshold_of_hand_made_pairs() {
        // Pair 1 holds relation 1: −ln(e^l1 / (e^l1 + e^l0)) − ln(e^l0 / (e^l0 + e^l2)) with odds 3
        // : 1 and 1 : 2. Pair 2 holds none, its threshold is marked NA: −ln(1 / 3).
        let logits = Tensor::from_slice(&[0.0, 3f64.ln(), 2f64.ln(), 0.0, 0.0, 0.0])
            .view([2, 3])
            .set_requires_grad(true);
        let targets = Tensor::from_slice(&[0.0f32, 1.0, 0.0, 1.0, 0.0, 0.0]).view([2, 3]);
        let loss = adaptive_threshold_sum(&logits, &targets).unwrap();
        assert!(
            (loss.double_value(&[]) - ((4f64 / 3.0).ln() + 3f64.ln() + 3f64.ln())).abs() < 1e-6
        );
        loss.backward();
        let expected = Tensor::from_slice(&[
            1.0 / 4.0 - 2.0 / 3.0,
            -1.0 / 4.0,
            2.0 / 3.0,
            -2.0 / 3.0,
            1.0 / 3.0,
            1.0 / 3.0,
        ])
        .view([2, 3]);
        assert!((logits.grad() - expected).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn adaptive_focal_loss_of_a_hand_made_pair() {
        // Relation 1 holds with odds 3 : 1 against the threshold: p = 3/4. The odds of the
        // threshold against relation 2 are 1 : 2, which costs ln 3.
        let logits = Tensor::from_slice(&[0.0, 3f64.ln(), 2f64.ln()]).view([1, 3]);
        let targets = Tensor::from_slice(&[0.0f32, 1.0, 0.0]).view([1, 3]);
        for (base, gamma, weight) in
            [(0.0, 0.0, 1.0), (0.0, 1.0, 0.25), (1.0, 1.0, 1.25), (1.0, 2.0, 1.0625)]
        {
            let loss = adaptive_focal_sum(&logits, &targets, FocalWeight { base, gamma }).unwrap();
            let expected = weight * (4f64 / 3.0).ln() + 3f64.ln();
            assert!((loss.double_value(&[]) - expected).abs() < 1e-6, "{base} {gamma}");
        }
    }

    #[test]
    fn a_sure_relation_has_a_finite_focal_gradient() {
        let logits =
            Tensor::from_slice(&[0.0f32, 200.0, -200.0]).view([1, 3]).set_requires_grad(true);
        let targets = Tensor::from_slice(&[0.0f32, 1.0, 0.0]).view([1, 3]);
        let weight = FocalWeight { base: 0.0, gamma: 0.5 };
        adaptive_focal_sum(&logits, &targets, weight).unwrap().backward();
        assert_eq!(logits.grad().isfinite().all().int64_value(&[]), 1);
    }

    #[test]
    fn binary_cross_entropy_of_hand_made_elements() {
        // sigmoid(ln 3) = 3/4: −ln(3/4) for target 1, −ln(1/4) for target 0.
        let logits = Tensor::from_slice(&[3f64.ln(), 3f64.ln()]);
        let loss = bce_sum(&logits, &Tensor::from_slice(&[1.0, 0.0])).unwrap();
        assert!((loss.double_value(&[]) - (4f64 / 3.0).ln() - 4f64.ln()).abs() < 1e-6);
    }
}
