//! How a global batch is divided among the ranks, and batches prepared ahead on a second thread, in
//! step order.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use super::Schedule;
use super::{BatchSource, Share, StepBatches};
use crate::ranks::parts_of;
use crate::{Error, Result};

/// How many steps are prepared ahead.
const AHEAD: usize = 2;

/// Most parts of a fixed division, and so most ranks that have work in it.
const MOST_PARTS: usize = 64;

/// How a global batch is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Division {
    /// Among the ranks: one part, to which each rank brings its share.
    ByRank,
    /// Into so many parts, however many ranks there are; each part is made by one rank.
    Fixed(usize),
}

impl Division {
    /// As the plan asks for: by rank, or a document (pair) a part, more where the batch is large.
    pub fn of(plan: &Schedule) -> Self {
        if plan.deterministic { Self::Fixed(plan.batch.clamp(1, MOST_PARTS)) } else { Self::ByRank }
    }

    /// Number of parts.
    pub fn parts(self) -> usize {
        match self {
            Self::ByRank => 1,
            Self::Fixed(parts) => parts,
        }
    }

    /// Adds up `width` numbers a part, in the order of the parts; what follows them comes back as
    /// it is.
    pub fn total(self, numbers: &[f64], width: usize) -> (Vec<f64>, &[f64]) {
        let (of_parts, rest) = numbers.split_at(self.parts() * width);
        let mut totals = vec![0.0; width];
        for (index, number) in of_parts.iter().enumerate() {
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
        let Self::Fixed(parts) = self else { return Ok(source.prepare(step, rank)?.into()) };
        let own = parts_of(rank.rank, rank.world, parts);
        let prepared = own
            .clone()
            .map(|part| source.prepare(step, Share { rank: part, world: parts }))
            .collect::<Result<Vec<_>>>()?;
        let rows = match prepared.first() {
            Some(part) => part.rows.clone(),
            // A rank without a part: the share after the last one holds nothing.
            None => source.prepare(step, Share { rank: parts, world: parts })?.rows,
        };
        Ok(StepWork {
            first: own.start,
            parts: prepared.into_iter().map(|part| part.micro).collect(),
            rows,
        })
    }
}

/// A rank's work of one step.
pub struct StepWork<B> {
    /// Number of its first part.
    pub first: usize,
    /// The micro-batches of each of its parts.
    pub parts: Vec<Vec<B>>,
    /// As [`StepBatches::rows`].
    pub rows: Vec<usize>,
}

impl<B> From<StepBatches<B>> for StepWork<B> {
    fn from(batches: StepBatches<B>) -> Self {
        Self { first: 0, parts: vec![batches.micro], rows: batches.rows }
    }
}

/// Prepares `steps` in order on a thread of `scope`; the receiver yields them one by one.
pub(super) fn prefetch<'scope, 'env, S: BatchSource>(
    scope: &'scope Scope<'scope, 'env>,
    source: &'env S,
    steps: std::ops::Range<u64>,
    division: Division,
    share: Share,
) -> Receiver<Result<StepWork<S::Batch>>> {
    let (sender, receiver) = sync_channel(AHEAD);
    scope.spawn(move || {
        for step in steps {
            let work = std::panic::AssertUnwindSafe(|| division.prepare(source, step, share));
            let prepared = std::panic::catch_unwind(work)
                .unwrap_or_else(|_| Err(Error::Bug(format!("preparing step {step} panicked"))));
            let failed = prepared.is_err();
            if sender.send(prepared).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its step; fails, in one of two ways, at a given one.
    struct Numbers {
        fails_at: u64,
        panics_at: u64,
    }

    impl BatchSource for Numbers {
        type Batch = u64;

        fn prepare(&self, step: u64, _share: Share) -> Result<StepBatches<u64>> {
            assert!(step != self.panics_at, "a bug");
            if step == self.fails_at {
                return Err(Error::recipe("a broken document"));
            }
            Ok(StepBatches { micro: vec![step], rows: Vec::new() })
        }
    }

    /// The steps that arrive, and the error that ends them.
    fn received(source: &Numbers, take: usize) -> (Vec<u64>, Option<String>) {
        std::thread::scope(|scope| {
            let receiver =
                prefetch(scope, source, 3..9, Division::ByRank, Share { rank: 0, world: 1 });
            let results: Vec<_> = receiver.iter().take(take).collect();
            drop(receiver);
            let error =
                results.iter().find_map(|result| result.as_ref().err().map(Error::to_string));
            (results.into_iter().flatten().flat_map(|work| work.parts.concat()).collect(), error)
        })
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
        let plan = |batch| Schedule { batch, deterministic: true, ..Schedule::base() };
        assert_eq!(
            [Division::of(&plan(11)), Division::of(&plan(900))],
            [Division::Fixed(11), Division::Fixed(64)]
        );
        assert_eq!(Division::of(&Schedule::base()), Division::ByRank);
        let alone = Division::Fixed(4).prepare(&Items, 0, Share { rank: 0, world: 1 }).unwrap();
        assert_eq!(alone.parts, [vec![0, 4, 8], vec![1, 5, 9], vec![2, 6, 10], vec![3, 7]]);
        for world in [2, 3, 4, 6] {
            let ranks: Vec<_> = (0..world)
                .map(|rank| Division::Fixed(4).prepare(&Items, 0, Share { rank, world }).unwrap())
                .collect();
            assert!(ranks.iter().all(|work| work.rows == alone.rows));
            assert!(
                ranks.windows(2).all(|two| two[0].first + two[0].parts.len() == two[1].first),
                "numbered through"
            );
            assert_eq!(
                ranks.into_iter().flat_map(|work| work.parts).collect::<Vec<_>>(),
                alone.parts,
                "{world} ranks"
            );
        }
    }

    #[test]
    fn steps_arrive_in_order_until_the_first_error() {
        let never = u64::MAX;
        assert_eq!(
            received(&Numbers { fails_at: never, panics_at: never }, 99),
            (vec![3, 4, 5, 6, 7, 8], None)
        );
        assert_eq!(
            received(&Numbers { fails_at: 5, panics_at: never }, 99),
            (vec![3, 4], Some("a broken document".into()))
        );
        let (steps, error) = received(&Numbers { fails_at: never, panics_at: 4 }, 99);
        assert!(
            steps == [3] && error.as_ref().is_some_and(|text| text.contains("step 4")),
            "{steps:?} {error:?}"
        );
        assert_eq!(
            received(&Numbers { fails_at: never, panics_at: never }, 1).0,
            [3],
            "a receiver that leaves ends the thread"
        );
    }
}
