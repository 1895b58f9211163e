//! Losses row by row, from their definitions. Not for: rows to be ignored.

use tch::{Kind, Tensor};

use super::double;
use crate::torch::nn::losses::FocalWeight;

/// Σ −log softmax(logits)`[answer]`; `[R, C]`.
pub fn cross_entropy_sum(logits: &Tensor, answers: &[i64]) -> Tensor {
    let logits = double(logits);
    let rows = (0..).zip(answers).map(|(row, &answer): (i64, _)| {
        let row = logits.get(row);
        row.logsumexp(0, false) - row.get(answer)
    });
    total(&rows.collect::<Vec<_>>())
}

/// Σ of weight · (−t·ln σ(x) − (1 − t)·ln(1 − σ(x))).
pub fn weighted_bce_sum(logits: &Tensor, targets: &Tensor, weights: &Tensor) -> Tensor {
    let (x, t) = (double(logits), double(targets));
    let yes: Tensor = (-&x).exp().log1p();
    let no = x.exp().log1p();
    let rest: Tensor = 1.0 - &t;
    ((&t * yes + rest * no) * double(weights)).sum(Kind::Double)
}

/// V.4 of docs/systems.md; [P, C], class 0 the threshold.
pub fn soft_margin_sum(logits: &Tensor, targets: &Tensor, weights: &Tensor) -> Tensor {
    let relations = |all: &Tensor| all.narrow(1, 1, all.size()[1] - 1);
    let margins = relations(logits) - logits.narrow(1, 0, 1);
    weighted_bce_sum(&margins, &relations(targets), &relations(weights))
}

/// Relations that hold for a pair, and those that do not, by their multi-hot targets `[C]`.
fn held(targets: &Tensor) -> (Vec<i64>, Vec<i64>) {
    (1..targets.size()[0]).partition(|&class| targets.double_value(&[class]) > 0.0)
}

/// −ln of the share of `class` among itself and `others`; `logits`: `[C]`.
fn surprise(logits: &Tensor, class: i64, others: &[i64]) -> Tensor {
    let all: Vec<i64> = [class].iter().chain(others).copied().collect();
    logits.index_select(0, &Tensor::from_slice(&all)).logsumexp(0, false) - logits.get(class)
}

/// C.11 of docs/systems.md; [P, C], class 0 the threshold.
pub fn adaptive_threshold_sum(logits: &Tensor, targets: &Tensor) -> Tensor {
    let (logits, targets, mut terms) = (double(logits), double(targets), Vec::new());
    for pair in 0..logits.size()[0] {
        let (row, (true_ones, false_ones)) = (logits.get(pair), held(&targets.get(pair)));
        for &class in &true_ones {
            let rivals: Vec<i64> =
                [0].iter().chain(&true_ones).copied().filter(|&other| other != class).collect();
            terms.push(surprise(&row, class, &rivals));
        }
        terms.push(surprise(&row, 0, &false_ones));
    }
    total(&terms)
}

/// K.6 of docs/systems.md; [P, C], class 0 the threshold.
pub fn adaptive_focal_sum(logits: &Tensor, targets: &Tensor, weight: FocalWeight) -> Tensor {
    let (logits, targets, mut terms) = (double(logits), double(targets), Vec::new());
    for pair in 0..logits.size()[0] {
        let (row, (true_ones, false_ones)) = (logits.get(pair), held(&targets.get(pair)));
        for &class in &true_ones {
            let surprise = surprise(&row, class, &[0]);
            let sure: Tensor = (-&surprise).exp();
            let unsure: Tensor = 1.0 - sure;
            terms.push((unsure.pow_tensor_scalar(weight.gamma) + weight.base) * surprise);
        }
        terms.push(surprise(&row, 0, &false_ones));
    }
    total(&terms)
}

fn total(terms: &[Tensor]) -> Tensor {
    Tensor::stack(terms, 0).sum(Kind::Double)
}
