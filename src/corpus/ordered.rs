//! Work on all cores whose results come out in the order of the input, with a bounded number of items under way.
//!
//! Every item travels with the sending end of a channel of its own; the receiving ends wait in a queue, in order. Not for: work on data
//! that is in memory already (that is what rayon does).

use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::Scope;

/// Number of threads to work on.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Where items go in.
pub(crate) struct Input<I, O> {
    jobs: SyncSender<(I, SyncSender<O>)>,
    replies: SyncSender<Receiver<O>>,
}

impl<I, O> Input<I, O> {
    /// Hands an item over, waiting while too many are under way. `false` says that nobody takes results any more.
    pub(crate) fn send(&self, item: I) -> bool {
        let (reply, result) = sync_channel(1);
        self.replies.send(result).is_ok() && self.jobs.send((item, reply)).is_ok()
    }
}

/// Where results come out, in the order of the items. Dropping it ends the work.
pub(crate) struct Output<O> {
    replies: Receiver<Receiver<O>>,
}

impl<O> Iterator for Output<O> {
    type Item = O;

    /// The next result. A worker that panics ends the iteration; the scope it runs in then panics too.
    fn next(&mut self) -> Option<O> {
        self.replies.recv().ok()?.recv().ok()
    }
}

/// Starts a thread for each of `workers`. An item waits with its sender until a worker is free, and at most two results a worker wait.
pub(crate) fn start<'scope, I, O, W>(scope: &'scope Scope<'scope, '_>, workers: Vec<W>) -> (Input<I, O>, Output<O>)
where
    I: Send + 'scope,
    O: Send + 'scope,
    W: FnMut(I) -> O + Send + 'scope,
{
    let (jobs, queue) = sync_channel::<(I, SyncSender<O>)>(0);
    let (replies, results) = sync_channel(2 * workers.len());
    let queue = Arc::new(Mutex::new(queue));
    for mut work in workers {
        let queue = Arc::clone(&queue);
        scope.spawn(move || {
            // The lock is free again before the work starts.
            let next = || queue.lock().ok()?.recv().ok();
            while let Some((item, reply)) = next() {
                // Nobody listens any more where the consumer has met an error.
                let _ = reply.send(work(item));
            }
        });
    }
    (Input { jobs, replies }, Output { replies: results })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_whoever_is_faster() {
        let results: Vec<u64> = std::thread::scope(|scope| {
            let worker = |item: u64| {
                std::thread::sleep(std::time::Duration::from_micros(item % 7 * 100));
                item * item
            };
            let (input, output) = start(scope, vec![worker; 4]);
            scope.spawn(move || (0..200).for_each(|item| assert!(input.send(item))));
            output.collect()
        });
        assert_eq!(results, (0..200).map(|item| item * item).collect::<Vec<_>>());
    }

    #[test]
    fn a_consumer_that_stops_ends_the_work() {
        let sent = std::thread::scope(|scope| {
            let (input, mut output) = start(scope, vec![|item: u64| item; 2]);
            let producer = scope.spawn(move || (0..).take_while(|&item| input.send(item)).count());
            assert_eq!(output.next(), Some(0));
            drop(output);
            producer.join().unwrap()
        });
        assert!(sent < 10, "{sent} items were under way");
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_worker_that_panics_is_not_the_end_of_the_data() {
        std::thread::scope(|scope| {
            let (input, output) = start(scope, vec![|item: u64| assert!(item < 3)]);
            scope.spawn(move || (0..9).take_while(|&item| input.send(item)).count());
            assert!(output.count() < 9);
        });
    }
}
