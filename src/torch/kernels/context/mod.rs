//! What entities attend to, and the context that two of them share (ATLOP's localized context
//! pooling; docs/systems.md, A.2 and A.3; Zhang et al. 2022, eq. 1).
//!
//! An [`AttentionTable`] says which tokens' attention rows make up which entity, and how windows of
//! long documents are put together again. On the CPU kernels of the shim work document by document
//! without padding; on CUDA everything is padded. Not for: which tokens stand for a mention
//! (`systems`).

mod padded;
mod rows;
mod single_rows;
mod spans;

use tch::{Kind, Tensor};

use super::scores::ScoreTerms;
use super::segments::Segments;
use crate::Result;
use crate::torch::dropout::Dropout;
use crate::torch::shim::{
    docre_contexts, docre_entity_rows, docre_span_sums, host_table, pointer, produce,
};
#[cfg(test)]
pub(super) use padded::entity_attention as padded_entities;
pub use rows::{AttentionTable, ContextTable, EntityRow};
pub use single_rows::SingleRows;
pub use spans::{SpanTable, TokenRange};

/// How the attention of two entities becomes the weights q of the tokens that both attend to
/// (docs/systems.md, A.3): q = `scale` · Σ over heads of A_s ∘ A_o, divided by its sum + `epsilon`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overlap {
    /// Number of heads.
    pub heads: i64,
    /// Factor of the sum over heads.
    pub scale: f64,
    /// What is added to the sum of q.
    pub epsilon: f64,
}

/// Mean attention rows of entities as one flat list: a block [entities, heads, tokens] for each
/// document of the table, in order.
///
/// `qkv`: [T, 3, heads, width] of a layer over the stream of windows, with the terms, dropout and
/// salt of that layer's own attention. On the CPU a probability is dropped here if it is dropped
/// there. On CUDA flash attention does not show its masks, so these are others of the same rate.
/// Rows of a document in several windows are summed over windows and divided by their sum
/// (+ 1e-10), as in ATLOP's release.
///
/// # Errors
/// If shapes, kinds or the table do not fit.
pub fn entity_attention(
    qkv: &Tensor,
    segments: &Segments,
    table: &AttentionTable,
    terms: &ScoreTerms,
    dropout: Option<&Dropout>,
    salt: u64,
) -> Result<Tensor> {
    let dropout = dropout.filter(|active| active.p > 0.0);
    let p = dropout.map_or(0.0, |active| active.p);
    if qkv.device().is_cuda() {
        return padded::entity_attention(qkv, segments, table, terms, p);
    }
    let [documents, rows, windows, slices] = table.tables()?;
    let weights = Tensor::f_from_slice(&table.weights)?;
    let keys = dropout.map(|active| &active.token_keys);
    let (qkv, offsets) = (qkv.f_contiguous()?, &segments.host);
    let tensors = terms.pointers();
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
            slices.as_ptr(),
            tensors.as_ptr(),
            terms.side(),
            terms.scale,
            out,
        )
    })
}

/// Contexts of pairs: c = Hᵀq; [P, d].
///
/// `states`: [tokens of all documents, d]; `attention`: what [`entity_attention`] gave.
///
/// # Errors
/// If shapes, kinds or the table do not fit.
pub fn contexts(
    states: &Tensor,
    attention: &Tensor,
    table: &ContextTable,
    overlap: &Overlap,
) -> Result<Tensor> {
    let states = states.f_to_kind(Kind::Float)?;
    if states.device().is_cuda() {
        return padded::contexts(&states, attention, table, overlap);
    }
    let (documents, pairs) = (host_table(&table.documents)?, host_table(&table.pairs)?);
    let attention = attention.f_contiguous()?;
    // SAFETY: all pointers are to live tensors.
    produce(|out| unsafe {
        docre_contexts(
            states.as_ptr(),
            attention.as_ptr(),
            documents.as_ptr(),
            pairs.as_ptr(),
            overlap.heads,
            overlap.scale,
            overlap.epsilon,
            out,
        )
    })
}

/// The weights q of pairs, summed over spans of tokens, as one flat list: a block [pairs, spans]
/// for each document of the table, in order, with each pair of two entities once
/// ([`SpanTable::first_sums`] says where). 32 bits.
///
/// `attention`: what [`entity_attention`] gave.
///
/// # Errors
/// If shapes, kinds or the table do not fit.
pub fn span_sums(attention: &Tensor, table: &SpanTable, overlap: &Overlap) -> Result<Tensor> {
    if attention.device().is_cuda() {
        return padded::span_sums(attention, table, overlap);
    }
    let tables = table.tables()?;
    let pointers = tables.each_ref().map(Tensor::as_ptr);
    let attention = attention.f_contiguous()?;
    // SAFETY: all pointers are to live tensors.
    produce(|out| unsafe {
        docre_span_sums(
            attention.as_ptr(),
            pointers.as_ptr(),
            overlap.heads,
            overlap.scale,
            overlap.epsilon,
            out,
        )
    })
}

#[cfg(test)]
mod tests;
