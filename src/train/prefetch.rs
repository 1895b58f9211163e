//! Batches prepared ahead on other threads, in step order.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use super::batches::{BatchSource, Share};
use super::division::{Division, StepWork};
use crate::base::caught;
use crate::{Error, Result};

/// Number of steps that each thread prepares ahead.
const AHEAD: usize = 2;

/// Steps that are being prepared.
pub(super) struct Prefetched<B> {
    /// One for each thread. The threads take turns.
    threads: Vec<Receiver<Result<StepWork<B>>>>,
    next: usize,
}

impl<B> Iterator for Prefetched<B> {
    type Item = Result<StepWork<B>>;

    /// The next step, or `None` after the last one and after an error.
    fn next(&mut self) -> Option<Self::Item> {
        let receiver = self.threads.get(self.next)?;
        self.next = (self.next + 1) % self.threads.len();
        let prepared = receiver.recv().ok();
        if !matches!(prepared, Some(Ok(_))) {
            // What others have prepared beyond the end is of no use.
            self.threads.clear();
        }
        prepared
    }
}

/// Prepares `steps` on so many `threads` of `scope`; they come one by one, in order.
pub(super) fn prefetch<'scope, 'env, S: BatchSource>(
    scope: &'scope Scope<'scope, 'env>,
    source: &'env S,
    steps: std::ops::Range<u64>,
    (division, share): (Division, Share),
    threads: usize,
) -> Prefetched<S::Batch> {
    let start = |first: usize| {
        let own = steps.clone().skip(first).step_by(threads);
        let (sender, receiver) = sync_channel(AHEAD);
        scope.spawn(move || {
            for step in own {
                let work = std::panic::AssertUnwindSafe(|| {
                    caught(|| division.prepare(source, step, share))
                });
                let prepared = std::panic::catch_unwind(work)
                    .unwrap_or_else(|_| Err(Error::Bug(format!("preparing step {step} panicked"))));
                let failed = prepared.is_err();
                if sender.send(prepared).is_err() || failed {
                    return;
                }
            }
        });
        receiver
    };
    Prefetched { threads: (0..threads).map(start).collect(), next: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::StepBatches;

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
    fn received(source: &Numbers, take: usize, threads: usize) -> (Vec<u64>, Option<String>) {
        std::thread::scope(|scope| {
            let share = (Division::ByRank, Share { rank: 0, world: 1 });
            let results: Vec<_> =
                prefetch(scope, source, 3..9, share, threads).take(take).collect();
            let error =
                results.iter().find_map(|result| result.as_ref().err().map(Error::to_string));
            (results.into_iter().flatten().flat_map(|work| work.leaves.concat()).collect(), error)
        })
    }

    #[test]
    fn steps_arrive_in_order_until_the_first_error() {
        let never = u64::MAX;
        for threads in [1, 2, 4, 9] {
            let all = Numbers { fails_at: never, panics_at: never };
            assert_eq!(received(&all, 99, threads), (vec![3, 4, 5, 6, 7, 8], None));
            let failing = Numbers { fails_at: 5, panics_at: never };
            let told = Some("a broken document".into());
            assert_eq!(received(&failing, 99, threads), (vec![3, 4], told));
            let panicking = Numbers { fails_at: never, panics_at: 4 };
            let (steps, error) = received(&panicking, 99, threads);
            assert!(
                steps == [3] && error.as_ref().is_some_and(|text| text.contains("step 4")),
                "{steps:?} {error:?}"
            );
            assert_eq!(
                received(&all, 1, threads).0,
                [3],
                "a receiver that leaves ends the threads"
            );
        }
    }
}
