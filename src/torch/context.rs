//! What entities attend to, and the context that two of them share (ATLOP's localized context pooling; DocRE-II, equation 1).
//!
//! An [`AttentionPlan`] says which tokens' attention rows make up which entity, and how windows of long documents are put together again.
//! On the CPU kernels of the shim work document by document without padding; on CUDA everything is padded. Not for: which tokens stand for a
//! mention (`systems`).

mod padded;
mod plan;

use tch::{Kind, Tensor};

use super::dropout::Dropout;
use super::segments::Segments;
use super::shim::{docre_contexts, docre_entity_rows, pointer, produce, table};
use crate::Result;
pub use plan::{AttentionPlan, ContextPlan, EntityRow};

/// Mean attention rows of entities as one flat list: a block [entities, heads, tokens] for each document of the plan, in order.
///
/// `qkv`: [T, 3, heads, width] of a layer over the stream of windows, with the dropout and salt of that layer's own attention. Rows of a
/// document in several windows are summed over windows and divided by their sum (+ 1e-10), as in ATLOP's release.
///
/// # Errors
/// If shapes, kinds or the plan do not fit.
pub fn entity_attention(qkv: &Tensor, segments: &Segments, plan: &AttentionPlan, dropout: Option<&Dropout>, salt: u64) -> Result<Tensor> {
    let dropout = dropout.filter(|active| active.p() > 0.0);
    let p = dropout.map_or(0.0, Dropout::p);
    if qkv.device().is_cuda() {
        return padded::entity_attention(qkv, segments, plan, p);
    }
    let [documents, rows, windows, parts] = plan.tables()?;
    let weights = Tensor::f_from_slice(&plan.weights)?;
    let keys = dropout.map(Dropout::token_keys);
    let (qkv, offsets) = (qkv.f_contiguous()?, segments.host_offsets());
    // SAFETY: all pointers are to live tensors, or null where the shim allows it.
    produce(|out| unsafe {
        docre_entity_rows(
            qkv.as_ptr(),
            offsets.as_ptr(),
            pointer(keys),
            salt.cast_signed(),
            p,
            documents.as_ptr(),
            rows.as_ptr(),
            weights.as_ptr(),
            windows.as_ptr(),
            parts.as_ptr(),
            out,
        )
    })
}

/// Contexts of pairs: c = Hᵀq with q = Σ over heads of A_s ∘ A_o, times `scale`, divided by its sum (+ 1e-5); [P, d].
///
/// `states`: [tokens of all documents, d]; `attention`: what [`entity_attention`] gave, of `heads` heads.
///
/// # Errors
/// If shapes, kinds or the plan do not fit.
pub fn contexts(states: &Tensor, attention: &Tensor, plan: &ContextPlan, heads: i64, scale: f64) -> Result<Tensor> {
    let states = states.f_to_kind(Kind::Float)?;
    if states.device().is_cuda() {
        return padded::contexts(&states, attention, plan, heads, scale);
    }
    let (documents, pairs) = (table(&plan.documents)?, table(&plan.pairs)?);
    let attention = attention.f_contiguous()?;
    // SAFETY: all pointers are to live tensors.
    produce(|out| unsafe { docre_contexts(states.as_ptr(), attention.as_ptr(), documents.as_ptr(), pairs.as_ptr(), heads, scale, out) })
}

#[cfg(test)]
mod tests;
