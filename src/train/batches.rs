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
    use super::*;

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
}
