//! Sums gradient buckets over all ranks while the backward pass is still running.
//!
//! Gradients are views into a few flat buckets. A hook reports when a parameter's gradient is
//! complete; when all gradients of a bucket are, the bucket is summed on a separate thread. On
//! every rank, buckets are sent in the order of their index, whatever order the gradients come in:
//! ranks that send in different orders would add different buckets or hang.
//!
//! Gradients can travel rounded to bf16. Then each bucket has a second one, in which it is sent;
//! the sums come back into the first when all have arrived.
//!
//! Not for cutting parameters into buckets or for averaging: losses are divided by global counts
//! before the backward pass.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tch::{Kind, Tensor};

use super::Communicator;
use super::failure::Watchdog;
use crate::base::lock;
use crate::{Error, Result};

/// All-reduces the gradient buckets of one model. Between [`arm`](Self::arm) and
/// [`finish`](Self::finish) the communicator's tensor lane belongs to it.
pub struct GradientReducer {
    comm: Arc<dyn Communicator>,
    /// Parameter → bucket.
    owner: Vec<usize>,
    /// How many parameters each bucket holds.
    members: Vec<usize>,
    armed: AtomicBool,
    pending: Mutex<Pending>,
    lane: Lane,
    /// Buckets, and what they are sent as, where that is another kind of number.
    rounded: Mutex<Vec<(Tensor, Tensor)>>,
}

/// What is still to happen since `arm`.
#[derive(Default)]
struct Pending {
    /// Parameters each bucket still waits for.
    missing: Vec<usize>,
    /// Whether each parameter has been reported.
    told: Vec<bool>,
    /// The first bucket that is not launched.
    next: usize,
    /// A call of `ready` that was wrong.
    wrong: Option<String>,
}

/// Where sums are made.
enum Lane {
    /// A world of one: nowhere.
    Nowhere,
    /// In `finish`, on the caller's thread: the MPI library cannot serve two.
    Here(Mutex<BucketSums>),
    /// A thread that takes indices of buckets and answers each.
    Thread { launch: SyncSender<usize>, answers: Mutex<Receiver<Result<()>>> },
}

/// The buckets and what sums them.
struct BucketSums {
    comm: Arc<dyn Communicator>,
    watchdog: Watchdog,
    buckets: Vec<Tensor>,
    /// What is sent for each bucket: itself, or a rounded copy.
    sent: Vec<Tensor>,
}

impl GradientReducer {
    /// Takes contiguous gradient buckets in launch order (the last layers' first) and, for every
    /// parameter, the bucket it lies in. `wire` is the kind of number that is sent; a world of one
    /// sends nothing and rounds nothing.
    ///
    /// # Errors
    /// A bug (70) if a parameter names a bucket that does not exist, an I/O error (74) if no thread
    /// can be started, an error of libtorch if there is no memory for rounded buckets.
    pub fn new(
        comm: &Arc<dyn Communicator>,
        watchdog: &Watchdog,
        buckets: Vec<Tensor>,
        owner: Vec<usize>,
        wire: Kind,
    ) -> Result<Self> {
        let mut members = vec![0; buckets.len()];
        for (parameter, &bucket) in owner.iter().enumerate() {
            let count = members.get_mut(bucket).ok_or_else(|| {
                Error::Bug(format!("parameter {parameter} lies in bucket {bucket}"))
            })?;
            *count += 1;
        }
        let sent = if comm.carries() { sent_as(&buckets, wire)? } else { Vec::new() };
        let pairs = buckets.iter().zip(&sent);
        let rounded = pairs
            .filter(|(bucket, sent)| bucket.kind() != sent.kind())
            .map(|(bucket, sent)| (bucket.shallow_clone(), sent.shallow_clone()))
            .collect();
        let work = BucketSums { comm: comm.clone(), watchdog: watchdog.clone(), buckets, sent };
        let lane = match (comm.carries(), comm.concurrent()) {
            (false, _) => Lane::Nowhere,
            (true, false) => Lane::Here(Mutex::new(work)),
            (true, true) => work.start()?,
        };
        Ok(Self {
            comm: comm.clone(),
            owner,
            members,
            armed: AtomicBool::new(false),
            pending: Mutex::default(),
            lane,
            rounded: Mutex::new(rounded),
        })
    }

    /// Call before the backward pass of a step's last micro-batch: from here on a gradient that is
    /// reported is complete.
    ///
    /// # Errors
    /// A bug (70) if it is armed already.
    pub fn arm(&self) -> Result<()> {
        if matches!(self.lane, Lane::Nowhere) {
            return Ok(());
        }
        let mut pending = lock(&self.pending);
        if self.armed.load(Ordering::Acquire) {
            return Err(Error::Bug("gradient buckets were armed twice".into()));
        }
        *pending = Pending {
            missing: self.members.clone(),
            told: vec![false; self.owner.len()],
            next: 0,
            wrong: None,
        };
        self.armed.store(true, Ordering::Release);
        Ok(())
    }

    /// Reports that a parameter's gradient is in its bucket. Safe to call from a hook on any
    /// thread: it neither blocks nor panics, and does nothing unless armed.
    /// [`finish`](Self::finish) returns errors.
    pub fn ready(&self, parameter: usize) {
        if !self.armed.load(Ordering::Acquire) {
            return;
        }
        let mut pending = lock(&self.pending);
        match (self.owner.get(parameter), pending.told.get_mut(parameter)) {
            (Some(&bucket), Some(told)) if !*told => {
                *told = true;
                pending.missing[bucket] -= 1;
            }
            (Some(_), Some(_)) => {
                pending.wrong.get_or_insert(format!(
                    "the gradient of parameter {parameter} was accumulated twice in one backward \
                     pass"
                ));
            }
            _ => {
                pending.wrong.get_or_insert(format!(
                    "there is no parameter {parameter} in the gradient buckets"
                ));
            }
        }
        while pending.missing.get(pending.next) == Some(&0) {
            self.launch(&mut pending);
        }
    }

    /// Call after that backward pass: sends the buckets that still wait for a gradient (of
    /// parameters that this step did not use), and returns when the calling thread can use every
    /// sum.
    ///
    /// # Errors
    /// The communicator's first error, or a bug (70) if it was not armed or a gradient was reported
    /// twice.
    pub fn finish(&self) -> Result<()> {
        if matches!(self.lane, Lane::Nowhere) {
            return Ok(());
        }
        let mut pending = lock(&self.pending);
        if !self.armed.swap(false, Ordering::AcqRel) {
            return Err(Error::Bug("gradient buckets were finished without being armed".into()));
        }
        while pending.next < self.members.len() {
            self.launch(&mut pending);
        }
        let wrong = pending.wrong.take();
        drop(pending);
        self.wait()?;
        self.comm.join()?;
        for (bucket, sum) in lock(&self.rounded).iter() {
            copy(bucket, sum)?;
        }
        wrong.map_or(Ok(()), |wrong| Err(Error::Bug(wrong)))
    }

    /// Hands the next bucket to the thread, if there is one; the channel has room for all of them.
    fn launch(&self, pending: &mut Pending) {
        if let Lane::Thread { launch, .. } = &self.lane {
            // If the thread is gone, `wait` says so.
            let _ = launch.send(pending.next);
        }
        pending.next += 1;
    }

    fn wait(&self) -> Result<()> {
        match &self.lane {
            Lane::Nowhere => Ok(()),
            Lane::Here(work) => {
                let work = lock(work);
                (0..work.buckets.len()).try_for_each(|bucket| work.reduce(bucket))
            }
            Lane::Thread { answers, .. } => {
                let answers = lock(answers);
                let gone = |_| Err(Error::Bug("the communication thread has ended".into()));
                // Every answer is taken, so that none is left for the next step.
                (0..self.members.len())
                    .map(|_| answers.recv().unwrap_or_else(gone))
                    .fold(Ok(()), Result::and)
            }
        }
    }
}

/// What buckets are sent as: themselves, or memory for a copy of that kind.
fn sent_as(buckets: &[Tensor], wire: Kind) -> Result<Vec<Tensor>> {
    let sent = |bucket: &Tensor| {
        if bucket.f_kind()? == wire {
            return Ok(bucket.shallow_clone());
        }
        Ok(Tensor::f_empty(bucket.size(), (wire, bucket.device()))?)
    };
    buckets.iter().map(sent).collect()
}

/// Copies values, rounding them where the kinds differ.
fn copy(to: &Tensor, from: &Tensor) -> Result<()> {
    tch::no_grad(|| to.shallow_clone().f_copy_(from))?;
    Ok(())
}

impl BucketSums {
    /// Starts the thread. It ends when the reducer is dropped, which does not wait for it: it may
    /// be in a collective that never ends.
    fn start(self) -> Result<Lane> {
        let room = self.buckets.len().max(1);
        let (launch, launched) = sync_channel(room);
        let (answer, answers) = sync_channel(room);
        let run = move || {
            let mut healthy = true;
            for bucket in launched {
                // After an error the ranks are no longer in step, so nothing more is sent.
                let outcome = if healthy { self.reduce(bucket) } else { Ok(()) };
                healthy &= outcome.is_ok();
                if answer.send(outcome).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("gradients".into()).spawn(run).map_err(Error::Io)?;
        Ok(Lane::Thread { launch, answers: Mutex::new(answers) })
    }

    fn reduce(&self, bucket: usize) -> Result<()> {
        let (own, sent) = (&self.buckets[bucket], &self.sent[bucket]);
        let kind = sent.f_kind()?;
        if kind != own.f_kind()? {
            // On a GPU this follows the backward pass in the stream of both.
            copy(sent, own)?;
        }
        let bytes = kind.elt_size_in_bytes() * sent.numel();
        // Bounded by the step that waits for it.
        let _section = self.watchdog.collective("all-reduce", bytes, Some(bucket), Duration::MAX);
        self.comm.enqueue_all_reduce(sent)
    }
}

#[cfg(test)]
#[path = "reducer_tests.rs"]
mod tests;
