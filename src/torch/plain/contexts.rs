//! Attention rows of entities, and the contexts that pairs share, row by row and pair by pair.

use tch::{Device, Kind, Tensor};

use super::attention::probabilities;
use super::double;
use crate::text::PackedWindows;
use crate::torch::kernels::context::{EntityRow, Overlap, TokenRange};
use crate::torch::kernels::scores::ScoreTerms;

/// What is added to the sum of a row that windows are put together to (as in ATLOP's release).
const ROW_EPSILON: f64 = 1e-10;

/// A document of a batch, and what is asked of it.
#[derive(Clone, Debug, Default)]
pub struct AskedDocument {
    /// Number of tokens.
    pub tokens: usize,
    /// Number of entities.
    pub entities: usize,
    /// The attention rows of its entities.
    pub rows: Vec<EntityRow>,
    /// Pairs of entities.
    pub pairs: Vec<(u32, u32)>,
    /// Spans of tokens.
    pub spans: Vec<TokenRange>,
}

/// A block [entities, heads, tokens] for each document, flat; `qkv`: [T, 3, heads, width] over the
/// stream of windows.
pub fn entity_rows(
    qkv: &Tensor,
    packed: &PackedWindows,
    documents: &[AskedDocument],
    terms: &ScoreTerms,
) -> Tensor {
    let heads = qkv.size()[2];
    let mut parts = Vec::new();
    for (document, windows) in documents.iter().zip(packed.document_windows.windows(2)) {
        let tokens = document.tokens as i64;
        let none = || Tensor::zeros([heads, tokens], (Kind::Double, Device::Cpu));
        let shown = |index: usize| {
            let (start, end) = (packed.offsets[index], packed.offsets[index + 1]);
            (packed.windows[index], probabilities(&qkv.narrow(0, start, end - start), terms))
        };
        let shown: Vec<_> = (windows[0]..windows[1]).map(shown).collect();
        let mut entities: Vec<Tensor> = (0..document.entities).map(|_| none()).collect();
        for row in &document.rows {
            let mut sum = none();
            for (window, probabilities) in &shown {
                let [at, place, count, skip] =
                    [row.position as usize, window.place, window.count, window.skip]
                        .map(|number| number as i64);
                if (place..place + count).contains(&at) {
                    let own = probabilities.select(1, at - place + skip).narrow(1, skip, count);
                    sum += own.constant_pad_nd([place, tokens - place - count]);
                }
            }
            if shown.len() > 1 {
                sum = &sum / (sum.sum_dim_intlist(1, true, Kind::Double) + ROW_EPSILON);
            }
            entities[row.entity as usize] += sum * f64::from(row.weight);
        }
        parts.extend(entities.iter().map(|entity| entity.flatten(0, -1)));
    }
    Tensor::cat(&parts, 0)
}

/// The weights q of a pair of a document whose block begins at `first`; `[tokens]`.
fn shares(
    attention: &Tensor,
    first: i64,
    tokens: i64,
    pair: (u32, u32),
    overlap: &Overlap,
) -> Tensor {
    let row = |entity: u32| {
        let size = overlap.heads * tokens;
        attention.narrow(0, first + i64::from(entity) * size, size).view([overlap.heads, tokens])
    };
    let product = (row(pair.0) * row(pair.1)).sum_dim_intlist(0, false, Kind::Double);
    let product = product * overlap.scale;
    let sum = product.sum(Kind::Double) + overlap.epsilon;
    product / sum
}

/// The weights of all pairs, document by document.
fn all_shares(
    attention: &Tensor,
    documents: &[AskedDocument],
    overlap: &Overlap,
) -> Vec<Vec<Tensor>> {
    let (attention, mut first) = (double(attention), 0);
    let of_document = |document: &AskedDocument| {
        let tokens = document.tokens as i64;
        let pairs = document.pairs.iter();
        let own = pairs.map(|&pair| shares(&attention, first, tokens, pair, overlap)).collect();
        first += document.entities as i64 * overlap.heads * tokens;
        own
    };
    documents.iter().map(of_document).collect()
}

/// The contexts of all pairs; `states`: [tokens of all documents, d], `attention`: what
/// [`entity_rows`] gives → [P, d].
pub fn contexts(
    states: &Tensor,
    attention: &Tensor,
    documents: &[AskedDocument],
    overlap: &Overlap,
) -> Tensor {
    let (states, mut first, mut rows) = (double(states), 0, Vec::new());
    for (document, shares) in documents.iter().zip(all_shares(attention, documents, overlap)) {
        let own = states.narrow(0, first, document.tokens as i64);
        rows.extend(shares.iter().map(|share| share.matmul(&own)));
        first += document.tokens as i64;
    }
    Tensor::stack(&rows, 0)
}

/// The weights of each pair of two entities, once whichever way round it is named, summed over the
/// spans of its document; flat.
pub fn span_sums(attention: &Tensor, documents: &[AskedDocument], overlap: &Overlap) -> Tensor {
    let mut sums = Vec::new();
    for (document, shares) in documents.iter().zip(all_shares(attention, documents, overlap)) {
        let mut seen = Vec::new();
        for (&(a, b), share) in document.pairs.iter().zip(shares) {
            if seen.contains(&(a.min(b), a.max(b))) {
                continue;
            }
            seen.push((a.min(b), a.max(b)));
            let sum = |&(start, tokens): &TokenRange| {
                share.narrow(0, start.into(), tokens.into()).sum(Kind::Double)
            };
            sums.extend(document.spans.iter().map(sum));
        }
    }
    Tensor::stack(&sums, 0)
}
