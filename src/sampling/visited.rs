//! The rows of a store that a stage visits epoch by epoch, in the windows that the store can hold.
//!
//! Not for: the order itself (`order`, `windows`).

use super::order::{BatchItem, BatchOrder};
use super::row_set::RowSet;
use super::windows::Windows;
use crate::shards::DocumentStore;

/// Rows of a store.
#[derive(Debug)]
pub struct VisitedRows<'a> {
    store: &'a DocumentStore,
    rows: RowSet,
}

impl<'a> VisitedRows<'a> {
    /// The rows of a store that are visited.
    pub fn choose(store: &'a DocumentStore, visited: impl FnMut(usize) -> bool) -> Self {
        Self { rows: RowSet::of(store.len(), visited), store }
    }

    /// The rows.
    pub fn rows(&self) -> &RowSet {
        &self.rows
    }

    /// How they lie in the blocks of the store.
    pub fn windows(&self) -> Windows {
        let starts = self.store.block_starts().iter();
        let starts = starts.map(|&start| self.rows.before(start) as u64).collect();
        Windows::new(starts, self.store.window_blocks())
    }

    /// Tells the store what is needed after the items of a step, which are those of `source`.
    pub fn read_ahead(&self, order: &BatchOrder, source: usize, items: &[BatchItem]) {
        let last = items.iter().rev().find(|item| item.source == source);
        let Some(&BatchItem { pass, window, .. }) = last else { return };
        // No two windows of a run share a number.
        let key = pass * order.windows(source).len() as u64 + window as u64;
        self.store.read_ahead(key, || order.blocks_from(source, pass, window));
    }
}
