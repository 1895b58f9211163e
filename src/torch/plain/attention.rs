//! Attention probabilities pair of tokens by pair of tokens.

use tch::{Device, Kind, Tensor};

use super::double;
use crate::torch::kernels::scores::ScoreTerms;

/// The probabilities of one document, from the formula of [`ScoreTerms`] written out for every pair
/// of tokens; `document`: [L, 3, heads, width] → [heads, L, L].
pub fn probabilities(document: &Tensor, terms: &ScoreTerms) -> Tensor {
    let (length, _, heads, width) = document.size4().unwrap_or_default();
    if length == 0 {
        return Tensor::zeros([heads, 0, 0], (Kind::Double, Device::Cpu));
    }
    let turned = |slot: i64| {
        let x = double(&document.select(1, slot)).transpose(0, 1);
        let Some(rotary) = &terms.rotary else { return x };
        let half = width / 2;
        let [cos, sin] = [0, 1].map(|part| double(&rotary.get(part)).narrow(0, 0, length));
        let (a, b) = (x.narrow(2, 0, half), x.narrow(2, half, half));
        Tensor::cat(&[&a * &cos - &b * &sin, &b * &cos + &a * &sin], 2)
    };
    let (q, k) = (turned(0), turned(1));
    let positions = Tensor::arange(length, (Kind::Int64, Device::Cpu));
    let distances = positions.unsqueeze(0) - positions.unsqueeze(1);
    let mut scores = q.matmul(&k.transpose(1, 2)) * terms.scale;
    if let Some(index) = &terms.index {
        // [L, L, ...] of the row of every pair.
        let rows = index.rows_of(&distances).unwrap_or_else(|error| panic!("{error}"));
        let rows = rows.reshape([-1]);
        let of_pairs =
            |table: &Tensor| double(table).index_select(0, &rows).view([length, length, heads, -1]);
        if let Some(table) = &terms.key_table {
            let products = Tensor::einsum("hid,ijhd->hij", &[&q, &of_pairs(table)], None::<i64>);
            scores += products * terms.scale;
        }
        if let Some(table) = &terms.query_table {
            let products = Tensor::einsum("hjd,ijhd->hij", &[&k, &of_pairs(table)], None::<i64>);
            scores += products * terms.scale;
        }
        if let Some(bias) = &terms.bias {
            scores += of_pairs(bias).squeeze_dim(3).permute([2, 0, 1]);
        }
    }
    if let Some(window) = terms.window {
        scores = scores.masked_fill(&distances.abs().gt(window), f64::NEG_INFINITY);
    }
    scores.softmax(-1, Kind::Double)
}

/// Attention inside each document of a stream [T, 3, heads, width] → [T, heads · width]. `keep`:
/// factors on the probabilities of the only document, [heads, L, L].
pub fn attention(
    qkv: &Tensor,
    offsets: &[i64],
    terms: &ScoreTerms,
    keep: Option<&Tensor>,
) -> Tensor {
    let parts = offsets.windows(2).map(|range| {
        let document = qkv.narrow(0, range[0], range[1] - range[0]);
        let values = double(&document.select(1, 2)).transpose(0, 1);
        let own = probabilities(&document, terms);
        let own = keep.map_or_else(|| own.shallow_clone(), |keep| &own * double(keep));
        own.matmul(&values).transpose(0, 1).flatten(1, 2)
    });
    Tensor::cat(&parts.collect::<Vec<_>>(), 0)
}
