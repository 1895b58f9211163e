//! Bilinear layers over pairs of entities (docs/systems.md, D.2, D.4, H.5 and B.6), batched over
//! all documents of a micro-batch.
//!
//! A pair is two rows of one table of entity vectors [E, d]. Pairs are never expanded to [P, w, d]:
//! relation vectors are contracted with the *distinct* tails first, which reads the weight in the
//! order it is stored (one large product), and ranking scores never see the width w at all. Not
//! for: which pairs are asked for (`sampling`, `systems`).

use std::collections::BTreeMap;

use tch::Tensor;

use super::products::{batched_turned, dot, linear, matmul};
use crate::torch::shim::{check, docre_relation_layer};
use crate::torch::{Arena, Table, Uploaded, on};
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
    let kind = entities.kind();
    let (weight, bias) = (weight.f_to_kind(kind)?, bias.f_to_kind(kind)?);
    if heads.is_empty() {
        // A product of no rows keeps the result connected, so that a loss over it can still be
        // propagated.
        return linear(&entities.f_narrow(0, 0, 0)?, &weight.f_select(2, 0)?, Some(&bias));
    }
    let plan = TailPlan::new(heads, tails);
    let mut arena = Arena::default();
    let tables = plan.lay(&mut arena);
    let uploaded = arena.upload(entities.device())?;
    let by_tail = tail_products(&plan.tails_of(entities, &tables, &uploaded)?, &weight)?;
    plan.vectors(entities, &by_tail, &bias, (&tables, &uploaded))
}

/// The products of every component of `weight` [w, d, d] with `tails` [T, d]; [T, w, d].
///
/// # Errors
/// If the shapes do not fit.
pub fn tail_products(tails: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (width, inner, _) = weight.size3()?;
    let flat = linear(tails, &weight.f_reshape([width * inner, -1])?, None)?;
    Ok(flat.f_view([tails.size()[0], width, inner])?)
}

/// On a GPU what [`tail_products`] gives, and the matrix of [`ranking_matrix`], with one gradient
/// of `weight` for both: the weight is the largest tensor of its model. 32 bits.
///
/// # Errors
/// If the shapes do not fit.
pub fn tail_products_and_matrix(
    tails: &Tensor,
    weight: &Tensor,
    score_weight: &Tensor,
) -> Result<[Tensor; 2]> {
    let mut both = [Tensor::new(), Tensor::new()];
    let [by_tail, matrix] = both.each_mut().map(Tensor::as_mut_ptr);
    // SAFETY: all pointers are to live tensors.
    check(unsafe {
        docre_relation_layer(
            weight.as_ptr(),
            tails.as_ptr(),
            score_weight.as_ptr(),
            by_tail,
            matrix,
        )
    })?;
    Ok(both)
}

/// Pairs sorted by tail; tails with similarly many pairs form a group that is padded to one number
/// of heads. Host data.
#[derive(Debug, Default)]
pub struct TailPlan {
    /// Distinct tails in the order of the groups.
    tails: Vec<i64>,
    groups: Vec<TailGroup>,
    /// For each pair its row in the concatenated results of the groups.
    places: Vec<i64>,
}

/// The places of a [`TailPlan`]'s tables in an [`Arena`].
#[derive(Clone, Copy, Debug, Default)]
pub struct TailTables {
    tails: Table,
    /// The heads of all groups.
    heads: Table,
    places: Table,
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
    /// The plan of pairs given as rows of a table of entities, as many heads as tails.
    pub fn new(heads: &[i64], tails: &[i64]) -> Self {
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

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Puts its tables into an arena.
    pub fn lay(&self, arena: &mut Arena) -> TailTables {
        let heads: Vec<i64> =
            self.groups.iter().flat_map(|group| group.heads.iter().copied()).collect();
        TailTables {
            tails: arena.add(&self.tails),
            heads: arena.add(&heads),
            places: arena.add(&self.places),
        }
    }

    /// The distinct tails as vectors; [T, d].
    ///
    /// # Errors
    /// If a row does not exist.
    pub fn tails_of(
        &self,
        entities: &Tensor,
        tables: &TailTables,
        uploaded: &Uploaded,
    ) -> Result<Tensor> {
        Ok(entities.f_index_select(0, &uploaded.table(tables.tails)?)?)
    }

    /// Relation vectors of the pairs, in the order in which they were given; `by_tail` [T, w, d] is
    /// what [`tail_products`] gave; [P, w].
    ///
    /// # Errors
    /// If a row does not exist or the shapes do not fit.
    pub fn vectors(
        &self,
        entities: &Tensor,
        by_tail: &Tensor,
        bias: &Tensor,
        (tables, uploaded): (&TailTables, &Uploaded),
    ) -> Result<Tensor> {
        let rows = uploaded.table(tables.heads)?;
        // A GPU takes all heads at once. Elsewhere each group takes its own: the gradients of the
        // entities are added up in another order otherwise.
        let all = entities.device().is_cuda().then(|| entities.f_index_select(0, &rows));
        let all = all.transpose()?;
        let mut at = 0;
        let mut parts = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let (count, slots) = (group.count as i64, group.slots as i64);
            let heads = match &all {
                Some(all) => all.f_narrow(0, at, count * slots)?,
                None => entities.f_index_select(0, &rows.f_narrow(0, at, count * slots)?)?,
            };
            at += count * slots;
            let mine = by_tail.f_narrow(0, group.first as i64, count)?; // [count, w, d]
            let vectors = batched_turned(&heads.f_view([count, slots, -1])?, &mine)?;
            parts.push(vectors.f_view([count * slots, -1])?);
        }
        let order = uploaded.table(tables.places)?;
        Ok(Tensor::f_cat(&parts, 0)?.f_index_select(0, &order)?.f_add(bias)?)
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
    Ok((matrix, ranking_constant(bias, score_weight, score_bias)?))
}

/// The constant of [`ranking_matrix`].
///
/// # Errors
/// If the shapes do not fit.
pub fn ranking_constant(
    bias: &Tensor,
    score_weight: &Tensor,
    score_bias: &Tensor,
) -> Result<Tensor> {
    Ok(dot(score_weight, bias)?.f_add(score_bias)?.f_squeeze_dim(0)?)
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
    let device = entities.device();
    ranking_scores_of(entities, &on(heads, device)?, &on(tails, device)?, matrix, constant)
}

/// The same with rows on the device; int64 `[P]`.
///
/// # Errors
/// As [`ranking_scores`].
pub fn ranking_scores_of(
    entities: &Tensor,
    heads: &Tensor,
    tails: &Tensor,
    matrix: &Tensor,
    constant: &Tensor,
) -> Result<Tensor> {
    let forward = matmul(entities, &matrix.f_to_kind(entities.kind())?)?; // [E, d]
    let heads = forward.f_index_select(0, heads)?;
    let products = heads.f_mul(&entities.f_index_select(0, tails)?)?;
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

    #[test]
    fn one_gradient_of_the_weight_is_the_sum_of_both() {
        let layer = layer();
        let tails = || layer.entities.index_select(0, &Tensor::from_slice(&TAILS));
        let apart = || {
            let by_tail = tail_products(&tails(), &layer.weight).unwrap();
            let (matrix, _) =
                ranking_matrix(&layer.weight, &layer.bias, &layer.score_weight, &layer.score_bias)
                    .unwrap();
            [by_tail, matrix]
        };
        let joint =
            || tail_products_and_matrix(&tails(), &layer.weight, &layer.score_weight).unwrap();
        let leaves = [&layer.weight, &layer.entities, &layer.score_weight];
        for used in [[true, true], [true, false], [false, true]] {
            let results = [apart(), joint()].map(|both| {
                let upstream = |x: &Tensor| {
                    let numbers = Tensor::arange(x.numel() as i64, (Kind::Float, Device::Cpu));
                    (x * numbers.sin().view_as(x)).sum(Kind::Float)
                };
                let terms = both.iter().zip(used).filter(|(_, used)| *used);
                let loss = terms.map(|(part, _)| upstream(part)).reduce(|a, b| a + b).unwrap();
                let leaves: Vec<&Tensor> = match used {
                    [true, true] => leaves.to_vec(),
                    [true, false] => leaves[..2].to_vec(),
                    _ => vec![leaves[0], leaves[2]],
                };
                let grads = Tensor::run_backward(&[loss], &leaves, false, false);
                both.into_iter().map(|part| part.detach()).chain(grads).collect::<Vec<_>>()
            });
            assert_eq!(results[0].len(), results[1].len());
            for (apart, joint) in results[0].iter().zip(&results[1]) {
                assert_eq!(apart.size(), joint.size());
                let far = (apart - joint).abs().max().double_value(&[]);
                assert!(far < 1e-5, "{used:?}: {far}");
            }
        }
    }
}
