//! Host tables of the entity-attention and context kernels. Their rows are declared in
//! `shim/tables.hpp`, for both languages.

use tch::Tensor;

use crate::Result;
use crate::text::{PackedWindows, Window};
use crate::torch::shim::host_table;
use crate::torch::shim::tables::{
    AttentionDocument, AttentionRow, AttentionSlice, AttentionWindow, ContextDocument, ContextPair,
};

/// A token whose attention row is part of an entity's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EntityRow {
    /// Entity of the document.
    pub entity: u32,
    /// Position in the document.
    pub position: u32,
    /// Share of the row in the entity's mean.
    pub weight: f32,
}

/// Which attention rows make up the entities of a batch of documents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionTable {
    pub(super) documents: Vec<AttentionDocument>,
    pub(super) rows: Vec<AttentionRow>,
    /// Share of each row in its entity.
    pub(super) weights: Vec<f32>,
    pub(super) windows: Vec<AttentionWindow>,
    pub(super) slices: Vec<AttentionSlice>,
    /// Σ over documents of entities · tokens.
    pub(super) cells: i64,
}

impl AttentionTable {
    /// Appends the next document of `packed`, of `tokens` pieces, with its rows.
    pub fn push(
        &mut self,
        packed: &PackedWindows,
        tokens: usize,
        entities: usize,
        rows: &[EntityRow],
    ) {
        let index = self.documents.len();
        let range = packed.document_windows[index]..packed.document_windows[index + 1];
        self.documents.push(AttentionDocument {
            entities: entities as i64,
            tokens: tokens as i64,
            first_row: self.rows.len() as i64,
            rows: rows.len() as i64,
            first_window: self.windows.len() as i64,
            windows: range.len() as i64,
            renormalise: i64::from(range.len() > 1),
            first_cell: self.cells,
        });
        for window in range {
            self.push_window(
                packed.offsets[window],
                packed.offsets[window + 1],
                packed.windows[window],
                rows,
            );
        }
        self.rows.extend(rows.iter().map(|row| AttentionRow { entity: row.entity.into() }));
        self.weights.extend(rows.iter().map(|row| row.weight));
        self.cells += (entities * tokens) as i64;
    }

    fn push_window(&mut self, start: i64, end: i64, window: Window, rows: &[EntityRow]) {
        let first = self.slices.len();
        for (row, EntityRow { position, .. }) in (0..).zip(rows) {
            let position = *position as usize;
            if (window.place..window.place + window.count).contains(&position) {
                self.slices.push(AttentionSlice {
                    token: (position - window.place + window.skip) as i64,
                    row,
                });
            }
        }
        self.windows.push(AttentionWindow {
            start,
            length: end - start,
            skip: window.skip as i64,
            count: window.count as i64,
            place: window.place as i64,
            first_slice: first as i64,
            slices: (self.slices.len() - first) as i64,
        });
    }

    /// Documents, rows, windows and slices as tensors on the host.
    pub(super) fn tables(&self) -> Result<[Tensor; 4]> {
        Ok([
            host_table(&self.documents)?,
            host_table(&self.rows)?,
            host_table(&self.windows)?,
            host_table(&self.slices)?,
        ])
    }
}

/// The pairs of a batch of documents whose contexts are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextTable {
    pub(super) documents: Vec<ContextDocument>,
    pub(super) pairs: Vec<ContextPair>,
    tokens: i64,
    cells: i64,
}

impl ContextTable {
    /// Appends the next document with its pairs of entities.
    pub fn push(&mut self, tokens: usize, entities: usize, pairs: &[(u32, u32)]) {
        self.documents.push(ContextDocument {
            entities: entities as i64,
            tokens: tokens as i64,
            first_token: self.tokens,
            first_cell: self.cells,
            first_pair: self.pairs.len() as i64,
            pairs: pairs.len() as i64,
        });
        self.pairs.extend(
            pairs.iter().map(|&(head, tail)| ContextPair { head: head.into(), tail: tail.into() }),
        );
        self.tokens += tokens as i64;
        self.cells += (tokens * entities) as i64;
    }
}
