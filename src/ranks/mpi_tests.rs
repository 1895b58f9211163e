//! Real ranks: this test binary starts itself under `mpirun`, once a scenario, and looks at exit
//! code, time and stderr.

// Everything here is test code, but clippy knows only functions marked as tests.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use super::*;
use crate::torch::rng::Generator;
use crate::{DataError, Error, Result};

/// Names the scenario that a started copy plays.
const SCENARIO: &str = "DOCRE_MPI_SCENARIO";

/// Bound on the end of a world with a broken rank, the start of all processes on a busy machine
/// included.
const END_SECONDS: u64 = 60;

struct Ended {
    code: Option<i32>,
    stderr: String,
    took: Duration,
}

/// Plays a scenario on `ranks` ranks.
fn mpirun(ranks: usize, scenario: &str) -> Ended {
    let start = Instant::now();
    let Output { status, stdout, stderr } = Command::new("mpirun")
        .args(["-n", &ranks.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "ranks::mpi_tests::a_rank", "--nocapture", "--test-threads=1"])
        .env(SCENARIO, scenario)
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .output()
        .unwrap();
    let stderr =
        format!("{}\n{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    Ended { code: status.code(), stderr, took: start.elapsed() }
}

fn expect(ranks: usize, scenario: &str, code: i32, texts: &[&str]) {
    let ended = mpirun(ranks, scenario);
    let Ended { stderr, took, .. } = &ended;
    assert_eq!(ended.code, Some(code), "{scenario} on {ranks} ranks after {took:?}:\n{stderr}");
    for text in texts {
        assert!(
            stderr.contains(text),
            "{scenario} on {ranks} ranks does not say `{text}`:\n{stderr}"
        );
    }
    if code == 71 {
        assert!(*took < Duration::from_secs(END_SECONDS), "{scenario} took {took:?}");
    }
}

/// What the copies run that [`mpirun`] starts. The process ends with the code that the program
/// would end with.
#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_rank() {
    let Ok(scenario) = std::env::var(SCENARIO) else {
        // Run by hand: the shortest scenario, on a rank of its own.
        return expect(1, "collectives", 0, &[]);
    };
    let outcome = World::start().and_then(|world| {
        let outcome = play(&scenario, &world);
        world.close(outcome)
    });
    let code = outcome.err().map_or(0, |error| {
        // One write, so that the lines of several ranks do not mix.
        let _ = std::io::stderr().write_all(format!("error: {error}\n").as_bytes());
        i32::from(error.exit_code())
    });
    std::process::exit(code);
}

fn play(scenario: &str, world: &World) -> Result<()> {
    let last = world.rank() + 1 == world.size();
    match scenario {
        "collectives" => collectives(world),
        "reducer" => reducer(world),
        "root error" => world.on_root(|| Err(DataError::new("train.json", "cut off").into())),
        "agreed error" => world.agree(if last { Err(Error::recipe("steps = 0")) } else { Ok(()) }),
        "slow root" => world.on_root(|| {
            std::thread::sleep(Duration::from_secs(2));
            Ok(())
        }),
        "lone error" => {
            if last {
                return Err(DataError::new("shard 3", "bad page").into());
            }
            world.communicator().barrier()
        }
        "panic" => {
            assert!(!last, "the last rank gives up");
            world.communicator().barrier()
        }
        "panic in a thread" => {
            if last {
                let _ = std::thread::spawn(|| panic!("a worker gives up")).join();
            }
            world.communicator().barrier()
        }
        "panic beside a bucket" => panic_beside_a_bucket(world, last),
        "hang" => {
            let _section =
                world.watchdog().section_within("all-reduce of bucket 3", Duration::from_secs(1));
            if last {
                std::thread::sleep(Duration::from_secs(600));
            }
            world.communicator().barrier()
        }
        other => panic!("no scenario {other}"),
    }
}

/// Every collective against its closed form.
fn collectives(world: &World) -> Result<()> {
    let (comm, rank, size) = (world.communicator(), world.rank(), world.size());
    let mut values = [[rank as f64 + 0.5, 1e9]; 3];
    for (values, op) in values.iter_mut().zip([ReduceOp::Sum, ReduceOp::Max, ReduceOp::Min]) {
        comm.all_reduce_f64(values, op)?;
    }
    let (n, top) = (size as f64, size as f64 - 0.5);
    assert_eq!(values, [[n * n / 2.0, n * 1e9], [top, 1e9], [0.5, 1e9]]);
    let mut bytes = vec![rank as u8; rank];
    comm.broadcast(size - 1, &mut bytes)?;
    assert_eq!(bytes, vec![size as u8 - 1; size - 1]);
    let gathered = comm.all_gather(&vec![rank as u8; 3 * rank])?;
    assert!(gathered.into_iter().eq((0..size).map(|rank| vec![rank as u8; 3 * rank])));
    for kind in [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Half] {
        let tensor = Tensor::full([1000], rank as f64 + 1.0, (kind, Device::Cpu));
        comm.all_reduce_tensor(&tensor)?;
        let sum = (size * (size + 1) / 2) as f64;
        assert_eq!(
            Vec::<f64>::try_from(tensor.to_kind(Kind::Double)).unwrap(),
            vec![sum; 1000],
            "{kind:?}"
        );
    }
    assert!(world.agree(Ok(rank))? == rank && world.on_root(|| Ok(rank))? == 0);
    Ok(())
}

/// Random gradients through the reducer: the same bits as a plain all-reduce, on every rank.
fn reducer(world: &World) -> Result<()> {
    let rank = world.rank();
    let mut generator = Generator::of_test(rank as u64);
    let flat: Vec<Tensor> = [70_000, 3, 1_000_000].map(|length| generator.randn([length])).into();
    let plain: Vec<Tensor> = flat.iter().map(Tensor::copy).collect();
    let shared = flat.iter().map(Tensor::shallow_clone).collect();
    let reducer = world.gradient_reducer(shared, vec![2, 1, 0, 2], Kind::Float)?;
    reducer.arm()?;
    let order = if rank.is_multiple_of(2) { [0, 1, 2, 3] } else { [2, 3, 1, 0] };
    order
        .iter()
        .filter(|&&parameter| parameter != rank)
        .for_each(|&parameter| reducer.ready(parameter));
    // The control lane is free meanwhile.
    let mut one = [1.0];
    world.communicator().all_reduce_f64(&mut one, ReduceOp::Sum)?;
    reducer.finish()?;
    assert_eq!(one, [world.size() as f64]);
    for (sum, plain) in flat.iter().zip(&plain) {
        world.communicator().all_reduce_tensor(plain)?;
        let bits: Vec<f32> = Vec::try_from(sum).unwrap();
        let bytes = bytemuck::cast_slice(&bits);
        assert!(bits == Vec::<f32>::try_from(plain).unwrap(), "the reducer's sum is not MPI's");
        assert!(
            world.communicator().all_gather(bytes)?.iter().all(|theirs| theirs == bytes),
            "ranks have different bits"
        );
    }
    Ok(())
}

/// The last rank panics while the others' buckets are on their way: the communication thread must
/// not keep the world alive.
fn panic_beside_a_bucket(world: &World, last: bool) -> Result<()> {
    let flat = Tensor::ones([1000], (Kind::Float, Device::Cpu));
    let reducer = Arc::new(world.gradient_reducer(vec![flat], vec![0], Kind::Float)?);
    reducer.arm()?;
    assert!(!last, "backward went wrong");
    reducer.ready(0);
    reducer.finish()
}

#[test]
fn collectives_on_one_two_and_four_ranks() {
    for ranks in [1, 2, 4] {
        expect(ranks, "collectives", 0, &[]);
    }
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn the_reducer_gives_the_bits_of_a_plain_all_reduce() {
    expect(2, "reducer", 0, &[]);
    expect(4, "reducer", 0, &[]);
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn shared_errors_keep_their_code() {
    expect(2, "root error", 65, &["error: train.json: cut off"]);
    expect(3, "agreed error", 64, &["error: rank 2: steps = 0"]);
    expect(2, "slow root", 0, &[]);
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_lone_error_ends_all_ranks() {
    expect(2, "lone error", 71, &["rank 1: shard 3: bad page"]);
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_panic_on_one_rank_ends_all() {
    expect(
        2,
        "panic",
        71,
        &["rank 1 panicked at src/ranks/mpi_tests.rs:", ": the last rank gives up"],
    );
    expect(2, "panic in a thread", 71, &["rank 1 panicked at", "a worker gives up"]);
    expect(4, "panic beside a bucket", 71, &["rank 3 panicked at", "backward went wrong"]);
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_hang_ends_all_ranks() {
    expect(2, "hang", 71, &["no progress for ", " s in all-reduce of bucket 3"]);
}

/// A launcher that starts processes which do not see each other.
#[test]
fn a_wrong_launcher_is_refused() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ranks::mpi_tests::a_rank", "--nocapture"])
        .env(SCENARIO, "lonely")
        .envs([("PMI_SIZE", "2"), ("PMI_RANK", "1")])
        .envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("started 2 processes, but this one sees a world of 1"), "{text}");
}
