//! Bilinear layers over pairs, as their formulas stand.

use tch::{Kind, Tensor};

use super::double;

/// ATLOP's own way to the grouped layer: outer products, then a linear layer. `heads`, `tails`:
/// `[P, blocks·b]`, `weight`: `[C, blocks·b²]` → `[P, C]`.
pub fn grouped(heads: &Tensor, tails: &Tensor, weight: &Tensor, blocks: i64) -> Tensor {
    let split = |z: &Tensor| {
        let width = z.size()[1] / blocks;
        double(z).view([z.size()[0], blocks, width])
    };
    let outer = split(heads).unsqueeze(3) * split(tails).unsqueeze(2);
    outer.flatten(1, -1).matmul(&double(weight).transpose(0, 1))
}

/// r`[p, c]` = Σ_ij head`[i]` · W`[c, i, j]` · tail`[j]` + b`[c]`; `entities`: [E, d], `weight`:
/// `[w, d, d]`, `bias`: `[w]` → `[P, w]`.
pub fn relation_vectors(
    entities: &Tensor,
    heads: &[i64],
    tails: &[i64],
    weight: &Tensor,
    bias: &Tensor,
) -> Tensor {
    let rows = |rows: &[i64]| double(entities).index_select(0, &Tensor::from_slice(rows));
    let factors = [rows(heads), double(weight), rows(tails)];
    Tensor::einsum("pi,cij,pj->pc", &factors, None::<i64>) + double(bias)
}

/// Bags of rows of `table` [rows, width], each the sum of its rows times their weights.
pub fn bags(table: &Tensor, bags: &[Vec<i64>], weights: &Tensor) -> Tensor {
    let (table, weights, mut first) = (double(table), double(weights), 0);
    let sums = bags.iter().map(|rows| {
        let own = weights.narrow(0, first, rows.len() as i64).unsqueeze(1);
        first += rows.len() as i64;
        (table.index_select(0, &Tensor::from_slice(rows)) * own).sum_dim_intlist(
            0,
            false,
            Kind::Double,
        )
    });
    Tensor::stack(&sums.collect::<Vec<_>>(), 0)
}

/// Softmax over each range of rows of `scores` [entries, heads].
pub fn group_softmax(scores: &Tensor, offsets: &[i64]) -> Tensor {
    let scores = double(scores);
    let parts = offsets
        .windows(2)
        .map(|range| scores.narrow(0, range[0], range[1] - range[0]).softmax(0, Kind::Double));
    Tensor::cat(&parts.collect::<Vec<_>>(), 0)
}
