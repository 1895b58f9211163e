//! Attention by padding, with libtorch's own operations: for CUDA, where no kernel of ours runs,
//! and in tests beside the kernels.
//!
//! Not for: the attention of entities (`context`), which takes its scores from here.

use tch::{Kind, Tensor};

use super::scores::ScoreTerms;
use super::segments::Segments;
use crate::Result;
use crate::torch::on;

/// Stands for −∞ in scores: what is not there.
pub(super) const MASKED: f64 = -1e30;

/// What is added to the scores of queries [B, heads, n, width] and keys [B, heads, m, width], whose
/// `distances` (key − query) are [B or 1, n, m]: the terms, and −1e30 outside of the window; [B or
/// 1, heads or 1, n, m]. `None` where nothing is.
pub(super) fn added_scores(
    queries: &Tensor,
    keys: &Tensor,
    distances: &Tensor,
    terms: &ScoreTerms,
) -> Result<Option<Tensor>> {
    let (batch, heads, n, _) = queries.size4()?;
    let m = keys.size()[2];
    let mut sum: Option<Tensor> = None;
    let mut add = |part: Tensor| -> Result<()> {
        sum = Some(match sum.take() {
            Some(sum) => sum.f_add(&part)?,
            None => part,
        });
        Ok(())
    };
    if let Some(index) = &terms.index {
        let rows = index.rows_of(distances)?;
        let grid = |rows: &Tensor| rows.f_unsqueeze(1)?.f_expand([batch, heads, -1, -1], false);
        // [rows, heads, width] → [heads, width, rows]
        let by_row = |x: &Tensor, table: &Tensor| -> Result<Tensor> {
            let table = table.f_permute([1, 2, 0])?.f_to_kind(x.kind())?;
            Ok(x.f_matmul(&table)?.f_to_kind(Kind::Float)?)
        };
        if let Some(table) = &terms.key_table {
            let products = by_row(queries, table)?.f_gather(3, &grid(&rows)?, false)?;
            add(products.f_mul_scalar(terms.scale)?)?;
        }
        if let Some(table) = &terms.query_table {
            let turned = grid(&rows.f_transpose(1, 2)?)?;
            let products = by_row(keys, table)?.f_gather(3, &turned, false)?.f_transpose(2, 3)?;
            add(products.f_mul_scalar(terms.scale)?)?;
        }
        if let Some(bias) = &terms.bias {
            let taken = bias.f_index_select(0, &rows.f_flatten(0, 2)?)?;
            add(taken.f_view([-1, n, m, heads])?.f_permute([0, 3, 1, 2])?)?;
        }
    }
    if let Some(window) = terms.window {
        let hidden = distances.f_abs()?.f_gt(window)?.f_unsqueeze(1)?;
        add(hidden.f_to_kind(Kind::Float)?.f_mul_scalar(MASKED)?)?;
    }
    Ok(sum)
}

/// Rotates [.., heads, width] by the angles of `positions`, whose shape is that of the dimensions
/// before the heads.
pub(super) fn rotated(x: &Tensor, positions: &Tensor, rotary: &Tensor) -> Result<Tensor> {
    let half = rotary.size()[2];
    let angles = rotary.f_to_device(x.device())?;
    let part = |index: i64| -> Result<Tensor> {
        let rows = angles.f_get(index)?.f_index_select(0, &positions.f_flatten(0, -1)?)?;
        let shape: Vec<i64> = positions.size().into_iter().chain([1, half]).collect();
        Ok(rows.f_view(&shape[..])?)
    };
    let (cosines, sines) = (part(0)?, part(1)?);
    let single = x.f_to_kind(Kind::Float)?;
    let (a, b) = (single.f_narrow(-1, 0, half)?, single.f_narrow(-1, half, half)?);
    let first = a.f_mul(&cosines)?.f_sub(&b.f_mul(&sines)?)?;
    let second = b.f_mul(&cosines)?.f_add(&a.f_mul(&sines)?)?;
    Ok(Tensor::f_cat(&[first, second], -1)?.f_to_kind(x.kind())?)
}

/// Rotates the queries and keys of a packed stream; [T, 3, heads, width].
pub(super) fn rotated_stream(qkv: &Tensor, segments: &Segments, rotary: &Tensor) -> Result<Tensor> {
    let ranges = segments.offsets.windows(2);
    let positions: Vec<i64> = ranges.flat_map(|range| 0..range[1] - range[0]).collect();
    let positions = on(&positions, qkv.device())?;
    let turned = |slot: i64| rotated(&qkv.f_select(1, slot)?, &positions, rotary);
    Ok(Tensor::f_stack(&[turned(0)?, turned(1)?, qkv.f_select(1, 2)?], 1)?)
}

/// Self-attention inside each document, as [`super::attention::varlen_attention`] says, with
/// documents padded to the longest one: [T, 3, heads, width] → [T, heads · width].
///
/// An empty document attends to one row, whose result is not used, so that no NaN arises.
pub(super) fn attention(
    qkv: &Tensor,
    segments: &Segments,
    terms: &ScoreTerms,
    p: f64,
) -> Result<Tensor> {
    let (tokens, _, heads, width) = qkv.size4()?;
    if tokens == 0 {
        return Ok(qkv.f_reshape([0, 3, heads * width])?.f_select(1, 0)?);
    }
    let qkv = match &terms.rotary {
        Some(rotary) => rotated_stream(qkv, segments, rotary)?,
        None => qkv.shallow_clone(),
    };
    let (documents, longest) = (segments.offsets.len() as i64 - 1, segments.longest);
    let offsets = segments.device.f_to_kind(Kind::Int64)?;
    let starts = offsets.f_narrow(0, 0, documents)?.f_unsqueeze(1)?;
    let lengths = offsets.f_narrow(0, 1, documents)?.f_unsqueeze(1)?.f_sub(&starts)?;
    let position = Tensor::f_arange(longest, (Kind::Int64, qkv.device()))?.f_unsqueeze(0)?;
    let rows = starts.f_add(&position)?.f_clamp_max(tokens - 1)?.f_flatten(0, 1)?;
    let padded = qkv
        .f_index_select(0, &rows)?
        .f_view([documents, longest, 3, heads, width])?
        .f_permute([2, 0, 3, 1, 4])?;
    let (queries, keys, values) = (padded.f_get(0)?, padded.f_get(1)?, padded.f_get(2)?);
    let absent = position.f_ge_tensor(&lengths.f_clamp_min(1)?)?.f_to_kind(Kind::Float)?;
    let mut mask = absent.f_mul_scalar(MASKED)?.f_view([documents, 1, 1, longest])?;
    let distances = position.f_unsqueeze(0)?.f_sub(&position.f_unsqueeze(2)?)?;
    if let Some(added) = added_scores(&queries, &keys, &distances, terms)? {
        mask = mask.f_add(&added)?;
    }
    let out = Tensor::f_scaled_dot_product_attention(
        &queries,
        &keys,
        &values,
        Some(mask.f_to_kind(qkv.kind())?),
        p,
        false,
        terms.scale,
        false,
    )?;
    let valid = position.f_lt_tensor(&lengths)?.f_flatten(0, 1)?.f_nonzero()?.f_squeeze_dim(1)?;
    let flat = out.f_transpose(1, 2)?.f_reshape([documents * longest, heads * width])?;
    Ok(flat.f_index_select(0, &valid)?)
}
