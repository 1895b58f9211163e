//! The source of micro-batches: a pure function of (step, share), so that any rank can prepare any
//! step.

use crate::Result;

/// What falls to one rank of a global batch: items `rank`, `rank + world`, ….
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// This rank.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
}

impl Share {
    /// Whether item `index` of the global batch is this rank's.
    pub fn holds(self, index: usize) -> bool {
        index % self.world == self.rank
    }
}

/// A rank's micro-batches of one step.
pub struct StepBatches<B> {
    /// Micro-batches, each within the token budget; empty if the rank has no item.
    pub micro: Vec<B>,
    /// Rows of the documents of the *global* batch, in order: equal on every rank and at every
    /// world size.
    pub rows: Vec<usize>,
}

/// Prepares the micro-batches of any step: a pure function of (step, share).
pub trait BatchSource: Sync {
    /// The micro-batch type.
    type Batch: Send;

    /// The micro-batches of `step` (from 0).
    ///
    /// # Errors
    /// If a document cannot be viewed; the error names it.
    fn prepare(&self, step: u64, share: Share) -> Result<StepBatches<Self::Batch>>;

    /// The title of the document in a row of [`StepBatches::rows`].
    fn title(&self, row: usize) -> String {
        format!("row {row}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sampling::BatchOrder;
    use crate::shards::testing::{document, prepared_with};
    use crate::shards::{DocumentStore, StoreOptions, WriteOptions};

    #[test]
    fn shares_partition_the_batch() {
        for world in 1..=5 {
            for index in 0..37 {
                let holders: Vec<usize> =
                    (0..world).filter(|&rank| Share { rank, world }.holds(index)).collect();
                assert_eq!(holders, [index % world]);
            }
        }
        let sizes = [0, 1, 2]
            .map(|rank| (0..8).filter(|&index| Share { rank, world: 3 }.holds(index)).count());
        assert_eq!(sizes, [3, 3, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever the shards, the ranks and the batch are, every epoch reads every document once,
        /// and all ranks together read the steps of one.
        #[test]
        fn no_document_is_missing_or_repeated_in_an_epoch(
            count in 1_usize..40,
            rows_per_shard in 1_usize..9,
            row_group_rows in 1_usize..5,
            world in 1_usize..=64,
            batch in 1_usize..20,
            seed: u64,
        ) {
            let temp = tempfile::tempdir().unwrap();
            let titles: Vec<String> =
                (0..count).map(|number| format!("document {number:02}")).collect();
            let documents: Vec<_> = titles
                .iter()
                .map(|title| document(title, &[&["Paris"], &["France"]], &[(0, 1, "P17")]))
                .collect();
            let (folder, _) = prepared_with(
                temp.path(),
                "shards",
                &documents,
                WriteOptions { rows_per_shard, row_group_rows },
            );
            let store = DocumentStore::open(&folder, StoreOptions::default()).unwrap();
            let order = BatchOrder::new(store.len(), seed, batch).unwrap();
            for epoch in 0..2 {
                let mut read = Vec::new();
                for step in
                    (0..order.steps_per_epoch()).map(|step| epoch * order.steps_per_epoch() + step)
                {
                    let items = order.items(step);
                    for rank in 0..world {
                        let share = Share { rank, world };
                        read.extend(
                            items
                                .iter()
                                .enumerate()
                                .filter(|(index, _)| share.holds(*index))
                                .map(|(_, item)| store.title(item.row)),
                        );
                    }
                }
                read.sort_unstable();
                prop_assert_eq!(&read, &titles, "epoch {}", epoch);
            }
        }
    }
}
