//! Which items make up a step's global batch, in which order, and which of them a rank takes.
//!
//! Not for: what is drawn inside an item.

use super::mixture::{KnownOrders, Mixture, SourceVisits, Visit};
use super::windows::Windows;
use crate::base::hash_number;
use crate::{DataError, Error, Result};

/// The order of a stage that goes through documents epoch by epoch, each epoch in a new order.
#[derive(Clone, Debug)]
pub struct BatchOrder {
    mixture: Mixture,
    batch: u64,
}

/// One item of a global batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchItem {
    /// Index in the global batch, which keys the item's random numbers together with the step.
    pub item: u64,
    /// The source; 0 where there is one.
    pub source: usize,
    /// Position in the list of the source's documents.
    pub row: usize,
    /// How often all documents of the source were visited before.
    pub pass: u64,
    /// The window of that pass.
    pub window: usize,
}

impl BatchOrder {
    /// Orders `len` documents of one source and window into global batches of `batch`.
    #[cfg(test)]
    pub fn new(len: usize, seed: u64, batch: usize) -> Result<Self> {
        let visits = len as u64;
        Self::mixed(&[SourceVisits { documents: visits, visits }], seed, batch)
    }

    /// Orders the documents of several sources of one window each.
    #[cfg(test)]
    pub fn mixed(sources: &[SourceVisits], seed: u64, batch: usize) -> Result<Self> {
        let windows = sources.iter().map(|source| Windows::one(source.documents)).collect();
        Self::in_windows(sources, windows, seed, batch)
    }

    /// Orders the documents of sources into global batches of `batch`: each source has its own
    /// number of visits an epoch and goes window by window. Every epoch starts a new batch; its
    /// last one may be short.
    ///
    /// # Errors
    /// [`Error::Recipe`] for an empty batch; [`Error::Data`] for a source without documents.
    pub fn in_windows(
        sources: &[SourceVisits],
        windows: Vec<Windows>,
        seed: u64,
        batch: usize,
    ) -> Result<Self> {
        if batch == 0 {
            return Err(
                Error::recipe("the global batch has 0 documents").with_hint("set it to 1 or more")
            );
        }
        if sources.is_empty() || sources.iter().any(|each| each.documents == 0 || each.visits == 0)
        {
            return Err(DataError::new("shards", "hold no usable document")
                .hint("add documents")
                .into());
        }
        Ok(Self { mixture: Mixture::new(sources, windows, seed), batch: batch as u64 })
    }

    /// Documents that an epoch visits, a repeated one as often as it is visited; at least 1.
    pub fn visits(&self) -> usize {
        self.mixture.visits() as usize
    }

    /// Number of steps of an epoch; at least 1.
    pub fn steps_per_epoch(&self) -> u64 {
        self.mixture.visits().div_ceil(self.batch)
    }

    /// The epoch, from 0, to which a step belongs.
    pub fn epoch(&self, step: u64) -> u64 {
        step / self.steps_per_epoch()
    }

    /// All items of a step's global batch.
    pub fn items(&self, step: u64) -> Vec<BatchItem> {
        let epoch = self.epoch(step);
        let start = (step % self.steps_per_epoch()) * self.batch;
        let size = self.batch.min(self.mixture.visits() - start);
        let mut known = KnownOrders::new();
        let visits = (0..size).map(|item| (item, self.mixture.at(epoch, start + item, &mut known)));
        visits
            .map(|(item, visit)| {
                let Visit { source, row, pass, window } = visit;
                BatchItem { item, source, row, pass, window }
            })
            .collect()
    }

    /// The windows of a source.
    pub fn windows(&self, source: usize) -> &Windows {
        &self.mixture.windows()[source]
    }

    /// The blocks of a window of a source, and after them those of the next window.
    pub fn blocks_from(&self, source: usize, pass: u64, window: usize) -> Vec<usize> {
        let own = self.mixture.pass(source, pass);
        let mut blocks = own.blocks(window);
        if window + 1 < self.windows(source).len() {
            blocks.extend(own.blocks(window + 1));
        } else {
            blocks.extend(self.mixture.pass(source, pass + 1).blocks(0));
        }
        blocks
    }

    /// What tells this mixture of sources and windows from others: 0 where there is one source,
    /// whose documents are visited once an epoch, in one window.
    pub fn mixture_key(&self) -> u64 {
        let windows = || self.mixture.windows().iter().filter(|windows| !windows.is_one());
        if let [SourceVisits { documents, visits }] = self.mixture.sources()
            && documents == visits
            && windows().next().is_none()
        {
            return 0;
        }
        let mut hasher = blake3::Hasher::new();
        for SourceVisits { documents, visits } in self.mixture.sources() {
            hasher.update(&documents.to_le_bytes()).update(&visits.to_le_bytes());
        }
        for number in windows().flat_map(Windows::key) {
            hasher.update(&number.to_le_bytes());
        }
        // Small enough for every reader of JSON, and never 0.
        hash_number(&hasher.finalize()) >> 12 | 1
    }
}

/// A running hash over the rows of all global batches so far: equal hashes mean the same documents
/// in the same order, whatever the number of ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderHash {
    state: blake3::Hash,
}

impl Default for OrderHash {
    fn default() -> Self {
        Self { state: blake3::Hash::from_bytes([0; 32]) }
    }
}

impl OrderHash {
    /// Adds a step's global batch: the rows of all its items, in the order of the items.
    pub fn add(&mut self, step: u64, rows: impl IntoIterator<Item = usize>) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.state.as_bytes());
        hasher.update(&step.to_le_bytes());
        for row in rows {
            hasher.update(&(row as u64).to_le_bytes());
        }
        self.state = hasher.finalize();
    }

    /// The hash as hexadecimal digits.
    pub fn to_hex(&self) -> String {
        self.state.to_hex().to_string()
    }

    /// Goes on from a hash that [`Self::to_hex`] wrote; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|state| Self { state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_visits_every_document_once_and_the_next_in_another_order() {
        let order = BatchOrder::new(10, 5, 4).unwrap();
        assert_eq!(order.steps_per_epoch(), 3);
        let rows = |steps: std::ops::Range<u64>| {
            steps.flat_map(|s| order.items(s)).map(|item| item.row).collect::<Vec<_>>()
        };
        let (first, second) = (rows(0..3), rows(3..6));
        assert_ne!(first, second);
        for mut epoch in [first, second] {
            epoch.sort_unstable();
            assert_eq!(epoch, (0..10).collect::<Vec<_>>());
        }
        assert_eq!([order.epoch(2), order.epoch(3)], [0, 1]);
        assert_eq!(order.items(2).len(), 2);
    }

    #[test]
    fn an_order_without_steps_is_an_error() {
        assert_eq!(BatchOrder::new(10, 0, 0).unwrap_err().exit_code(), 64);
        assert_eq!(BatchOrder::new(0, 0, 4).unwrap_err().exit_code(), 65);
        assert!(BatchOrder::new(3, 0, 4).is_ok());
    }

    #[test]
    fn sources_are_mixed_within_batches_and_a_mixture_has_a_key() {
        let source = |documents, visits| SourceVisits { documents, visits };
        let order = BatchOrder::mixed(&[source(6, 6), source(10, 2)], 5, 4).unwrap();
        assert_eq!((order.visits(), order.steps_per_epoch()), (8, 2));
        for step in 0..6 {
            let items = order.items(step);
            assert_eq!(items.iter().filter(|item| item.source == 1).count(), 1, "{items:?}");
        }
        let key =
            |sources: &[SourceVisits]| BatchOrder::mixed(sources, 5, 4).unwrap().mixture_key();
        assert_eq!(key(&[source(6, 6)]), 0);
        let others = [
            key(&[source(6, 3)]),
            key(&[source(6, 6), source(10, 2)]),
            key(&[source(6, 6), source(10, 3)]),
        ];
        assert!(others.iter().all(|&key| key > 0) && others[0] != others[1]);
        assert_ne!(others[1], others[2]);
    }

    #[test]
    fn windows_are_visited_one_after_the_other_and_have_a_key() {
        let sources = [SourceVisits { documents: 24, visits: 24 }];
        let order = |per_window| {
            let windows = Windows::new((0..=6).map(|block| 4 * block).collect(), per_window);
            BatchOrder::in_windows(&sources, vec![windows], 5, 5).unwrap()
        };
        let one = order(6);
        assert_eq!(one.mixture_key(), 0);
        let plain = BatchOrder::new(24, 5, 5).unwrap();
        assert!((0..12).all(|step| one.items(step) == plain.items(step)));
        let three = order(2);
        assert!(three.mixture_key() > 0 && three.mixture_key() != order(3).mixture_key());
        for epoch in 0..3 {
            let steps = epoch * three.steps_per_epoch()..(epoch + 1) * three.steps_per_epoch();
            let items: Vec<BatchItem> = steps.flat_map(|step| three.items(step)).collect();
            for (place, item) in items.iter().enumerate() {
                assert_eq!((item.window, item.pass), (place / 8, epoch));
                let blocks = three.blocks_from(0, epoch, item.window);
                assert_eq!(blocks.len(), 4);
                assert!(blocks[..2].contains(&(item.row / 4)), "{item:?} {blocks:?}");
            }
            let next = three.blocks_from(0, epoch + 1, 0);
            assert_eq!(three.blocks_from(0, epoch, 2)[2..], next[..2]);
        }
    }

    #[test]
    fn the_hash_knows_rows_steps_and_order_and_can_be_taken_up_again() {
        let hash = |batches: &[(u64, &[usize])]| {
            let mut hash = OrderHash::default();
            batches.iter().for_each(|(step, rows)| hash.add(*step, rows.iter().copied()));
            hash
        };
        let whole = hash(&[(0, &[1, 2]), (1, &[3])]);
        assert_ne!(whole, hash(&[(0, &[2, 1]), (1, &[3])]));
        assert_ne!(whole, hash(&[(0, &[1, 2]), (2, &[3])]));
        assert_ne!(whole, hash(&[(0, &[1]), (1, &[2, 3])]));
        let mut resumed = OrderHash::from_hex(&hash(&[(0, &[1, 2])]).to_hex()).unwrap();
        resumed.add(1, [3]);
        assert_eq!(resumed, whole);
        assert_eq!(OrderHash::from_hex("no hash"), None);
    }
}
