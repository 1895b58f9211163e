//! A world of threads inside one process, for tests of what several ranks do together.
//!
//! Not for training: values are copied. Sums are made in the order of ranks. A rank that is dropped
//! counts as lost: the others' next collective that needs it fails instead of waiting for ever.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tch::Tensor;

use super::host_slice::{HostSlice, on_host};
use super::{Communicator, ReduceOp};
use crate::{Error, Result};

/// One rank of a simulated world.
pub(crate) struct SimulatedCommunicator {
    rank: usize,
    size: usize,
    control: Arc<Exchange>,
    tensors: Arc<Exchange>,
}

/// A world of `size` ranks; give each to a thread of its own.
pub(crate) fn simulated_world(size: usize) -> Vec<SimulatedCommunicator> {
    let (control, tensors) = (Arc::new(Exchange::new(size)), Arc::new(Exchange::new(size)));
    let rank = |rank| SimulatedCommunicator {
        rank,
        size,
        control: control.clone(),
        tensors: tensors.clone(),
    };
    (0..size).map(rank).collect()
}

/// Where ranks exchange bytes, round after round.
struct Exchange {
    round: Mutex<Round>,
    changed: Condvar,
}

#[derive(Default)]
struct Round {
    brought: Vec<Option<Vec<u8>>>,
    complete: Option<Arc<Vec<Vec<u8>>>>,
    taken: usize,
    lost: Option<usize>,
}

impl Exchange {
    fn new(size: usize) -> Self {
        Self {
            round: Mutex::new(Round { brought: vec![None; size], ..Round::default() }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready`, or until a rank is lost.
    fn wait<'a>(
        &self,
        mut round: MutexGuard<'a, Round>,
        ready: impl Fn(&Round) -> bool,
    ) -> Result<MutexGuard<'a, Round>> {
        while !ready(&round) {
            if let Some(rank) = round.lost {
                return Err(Error::RankLost {
                    rank,
                    operation: "a collective".into(),
                    cause: "it ended".into(),
                });
            }
            round = self.changed.wait(round).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(round)
    }

    /// Gives this rank's bytes and takes those of all ranks.
    fn exchange(&self, rank: usize, bytes: Vec<u8>) -> Result<Arc<Vec<Vec<u8>>>> {
        let mut round = self.wait(self.lock(), |round| round.complete.is_none())?;
        round.brought[rank] = Some(bytes);
        if round.brought.iter().all(Option::is_some) {
            round.complete =
                Some(Arc::new(round.brought.iter_mut().filter_map(Option::take).collect()));
            self.changed.notify_all();
        }
        let mut round = self.wait(round, |round| round.complete.is_some())?;
        let all = round.complete.clone().unwrap_or_default();
        round.taken += 1;
        if round.taken == all.len() {
            round.taken = 0;
            round.complete = None;
            self.changed.notify_all();
        }
        Ok(all)
    }

    fn lose(&self, rank: usize) {
        self.lock().lost.get_or_insert(rank);
        self.changed.notify_all();
    }
}

/// Sums in the order of ranks, starting with rank 0's value.
fn reduce<T: bytemuck::Pod>(
    place: &Exchange,
    rank: usize,
    values: &mut [T],
    combine: impl Fn(T, T) -> T,
) -> Result<()> {
    let all = place.exchange(rank, bytemuck::cast_slice(values).to_vec())?;
    for (brought, bytes) in all.iter().enumerate() {
        let theirs = bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned::<T>);
        assert_eq!(
            theirs.len(),
            values.len(),
            "ranks {rank} and {brought} bring different lengths"
        );
        for (value, their) in values.iter_mut().zip(theirs) {
            *value = if brought == 0 { their } else { combine(*value, their) };
        }
    }
    Ok(())
}

impl Communicator for SimulatedCommunicator {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn barrier(&self) -> Result<()> {
        self.control.exchange(self.rank, Vec::new()).map(drop)
    }

    fn all_reduce_f64(&self, values: &mut [f64], op: ReduceOp) -> Result<()> {
        let combine = match op {
            ReduceOp::Sum => |a, b| a + b,
            ReduceOp::Max => f64::max,
            ReduceOp::Min => f64::min,
        };
        reduce(&self.control, self.rank, values, combine)
    }

    fn all_reduce_tensor(&self, tensor: &Tensor) -> Result<()> {
        on_host(tensor, |values| match values {
            HostSlice::F32(values) => reduce(&self.tensors, self.rank, values, |a, b| a + b),
            HostSlice::F64(values) => reduce(&self.tensors, self.rank, values, |a, b| a + b),
        })
    }

    fn broadcast(&self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let brought = if root == self.rank { std::mem::take(bytes) } else { Vec::new() };
        bytes.clone_from(&self.control.exchange(self.rank, brought)?[root]);
        Ok(())
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(self.control.exchange(self.rank, bytes.to_vec())?.to_vec())
    }

    fn abort(&self, code: u8) -> ! {
        self.die();
        panic!("rank {} aborted the simulated world with code {code}", self.rank)
    }
}

impl Drop for SimulatedCommunicator {
    fn drop(&mut self) {
        self.die();
    }
}

impl SimulatedCommunicator {
    /// Marks the rank as gone: the others' collectives that need it fail.
    fn die(&self) {
        self.control.lose(self.rank);
        self.tensors.lose(self.rank);
    }
}

/// A rank on a bad network: operations are delayed at random, and the rank may die at one of them.
/// Everything follows from a seed.
pub(crate) struct Mortal {
    inner: SimulatedCommunicator,
    seed: u64,
    begun: AtomicU64,
    dies_at: u64,
}

/// The ranks of a simulated world of which one, chosen by `seed`, dies within its first
/// `operations` operations.
pub(crate) fn mortal_world(size: usize, seed: u64, operations: u64) -> Vec<Mortal> {
    let doomed = draw(seed, 0) % size as u64;
    let mortal = |inner: SimulatedCommunicator| {
        let dies_at =
            if inner.rank as u64 == doomed { draw(seed, 1) % operations } else { u64::MAX };
        Mortal { seed: draw(seed, 2 + inner.rank as u64), inner, begun: AtomicU64::new(0), dies_at }
    };
    simulated_world(size).into_iter().map(mortal).collect()
}

fn draw(seed: u64, number: u64) -> u64 {
    let digest =
        blake3::Hasher::new().update(&seed.to_le_bytes()).update(&number.to_le_bytes()).finalize();
    u64::from(u32::from_le_bytes([
        digest.as_bytes()[0],
        digest.as_bytes()[1],
        digest.as_bytes()[2],
        digest.as_bytes()[3],
    ]))
}

impl Mortal {
    /// Waits a little, or dies.
    fn operation(&self) -> Result<()> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        if number >= self.dies_at {
            self.inner.die();
            return Err(Error::RankLost {
                rank: self.inner.rank,
                operation: format!("operation {number}"),
                cause: "it was its last".into(),
            });
        }
        if draw(self.seed, number).is_multiple_of(4) {
            std::thread::sleep(Duration::from_micros(draw(self.seed, !number) % 200));
        }
        Ok(())
    }
}

impl Communicator for Mortal {
    fn rank(&self) -> usize {
        self.inner.rank
    }

    fn size(&self) -> usize {
        self.inner.size
    }

    fn barrier(&self) -> Result<()> {
        self.operation()?;
        self.inner.barrier()
    }

    fn all_reduce_f64(&self, values: &mut [f64], op: ReduceOp) -> Result<()> {
        self.operation()?;
        self.inner.all_reduce_f64(values, op)
    }

    fn all_reduce_tensor(&self, tensor: &Tensor) -> Result<()> {
        self.operation()?;
        self.inner.all_reduce_tensor(tensor)
    }

    fn broadcast(&self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        self.operation()?;
        self.inner.broadcast(root, bytes)
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.operation()?;
        self.inner.all_gather(bytes)
    }

    fn abort(&self, code: u8) -> ! {
        self.inner.abort(code)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Runs `f` as every rank of a world and gives back the results by rank.
    fn each<T: Send>(size: usize, f: impl Fn(&SimulatedCommunicator) -> T + Sync) -> Vec<T> {
        let f = &f;
        thread::scope(|scope| {
            let ranks: Vec<_> = simulated_world(size)
                .into_iter()
                .map(|comm| scope.spawn(move || f(&comm)))
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn reductions_over_ranks() {
        let results = each(4, |comm| {
            let rank = comm.rank() as f64;
            let mut values = [[rank, -rank]; 3];
            for (values, op) in values.iter_mut().zip([ReduceOp::Sum, ReduceOp::Max, ReduceOp::Min])
            {
                comm.all_reduce_f64(values, op).unwrap();
            }
            values
        });
        assert!(
            results.iter().all(|values| *values == [[6.0, -6.0], [3.0, 0.0], [0.0, -3.0]]),
            "{results:?}"
        );
    }

    #[test]
    fn bytes_travel_whole_and_in_order() {
        for (rank, (gathered, broadcast)) in each(3, |comm| {
            let gathered = comm.all_gather(&vec![7u8; comm.rank()]).unwrap();
            let mut bytes = vec![comm.rank() as u8; 2];
            comm.broadcast(2, &mut bytes).unwrap();
            (gathered, bytes)
        })
        .into_iter()
        .enumerate()
        {
            assert_eq!(gathered, [vec![], vec![7], vec![7, 7]], "rank {rank}");
            assert_eq!(broadcast, [2, 2]);
        }
    }

    #[test]
    fn a_dropped_rank_is_lost_to_the_others() {
        let errors = each(3, |comm| {
            if comm.rank() == 1 { None } else { Some(comm.barrier().unwrap_err().to_string()) }
        });
        assert!(errors[0].as_ref().unwrap().contains("rank 1 was lost"), "{errors:?}");
        assert_eq!(errors[0], errors[2]);
    }
}
