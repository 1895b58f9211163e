//! Many views as one stream of pieces with offsets: what the encoder reads. Nothing is padded.
//!
//! Not for: tensors; the buffers have the types that tensors are made of (64-bit indices).

use std::ops::Range;

use super::View;

/// Views of several documents, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedViews {
    /// Pieces of all documents. `[tokens]`
    pub ids: Vec<i64>,
    /// First piece of each document, closed by the number of pieces. [documents + 1]
    pub offsets: Vec<i64>,
    /// Position of each piece in its own document, from 0. `[tokens]`
    pub positions: Vec<i64>,
    /// First row of each document in the mention table, closed by the number of entities.
    /// [documents + 1]
    pub entity_offsets: Vec<usize>,
    /// Mention positions as indices into the stream, a row an entity, padded by repeating the row's
    /// first (which no maximum notices). [entities × mention_width]
    pub mention_table: Vec<i64>,
    /// Width of the mention table; at least 1.
    pub mention_width: usize,
    /// Index into the stream of each document's masked symbols, in the order of
    /// [`View::masked_positions`]; `None` beyond the limit.
    pub masked: Vec<Vec<Option<i64>>>,
}

impl PackedViews {
    /// Number of entities over all documents, which is the number of rows of the mention table.
    pub fn num_entities(&self) -> usize {
        self.mention_table.len() / self.mention_width.max(1)
    }

    /// Appends a view; `mention_width` is already as wide as the widest entity.
    fn push(&mut self, view: &View) {
        let base = self.ids.len() as i64;
        self.ids.extend(view.ids.iter().map(|&id| i64::from(id)));
        self.positions.extend(0..view.ids.len() as i64);
        self.offsets.push(self.ids.len() as i64);
        for mentions in &view.mention_positions {
            let first = mentions.first().copied().unwrap_or(0);
            let padded = mentions.iter().copied().chain(std::iter::repeat(first));
            self.mention_table
                .extend(padded.take(self.mention_width).map(|at| base + i64::from(at)));
        }
        self.entity_offsets.push(self.num_entities());
        self.masked.push(
            view.masked_positions.iter().map(|at| at.map(|at| base + i64::from(at))).collect(),
        );
    }
}

/// Packs views in the given order.
pub fn pack(views: &[View]) -> PackedViews {
    let mention_width = views
        .iter()
        .flat_map(|view| &view.mention_positions)
        .map(Vec::len)
        .max()
        .unwrap_or(0)
        .max(1);
    let mut packed = PackedViews {
        offsets: vec![0],
        entity_offsets: vec![0],
        mention_width,
        ..PackedViews::default()
    };
    views.iter().for_each(|view| packed.push(view));
    packed
}

/// Cuts a list of documents into micro-batches of at most `budget` pieces, in order. A document
/// longer than the budget stands alone.
pub fn split_by_tokens(lengths: &[usize], budget: usize) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (i, &length) in lengths.iter().enumerate() {
        match parts.last_mut() {
            Some(part) if tokens + length <= budget => {
                part.end = i + 1;
                tokens += length;
            }
            _ => {
                parts.push(i..i + 1);
                tokens = length;
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example(ids: &[u32], mentions: &[&[u32]], masked: &[Option<u32>]) -> View {
        View {
            ids: ids.to_vec(),
            mention_positions: mentions.iter().map(|m| m.to_vec()).collect(),
            masked_positions: masked.to_vec(),
            pieces_before_truncation: ids.len(),
            ..View::default()
        }
    }

    #[test]
    fn two_views_share_one_stream() {
        let a = example(&[101, 7, 8, 102], &[&[1], &[0]], &[Some(2), None]);
        let b = example(&[101, 9, 102], &[&[1, 2]], &[]);
        let packed = pack(&[a, b]);
        assert_eq!(packed.ids, [101, 7, 8, 102, 101, 9, 102]);
        assert_eq!(packed.offsets, [0, 4, 7]);
        assert_eq!(packed.positions, [0, 1, 2, 3, 0, 1, 2]);
        assert_eq!(packed.entity_offsets, [0, 2, 3]);
        assert_eq!((packed.mention_width, packed.num_entities(), packed.masked.len()), (2, 3, 2));
        assert_eq!(packed.mention_table, [1, 1, 0, 0, 5, 6]);
        assert_eq!(packed.masked, [vec![Some(2), None], vec![]]);
    }

    #[test]
    fn nothing_packs_to_nothing() {
        let packed = pack(&[]);
        assert_eq!(
            (packed.offsets, packed.entity_offsets, packed.mention_width),
            (vec![0], vec![0], 1)
        );
    }

    #[test]
    fn micro_batches_are_cut_greedily() {
        assert_eq!(split_by_tokens(&[3, 4, 5, 20, 1, 1], 8), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(split_by_tokens(&[3, 4], 7), std::iter::once(0..2).collect::<Vec<_>>());
        assert!(split_by_tokens(&[], 8).is_empty());
    }

    proptest! {
        #[test]
        fn micro_batches_cover_all_documents_within_the_budget(
            lengths in prop::collection::vec(1_usize..50, 0..40),
            budget in 1_usize..100,
        ) {
            let parts = split_by_tokens(&lengths, budget);
            prop_assert_eq!(
                parts.iter().cloned().flatten().collect::<Vec<_>>(),
                (0..lengths.len()).collect::<Vec<_>>()
            );
            for part in &parts {
                prop_assert!(
                    part.len() == 1 || lengths[part.clone()].iter().sum::<usize>() <= budget
                );
            }
            for two in parts.windows(2) {
                prop_assert!(lengths[two[0].start..=two[1].start].iter().sum::<usize>() > budget);
            }
        }
    }
}
