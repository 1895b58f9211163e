//! Plain arithmetic in 64 bits on lists of numbers, for references that share nothing with what
//! they check.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::torch::Parameters;

pub(crate) type Row = Vec<f64>;

/// The numbers of a tensor.
pub(crate) fn numbers(tensor: &Tensor) -> Row {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).contiguous().view([-1])).unwrap()
}

/// The rows of a matrix.
pub(crate) fn rows(matrix: &Tensor) -> Vec<Row> {
    let width = matrix.size()[1] as usize;
    numbers(matrix).chunks(width).map(<[f64]>::to_vec).collect()
}

/// Fails where a number is further than `tolerance` from its reference, relative to the largest.
pub(crate) fn assert_close(what: &str, ours: &[f64], reference: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), reference.len(), "{what}");
    let scale = reference.iter().fold(1e-3, |largest: f64, x| largest.max(x.abs()));
    for (index, (a, b)) in ours.iter().zip(reference).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{what}, number {index}: {a} and not {b}");
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

pub(crate) fn add(a: &[f64], b: &[f64]) -> Row {
    a.iter().zip(b).map(|(x, y)| x + y).collect()
}

pub(crate) fn softmax(scores: &[f64]) -> Row {
    let all: f64 = scores.iter().map(|score| score.exp()).sum();
    scores.iter().map(|score| score.exp() / all).collect()
}

/// The mean of `values`, `width` wide, with softmax(`scores`) as weights; zeros where there are
/// none.
pub(crate) fn attend(scores: &[f64], values: &[&[f64]], width: usize) -> Row {
    let mut mixed = vec![0.0; width];
    for (share, value) in softmax(scores).iter().zip(values) {
        mixed = mixed.iter().zip(*value).map(|(sum, x)| sum + share * x).collect();
    }
    mixed
}

/// The weights of a model, by name.
pub(crate) struct Plain(pub BTreeMap<String, Row>);

impl Plain {
    pub(crate) fn of(parameters: &Parameters) -> Self {
        let weights = parameters.iter().map(|p| (p.name.clone(), numbers(&p.tensor)));
        Self(weights.collect())
    }

    /// W x.
    pub(crate) fn product(&self, weight: &str, x: &[f64]) -> Row {
        self.0[weight].chunks(x.len()).map(|row| dot(row, x)).collect()
    }

    /// W x + b.
    pub(crate) fn linear(&self, name: &str, x: &[f64]) -> Row {
        add(&self.product(&format!("{name}.weight"), x), &self.0[&format!("{name}.bias")])
    }

    pub(crate) fn layer_norm(&self, name: &str, x: &[f64], epsilon: f64) -> Row {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let (scale, shift) = (&self.0[&format!("{name}.weight")], &self.0[&format!("{name}.bias")]);
        let normal = x.iter().map(|x| (x - mean) / (variance + epsilon).sqrt());
        normal.zip(scale).zip(shift).map(|((x, scale), shift)| x * scale + shift).collect()
    }
}
