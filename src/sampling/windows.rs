//! The order of documents that do not fit into memory together: their blocks in a new order each
//! pass, a window of blocks after the other, and the documents of a window in a new order.
//!
//! Everything is arithmetic: what stands at a place is a function of (seed, pass, place). Documents
//! that fit have one window, whose order is a permutation of all of them. Not for: which rows of a
//! block are visited (`visited`), or holding blocks (`shards`).

use std::sync::Arc;

use super::rng::{Permutation, Purpose};

/// How the documents of a source lie in blocks, and how many blocks are in memory at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Documents before each block, closed by all of them; [blocks + 1].
    starts: Arc<[u64]>,
    /// Blocks of a window; at least 1.
    per_window: usize,
}

impl Windows {
    /// One window of so many documents.
    #[cfg(test)]
    pub fn one(documents: u64) -> Self {
        Self::new(vec![0, documents], 1)
    }

    /// Windows of `per_window` blocks (at least 1); `starts` has the documents before each block,
    /// closed by all of them.
    pub fn new(starts: Vec<u64>, per_window: usize) -> Self {
        Self { starts: starts.into(), per_window: per_window.max(1) }
    }

    /// Number of documents.
    pub fn documents(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Windows of a pass.
    pub fn len(&self) -> usize {
        self.blocks().div_ceil(self.per_window).max(1)
    }

    /// Whether all documents are in one window.
    pub fn is_one(&self) -> bool {
        self.len() == 1
    }

    fn blocks(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// What tells these windows from others: all that their order follows from besides the seed.
    pub fn key(&self) -> impl Iterator<Item = u64> + '_ {
        std::iter::once(self.per_window as u64).chain(self.starts.iter().copied())
    }

    /// The order of a pass; passes with other keys have other orders. Takes a time that grows with
    /// the number of blocks.
    pub fn pass(&self, seed: u64, key: u64) -> WindowPass {
        let count = self.blocks();
        let blocks: Vec<usize> = if self.is_one() {
            (0..count).collect()
        } else {
            let order = Permutation::keyed(count as u64, seed, Purpose::Blocks, key, 0);
            (0..count as u64).map(|place| order.at(place) as usize).collect()
        };
        let (mut starts, mut all) = (vec![0], 0);
        for window in blocks.chunks(self.per_window) {
            all += window.iter().map(|&block| self.size(block)).sum::<u64>();
            starts.push(all);
        }
        WindowPass { windows: self.clone(), seed, key, blocks, starts, last: None }
    }

    fn size(&self, block: usize) -> u64 {
        self.starts[block + 1] - self.starts[block]
    }
}

/// The order of all documents in one pass.
#[derive(Clone, Debug)]
pub struct WindowPass {
    windows: Windows,
    seed: u64,
    key: u64,
    /// All blocks in the order of this pass.
    blocks: Vec<usize>,
    /// Documents before each window, closed by all of them.
    starts: Vec<u64>,
    /// The window that was used last: neighbouring places mostly share it.
    last: Option<(usize, WindowRows)>,
}

/// The order inside a window.
#[derive(Clone, Debug)]
struct WindowRows {
    /// Its blocks, rising, with the documents of the window before each.
    blocks: Vec<(usize, u64)>,
    order: Permutation,
}

impl WindowPass {
    /// The window of a place, which must be below the number of documents.
    pub fn window_at(&self, place: u64) -> usize {
        self.starts.partition_point(|&start| start <= place) - 1
    }

    /// The blocks of a window, rising.
    pub fn blocks(&self, window: usize) -> Vec<usize> {
        let all = self.blocks.chunks(self.windows.per_window).nth(window);
        let mut blocks = all.unwrap_or_default().to_vec();
        blocks.sort_unstable();
        blocks
    }

    /// The window of a place, and the document there: its position among those of the source.
    pub fn at(&mut self, place: u64) -> (usize, usize) {
        let window = self.window_at(place);
        let rows = match self.last.take() {
            Some((last, rows)) if last == window => rows,
            _ => self.rows(window),
        };
        let position = rows.order.at(place - self.starts[window]);
        let block = rows.blocks.partition_point(|&(_, before)| before <= position) - 1;
        let (block, before) = rows.blocks[block];
        self.last = Some((window, rows));
        (window, (self.windows.starts[block] + position - before) as usize)
    }

    fn rows(&self, window: usize) -> WindowRows {
        let mut before = 0;
        let blocks = self.blocks(window).into_iter().map(|block| {
            let own = (block, before);
            before += self.windows.size(block);
            own
        });
        let blocks = blocks.collect();
        let order = if self.windows.is_one() {
            Permutation::new(before, self.seed, self.key)
        } else {
            Permutation::keyed(before, self.seed, Purpose::Window, self.key, window as u64)
        };
        WindowRows { blocks, order }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sampling::testing::assert_uniform;

    fn windows(sizes: &[u64], per_window: usize) -> Windows {
        let starts = std::iter::once(0).chain(sizes.iter().scan(0, |sum, size| {
            *sum += size;
            Some(*sum)
        }));
        Windows::new(starts.collect(), per_window)
    }

    fn order(windows: &Windows, seed: u64, key: u64) -> Vec<(usize, usize)> {
        let mut pass = windows.pass(seed, key);
        (0..windows.documents()).map(|place| pass.at(place)).collect()
    }

    proptest! {
        #[test]
        fn a_pass_visits_every_document_once_window_by_window(
            sizes in prop::collection::vec(0_u64..9, 1..30),
            per_window in 1_usize..8,
            seed: u64,
            key in 0_u64..9,
        ) {
            let windows = windows(&sizes, per_window);
            let visits = order(&windows, seed, key);
            let pass = windows.pass(seed, key);
            prop_assert!(visits.is_sorted_by_key(|(window, _)| *window));
            for &(window, document) in &visits {
                let block = windows.starts.partition_point(|&start| start <= document as u64) - 1;
                prop_assert!(pass.blocks(window).contains(&block));
            }
            let mut documents: Vec<usize> = visits.into_iter().map(|(_, row)| row).collect();
            documents.sort_unstable();
            prop_assert_eq!(documents, (0..windows.documents() as usize).collect::<Vec<_>>());
            let all = (0..windows.len()).flat_map(|at| pass.blocks(at));
            let mut blocks: Vec<usize> = all.collect();
            blocks.sort_unstable();
            prop_assert_eq!(blocks, (0..sizes.len()).collect::<Vec<_>>());
        }

        #[test]
        fn one_window_is_a_permutation_of_all_documents_whatever_their_blocks(
            sizes in prop::collection::vec(0_u64..9, 1..30),
            seed: u64,
            key: u64,
        ) {
            let windows = windows(&sizes, sizes.len());
            let all = Permutation::new(windows.documents(), seed, key);
            let expected = (0..windows.documents()).map(|place| (0, all.at(place) as usize));
            prop_assert_eq!(order(&windows, seed, key), expected.collect::<Vec<_>>());
        }
    }

    /// A place of a window has each document of the corpus equally often, and one window each of
    /// its own blocks.
    #[test]
    fn documents_are_uniform_over_the_places_of_a_window_and_blocks_over_windows() {
        let windows = windows(&[2; 6], 2);
        let mut counts = vec![0_u32; 12 * 12];
        let mut together = [0_u32; 6 * 3];
        for key in 0..12_000 {
            for (place, (window, document)) in order(&windows, 7, key).into_iter().enumerate() {
                counts[place * 12 + document] += 1;
                together[window * 6 + document / 2] += 1;
            }
        }
        counts.chunks(12).for_each(assert_uniform);
        // Both documents of a block are counted, so half of the counts are independent.
        let halves: Vec<u32> = together.iter().map(|count| count / 2).collect();
        halves.chunks(6).for_each(assert_uniform);
    }

    #[test]
    fn passes_and_seeds_have_windows_of_their_own() {
        let windows = windows(&[4; 12], 3);
        let blocks = |seed, key| windows.pass(seed, key).blocks(0);
        let all = [blocks(1, 0), blocks(1, 1), blocks(1, 2), blocks(2, 0)];
        for (at, one) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|other| other != one), "{all:?}");
        }
        assert_ne!(order(&windows, 1, 0), order(&windows, 1, 1));
        assert_eq!(order(&windows, 1, 1), order(&windows, 1, 1));
    }
}
