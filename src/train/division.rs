//! How a global batch is divided among the ranks.

use super::batches::{BatchSource, Share, StepBatches};
use crate::Result;
use crate::ranks::leaves_of;

/// Most leaves of a fixed division, and so most ranks that have work in it.
const MOST_LEAVES: usize = 64;

/// How a global batch is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Division {
    /// Among the ranks: one leaf, to which each rank brings its share.
    ByRank,
    /// Into this number of leaves, however many ranks there are; each leaf belongs to one rank.
    Fixed(usize),
}

impl Division {
    /// By rank, or, if the order of sums must not depend on the ranks, a document (pair) a leaf;
    /// more if the batch is large.
    pub fn of(batch: usize, deterministic: bool) -> Self {
        if deterministic { Self::Fixed(batch.clamp(1, MOST_LEAVES)) } else { Self::ByRank }
    }

    /// Number of leaves.
    pub fn leaves(self) -> usize {
        match self {
            Self::ByRank => 1,
            Self::Fixed(leaves) => leaves,
        }
    }

    /// Adds up `width` numbers a leaf, in the order of the leaves, and returns the sums and the
    /// numbers that follow.
    pub fn total(self, numbers: &[f64], width: usize) -> (Vec<f64>, &[f64]) {
        let (of_leaves, rest) = numbers.split_at(self.leaves() * width);
        let mut totals = vec![0.0; width];
        for (index, number) in of_leaves.iter().enumerate() {
            totals[index % width] += number;
        }
        (totals, rest)
    }

    /// The micro-batches of one rank at `step`.
    ///
    /// # Errors
    /// As [`BatchSource::prepare`].
    pub fn prepare<S: BatchSource>(
        self,
        source: &S,
        step: u64,
        rank: Share,
    ) -> Result<StepWork<S::Batch>> {
        let Self::Fixed(leaves) = self else { return Ok(source.prepare(step, rank)?.into()) };
        let own = leaves_of(rank.rank, rank.world, leaves);
        let prepared = own
            .clone()
            .map(|leaf| source.prepare(step, Share { rank: leaf, world: leaves }))
            .collect::<Result<Vec<_>>>()?;
        let rows = match prepared.first() {
            Some(leaf) => leaf.rows.clone(),
            // A rank without a leaf: the share after the last one holds nothing.
            None => source.prepare(step, Share { rank: leaves, world: leaves })?.rows,
        };
        Ok(StepWork {
            first: own.start,
            leaves: prepared.into_iter().map(|leaf| leaf.micro).collect(),
            rows,
        })
    }
}

/// The ranks that no item falls to where global batches of `batch` hold `items`, which are fewer if
/// the corpus is smaller than a batch.
pub fn idle_ranks(batch: usize, items: usize, deterministic: bool, world: usize) -> Vec<usize> {
    match Division::of(batch, deterministic) {
        Division::ByRank => (items..world).collect(),
        Division::Fixed(leaves) => {
            // Leaf l holds the items l, l + leaves, ….
            let idle = |&rank: &usize| leaves_of(rank, world, leaves).all(|leaf| leaf >= items);
            (0..world).filter(idle).collect()
        }
    }
}

/// A rank's work of one step.
pub struct StepWork<B> {
    /// Number of its first leaf.
    pub first: usize,
    /// The micro-batches of each of its leaves.
    pub leaves: Vec<Vec<B>>,
    /// As [`StepBatches::rows`].
    pub rows: Vec<usize>,
}

impl<B> From<StepBatches<B>> for StepWork<B> {
    fn from(batches: StepBatches<B>) -> Self {
        Self { first: 0, leaves: vec![batches.micro], rows: batches.rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_without_work_are_those_that_no_item_falls_to() {
        assert_eq!(idle_ranks(4, 4, false, 4), [0; 0]);
        assert_eq!(idle_ranks(3, 3, false, 5), [3, 4]);
        assert_eq!(idle_ranks(2, 2, true, 4), [0, 2]);
        // A corpus of three documents under a batch of eight.
        assert_eq!(idle_ranks(8, 3, false, 4), [3]);
        assert_eq!(idle_ranks(8, 3, true, 4), [2, 3]);
        assert_eq!(idle_ranks(100, 100, true, 4), [0; 0]);
    }

    /// Gives the items of its share.
    struct Items;

    impl BatchSource for Items {
        type Batch = usize;

        fn prepare(&self, _step: u64, share: Share) -> Result<StepBatches<usize>> {
            Ok(StepBatches {
                micro: (0..11).filter(|&item| share.holds(item)).collect(),
                rows: (0..11).collect(),
            })
        }
    }

    #[test]
    fn a_fixed_division_is_the_same_for_every_number_of_ranks() {
        assert_eq!(
            [Division::of(11, true), Division::of(900, true)],
            [Division::Fixed(11), Division::Fixed(64)]
        );
        assert_eq!(Division::of(32, false), Division::ByRank);
        let alone = Division::Fixed(4).prepare(&Items, 0, Share { rank: 0, world: 1 }).unwrap();
        assert_eq!(alone.leaves, [vec![0, 4, 8], vec![1, 5, 9], vec![2, 6, 10], vec![3, 7]]);
        for world in [2, 3, 4, 6] {
            let ranks: Vec<_> = (0..world)
                .map(|rank| Division::Fixed(4).prepare(&Items, 0, Share { rank, world }).unwrap())
                .collect();
            assert!(ranks.iter().all(|work| work.rows == alone.rows));
            assert!(
                ranks.windows(2).all(|two| two[0].first + two[0].leaves.len() == two[1].first),
                "numbered through"
            );
            assert_eq!(
                ranks.into_iter().flat_map(|work| work.leaves).collect::<Vec<_>>(),
                alone.leaves,
                "{world} ranks"
            );
        }
    }
}
