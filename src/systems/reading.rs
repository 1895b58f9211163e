//! Documents read by entity: mentions pooled into entities, what entities attend to, contexts
//! and evidence of pairs. Shared by ATLOP, DocRE-II and DREEAM.
//!
//! Not for: what becomes of a pair (the systems).

mod layout;
mod pooling;
#[cfg(test)]
pub(super) mod testing;

use tch::{Kind, Tensor};

use super::{EvidenceWeights, Foundation, on};
use crate::encoders::{Attending, Encoder};
use crate::torch::kernels::context::{Overlap, SpanTable, contexts, span_sums};
use crate::train::Forward;
use crate::{Error, Result};
pub use layout::{
    MarkerScheme, MentionTokens, ReadingLayout, ReadingOptions, ReadingTables, labelled_first,
};
pub use pooling::Pooling;

/// The tensor half: an encoder and how its states become entities.
pub struct Reader {
    /// How mentions become an entity.
    pub pooling: Pooling,
    /// Whether contexts are made; without, attention is never computed.
    pub context: bool,
    /// The mean of how many last layers.
    pub layers: usize,
    /// Whether the attention of heads is averaged; summed in DocRE-II's release.
    pub averaged: bool,
    /// What is added to the sum of a pair's attention (docs/systems.md, A.3); ATLOP: 1e-5.
    pub epsilon: f64,
}

/// ε of ATLOP and DocRE-II (docs/systems.md, A.3).
pub const ATLOP_EPSILON: f64 = 1e-5;

/// What one batch of documents gave.
pub struct ReadStates {
    /// Token states of all documents; [tokens, d].
    pub states: Tensor,
    /// Entity vectors; [E, d].
    pub entities: Tensor,
    /// Attention of entities, a block [entities, heads, tokens] a document; `None` without context.
    pub attention: Option<Tensor>,
}

impl Reader {
    /// Encodes the documents of a batch and pools their mentions.
    ///
    /// # Errors
    /// If libtorch rejects an operation, or contexts are wanted of an encoder without attention.
    pub fn read(
        &self,
        foundation: &Foundation,
        tables: &ReadingTables,
        forward: Forward,
    ) -> Result<ReadStates> {
        let windows = &tables.windows;
        let pass = foundation.pass(forward, || &windows.token_keys)?;
        let stream = windows.stream(foundation.parameters.device())?;
        let asked = Attending { layers: self.layers, plan: self.context.then_some(&tables.plan) };
        let attended = foundation.encoder.encode_attended(&stream, &asked, &pass)?;
        let states = windows.joined(&attended.states)?;
        let entities = self.pooling.pool(&states, tables)?;
        Ok(ReadStates { states, entities, attention: attended.attention })
    }

    /// Contexts of the batch's pairs; [P, d].
    ///
    /// # Errors
    /// If libtorch rejects an operation; [`Error::Bug`] without attention.
    pub fn contexts(
        &self,
        foundation: &Foundation,
        read: &ReadStates,
        tables: &ReadingTables,
    ) -> Result<Tensor> {
        let (attention, overlap) = self.shared(foundation, read)?;
        contexts(&read.states, attention, &tables.contexts, &overlap)
    }

    /// The attention that the pairs of a table share, summed over its spans
    /// (docs/systems.md, E.1 and E.2); flat, see [`span_sums`].
    ///
    /// # Errors
    /// As [`Self::contexts`].
    pub fn span_sums(
        &self,
        foundation: &Foundation,
        read: &ReadStates,
        table: &SpanTable,
    ) -> Result<Tensor> {
        let (attention, overlap) = self.shared(foundation, read)?;
        span_sums(attention, table, &overlap)
    }

    /// How much of each pair's attention lies in each sentence of its document.
    ///
    /// # Errors
    /// As [`Self::contexts`].
    pub fn evidence(
        &self,
        foundation: &Foundation,
        read: &ReadStates,
        tables: &ReadingTables,
    ) -> Result<EvidenceWeights> {
        let table = SpanTable::new(&tables.contexts, &tables.sentences);
        let sums = self.span_sums(foundation, read, &table)?;
        Ok(EvidenceWeights::new(sums, table.first_sums(), table.widths()))
    }

    /// How much of each pair's attention lies on each token of its document.
    ///
    /// # Errors
    /// As [`Self::contexts`].
    pub fn token_attention(
        &self,
        foundation: &Foundation,
        read: &ReadStates,
        tables: &ReadingTables,
    ) -> Result<EvidenceWeights> {
        let table = SpanTable::of_tokens(&tables.contexts);
        let sums = self.span_sums(foundation, read, &table)?;
        Ok(EvidenceWeights::new(sums, table.first_sums(), table.widths()))
    }

    fn shared<'r>(
        &self,
        foundation: &Foundation,
        read: &'r ReadStates,
    ) -> Result<(&'r Tensor, Overlap)> {
        let missing = || Error::Bug("contexts were asked for without attention".into());
        let (attention, heads) = (
            read.attention.as_ref().ok_or_else(missing)?,
            foundation.encoder.facts().attention_heads.ok_or_else(missing)?,
        );
        let scale = if self.averaged { 1.0 / heads as f64 } else { 1.0 };
        Ok((attention, Overlap { heads, scale, epsilon: self.epsilon }))
    }

    /// States of each document's first token; [documents, d].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn first_states(read: &ReadStates, tables: &ReadingTables) -> Result<Tensor> {
        let firsts = &tables.documents.views.offsets[..tables.documents.documents()];
        Ok(read.states.f_index_select(0, &on(firsts, read.states.device())?)?)
    }
}

/// Refuses to average more layers than an encoder has; `system` names who asks.
///
/// # Errors
/// [`Error::Recipe`] naming the setting.
pub fn check_layers(system: &str, encoder: &dyn Encoder, averaged: usize) -> Result<()> {
    let Some(layers) = encoder.facts().layers.filter(|&layers| averaged > layers) else {
        return Ok(());
    };
    let problem =
        format!("{system}: `averaged_layers` is {averaged}, but the encoder has {layers} layers");
    Err(Error::recipe(problem).with_hint(format!(
        "--set {system}.averaged_layers={layers}, or an encoder with more layers"
    )))
}

/// Multi-hot labels of logits [P, C] (docs/systems.md, C.16): a class is set where its logit
/// exceeds that of class 0 and is among the `top` largest (0: no limit; class 0 takes a place like
/// any other); class 0 is set where no other is. 32-bit zeros and ones, without gradient.
///
/// # Errors
/// If libtorch rejects an operation.
pub fn adaptive_labels(logits: &Tensor, top: usize) -> Result<Tensor> {
    let logits = logits.f_detach()?;
    let (_, classes) = logits.size2()?;
    let mut chosen = logits.f_gt_tensor(&logits.f_narrow(1, 0, 1)?)?;
    let top = top as i64;
    if top > 0 && top < classes {
        let (largest, _) = logits.f_topk(top, 1, true, true)?;
        chosen =
            chosen.f_logical_and(&logits.f_ge_tensor(&largest.f_narrow(1, top - 1, 1)?)?)?;
    }
    let none = chosen.f_any_dim(1, true)?.f_logical_not()?;
    Ok(Tensor::f_cat(&[none, chosen.f_narrow(1, 1, classes - 1)?], 1)?.f_to_kind(Kind::Float)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_takes_a_place_among_the_largest() {
        let logits = Tensor::from_slice(&[1.0f32, 4.0, 3.0, 2.0, 0.0, 2.0, 1.0, 0.0, 1.5, -1.0])
            .view([2, 5]);
        let labels = |top| {
            Vec::<f32>::try_from(adaptive_labels(&logits, top).unwrap().flatten(0, 1)).unwrap()
        };
        assert_eq!(labels(0), [0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(labels(2), [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(labels(9), labels(0));
    }
}
