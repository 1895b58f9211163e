//! Work on all cores whose results come out in the order of the input, with a bounded number and
//! size of items under way.
//!
//! Every item travels with the sending end of a channel of its own; the receiving ends wait in a
//! queue, in order. An item also takes its size out of a budget, and gives it back when its result
//! has been used, so that a few large items cost no more memory than many small ones. Not for: work
//! on data that is in memory already (that is what rayon does).

use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Scope;

use super::panics::lock;

/// Bytes of a file that readers keep under way: in parsing, or parsed and not used yet. As
/// documents they are some five times as large.
pub(crate) const MOST_TEXT_BYTES: usize = 1 << 22;

/// Number of threads to work on.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// The total size of the items that may be under way at the same time, in any unit.
struct Budget {
    most: usize,
    taken: Mutex<usize>,
    given_back: Condvar,
}

impl Budget {
    /// Waits until `size` is left. An item larger than the whole budget goes alone.
    fn take(self: &Arc<Self>, size: usize) -> BudgetShare {
        let enough = |taken: &mut usize| *taken > 0 && *taken + size > self.most;
        let mut taken = self
            .given_back
            .wait_while(lock(&self.taken), enough)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += size;
        BudgetShare { budget: Arc::clone(self), size }
    }
}

/// The part of the budget that an item has taken.
struct BudgetShare {
    budget: Arc<Budget>,
    size: usize,
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        *lock(&self.budget.taken) -= self.size;
        self.budget.given_back.notify_all();
    }
}

/// An item on its way to a worker.
type Job<I, O> = (I, BudgetShare, SyncSender<(O, BudgetShare)>);

/// Where items go in.
pub(crate) struct WorkInput<I, O> {
    budget: Arc<Budget>,
    jobs: SyncSender<Job<I, O>>,
    replies: SyncSender<Receiver<(O, BudgetShare)>>,
}

impl<I, O> WorkInput<I, O> {
    /// Hands over an item of some size, waiting while too much is under way. Returns `false` if
    /// the results are no longer read.
    pub(crate) fn send(&self, item: I, size: usize) -> bool {
        let share = self.budget.take(size);
        let (reply, result) = sync_channel(1);
        self.replies.send(result).is_ok() && self.jobs.send((item, share, reply)).is_ok()
    }
}

/// Where results come out, in the order of the items. Dropping it ends the work.
pub(crate) struct WorkOutput<O> {
    replies: Receiver<Receiver<(O, BudgetShare)>>,
    /// The share of the last result, which is in use until the next one is asked for.
    share: Option<BudgetShare>,
}

impl<O> Iterator for WorkOutput<O> {
    type Item = O;

    /// The next result. A worker that panics ends the iteration; the scope it runs in then panics
    /// too.
    fn next(&mut self) -> Option<O> {
        self.share = None;
        let (result, share) = self.replies.recv().ok()?.recv().ok()?;
        self.share = Some(share);
        Some(result)
    }
}

/// Starts a thread for each of `workers`. An item waits with its sender until a worker is free, and
/// at most two results a worker wait; the sizes of all items whose results are not used up stay
/// within `most`.
pub(crate) fn start<'scope, I, O, W>(
    scope: &'scope Scope<'scope, '_>,
    workers: Vec<W>,
    most: usize,
) -> (WorkInput<I, O>, WorkOutput<O>)
where
    I: Send + 'scope,
    O: Send + 'scope,
    W: FnMut(I) -> O + Send + 'scope,
{
    let (jobs, queue) = sync_channel::<Job<I, O>>(0);
    let (replies, results) = sync_channel(2 * workers.len());
    let queue = Arc::new(Mutex::new(queue));
    for mut work in workers {
        let queue = Arc::clone(&queue);
        scope.spawn(move || {
            // The lock is free again before the work starts.
            let next = || queue.lock().ok()?.recv().ok();
            while let Some((item, share, reply)) = next() {
                // The consumer stops listening after an error.
                let _ = reply.send((work(item), share));
            }
        });
    }
    let budget = Arc::new(Budget { most, taken: Mutex::new(0), given_back: Condvar::new() });
    (WorkInput { budget, jobs, replies }, WorkOutput { replies: results, share: None })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[test]
    fn results_keep_the_order_whoever_is_faster() {
        let results: Vec<u64> = std::thread::scope(|scope| {
            let worker = |item: u64| {
                std::thread::sleep(std::time::Duration::from_micros(item % 7 * 100));
                item * item
            };
            let (input, output) = start(scope, vec![worker; 4], 3);
            scope.spawn(move || (0..200).for_each(|item| assert!(input.send(item, 1))));
            output.collect()
        });
        assert_eq!(results, (0..200).map(|item| item * item).collect::<Vec<_>>());
    }

    #[test]
    fn a_consumer_that_stops_ends_the_work() {
        let sent = std::thread::scope(|scope| {
            let (input, mut output) = start(scope, vec![|item: u64| item; 2], 3);
            let producer =
                scope.spawn(move || (0..).take_while(|&item| input.send(item, 1)).count());
            assert_eq!(output.next(), Some(0));
            drop(output);
            producer.join().unwrap()
        });
        assert!(sent < 10, "{sent} items were under way");
    }

    /// An item counts from before it is sent until the result after its own is asked for.
    #[test]
    fn sizes_under_way_stay_within_the_budget() {
        for (size, most, together) in [(1, 100, 11), (10, 40, 4), (30, 40, 1), (99, 40, 1)] {
            let under_way = AtomicUsize::new(0);
            let highest = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                let (input, output) = start(scope, vec![|item: usize| item; 3], most);
                scope.spawn(|| {
                    let input = input;
                    for item in 0..50 {
                        // The item itself is not under way before it has its share, so the count
                        // may lead by one.
                        highest.fetch_max(under_way.fetch_add(1, SeqCst), SeqCst);
                        assert!(input.send(item, size));
                    }
                });
                for (item, result) in output.enumerate() {
                    assert_eq!(result, item);
                    std::thread::sleep(std::time::Duration::from_micros(200));
                    under_way.fetch_sub(1, SeqCst);
                }
            });
            let highest = highest.load(SeqCst);
            assert!(
                highest <= together,
                "{highest} items of {size} were under way, of a budget of {most}"
            );
            assert!(
                together > 10 || highest * 2 > together,
                "{highest} items of {size} under way, where {together} have room"
            );
        }
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_worker_that_panics_is_not_the_end_of_the_data() {
        std::thread::scope(|scope| {
            let (input, output) = start(scope, vec![|item: u64| assert!(item < 3)], 100);
            scope.spawn(move || (0..9).take_while(|&item| input.send(item, 1)).count());
            assert!(output.count() < 9);
        });
    }
}
