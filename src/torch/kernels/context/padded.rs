//! The same by padding, with libtorch's own operations: for CUDA, and as a check on the kernels.

use tch::{Device, Kind, Tensor};

use super::Overlap;
use super::rows::{AttentionTable, ContextTable};
use super::spans::SpanTable;
use crate::Result;
use crate::torch::kernels::padded::{MASKED, added_scores, rotated_stream};
use crate::torch::kernels::scores::ScoreTerms;
use crate::torch::kernels::segments::Segments;
use crate::torch::on;
use crate::torch::shim::tables::{ContextDocument, ContextPair, ROW_EPSILON};

/// Whether column l of row i is below `lengths[i]`; [rows, longest].
fn below(lengths: &[i64], longest: i64, device: Device) -> Result<Tensor> {
    Ok(Tensor::f_arange(longest, (Kind::Int64, device))?
        .f_unsqueeze(0)?
        .f_lt_tensor(&on(lengths, device)?.f_unsqueeze(1)?)?)
}

/// See [`super::entity_attention`].
pub(in crate::torch::kernels) fn entity_attention(
    qkv: &Tensor,
    segments: &Segments,
    table: &AttentionTable,
    terms: &ScoreTerms,
    p: f64,
) -> Result<Tensor> {
    let (device, heads) = (qkv.device(), qkv.size()[2]);
    // [rows, heads, longest document]
    let rows = put_together(&slice_probabilities(qkv, segments, table, terms, p)?, table)?;
    let longest = rows.size()[2];
    let weights = on(&table.weights, device)?.f_view([-1, 1, 1])?;
    let (mut entity, mut lengths) = (Vec::new(), Vec::new());
    for document in &table.documents {
        let base = lengths.len() as i64;
        lengths.extend(std::iter::repeat_n(document.tokens, document.entities as usize));
        let own = document.first_row as usize..(document.first_row + document.rows) as usize;
        entity.extend(table.rows[own].iter().map(|row| base + row.entity));
    }
    let zeros = Tensor::f_zeros([lengths.len() as i64, heads, longest], (Kind::Float, device))?;
    let means = zeros.f_index_add(0, &on(&entity, device)?, &rows.f_mul(&weights)?)?;
    let valid = below(&lengths, longest, device)?.f_unsqueeze(1)?.f_expand_as(&means)?;
    Ok(means.f_masked_select(&valid)?)
}

/// Attention probabilities of every slice; [slices, heads, longest window].
fn slice_probabilities(
    qkv: &Tensor,
    segments: &Segments,
    table: &AttentionTable,
    terms: &ScoreTerms,
    p: f64,
) -> Result<Tensor> {
    let (device, longest) = (qkv.device(), segments.longest);
    let (_, _, heads, width) = qkv.size4()?;
    let qkv = match &terms.rotary {
        Some(rotary) => rotated_stream(qkv, segments, rotary)?,
        None => qkv.shallow_clone(),
    };
    let windows = &table.windows;
    let most = windows.iter().map(|window| window.slices).max().unwrap_or(0).max(1);
    let mut queries = vec![0; windows.len() * most as usize];
    let (mut tokens, mut places) = (queries.clone(), Vec::new());
    for (index, window) in windows.iter().enumerate() {
        for slice in 0..window.slices {
            let place = index as i64 * most + slice;
            let token = table.slices[(window.first_slice + slice) as usize].token;
            (tokens[place as usize], queries[place as usize]) = (token, window.start + token);
            places.push(place);
        }
    }
    let keys: Vec<i64> = windows
        .iter()
        .flat_map(|window| (0..longest).map(|at| window.start + at.min(window.length - 1)))
        .collect();
    let count = windows.len() as i64;
    let take = |slot: i64, rows: &[i64], per_window: i64| -> Result<Tensor> {
        let rows =
            qkv.f_select(1, slot)?.f_index_select(0, &on(rows, device)?)?.f_to_kind(Kind::Float)?;
        Ok(rows.f_view([count, per_window, heads, width])?.f_transpose(1, 2)?)
    };
    let (queries, keys) = (take(0, &queries, most)?, take(1, &keys, longest)?);
    let mut scores = queries.f_matmul(&keys.f_transpose(2, 3)?)?.f_mul_scalar(terms.scale)?;
    let at = on(&tokens, device)?.f_view([count, most, 1])?;
    let distances = Tensor::f_arange(longest, (Kind::Int64, device))?.f_sub(&at)?;
    if let Some(added) = added_scores(&queries, &keys, &distances, terms)? {
        scores = scores.f_add(&added)?;
    }
    let lengths: Vec<i64> = windows.iter().map(|window| window.length).collect();
    let outside =
        below(&lengths, longest, device)?.f_logical_not()?.f_view([count, 1, 1, longest])?;
    let probabilities = scores
        .f_masked_fill(&outside, MASKED)?
        .f_softmax(-1, Kind::Float)?
        .f_dropout(p, p > 0.0)?;
    let by_slice = probabilities.f_transpose(1, 2)?.f_reshape([count * most, heads, longest])?;
    Ok(by_slice.f_index_select(0, &on(&places, device)?)?)
}

/// Rows over their documents: slices moved to their places, summed, and normalised again in
/// documents of several windows.
fn put_together(slices: &Tensor, table: &AttentionTable) -> Result<Tensor> {
    let (device, heads) = (slices.device(), slices.size()[1]);
    let longest = table.documents.iter().map(|document| document.tokens).max().unwrap_or(0);
    let (mut columns, mut shown, mut rows, mut again) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for document in &table.documents {
        again.extend(std::iter::repeat_n(document.renormalise, document.rows as usize));
        let (first, count) = (document.first_window as usize, document.windows as usize);
        for window in &table.windows[first..first + count] {
            let (first, count) = (window.first_slice as usize, window.slices as usize);
            for slice in &table.slices[first..first + count] {
                rows.push(document.first_row + slice.row);
                columns.extend(
                    (0..longest)
                        .map(|at| (at - window.place + window.skip).clamp(0, window.length - 1)),
                );
                shown.extend((0..longest).map(|at| {
                    i64::from((window.place..window.place + window.count).contains(&at))
                }));
            }
        }
    }
    let grid =
        |values: &[i64]| -> Result<Tensor> { Ok(on(values, device)?.f_view([-1, 1, longest])?) };
    let moved = slices
        .f_gather(2, &grid(&columns)?.f_expand([-1, heads, longest], false)?, false)?
        .f_mul(&grid(&shown)?)?;
    let sums = Tensor::f_zeros([again.len() as i64, heads, longest], (Kind::Float, device))?;
    let sums = sums.f_index_add(0, &on(&rows, device)?, &moved)?;
    let mass = sums.f_sum_dim_intlist(2, true, Kind::Float)?.f_add_scalar(ROW_EPSILON)?;
    let again = on(&again, device)?.f_view([-1, 1, 1])?.f_to_kind(Kind::Bool)?;
    Ok(sums.f_div(&mass.f_where_self(&again, &Tensor::f_ones(1, (Kind::Float, device))?)?)?)
}

/// Weights q of all pairs of entities of all documents; [documents, entities², tokens] of the
/// largest document.
fn shares(attention: &Tensor, table: &ContextTable, overlap: &Overlap) -> Result<Tensor> {
    let (device, heads) = (attention.device(), overlap.heads);
    let Padding { numbers, lengths, entities, tokens } = Padding::of(table);
    let count = numbers.len() as i64;
    let cells = below(&numbers, entities, device)?.f_view([count, entities, 1, 1])?;
    let valid =
        cells.f_logical_and(&below(&lengths, tokens, device)?.f_view([count, 1, 1, tokens])?)?;
    let valid = valid.f_expand([count, entities, heads, tokens], false)?;
    let zeros = Tensor::f_zeros([count, entities, heads, tokens], (Kind::Float, device))?;
    // [B, tokens, entities, heads]
    let by_token = zeros.f_masked_scatter(&valid, attention)?.f_permute([0, 3, 1, 2])?;
    // [B, tokens, entities, entities]
    let product = by_token.f_matmul(&by_token.f_transpose(2, 3)?)?.f_mul_scalar(overlap.scale)?;
    let product =
        product.f_permute([0, 2, 3, 1])?.f_reshape([count, entities * entities, tokens])?;
    let sums = product.f_sum_dim_intlist(2, true, Kind::Float)?.f_add_scalar(overlap.epsilon)?;
    Ok(product.f_div(&sums)?)
}

/// The sizes of documents, and the largest of them.
struct Padding {
    numbers: Vec<i64>,
    lengths: Vec<i64>,
    entities: i64,
    tokens: i64,
}

impl Padding {
    fn of(table: &ContextTable) -> Self {
        let column = |column: fn(&ContextDocument) -> i64| {
            table.documents.iter().map(column).collect::<Vec<_>>()
        };
        let (numbers, lengths) =
            (column(|document| document.entities), column(|document| document.tokens));
        let most = |numbers: &[i64]| numbers.iter().copied().max().unwrap_or(0);
        let (entities, tokens) = (most(&numbers), most(&lengths));
        Self { numbers, lengths, entities, tokens }
    }
}

/// Rows of the pairs of the table among all pairs of [`shares`].
fn places_of_pairs(table: &ContextTable) -> Vec<i64> {
    let entities = Padding::of(table).entities;
    let of_document = |(index, document): (usize, &ContextDocument)| {
        let own = document.first_pair as usize..(document.first_pair + document.pairs) as usize;
        let place =
            move |pair: &ContextPair| (index as i64 * entities + pair.head) * entities + pair.tail;
        table.pairs[own].iter().map(place)
    };
    table.documents.iter().enumerate().flat_map(of_document).collect()
}

/// See [`super::contexts`].
pub(super) fn contexts(
    states: &Tensor,
    attention: &Tensor,
    table: &ContextTable,
    overlap: &Overlap,
) -> Result<Tensor> {
    let (device, shares) = (states.device(), shares(attention, table, overlap)?);
    let (documents, tokens) = (&table.documents, shares.size()[2]);
    let rows: Vec<i64> = documents
        .iter()
        .flat_map(|d| (0..tokens).map(|at| d.first_token + at.min(d.tokens - 1).max(0)))
        .collect();
    let padded =
        states.f_index_select(0, &on(&rows, device)?)?.f_view([-1, tokens, states.size()[1]])?;
    let grid = shares.f_bmm(&padded)?.f_flatten(0, 1)?;
    Ok(grid.f_index_select(0, &on(&places_of_pairs(table), device)?)?)
}

/// See [`super::span_sums`].
pub(super) fn span_sums(
    attention: &Tensor,
    table: &SpanTable,
    overlap: &Overlap,
) -> Result<Tensor> {
    let (device, shares) = (attention.device(), shares(attention, &table.pairs, overlap)?);
    let tokens = shares.size()[2];
    let most = table.documents.iter().map(|document| document.spans).max().unwrap_or(0);
    // [documents, tokens, spans]: which tokens a span holds.
    let count = table.documents.len();
    let mut holds = vec![0f32; count * (tokens * most) as usize];
    for (index, document) in (0i64..).zip(&table.documents) {
        let own = document.first_span as usize..(document.first_span + document.spans) as usize;
        for (span, range) in (0i64..).zip(&table.spans[own]) {
            for token in range.first..range.first + range.tokens {
                holds[((index * tokens + token) * most + span) as usize] = 1.0;
            }
        }
    }
    let holds = on(&holds, device)?.f_view([count as i64, tokens, most])?;
    let grid = shares.f_bmm(&holds)?.f_flatten(0, 2)?;
    let pairs = places_of_pairs(&table.pairs);
    let mut places = Vec::with_capacity(table.sums() as usize);
    for (document, spans) in table.pairs.documents.iter().zip(&table.documents) {
        let own = document.first_pair as usize..(document.first_pair + document.pairs) as usize;
        for place in &pairs[own] {
            places.extend((0..spans.spans).map(|span| place * most + span));
        }
    }
    Ok(grid.f_index_select(0, &on(&places, device)?)?)
}
