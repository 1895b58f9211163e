//! Batches prepared ahead on a second thread, in step order.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use super::batches::{BatchSource, Share};
use super::division::{Division, StepWork};
use crate::base::caught;
use crate::{Error, Result};

/// Number of steps that are prepared ahead.
const AHEAD: usize = 2;

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
            let work =
                std::panic::AssertUnwindSafe(|| caught(|| division.prepare(source, step, share)));
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
    fn received(source: &Numbers, take: usize) -> (Vec<u64>, Option<String>) {
        std::thread::scope(|scope| {
            let receiver =
                prefetch(scope, source, 3..9, Division::ByRank, Share { rank: 0, world: 1 });
            let results: Vec<_> = receiver.iter().take(take).collect();
            drop(receiver);
            let error =
                results.iter().find_map(|result| result.as_ref().err().map(Error::to_string));
            (results.into_iter().flatten().flat_map(|work| work.leaves.concat()).collect(), error)
        })
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
