//! Real ranks: this test binary starts itself under `mpirun`, and with its own launcher over c10d,
//! once a scenario, and looks at exit code, time and stderr.

// Everything here is test code, but clippy knows only functions marked as tests.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use super::launcher::LAUNCHED;
use super::*;
use crate::torch::rng::Generator;
use crate::{DataError, Error, Result};

/// Names the scenario that a started copy plays.
const SCENARIO: &str = "DOCRE_TEST_SCENARIO";

/// The number of ranks that a started copy launches.
const RANKS: &str = "DOCRE_TEST_RANKS";

/// How a started copy calls itself.
const WORDS: [&str; 4] =
    ["--exact", "ranks::world_tests::a_rank", "--nocapture", "--test-threads=1"];

/// Bound on the end of a world with a broken rank, the start of all processes on a busy machine
/// included.
const END_SECONDS: u64 = 60;

struct Ended {
    code: Option<i32>,
    stderr: String,
    took: Duration,
}

/// What starts the ranks.
#[derive(Clone, Copy, Debug)]
enum By {
    Mpirun,
    Launch,
}

impl By {
    /// Plays a scenario on `ranks` ranks.
    fn play(self, ranks: usize, scenario: &str) -> Ended {
        let (start, copy) = (Instant::now(), std::env::current_exe().unwrap());
        let mut command = match self {
            Self::Mpirun => {
                let mut command = Command::new("mpirun");
                command.args(["-n", &ranks.to_string()]).arg(copy);
                command
            }
            Self::Launch => {
                let mut command = Command::new(copy);
                command.env(RANKS, ranks.to_string());
                command
            }
        };
        let Output { status, stdout, stderr } = command
            .args(WORDS)
            .env(SCENARIO, scenario)
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
            .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
            .output()
            .unwrap();
        let [stdout, stderr] =
            [stdout, stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        let stderr = [stdout, stderr].join("\n");
        Ended { code: status.code(), stderr, took: start.elapsed() }
    }

    fn expect(self, ranks: usize, scenario: &str, code: i32, texts: &[&str]) -> String {
        let ended = self.play(ranks, scenario);
        let Ended { stderr, took, .. } = &ended;
        let who = format!("{scenario} on {ranks} ranks by {self:?}");
        assert_eq!(ended.code, Some(code), "{who} after {took:?}:\n{stderr}");
        for text in texts {
            assert!(stderr.contains(text), "{who} does not say `{text}`:\n{stderr}");
        }
        if code == 71 {
            assert!(*took < Duration::from_secs(END_SECONDS), "{who} took {took:?}");
        }
        ended.stderr
    }
}

/// What the copies run. The process ends with the code that the program would end with.
#[test]
fn a_rank() {
    let Ok(scenario) = std::env::var(SCENARIO) else {
        // Run by hand: the shortest scenario, on a rank of its own.
        return drop(By::Launch.expect(1, "collectives", 0, &[]));
    };
    let ranks = std::env::var(RANKS).ok().filter(|_| std::env::var(LAUNCHED).is_err());
    if let Some(ranks) = ranks.and_then(|ranks| ranks.parse().ok()) {
        let words = WORDS.map(Into::into).into();
        let launch = Launch { ranks, nodes: 1, node_rank: 0, rendezvous: None, words };
        std::process::exit(launch.run().map_or_else(|error| error.exit_code().into(), |()| 0));
    }
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
        "digests" => digests(world),
        "kill" => {
            if last {
                // SAFETY: a plain call with a number.
                unsafe { libc::raise(libc::SIGKILL) };
            }
            world.communicator().barrier()
        }
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
    let gathered = comm.gather(&vec![rank as u8; 3 * rank])?;
    let whole = (0..size).map(|rank| vec![rank as u8; 3 * rank]);
    assert!(gathered.into_iter().eq(whole.take(if rank == 0 { size } else { 0 })));
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

/// Prints a hash of numbers that are added in the same order by all libraries, and one of a fixed
/// tree, which is the same on every number of ranks.
fn digests(world: &World) -> Result<()> {
    let (rank, size) = (world.rank(), world.size());
    let mut sums = [0.0; 1000];
    let mut generator = Generator::of_test(rank as u64);
    let own: Vec<f32> = Vec::try_from(generator.randn([1000])).unwrap();
    sums.iter_mut().zip(&own).for_each(|(sum, own)| *sum = f64::from(*own) / 3.0);
    world.communicator().all_reduce_f64(&mut sums, ReduceOp::Sum)?;
    let (leaves, buckets) = (6, [Tensor::zeros([500], (Kind::Float, Device::Cpu))]);
    let mut tree = FixedTree::new(leaves);
    for leaf in leaves_of(rank, size, leaves) {
        let gradient = Generator::of_test(100 + leaf as u64).randn([500]) / 3.0;
        buckets[0].shallow_clone().copy_(&gradient);
        tree.add(leaf, &buckets)?;
    }
    tree.finish(world.communicator().as_ref(), &buckets)?;
    let tree: Vec<f32> = Vec::try_from(&buckets[0]).unwrap();
    let [sums, tree] = [bytemuck::cast_slice(&sums), bytemuck::cast_slice(&tree)]
        .map(|bytes: &[u8]| blake3::hash(bytes).to_hex()[..16].to_owned());
    if world.is_root() {
        println!("\ntree {tree} sums {sums}");
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

/// The same tests under `mpirun` and with the program's own launcher.
macro_rules! both_ways {
    ($($(#[$about:meta])* fn $name:ident($by:ident) $body:block)+) => {
        mod over_mpi {
            use super::*;
            $(
                $(#[$about])*
                #[test]
                #[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
                fn $name() {
                    let $by = By::Mpirun;
                    $body
                }
            )+
        }
        mod over_c10d {
            use super::*;
            $(
                $(#[$about])*
                #[test]
                fn $name() {
                    let $by = By::Launch;
                    $body
                }
            )+
        }
    };
}

both_ways! {
    fn collectives_on_one_two_and_four_ranks(by) {
        for ranks in [1, 2, 4] {
            by.expect(ranks, "collectives", 0, &[]);
        }
    }

    fn the_reducer_gives_the_bits_of_a_plain_all_reduce(by) {
        by.expect(2, "reducer", 0, &[]);
        by.expect(4, "reducer", 0, &[]);
    }

    fn shared_errors_keep_their_code(by) {
        by.expect(2, "root error", 65, &["error: train.json: cut off"]);
        by.expect(3, "agreed error", 64, &["error: rank 2: steps = 0"]);
        by.expect(2, "slow root", 0, &[]);
    }

    fn a_lone_error_ends_all_ranks(by) {
        by.expect(2, "lone error", 71, &["rank 1: shard 3: bad page"]);
    }

    fn a_panic_on_one_rank_ends_all(by) {
        by.expect(
            2,
            "panic",
            71,
            &["rank 1 panicked at src/ranks/world_tests.rs:", ": the last rank gives up"],
        );
        by.expect(2, "panic in a thread", 71, &["rank 1 panicked at", "a worker gives up"]);
        by.expect(4, "panic beside a bucket", 71, &["rank 3 panicked at", "backward went wrong"]);
    }

    fn a_hang_ends_all_ranks(by) {
        by.expect(2, "hang", 71, &["no progress for ", " s in all-reduce of bucket 3"]);
    }
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn sums_have_the_same_bits_over_both_libraries() {
    let digests = |by: By, ranks| {
        let said = by.expect(ranks, "digests", 0, &["tree "]);
        said.lines().find(|line| line.starts_with("tree ")).unwrap().to_owned()
    };
    let of_one = digests(By::Launch, 1);
    for ranks in [2, 4] {
        let (mpi, c10d) = (digests(By::Mpirun, ranks), digests(By::Launch, ranks));
        assert_eq!(mpi, c10d, "{ranks} ranks");
        assert_eq!(of_one.split(" sums").next(), c10d.split(" sums").next(), "{ranks} ranks");
    }
}

#[test]
fn a_killed_rank_is_named_by_the_launcher() {
    By::Launch.expect(3, "kill", 71, &["rank 2 on ", " was ended by signal 9"]);
}

/// Starts a copy as torchrun would.
fn start_alone(rank: usize, size: usize, port: u16) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(WORDS)
        .env(SCENARIO, "collectives")
        .envs([("MASTER_ADDR", "127.0.0.1"), ("DOCRE_MEETING_S", "3")])
        .envs(
            [("RANK", rank), ("WORLD_SIZE", size), ("LOCAL_RANK", rank)]
                .map(|(name, number)| (name, number.to_string())),
        )
        .env("MASTER_PORT", port.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end_of(child: Child) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// A port that nobody uses now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn ranks_that_do_not_come_are_named_once() {
    let port = free_port();
    let ranks = [0, 2].map(|rank| start_alone(rank, 4, port)).map(end_of);
    let told = format!(
        "error: rank 1 was lost during the meeting at 127.0.0.1:{port}: ranks 1, 3 of 4 have not \
         come within 3 s"
    );
    assert_eq!(ranks[0].0, Some(71), "{}", ranks[0].1);
    assert!(ranks[0].1.contains(&told), "{}", ranks[0].1);
    assert_eq!(ranks[1].0, Some(71), "{}", ranks[1].1);
    assert!(!ranks[1].1.contains("have not come"), "{}", ranks[1].1);
}

#[test]
fn a_store_that_is_not_there_is_named() {
    let port = free_port();
    let (code, said) = end_of(start_alone(1, 2, port));
    assert_eq!(code, Some(71), "{said}");
    let parts = [&format!("the meeting at 127.0.0.1:{port}"), "could not be reached", "refused"];
    parts.iter().for_each(|part| assert!(said.contains(*part), "{said}"));
}

#[test]
fn a_port_in_use_and_a_rank_given_twice_are_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (code, said) = end_of(start_alone(0, 2, port));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains(&format!("cannot meet at 127.0.0.1:{port}: Address already in use")));
    let port = free_port();
    let ranks = [0, 1, 1].map(|rank| start_alone(rank, 3, port)).map(end_of);
    let twice: Vec<_> = ranks.iter().filter(|(code, _)| *code == Some(64)).collect();
    assert_eq!(twice.len(), 1, "{ranks:?}");
    assert!(twice[0].1.contains("have rank 1"), "{ranks:?}");
}

/// A launcher that starts processes which do not see each other.
#[test]
#[cfg(feature = "mpi")]
fn a_wrong_launcher_is_refused() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ranks::world_tests::a_rank", "--nocapture"])
        .env(SCENARIO, "lonely")
        .envs([("PMI_SIZE", "2"), ("PMI_RANK", "1")])
        .envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("started 2 processes, but this one sees a world of 1"), "{text}");
}
