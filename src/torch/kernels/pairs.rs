//! Bilinear layers over pairs of entities (docs/systems.md, D.2, D.4, H.5 and B.6), batched over
//! all documents of a micro-batch.
//!
//! A pair is two rows of one table of entity vectors [E, d]. Pairs are never expanded to [P, w, d]:
//! relation vectors are contracted with the *distinct* tails first, which reads the weight in the
//! order it is stored (one large product), and ranking scores never see the width w at all. Not
//! for: which pairs are asked for (`sampling`, `systems`).

use std::collections::BTreeMap;

use tch::Tensor;

use super::bags::take;
use super::products::{batched_turned, dot, linear, matmul};
use crate::torch::on;
use crate::{Error, Result};

/// Relation vectors r`[p]` = (headᵀ·W_c·tail + b_c)_c of pairs given as rows of `entities` [E, d]
/// (docs/systems.md, D.2).
///
/// `weight`: `[w, d, d]` (component, head, tail), `bias`: `[w]`; the result is `[P, w]` of the kind
/// of `entities`.
///
/// # Errors
/// [`Error::Bug`] if heads and tails differ in number; libtorch's if a row does not exist.
pub fn relation_vectors(
    entities: &Tensor,
    heads: &[i64],
    tails: &[i64],
    weight: &Tensor,
    bias: &Tensor,
) -> Result<Tensor> {
    same_number(heads, tails)?;
    let (width, inner, _) = weight.size3()?;
    let (kind, device) = (entities.kind(), entities.device());
    let (weight, bias) = (weight.f_to_kind(kind)?, bias.f_to_kind(kind)?);
    if heads.is_empty() {
        // A product of no rows keeps the result connected, so that a loss over it can still be
        // propagated.
        return linear(&entities.f_narrow(0, 0, 0)?, &weight.f_select(2, 0)?, Some(&bias));
    }
    let plan = TailPlan::new(heads, tails);
    let by_tail =
        linear(&take(entities, &plan.tails)?, &weight.f_reshape([width * inner, -1])?, None)?;
    // [distinct tails, w, d]
    let by_tail = by_tail.f_view([plan.tails.len() as i64, width, inner])?;
    let parts: Vec<Tensor> =
        plan.groups.iter().map(|group| group.vectors(entities, &by_tail)).collect::<Result<_>>()?;
    let order = on(&plan.places, device)?;
    Ok(Tensor::f_cat(&parts, 0)?.f_index_select(0, &order)?.f_add(&bias)?)
}

/// Pairs sorted by tail; tails with similarly many pairs form a group that is padded to one number
/// of heads.
#[derive(Debug)]
struct TailPlan {
    /// Distinct tails in the order of the groups.
    tails: Vec<i64>,
    groups: Vec<TailGroup>,
    /// For each pair its row in the concatenated results of the groups.
    places: Vec<i64>,
}

/// Tails `first..first + count` of the plan, each with `slots` heads (the last ones repeated where
/// there are fewer).
#[derive(Debug)]
struct TailGroup {
    first: usize,
    count: usize,
    slots: usize,
    heads: Vec<i64>,
}

impl TailPlan {
    fn new(heads: &[i64], tails: &[i64]) -> Self {
        let mut by_tail: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (pair, &tail) in tails.iter().enumerate() {
            by_tail.entry(tail).or_default().push(pair);
        }
        // Powers of two bound the padding by half and the number of groups by the logarithm of the
        // largest.
        let mut by_slots: BTreeMap<usize, Vec<(i64, Vec<usize>)>> = BTreeMap::new();
        for (tail, pairs) in by_tail {
            by_slots.entry(pairs.len().next_power_of_two()).or_default().push((tail, pairs));
        }
        let mut plan = Self { tails: Vec::new(), groups: Vec::new(), places: vec![0; heads.len()] };
        let mut row = 0;
        for (slots, members) in by_slots {
            let mut group = TailGroup {
                first: plan.tails.len(),
                count: members.len(),
                slots,
                heads: Vec::new(),
            };
            for (tail, pairs) in members {
                plan.tails.push(tail);
                for slot in 0..slots {
                    let pair = pairs[slot.min(pairs.len() - 1)];
                    group.heads.push(heads[pair]);
                    if slot < pairs.len() {
                        plan.places[pair] = row;
                    }
                    row += 1;
                }
            }
            plan.groups.push(group);
        }
        plan
    }
}

impl TailGroup {
    /// [count · slots, w]
    fn vectors(&self, entities: &Tensor, by_tail: &Tensor) -> Result<Tensor> {
        let (count, slots) = (self.count as i64, self.slots as i64);
        let mine = by_tail.f_narrow(0, self.first as i64, count)?; // [count, w, d]
        let heads = take(entities, &self.heads)?.f_view([count, slots, -1])?;
        Ok(batched_turned(&heads, &mine)?.f_view([count * slots, -1])?)
    }
}

/// The ranking score of a pair (docs/systems.md, D.4) as one matrix: w_nᵀ·r + b_n = headᵀ·M·tail +
/// constant, with M = Σ_c w_n\[c\]·W_c [d, d] and constant = w_nᵀ·b + b_n (a scalar tensor).
/// `weight`: `[w, d, d]`, `bias`: `[w]`, `score_weight`: `[1, w]`, `score_bias`: `[1]`.
///
/// # Errors
/// If the shapes do not fit.
pub fn ranking_matrix(
    weight: &Tensor,
    bias: &Tensor,
    score_weight: &Tensor,
    score_bias: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let (width, head, tail) = weight.size3()?;
    let matrix =
        matmul(score_weight, &weight.f_view([width, head * tail])?)?.f_view([head, tail])?;
    let constant = dot(score_weight, bias)?.f_add(score_bias)?.f_squeeze_dim(0)?;
    Ok((matrix, constant))
}

/// Ranking scores `[P]` of pairs of rows of `entities` `[E, d]`, with what [`ranking_matrix`] gave.
///
/// # Errors
/// As [`relation_vectors`].
pub fn ranking_scores(
    entities: &Tensor,
    heads: &[i64],
    tails: &[i64],
    matrix: &Tensor,
    constant: &Tensor,
) -> Result<Tensor> {
    same_number(heads, tails)?;
    let forward = matmul(entities, &matrix.f_to_kind(entities.kind())?)?; // [E, d]
    let products = take(&forward, heads)?.f_mul(&take(entities, tails)?)?;
    Ok(products.f_sum_dim_intlist(-1, false, products.kind())?.f_add(constant)?)
}

fn same_number(heads: &[i64], tails: &[i64]) -> Result<()> {
    if heads.len() == tails.len() {
        return Ok(());
    }
    Err(Error::Bug(format!("{} heads cannot be paired with {} tails", heads.len(), tails.len())))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::torch::plain::pairs::relation_vectors as plain;
    use crate::torch::rng::Generator;

    const HEADS: [i64; 11] = [0, 1, 2, 3, 4, 0, 6, 6, 1, 0, 0];
    const TAILS: [i64; 11] = [5, 5, 5, 5, 5, 1, 1, 2, 1, 5, 5];

    struct Layer {
        entities: Tensor,
        weight: Tensor,
        bias: Tensor,
        score_weight: Tensor,
        score_bias: Tensor,
    }

    fn layer() -> Layer {
        let mut generator = Generator::of_test(3);
        let mut leaf =
            |shape: &[i64]| generator.uniform(shape, -0.5, 0.5).unwrap().set_requires_grad(true);
        Layer {
            entities: leaf(&[7, 6]),
            weight: leaf(&[4, 6, 6]),
            bias: leaf(&[4]),
            score_weight: leaf(&[1, 4]),
            score_bias: leaf(&[1]),
        }
    }

    /// The formula.
    fn direct(layer: &Layer) -> Tensor {
        plain(&layer.entities, &HEADS, &TAILS, &layer.weight, &layer.bias).to_kind(Kind::Float)
    }

    fn gradients(layer: &Layer, result: &Tensor) -> Vec<Tensor> {
        let upstream =
            Tensor::arange(result.numel() as i64, (Kind::Float, Device::Cpu)).sin().view_as(result);
        let mut leaves =
            [&layer.entities, &layer.weight, &layer.bias, &layer.score_weight, &layer.score_bias]
                .map(Tensor::shallow_clone);
        leaves.iter_mut().for_each(Tensor::zero_grad);
        (result * upstream).sum(Kind::Float).backward();
        leaves
            .iter()
            .map(|leaf| if leaf.grad().defined() { leaf.grad().copy() } else { leaf.zeros_like() })
            .collect()
    }

    fn assert_close(a: &Tensor, b: &Tensor) {
        assert_eq!(a.size(), b.size());
        let error = (a - b).abs().max().double_value(&[]);
        assert!(error <= 1e-5, "{error}");
    }

    fn assert_same(layer: &Layer, got: &Tensor, expected: &Tensor) {
        assert_close(got, expected);
        for (a, b) in gradients(layer, got).iter().zip(gradients(layer, expected)) {
            assert_close(a, &b);
        }
    }

    #[test]
    fn relation_vectors_equal_the_formula() {
        let layer = layer();
        let got =
            relation_vectors(&layer.entities, &HEADS, &TAILS, &layer.weight, &layer.bias).unwrap();
        assert_same(&layer, &got, &direct(&layer));
    }

    #[test]
    fn ranking_scores_equal_a_linear_layer_over_relation_vectors() {
        let layer = layer();
        let (matrix, constant) =
            ranking_matrix(&layer.weight, &layer.bias, &layer.score_weight, &layer.score_bias)
                .unwrap();
        let got = ranking_scores(&layer.entities, &HEADS, &TAILS, &matrix, &constant).unwrap();
        let expected =
            direct(&layer).linear(&layer.score_weight, Some(&layer.score_bias)).squeeze_dim(1);
        assert_same(&layer, &got, &expected);
    }

    #[test]
    fn no_pairs_give_an_empty_connected_result() {
        let layer = layer();
        let got = relation_vectors(&layer.entities, &[], &[], &layer.weight, &layer.bias).unwrap();
        assert_eq!(got.size(), [0, 4]);
        got.sum(Kind::Float).backward();
        assert_eq!(layer.weight.grad(), layer.weight.zeros_like());
        assert!(relation_vectors(&layer.entities, &[0], &[], &layer.weight, &layer.bias).is_err());
    }

    #[test]
    fn padding_stays_below_twice_the_pairs() {
        let plan = TailPlan::new(&HEADS, &TAILS);
        let padded: usize = plan.groups.iter().map(|group| group.heads.len()).sum();
        assert_eq!(plan.tails, [2, 1, 5]);
        assert_eq!(padded, 1 + 4 + 8);
        assert!(padded < 2 * HEADS.len());
    }
}
