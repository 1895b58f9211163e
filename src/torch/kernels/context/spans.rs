//! Spans of tokens over which the attention that pairs share is summed: the sentences of a
//! document, or its single tokens.

use ahash::AHashMap;
use tch::Tensor;

use super::rows::ContextTable;
use crate::Result;
use crate::torch::shim::host_table;
use crate::torch::shim::tables::{ContextDocument, SpanDocument, TokenSpan};

/// First token of a span in its document, and number of tokens.
pub type TokenRange = (u32, u32);

/// The spans of a batch of documents, and the pairs whose attention is summed over them. Heads and
/// tails share the same tokens whichever way round they are named, so both directions of a pair
/// have one row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanTable {
    pub(super) pairs: ContextTable,
    pub(super) documents: Vec<SpanDocument>,
    pub(super) spans: Vec<TokenSpan>,
    first_sums: Vec<i64>,
    widths: Vec<i64>,
    sums: i64,
}

impl SpanTable {
    /// The table of pairs with the spans of each of its documents, in order.
    pub fn new(pairs: &ContextTable, spans: &[Vec<TokenRange>]) -> Self {
        let mut table = Self::default();
        for (document, spans) in pairs.documents.iter().zip(spans) {
            table.push(pairs, document, spans);
        }
        table
    }

    /// The table of pairs with every token as a span of its own.
    pub fn of_tokens(pairs: &ContextTable) -> Self {
        let tokens = |document: &ContextDocument| (0..document.tokens as u32).map(|at| (at, 1));
        let spans = pairs.documents.iter().map(|document| tokens(document).collect());
        Self::new(pairs, &spans.collect::<Vec<_>>())
    }

    fn push(&mut self, all: &ContextTable, document: &ContextDocument, spans: &[TokenRange]) {
        let own = document.first_pair as usize..(document.first_pair + document.pairs) as usize;
        let (mut rows, mut distinct) = (AHashMap::new(), Vec::new());
        let width = spans.len() as i64;
        for pair in &all.pairs[own] {
            let pair = (pair.head.min(pair.tail) as u32, pair.head.max(pair.tail) as u32);
            let row = *rows.entry(pair).or_insert_with(|| {
                distinct.push(pair);
                distinct.len() as i64 - 1
            });
            self.first_sums.push(self.sums + row * width);
            self.widths.push(width);
        }
        let (first_span, first_sum) = (self.spans.len() as i64, self.sums);
        self.documents.push(SpanDocument { first_span, spans: width, first_sum });
        let span = |&(first, tokens): &TokenRange| TokenSpan {
            first: first.into(),
            tokens: tokens.into(),
        };
        self.spans.extend(spans.iter().map(span));
        self.sums += distinct.len() as i64 * width;
        self.pairs.push(document.tokens as usize, document.entities as usize, &distinct);
    }

    /// Where the sums of each pair begin, in the order in which the pairs were given; `[P]`.
    pub fn first_sums(&self) -> &[i64] {
        &self.first_sums
    }

    /// How many sums each pair has, the spans of its document; `[P]`.
    pub fn widths(&self) -> &[i64] {
        &self.widths
    }

    /// Number of all sums.
    pub fn sums(&self) -> i64 {
        self.sums
    }

    /// Documents, pairs, documents with spans, and spans as tensors on the host.
    pub(super) fn tables(&self) -> Result<[Tensor; 4]> {
        Ok([
            host_table(&self.pairs.documents)?,
            host_table(&self.pairs.pairs)?,
            host_table(&self.documents)?,
            host_table(&self.spans)?,
        ])
    }
}
