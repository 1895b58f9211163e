//! Host tables of the entity-attention and context kernels; the columns are those of the structs in
//! `shim/context.hpp`.

use tch::Tensor;

use crate::Result;
use crate::text::{PackedWindows, Window};

/// Columns of a document: entities, tokens, first row, rows, first window, windows, whether rows
/// are normalised again, first cell.
pub(super) const DOCUMENT: usize = 8;
/// Columns of a window: first token of the stream, length, skip, count, place, first part, parts.
pub(super) const WINDOW: usize = 7;
/// Columns of a document of contexts: entities, tokens, first token, first cell, first pair, pairs.
pub(super) const CONTEXT: usize = 6;

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
    documents: Vec<i64>,
    rows: Vec<i64>,
    weights: Vec<f32>,
    windows: Vec<i64>,
    parts: Vec<i64>,
    cells: i64,
}

impl AttentionPlan {
    /// Appends the next document of `packed`, of `tokens` pieces, with its rows.
    pub fn push(
        &mut self,
        packed: &PackedWindows,
        tokens: usize,
        entities: usize,
        rows: &[EntityRow],
    ) {
        let index = self.documents.len() / DOCUMENT;
        let range = packed.document_windows[index]..packed.document_windows[index + 1];
        let first = [self.rows.len(), self.windows.len() / WINDOW];
        for window in range.clone() {
            self.push_window(
                packed.offsets[window],
                packed.offsets[window + 1],
                packed.windows[window],
                rows,
            );
        }
        self.rows.extend(rows.iter().map(|row| i64::from(row.entity)));
        self.weights.extend(rows.iter().map(|row| row.weight));
        let columns = [
            entities,
            tokens,
            first[0],
            rows.len(),
            first[1],
            range.len(),
            usize::from(range.len() > 1),
        ];
        self.documents.extend(columns.map(|column| column as i64));
        self.documents.push(self.cells);
        self.cells += (entities * tokens) as i64;
    }

    fn push_window(&mut self, start: i64, end: i64, window: Window, rows: &[EntityRow]) {
        let first = self.parts.len() / 2;
        for (number, row) in rows.iter().enumerate() {
            let position = row.position as usize;
            if (window.place..window.place + window.count).contains(&position) {
                self.parts.extend(
                    [position - window.place + window.skip, number].map(|column| column as i64),
                );
            }
        }
        let columns =
            [window.skip, window.count, window.place, first, self.parts.len() / 2 - first];
        self.windows.extend([start, end - start]);
        self.windows.extend(columns.map(|column| column as i64));
    }

    /// Σ over documents of entities · tokens: the length of the result over one head.
    pub fn cells(&self) -> i64 {
        self.cells
    }

    /// [`DOCUMENT`] columns a document.
    pub(super) fn documents(&self) -> impl Iterator<Item = &[i64]> {
        self.documents.chunks_exact(DOCUMENT)
    }

    /// [`WINDOW`] columns a window.
    pub(super) fn windows(&self) -> impl Iterator<Item = &[i64]> {
        self.windows.chunks_exact(WINDOW)
    }

    /// Entity of each row, in its document.
    pub(super) fn rows(&self) -> &[i64] {
        &self.rows
    }

    /// Token of its window and row of its document, of each part.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[i64]> {
        self.parts.chunks_exact(2)
    }

    /// Share of each row.
    pub(super) fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Documents, rows, windows and parts as tensors on the host.
    pub(super) fn tables(&self) -> Result<[Tensor; 4]> {
        let table = |values: &[i64]| Ok::<_, crate::Error>(Tensor::f_from_slice(values)?);
        Ok([
            table(&self.documents)?,
            table(&self.rows)?,
            table(&self.windows)?,
            table(&self.parts)?,
        ])
    }
}

/// The pairs of a batch of documents whose contexts are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextPlan {
    documents: Vec<i64>,
    pairs: Vec<i64>,
    tokens: i64,
    cells: i64,
}

impl ContextPlan {
    /// Appends the next document with its pairs of entities.
    pub fn push(&mut self, tokens: usize, entities: usize, pairs: &[(u32, u32)]) {
        let first = (self.pairs.len() / 2) as i64;
        self.documents.extend([
            entities as i64,
            tokens as i64,
            self.tokens,
            self.cells,
            first,
            pairs.len() as i64,
        ]);
        self.pairs
            .extend(pairs.iter().flat_map(|&(head, tail)| [i64::from(head), i64::from(tail)]));
        self.tokens += tokens as i64;
        self.cells += (tokens * entities) as i64;
    }

    /// [`CONTEXT`] columns a document.
    pub(super) fn documents(&self) -> &[i64] {
        &self.documents
    }

    /// Head and tail of each pair, in its document.
    pub(super) fn pairs(&self) -> &[i64] {
        &self.pairs
    }
}
