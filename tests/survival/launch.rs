//! The program's own launcher: signals, output, exit codes, several machines (of which this one
//! plays all), and what is left behind.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::common::{free_of_launchers, program};
use super::place::{By, Place};

/// What the launcher gets reaches all ranks, once.
#[test]
fn launch_passes_signals_on_and_returns_the_code_of_its_ranks() {
    let place = Place::with(By::Launch);
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let run = format!("r{signal}");
        let mut started = place.start(2, &run, "--set pretrain.steps=100000");
        place.await_step(&run, 2, &mut started);
        let launcher = started.child.as_ref().unwrap().id() as i32;
        // SAFETY: a plain call with numbers.
        assert_eq!(unsafe { libc::kill(launcher, signal) }, 0);
        let ended = place.end(started);
        assert_eq!(ended.code, Some(75), "signal {signal}:\n{}", ended.said);
        let last = *place.metrics(&run).keys().last().unwrap();
        let seal = format!("{run}/checkpoints/pretrain/step-{last:08}/MANIFEST.json");
        assert!(place.path(seal).exists(), "signal {signal}: no checkpoint of step {last}");
    }
    let ended = place.end(place.start(2, "r", "--set pretrain.steps=0"));
    assert_eq!(ended.code, Some(64), "{}", ended.said);
    assert_eq!(ended.said.matches("error: ").count(), 1, "{}", ended.said);
}

/// If the launcher is killed, its ranks are not left behind.
#[test]
fn ranks_do_not_outlive_their_launcher() {
    let place = Place::with(By::Launch);
    let mut started = place.start(2, "r", "--set pretrain.steps=100000");
    place.await_step("r", 2, &mut started);
    let ranks = [0, 1].map(|rank| place.process("r", rank));
    let mut child = started.child.take().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = |process: &i32| !Path::new("/proc").join(process.to_string()).exists();
    let end = Instant::now() + Duration::from_secs(10);
    while !ranks.iter().all(gone) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(ranks.iter().all(gone), "ranks are left behind");
}

/// Runs the program with these words in an empty environment.
fn program_says(words: &str, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(program());
    free_of_launchers(&mut command);
    command.args(words.split_whitespace()).envs(variables.iter().copied());
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn what_cannot_be_launched_is_said_once() {
    let (code, said) = program_says("launch -n 3 launch -n 2 run a.toml", &[]);
    assert_eq!((code, said.matches("does not launch itself").count()), (Some(64), 1), "{said}");
    let (code, said) = program_says("launch -n 3 run --no-such-flag", &[]);
    assert_eq!((code, said.matches("--no-such-flag' found").count()), (Some(2), 1), "{said}");
    let (code, said) = program_says("launch -n 3 run no-such-recipe.toml", &[]);
    assert_eq!((code, said.matches("no-such-recipe.toml").count()), (Some(64), 1), "{said}");
    let mpi = [("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "0")];
    let (code, said) = program_says("launch -n 3 run a.toml", &mpi);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("each would launch a world of its own"), "{said}");
    let (code, said) = program_says("run a.toml", &[("WORLD_SIZE", "2"), ("RANK", "0")]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("MASTER_ADDR"), "{said}");
}

/// Two launchers, as on two machines.
#[test]
fn launchers_of_several_machines_make_one_world() {
    let place = Place::with(By::Launch);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |node: usize, more: &str| {
        let mut command = Command::new(program());
        free_of_launchers(&mut command);
        let line = format!(
            "launch -n 1 --nodes 2 --node-rank {node} --rendezvous localhost:{port} \
             run recipe.toml --run-dir r {more}"
        );
        command.args(line.split_whitespace()).current_dir(place.path(""));
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let settings = "--set pretrain.steps=6 --set pretrain.checkpoint_steps=0";
    let ends = [1, 0].map(|node| start(node, settings)).map(|child| child.wait_with_output());
    for end in ends.map(Result::unwrap) {
        assert_eq!(end.status.code(), Some(0), "{}", String::from_utf8_lossy(&end.stderr));
    }
    assert_eq!(place.metrics("r").len(), 6);
    fs_err::remove_dir_all(place.path("r")).unwrap();
    // The loss of a rank ends the other machine's, too.
    let children = [1, 0].map(|node| start(node, "--set pretrain.steps=100000"));
    let begun = Instant::now();
    while place.metrics("r").len() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(20));
    }
    place.signal("r", 1, libc::SIGKILL);
    let killed = Instant::now();
    let ends = children.map(|child| child.wait_with_output().unwrap());
    assert!(killed.elapsed() < Duration::from_secs(30), "{:?}", killed.elapsed());
    let said = ends.each_ref().map(|end| String::from_utf8_lossy(&end.stderr).into_owned());
    assert!(ends.iter().all(|end| end.status.code() == Some(71)), "{said:?}");
    let named = said[0]
        .lines()
        .any(|line| line.starts_with("rank 1 on ") && line.contains("was killed by signal 9"));
    assert!(named, "{said:?}");
}
