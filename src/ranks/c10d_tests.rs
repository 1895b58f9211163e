//! The c10d communicator between threads of this process: collectives, the farewell, and what is
//! told of an end. Processes that fail are in `world_tests`.

#![allow(clippy::unwrap_used, reason = "a call that fails fails its test")]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

use super::c10d::{End, tell_end};
use super::launcher::{Launched, Launcher};
use super::rendezvous::{Rendezvous, Served};
use super::{C10dCommunicator, Communicator, ReduceOp};
use crate::torch::c10d::KeyStore;
use crate::{Error, Result};

const LIMIT: Duration = Duration::from_secs(30);

/// Connects `size` threads; the file that rank 0 writes tells them its port.
fn meet_in(folder: &std::path::Path, size: usize) -> Vec<Result<C10dCommunicator>> {
    let at = Rendezvous {
        host: "127.0.0.1".into(),
        port: 0,
        served: Served::Announced(folder.join("port")),
        prefix: "docre/test/".into(),
    };
    let start = |rank| {
        let launched =
            Launched { world_size: size, rank, local_rank: rank, kind: Launcher::OpenMpi };
        let at = at.clone();
        thread::spawn(move || C10dCommunicator::connect(&launched, &at, LIMIT))
    };
    let ranks: Vec<_> = (0..size).map(start).collect();
    ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
}

/// A world of threads of this process, over c10d.
pub(super) fn world_of_threads(size: usize) -> Vec<Arc<dyn Communicator>> {
    let folder = tempfile::tempdir().unwrap();
    let ranks = meet_in(folder.path(), size).into_iter();
    ranks.map(|rank| Arc::new(rank.unwrap()) as Arc<dyn Communicator>).collect()
}

fn each<T: Send>(
    world: &[Arc<dyn Communicator>],
    f: impl Fn(&dyn Communicator) -> T + Sync,
) -> Vec<T> {
    let f = &f;
    thread::scope(|scope| {
        let ranks: Vec<_> =
            world.iter().map(|comm| scope.spawn(move || f(comm.as_ref()))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn numbers_are_added_in_the_order_of_the_tree() {
    // (1e16 + 1) + (-1e16 + 1) is 0 or 2 in other orders.
    let summands = [1e16, 1.0, -1e16, 1.0];
    let sums = each(&world_of_threads(4), |comm| {
        let mut values = [summands[comm.rank()], 1.0];
        comm.all_reduce_f64(&mut values, ReduceOp::Sum).unwrap();
        comm.all_reduce_f64(&mut [], ReduceOp::Sum).unwrap();
        values
    });
    let expected = (summands[0] + summands[1]) + (summands[2] + summands[3]);
    assert!(sums.iter().all(|sum| *sum == [expected, 4.0]), "{sums:?}");
}

#[test]
fn what_is_not_a_number_is_not_lost_in_a_maximum() {
    let found = each(&world_of_threads(3), |comm| {
        let own = [f64::from(comm.rank() as u32), if comm.rank() == 1 { f64::NAN } else { 1.0 }];
        [ReduceOp::Max, ReduceOp::Min].map(|op| {
            let mut values = own;
            comm.all_reduce_f64(&mut values, op).unwrap();
            values
        })
    });
    for [largest, smallest] in found {
        assert_eq!((largest[0], smallest[0]), (2.0, 0.0));
        assert!(largest[1].is_nan() && smallest[1].is_nan());
    }
}

#[test]
fn both_lanes_work_at_the_same_time_and_all_leave_together() {
    let ends = each(&world_of_threads(3), |comm| {
        assert!(comm.concurrent() && comm.carries());
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..20 {
                    let tensor =
                        Tensor::full([5000], f64::from(round), (Kind::Float, tch::Device::Cpu));
                    comm.all_reduce_tensor(&tensor).unwrap();
                    assert_eq!(tensor.double_value(&[4999]), 3.0 * f64::from(round));
                }
            });
            for length in 0..20 {
                let all = comm.all_gather(&vec![comm.rank() as u8; length * comm.rank()]).unwrap();
                assert!(all.iter().enumerate().all(|(rank, bytes)| bytes.len() == length * rank));
                comm.barrier().unwrap();
            }
        });
        // Not before the others.
        thread::sleep(Duration::from_millis(30) * comm.rank() as u32);
        let left = comm.close(Some(LIMIT));
        (left, comm.check().is_ok(), comm.close(None))
    });
    assert_eq!(ends, [(true, true, true); 3]);
}

#[test]
fn a_rank_that_closes_alone_gives_up() {
    let world = world_of_threads(2);
    let start = Instant::now();
    assert!(!world[1].close(Some(Duration::from_millis(200))));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_end_reaches_every_rank_and_only_the_first_counts() {
    let folder = tempfile::tempdir().unwrap();
    let world: Vec<_> = meet_in(folder.path(), 2).into_iter().map(Result::unwrap).collect();
    let port = fs_err::read_to_string(folder.path().join("port")).unwrap().parse().unwrap();
    let store = KeyStore::connect("127.0.0.1", port, "docre/test/", LIMIT).unwrap();
    for rank in [1, 0] {
        let end = End { rank, code: 71, host: "here".into(), sentence: String::new() };
        tell_end(&store, &end).unwrap();
    }
    let start = Instant::now();
    for comm in &world {
        while comm.check().is_ok() {
            assert!(start.elapsed() < LIMIT);
            thread::sleep(Duration::from_millis(5));
        }
        assert!(matches!(comm.check(), Err(Error::Elsewhere { rank: 1, code: 71 })));
        assert!(!comm.close(None), "there is nobody to leave with");
    }
}
