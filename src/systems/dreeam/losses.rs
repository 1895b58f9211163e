//! The second loss of DREEAM: attention on the evidence sentences, or on what a teacher attends to
//! (docs/systems.md, E.3–E.5). Sums; the batch divides.

use tch::{Kind, Tensor};

use super::labels::EvidenceLabels;
use crate::Result;
use crate::systems::{AttentionTargets, on};
use crate::torch::kernels::context::SpanTable;

/// In place of 0 before a logarithm. No gradient goes through it.
const FLOOR: f64 = 1e-30;
/// A teacher's rest below this is none.
const LEAST_REST: f32 = 1e-12;

/// log x of x ≥ 0, of [`FLOOR`] in place of 0.
fn log(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_masked_fill(&x.f_eq(0.0)?, FLOOR)?.f_log()?)
}

/// Σ t (log t − log x) over targets t > 0.
fn divergence_sum(targets: &[f32], x: &Tensor) -> Result<Tensor> {
    let targets = on(targets, x.device())?;
    Ok(targets.f_log()?.f_sub(&log(x)?)?.f_mul(&targets)?.f_sum(Kind::Float)?)
}

/// Σ over the targets of t (log t − log s), from the sums of the labels' table.
///
/// # Errors
/// If libtorch rejects an operation.
pub fn evidence_sum(sums: &Tensor, labels: &EvidenceLabels) -> Result<Tensor> {
    let chosen = sums.f_index_select(0, &on(&labels.places, sums.device())?)?;
    divergence_sum(&labels.targets, &chosen)
}

/// Σ over pairs and tokens of q̂ (log q̂ − log q), with the tokens that the teacher did not keep as
/// one; `q`: the sums of a table of single tokens, which covers every pair of the batch.
///
/// # Errors
/// Targets that do not fit the batch; if libtorch rejects an operation.
pub fn attention_sum(q: &Tensor, table: &SpanTable, targets: &AttentionTargets) -> Result<Tensor> {
    let pairs = targets.of_batch(table.widths())?;
    let (mut places, mut weights) = (Vec::new(), Vec::new());
    let (mut others, mut owners, mut rests) = (Vec::new(), Vec::new(), Vec::new());
    for ((pair, &first), &tokens) in pairs.iter().zip(table.first_sums()).zip(table.widths()) {
        let kept = pair.tokens.iter().zip(&pair.weights).filter(|(_, weight)| **weight > 0.0);
        for (&token, &weight) in kept {
            places.push(first + i64::from(token));
            weights.push(weight);
        }
        if pair.rest > LEAST_REST {
            let mut is_kept = vec![false; tokens as usize];
            pair.tokens.iter().for_each(|&token| is_kept[token as usize] = true);
            let other = (0..tokens).filter(|&token| !is_kept[token as usize]);
            let before = others.len();
            others.extend(other.map(|token| first + token));
            owners.extend(std::iter::repeat_n(rests.len() as i64, others.len() - before));
            rests.push(pair.rest);
        }
    }
    let device = q.device();
    let take =
        |places: &[i64]| -> Result<Tensor> { Ok(q.f_index_select(0, &on(places, device)?)?) };
    let of_kept = divergence_sum(&weights, &take(&places)?)?;
    let zeros = Tensor::f_zeros([rests.len() as i64], (Kind::Float, device))?;
    let of_others = zeros.f_index_add(0, &on(&owners, device)?, &take(&others)?)?;
    Ok(of_kept.f_add(&divergence_sum(&rests, &of_others)?)?)
}
