//! The collective operations, whatever library carries them.
//!
//! Not for choosing a library: [`World::start`](super::World::start) does that.

use std::time::Duration;

use tch::Tensor;

use crate::Result;

/// How the values of all ranks are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceOp {
    /// The sum over ranks.
    Sum,
    /// The largest value of any rank.
    Max,
    /// The smallest value of any rank.
    Min,
}

/// Collective operations. Every rank of the world calls the same operations in the same order, with
/// equal lengths.
///
/// There are two independent lanes: tensors ([`all_reduce_tensor`](Self::all_reduce_tensor) and
/// [`enqueue_all_reduce`](Self::enqueue_all_reduce)) and everything else. One thread may use a lane
/// at a time; where [`concurrent`](Self::concurrent) holds, two threads may use one lane each.
///
/// All ranks receive the same bits. Errors are [`RankLost`](crate::Error::RankLost) for a peer that
/// cannot be reached.
pub trait Communicator: Send + Sync {
    /// This process's number, from 0.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn size(&self) -> usize;

    /// Returns once every rank has called it.
    fn barrier(&self) -> Result<()>;

    /// The communicator that this one is built upon, if there is one. It carries out what has a
    /// default here.
    fn beneath(&self) -> Option<&dyn Communicator> {
        None
    }

    /// A barrier that sleeps instead of spinning: for waits of seconds to hours, such as rank 0
    /// preparing shards.
    fn patient_barrier(&self) -> Result<()> {
        self.beneath().map_or_else(|| self.barrier(), Communicator::patient_barrier)
    }

    /// Replaces each value by its reduction over all ranks.
    fn all_reduce_f64(&self, values: &mut [f64], op: ReduceOp) -> Result<()>;

    /// Sums a contiguous tensor of f32, f64 or bf16 over all ranks, in place; when it returns, the
    /// calling thread can use the sum.
    fn all_reduce_tensor(&self, tensor: &Tensor) -> Result<()>;

    /// Like [`all_reduce_tensor`](Self::all_reduce_tensor), but the sum may be used only after
    /// [`join`](Self::join).
    fn enqueue_all_reduce(&self, tensor: &Tensor) -> Result<()> {
        match self.beneath() {
            Some(beneath) => beneath.enqueue_all_reduce(tensor),
            None => self.all_reduce_tensor(tensor),
        }
    }

    /// Makes the calling thread's further work wait for every reduction enqueued so far.
    fn join(&self) -> Result<()> {
        self.beneath().map_or(Ok(()), Communicator::join)
    }

    /// Replaces `bytes` on every rank by those of `root`; the lengths may differ before.
    fn broadcast(&self, root: usize, bytes: &mut Vec<u8>) -> Result<()>;

    /// Returns the bytes of every rank, by rank; the lengths may differ.
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Returns the bytes of every rank, by rank, on rank 0, and nothing on the others; the lengths
    /// may differ.
    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        if let Some(beneath) = self.beneath() {
            return beneath.gather(bytes);
        }
        let all = self.all_gather(bytes)?;
        Ok(if self.rank() == 0 { all } else { Vec::new() })
    }

    /// Whether gradients are sent at all. In a world of one they stay where they are, unless NCCL
    /// carries them.
    fn carries(&self) -> bool {
        self.beneath().map_or(self.size() > 1, Communicator::carries)
    }

    /// Whether two threads may use one lane each at the same time.
    fn concurrent(&self) -> bool {
        self.beneath().is_none_or(Communicator::concurrent)
    }

    /// The library that carries tensors, for people.
    fn library(&self) -> &'static str {
        self.beneath().map_or("none", Communicator::library)
    }

    /// Returns an asynchronous error, if there was one; the watchdog polls it, so it must not wait.
    /// [`Elsewhere`](crate::Error::Elsewhere) if another rank has ended the world and said why.
    fn check(&self) -> Result<()> {
        self.beneath().map_or(Ok(()), Communicator::check)
    }

    /// Leaves the world together with all other ranks; nothing may be called afterwards. Returns
    /// false if they do not leave within `patience` (`None`: for ever): then the world is still
    /// open. Dropping without closing is not enough: the launcher would take this rank for lost.
    fn close(&self, patience: Option<Duration>) -> bool {
        self.beneath().is_none_or(|beneath| beneath.close(patience))
    }

    /// Keeps the sentence that the world is about to end with, for ranks that cannot see this one's
    /// output.
    fn announce(&self, sentence: &str) {
        if let Some(beneath) = self.beneath() {
            beneath.announce(sentence);
        }
    }

    /// Ends every rank of the world at once with this exit code.
    fn abort(&self, code: u8) -> !;
}
