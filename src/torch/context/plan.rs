//! Host tables of the entity-attention and context kernels. Their rows are declared in `shim/tables.hpp`, for both languages.

use tch::Tensor;

use crate::Result;
use crate::text::{PackedWindows, Window};
use crate::torch::shim::table;
use crate::torch::shim::tables::{AttentionDocument, AttentionPart, AttentionRow, AttentionWindow, ContextDocument, ContextPair};

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
pub struct AttentionPlan {
    pub(super) documents: Vec<AttentionDocument>,
    pub(super) rows: Vec<AttentionRow>,
    /// Share of each row in its entity.
    pub(super) weights: Vec<f32>,
    pub(super) windows: Vec<AttentionWindow>,
    pub(super) parts: Vec<AttentionPart>,
    /// Σ over documents of entities · tokens.
    cells: i64,
}

impl AttentionPlan {
    /// Appends the next document of `packed`, of `tokens` pieces, with its rows.
    pub fn push(&mut self, packed: &PackedWindows, tokens: usize, entities: usize, rows: &[EntityRow]) {
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
            self.push_window(packed.offsets[window], packed.offsets[window + 1], packed.windows[window], rows);
        }
        self.rows.extend(rows.iter().map(|row| AttentionRow { entity: row.entity.into() }));
        self.weights.extend(rows.iter().map(|row| row.weight));
        self.cells += (entities * tokens) as i64;
    }

    fn push_window(&mut self, start: i64, end: i64, window: Window, rows: &[EntityRow]) {
        let first = self.parts.len();
        for (row, EntityRow { position, .. }) in (0..).zip(rows) {
            let position = *position as usize;
            if (window.place..window.place + window.count).contains(&position) {
                self.parts.push(AttentionPart { token: (position - window.place + window.skip) as i64, row });
            }
        }
        self.windows.push(AttentionWindow {
            start,
            length: end - start,
            skip: window.skip as i64,
            count: window.count as i64,
            place: window.place as i64,
            first_part: first as i64,
            parts: (self.parts.len() - first) as i64,
        });
    }

    /// Documents, rows, windows and parts as tensors on the host.
    pub(super) fn tables(&self) -> Result<[Tensor; 4]> {
        Ok([table(&self.documents)?, table(&self.rows)?, table(&self.windows)?, table(&self.parts)?])
    }
}

/// The pairs of a batch of documents whose contexts are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextPlan {
    pub(super) documents: Vec<ContextDocument>,
    pub(super) pairs: Vec<ContextPair>,
    tokens: i64,
    cells: i64,
}

impl ContextPlan {
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
        self.pairs.extend(pairs.iter().map(|&(head, tail)| ContextPair { head: head.into(), tail: tail.into() }));
        self.tokens += tokens as i64;
        self.cells += (tokens * entities) as i64;
    }
}
