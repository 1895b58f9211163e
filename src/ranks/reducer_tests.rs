//! The reducer in simulated worlds: sums, orders, missing gradients, errors.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::super::{ReduceOp, SimulatedCommunicator, SingleProcess, simulated_world};
use super::*;

/// Parameters 0..7 in three buckets, listed out of order; bucket 1 holds nothing.
const OWNER: [usize; 7] = [2, 0, 2, 0, 3, 0, 2];
const LENGTHS: [i64; 4] = [5, 1, 300, 2];

/// Bucket values whose sums are exact in f32.
fn buckets(rank: usize, step: usize) -> Vec<Tensor> {
    let fill = |(bucket, &length): (usize, &i64)| {
        Tensor::arange(length, (tch::Kind::Float, tch::Device::Cpu))
            + (1000 * (rank + 1) * (bucket + 1) + step) as f64
    };
    LENGTHS.iter().enumerate().map(fill).collect()
}

/// Closed form: Σ_r (i + 1000 (r + 1)(b + 1) + step).
fn expected(size: usize, step: usize) -> Vec<Vec<f64>> {
    let ranks = (1..=size).sum::<usize>();
    let value =
        |bucket: usize, i: i64| (size * (i as usize + step) + 1000 * ranks * (bucket + 1)) as f64;
    LENGTHS
        .iter()
        .enumerate()
        .map(|(bucket, &length)| (0..length).map(|i| value(bucket, i)).collect())
        .collect()
}

fn values(tensors: &[Tensor]) -> Vec<Vec<f64>> {
    tensors.iter().map(|tensor| Vec::try_from(tensor.to_kind(tch::Kind::Double)).unwrap()).collect()
}

fn each<T: Send, C: Communicator + 'static>(
    world: Vec<C>,
    f: impl Fn(Arc<dyn Communicator>) -> T + Sync,
) -> Vec<T> {
    let f = &f;
    thread::scope(|scope| {
        let ranks: Vec<_> =
            world.into_iter().map(|comm| scope.spawn(move || f(Arc::new(comm)))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn reducer_of(comm: &Arc<dyn Communicator>, buckets: Vec<Tensor>) -> GradientReducer {
    let asleep = Watchdog::asleep();
    GradientReducer::new(comm, &asleep, buckets, OWNER.to_vec(), Kind::Float).unwrap()
}

fn shallow(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::shallow_clone).collect()
}

/// Three steps with a different order of readiness on every rank; `told` says which parameters are
/// told at all.
fn three_steps(comm: &Arc<dyn Communicator>, told: impl Fn(usize, usize) -> bool) {
    let flat = buckets(comm.rank(), 0);
    let reducer = reducer_of(comm, shallow(&flat));
    let mut order: Vec<usize> = (0..OWNER.len()).collect();
    for step in 0..3 {
        for (mut old, new) in shallow(&flat).into_iter().zip(buckets(comm.rank(), step)) {
            old.copy_(&new);
        }
        reducer.ready(0); // an earlier micro-batch: not armed, so not counted
        reducer.arm().unwrap();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64((10 * step + comm.rank()) as u64));
        order
            .iter()
            .filter(|&&parameter| told(comm.rank(), parameter))
            .for_each(|&parameter| reducer.ready(parameter));
        reducer.finish().unwrap();
        assert_eq!(values(&flat), expected(comm.size(), step), "rank {} step {step}", comm.rank());
    }
}

#[test]
fn sums_equal_the_closed_form_in_any_order_of_readiness() {
    for size in [1, 2, 4] {
        each(simulated_world(size), |comm| three_steps(&comm, |_, _| true));
    }
    let single: Arc<dyn Communicator> = Arc::new(SingleProcess);
    three_steps(&single, |_, _| true);
}

#[test]
fn parameters_without_a_gradient_hold_nobody_up() {
    each(simulated_world(3), |comm| {
        three_steps(&comm, |rank, parameter| (rank + parameter) % 3 != 0);
    });
    each(simulated_world(2), |comm| three_steps(&comm, |_, _| false));
}

/// A simulated rank that fails at its n-th tensor reduction, and may refuse a second thread.
struct Failing {
    inner: SimulatedCommunicator,
    left: AtomicUsize,
    concurrent: bool,
}

impl Communicator for Failing {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn size(&self) -> usize {
        self.inner.size()
    }
    fn barrier(&self) -> Result<()> {
        self.inner.barrier()
    }
    fn all_reduce_f64(&self, values: &mut [f64], op: ReduceOp) -> Result<()> {
        self.inner.all_reduce_f64(values, op)
    }
    fn all_reduce_tensor(&self, tensor: &Tensor) -> Result<()> {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 0 {
            let cause = "the cable was pulled".to_owned();
            return Err(Error::RankLost {
                rank: self.rank(),
                operation: "all-reduce".into(),
                cause,
            });
        }
        self.inner.all_reduce_tensor(tensor)
    }
    fn broadcast(&self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        self.inner.broadcast(root, bytes)
    }
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.inner.all_gather(bytes)
    }
    fn concurrent(&self) -> bool {
        self.concurrent
    }
    fn abort(&self, code: u8) -> ! {
        self.inner.abort(code)
    }
}

fn failing(size: usize, concurrent: bool, fail_at: impl Fn(usize) -> usize) -> Vec<Failing> {
    let rank = |inner: SimulatedCommunicator| Failing {
        left: AtomicUsize::new(fail_at(inner.rank())),
        inner,
        concurrent,
    };
    simulated_world(size).into_iter().map(rank).collect()
}

#[test]
fn an_error_on_one_rank_comes_out_of_finish_and_ends_the_others() {
    let world = failing(2, true, |rank| if rank == 1 { 2 } else { usize::MAX });
    let errors = each(world, |comm| {
        let reducer = reducer_of(&comm, buckets(comm.rank(), 0));
        drop(comm);
        reducer.arm().unwrap();
        (0..OWNER.len()).for_each(|parameter| reducer.ready(parameter));
        reducer.finish().unwrap_err().to_string()
    });
    assert_eq!(errors[1], "rank 1 was lost during all-reduce: the cable was pulled");
    assert!(errors[0].contains("rank 1 was lost"), "{errors:?}");
}

#[test]
fn without_thread_support_the_sums_are_made_in_finish() {
    each(failing(2, false, |_| usize::MAX), |comm| {
        three_steps(&comm, |rank, parameter| rank != parameter);
    });
}

#[test]
fn buckets_are_launched_in_order_while_gradients_still_come() {
    each(simulated_world(2), |comm| {
        let flat = buckets(comm.rank(), 0);
        let reducer = reducer_of(&comm, shallow(&flat));
        reducer.arm().unwrap();
        // Bucket 3 is whole, but bucket 0 still waits.
        [4, 1, 3].iter().for_each(|&parameter| reducer.ready(parameter));
        assert_eq!(lock(&reducer.pending).next, 0);
        reducer.ready(5);
        assert_eq!(lock(&reducer.pending).next, 2, "bucket 0, and the empty bucket 1 behind it");
        // Both ranks have launched bucket 0, so its sum arrives before anyone calls `finish`.
        let sum = &expected(2, 0)[0];
        let arrived = (0..2000).any(|_| {
            thread::sleep(Duration::from_millis(10));
            values(&flat)[0] == *sum
        });
        assert!(arrived, "no overlap");
        reducer.finish().unwrap();
        assert_eq!(values(&flat), expected(2, 0));
    });
}

#[test]
fn misuse_is_told_and_does_not_hang() {
    each(simulated_world(2), |comm| {
        let reducer = reducer_of(&comm, buckets(comm.rank(), 0));
        assert!(reducer.finish().is_err(), "finished without being armed");
        reducer.arm().unwrap();
        assert!(reducer.arm().is_err(), "armed twice");
        reducer.ready(3);
        reducer.ready(3);
        assert!(
            reducer.finish().unwrap_err().to_string().contains("parameter 3 was accumulated twice")
        );
        reducer.arm().unwrap();
        reducer.ready(OWNER.len());
        assert!(reducer.finish().unwrap_err().to_string().contains("no parameter 7"));
    });
    let comm: Arc<dyn Communicator> = Arc::new(SingleProcess);
    let error = GradientReducer::new(&comm, &Watchdog::asleep(), Vec::new(), vec![0], Kind::Float);
    let error = error.err().unwrap();
    assert_eq!(error.to_string(), "internal error: parameter 0 lies in bucket 0");
}

/// Each rank's values are rounded to bf16, added in single precision, and the sum is rounded again;
/// all ranks have the same bits, and a world of one rounds nothing.
#[test]
fn gradients_can_travel_in_bf16() {
    let rounded = |value: f32| half::bf16::from_f32(value).to_f32();
    let value = |rank: usize, i: usize| (i as f32 + 0.3).sqrt() * (rank as f32 - 0.7);
    for size in [1, 2, 4] {
        for concurrent in [true, false] {
            let sums = each(failing(size, concurrent, |_| usize::MAX), |comm| {
                let own: Vec<f32> = (0..300).map(|i| value(comm.rank(), i)).collect();
                let flat = Tensor::from_slice(&own);
                let shared = vec![flat.shallow_clone()];
                let asleep = Watchdog::asleep();
                let reducer =
                    GradientReducer::new(&comm, &asleep, shared, vec![0], Kind::BFloat16).unwrap();
                reducer.arm().unwrap();
                reducer.ready(0);
                reducer.finish().unwrap();
                Vec::<f32>::try_from(flat).unwrap()
            });
            let expected: Vec<f32> = (0..300)
                .map(|i| match size {
                    1 => value(0, i),
                    _ => rounded((0..size).map(|rank| rounded(value(rank, i))).sum()),
                })
                .collect();
            for sum in sums {
                assert_eq!(sum, expected, "{size} ranks");
            }
        }
    }
}
