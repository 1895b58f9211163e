//! Bad days, under a real `mpirun`: killed, stopped and signalled ranks, and resumes with other numbers of ranks.
//!
//! Not for what one process does: `cli.rs` tests that. `DOCRE_KILL_ROUNDS` sets how often a random rank is killed (3), `DOCRE_KILL_SEED` the
//! moments; both are printed.
#![cfg(feature = "mpi")]
#![allow(clippy::unwrap_used, reason = "a call that fails fails its test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use docre::dist::Flight;
use serde_json::Value;
use tempfile::TempDir;

/// Pre-training alone is long enough to be disturbed.
const RECIPE: &str = r#"
name = "survival"
variants = ["pretrained"]
threads = 1
device = "cpu"
hang_limit_s = 4
[data.synth]
distant = 40
human = 8
dev = 4
test = 4
[encoder]
name = "tiny"
[switches]
relation_width = 16
[rank]
learning_rate = 1e-3
batch = 4
steps = 2
[pretrain]
learning_rate = 1e-3
batch = 4
steps = 40
checkpoint_steps = 4
keep_checkpoints = 2
[finetune]
learning_rate = 1e-3
batch = 4
steps = 2
"#;

/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(300);

/// A temporary folder in which the program runs.
struct Place(TempDir);

/// A world that has been started.
struct Started {
    child: Option<Child>,
    since: Instant,
}

/// How it ended.
struct Ended {
    code: Option<i32>,
    said: String,
    took: Duration,
}

impl Place {
    fn new() -> Option<Self> {
        if Command::new("mpirun").arg("--version").output().is_err() {
            println!("skipped: no mpirun on PATH");
            return None;
        }
        let place = Self(tempfile::tempdir().unwrap());
        fs_err::write(place.path("recipe.toml"), RECIPE).unwrap();
        Some(place)
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts `ranks` ranks of `run recipe.toml --run-dir RUN` with further words.
    fn start(&self, ranks: usize, run: &str, more: &str) -> Started {
        self.mpirun(&format!("-n {ranks} {} run recipe.toml --run-dir {run} {more}", program().display()))
    }

    fn mpirun(&self, line: &str) -> Started {
        let mut command = Command::new("mpirun");
        let foreign = ["OMPI_COMM", "PMI", "SLURM_", "WORLD_SIZE", "RANK", "LOCAL_RANK"];
        for (name, _) in std::env::vars().filter(|(name, _)| foreign.iter().any(|start| name.starts_with(start))) {
            command.env_remove(name);
        }
        for name in ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe"] {
            command.env(name, "1");
        }
        let log = fs_err::File::create(self.path("said")).unwrap().into_parts().0;
        command.args(line.split_whitespace()).current_dir(self.0.path());
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Started { child: Some(child), since: Instant::now() }
    }

    /// Waits for the end of a world.
    fn end(&self, mut started: Started) -> Ended {
        let mut child = started.child.take().unwrap();
        let code = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status.code();
            }
            if started.since.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("it hangs:\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Ended { code, said: self.said(), took: started.since.elapsed() }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&fs_err::read(self.path("said")).unwrap()).into_owned()
    }

    fn finish(&self, ranks: usize, run: &str, more: &str) {
        let ended = self.end(self.start(ranks, run, more));
        assert_eq!(ended.code, Some(0), "{ranks} ranks in {run}:\n{}", ended.said);
    }

    /// Waits until a stage has a line for `step` in the metrics.
    fn await_step(&self, run: &str, step: u64, started: &mut Started) {
        while self.metrics(run).keys().last().is_none_or(|last| *last < step) {
            let over = started.child.as_mut().unwrap().try_wait().unwrap();
            assert!(over.is_none() && started.since.elapsed() < PATIENCE, "step {step} never came ({over:?}):\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The lines of pre-training by step; a repeated step counts with its last line.
    fn metrics(&self, run: &str) -> BTreeMap<u64, Value> {
        let text = fs_err::read_to_string(self.path(run).join("metrics.jsonl")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["stage"] == "pretrain").map(|line| (line["step"].as_u64().unwrap(), line)).collect()
    }

    /// The process of a rank.
    fn process(&self, run: &str, rank: usize) -> i32 {
        let flights = Flight::read_all(&self.path(run).join("log/flight")).unwrap();
        flights.iter().find(|flight| flight.rank == rank).unwrap().pid as i32
    }

    fn signal(&self, run: &str, rank: usize, signal: i32) {
        // SAFETY: a plain call with numbers.
        assert_eq!(unsafe { libc::kill(self.process(run, rank), signal) }, 0);
    }

    /// Weights and moments at the end of pre-training, by file.
    fn final_hashes(&self, run: &str) -> Vec<blake3::Hash> {
        let folder = self.path(run).join("checkpoints/pretrain/step-00000040");
        ["model", "heads", "optimizer"].map(|name| blake3::hash(&fs_err::read(folder.join(format!("{name}.safetensors"))).unwrap())).into()
    }

    /// Prepares data and ranker once; runs start as copies, so that only pre-training is repeated.
    fn prepared(&self, ranks: usize) {
        self.finish(ranks, "ready", "");
        fs_err::remove_dir_all(self.path("ready/checkpoints/finetune-pretrained")).unwrap();
        copy(&self.path("ready"), &self.path(format!("calm{ranks}")));
        fs_err::remove_dir_all(self.path("ready/checkpoints/pretrain")).unwrap();
        fs_err::remove_file(self.path("ready/metrics.jsonl")).unwrap();
    }

    fn fresh(&self, run: &str) {
        copy(&self.path("ready"), &self.path(run));
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
        }
    }
}

fn program() -> PathBuf {
    assert_cmd::cargo::cargo_bin!("docre-pretrain").to_path_buf()
}

fn copy(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs_err::copy(entry.path(), target).unwrap();
        }
    }
}

/// Numbers from a seed: a step of SplitMix64.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *seed;
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn a_rank_killed_at_any_moment_is_named_and_the_run_goes_on_to_the_same_weights() {
    let Some(place) = Place::new() else { return };
    let (rounds, mut seed) = (setting("DOCRE_KILL_ROUNDS", 3), setting("DOCRE_KILL_SEED", 7));
    let ranks = 2;
    place.prepared(ranks);
    for round in 0..rounds {
        println!("round {round} with DOCRE_KILL_SEED={seed}");
        let run = format!("killed{round}");
        place.fresh(&run);
        let (rank, step, pause) = (random(&mut seed) as usize % ranks, 1 + random(&mut seed) % 36, random(&mut seed) % 100);
        let mut started = place.start(ranks, &run, "--resume");
        place.await_step(&run, step, &mut started);
        std::thread::sleep(Duration::from_millis(pause));
        place.signal(&run, rank, libc::SIGKILL);
        let killed = Instant::now();
        let ended = place.end(started);
        assert!(killed.elapsed() < Duration::from_secs(30), "the others ended only after {:?}", killed.elapsed());
        assert_eq!(ended.code, Some(71), "rank {rank} after step {step}:\n{}", ended.said);
        let sentence = ended.said.lines().find(|line| line.contains("was killed by signal 9")).unwrap_or_else(|| panic!("{}", ended.said));
        assert!(sentence.starts_with(&format!("rank {rank} on ")), "{sentence}");
        assert!(sentence.contains("the last good checkpoint is") || sentence.contains("there is no checkpoint yet"), "{sentence}");
        let autopsy = Command::new(program()).args(["autopsy"]).arg(place.path(&run)).output().unwrap();
        assert!(String::from_utf8(autopsy.stdout).unwrap().starts_with(sentence), "autopsy says the same first");
        place.finish(ranks, &run, "--resume");
        assert_eq!(place.final_hashes(&run), place.final_hashes("calm2"), "rank {rank} after step {step}");
        fs_err::remove_dir_all(place.path(&run)).unwrap();
    }
}

#[test]
fn a_stopped_rank_is_named_within_the_limit() {
    let Some(place) = Place::new() else { return };
    let mut started = place.start(2, "r", "--set pretrain.steps=100000");
    place.await_step("r", 3, &mut started);
    let process = place.process("r", 1);
    place.signal("r", 1, libc::SIGSTOP);
    let stopped = Instant::now();
    let ended = place.end(started);
    assert_eq!(ended.code, Some(71), "{}", ended.said);
    assert!(stopped.elapsed() < Duration::from_secs(60), "{:?}", stopped.elapsed());
    let sentence = ended.said.lines().find(|line| line.starts_with("rank 1 on ")).unwrap_or_else(|| panic!("{}", ended.said));
    assert!(sentence.contains("no sign of life for") && sentence.contains("of pretrain"), "{sentence}");
    let gone = || !Path::new("/proc").join(process.to_string()).exists();
    let end = Instant::now() + Duration::from_secs(10);
    while !gone() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(gone(), "the stopped process is left behind");
}

#[test]
fn signals_stop_all_ranks_and_other_numbers_of_ranks_go_on() {
    let Some(place) = Place::new() else { return };
    place.prepared(1);
    place.fresh("r");
    let signals = [(1, 0, libc::SIGUSR1), (2, 1, libc::SIGUSR2), (4, 3, libc::SIGTERM), (2, 0, libc::SIGINT)];
    for (turn, (ranks, rank, signal)) in signals.into_iter().enumerate() {
        let mut started = place.start(ranks, "r", "--resume");
        place.await_step("r", 6 * (turn as u64 + 1), &mut started);
        place.signal("r", rank, signal);
        let ended = place.end(started);
        let last = *place.metrics("r").keys().last().unwrap();
        assert_eq!(ended.code, Some(75), "signal {signal} to rank {rank} of {ranks} by step {last}:\n{}", ended.said);
        assert!(place.path(format!("r/checkpoints/pretrain/step-{last:08}/MANIFEST.json")).exists(), "no checkpoint of step {last}");
    }
    place.finish(1, "r", "--resume");
    let (calm, disturbed) = (place.metrics("calm1"), place.metrics("r"));
    assert_eq!(disturbed.len(), 40);
    for (step, line) in &calm {
        let other = &disturbed[step];
        assert_eq!(line["order_hash"], other["order_hash"], "step {step}");
        let (one, many) = (line["loss"].as_f64().unwrap(), other["loss"].as_f64().unwrap());
        assert!((one - many).abs() <= 1e-4 * one.abs().max(1.0), "step {step}: {one} and {many}");
    }
}

#[test]
fn stop_and_save_files_work_on_several_ranks() {
    let Some(place) = Place::new() else { return };
    let mut started = place.start(2, "r", "--set pretrain.steps=100000 --set pretrain.checkpoint_steps=0");
    place.await_step("r", 2, &mut started);
    fs_err::write(place.path("r/SAVE"), "").unwrap();
    while place.path("r/SAVE").exists() {
        assert!(started.since.elapsed() < PATIENCE, "{}", place.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    let saved = fs_err::read_dir(place.path("r/checkpoints/pretrain")).unwrap().count();
    assert_eq!(saved, 1, "one checkpoint, and training goes on");
    fs_err::write(place.path("r/STOP"), "").unwrap();
    let ended = place.end(started);
    assert_eq!(ended.code, Some(75), "{}", ended.said);
}

#[test]
fn a_rank_with_another_recipe_is_named_at_the_start() {
    let Some(place) = Place::new() else { return };
    let program = program();
    let run = format!("{} run recipe.toml --run-dir r", program.display());
    let ended = place.end(place.mpirun(&format!("-n 1 {run} : -n 1 {run} --set pretrain.steps=41")));
    assert_eq!(ended.code, Some(64), "{}", ended.said);
    let told = "the recipe differs between ranks: rank 1 has `steps = 41`, the others have `steps = 40`";
    assert!(ended.said.contains(told) && ended.said.contains("hint: "), "{}", ended.said);
    assert!(ended.took < Duration::from_secs(60), "{:?}", ended.took);
}
