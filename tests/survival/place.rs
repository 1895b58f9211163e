//! A folder in which the program runs on several ranks, and what is looked at there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use docre::Recording;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{self, allow_mpirun, copy, free_of_launchers, program};

/// Pre-training alone is long enough to be disturbed.
fn recipe() -> String {
    common::recipe(
        "survival",
        40,
        "hang_limit_s = 20",
        "steps = 40\ncheckpoint_steps = 4\nkeep_checkpoints = 2",
        2,
    )
}

/// No test waits longer than this for anything.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// What starts the ranks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum By {
    /// `mpirun`: they meet over MPI.
    Mpirun,
    /// `docre-pretrain launch`: they meet over c10d.
    Launch,
}

/// A temporary folder in which the program runs, and what it finds in its environment besides.
pub struct Place {
    folder: TempDir,
    pub by: By,
    pub environment: Vec<(String, String)>,
}

/// A world that has been started.
pub struct Started {
    pub child: Option<Child>,
    pub since: Instant,
}

/// How it ended.
pub struct Ended {
    pub code: Option<i32>,
    pub said: String,
    pub took: Duration,
}

impl Place {
    pub fn new() -> Self {
        Self::with(By::Mpirun)
    }

    pub fn with(by: By) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap(), by, environment: Vec::new() };
        fs_err::write(place.path("recipe.toml"), recipe()).unwrap();
        place
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts `ranks` ranks of `run recipe.toml --run-dir RUN` with further words.
    pub fn start(&self, ranks: usize, run: &str, more: &str) -> Started {
        let program = program();
        let verb = format!("run recipe.toml --run-dir {run} {more}");
        match self.by {
            By::Mpirun => self.mpirun(&format!("-n {ranks} {} {verb}", program.display())),
            By::Launch => self.spawn(Command::new(program), &format!("launch -n {ranks} {verb}")),
        }
    }

    pub fn mpirun(&self, line: &str) -> Started {
        self.spawn(Command::new("mpirun"), line)
    }

    fn spawn(&self, mut command: Command, line: &str) -> Started {
        free_of_launchers(&mut command);
        allow_mpirun(&mut command);
        // Ranks that share a core with others must not wait for it in a loop.
        command.env("OMP_NUM_THREADS", "1").envs(self.environment.iter().cloned());
        let log = fs_err::File::create(self.path("said")).unwrap().into_parts().0;
        command.args(line.split_whitespace()).current_dir(self.folder.path());
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Started { child: Some(child), since: Instant::now() }
    }

    /// Waits for the end of a world.
    pub fn end(&self, mut started: Started) -> Ended {
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

    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs_err::read(self.path("said")).unwrap()).into_owned()
    }

    pub fn finish(&self, ranks: usize, run: &str, more: &str) {
        let ended = self.end(self.start(ranks, run, more));
        assert_eq!(ended.code, Some(0), "{ranks} ranks in {run}:\n{}", ended.said);
    }

    /// Runs a verb to its end and gives what it said.
    pub fn verb(&self, ranks: usize, words: &str) -> String {
        let ended = self.end(self.mpirun(&format!("-n {ranks} {} {words}", program().display())));
        assert_eq!(ended.code, Some(0), "{words}:\n{}", ended.said);
        ended.said
    }

    /// Waits until a stage has a line for `step` in the metrics.
    pub fn await_step(&self, run: &str, step: u64, started: &mut Started) {
        while self.metrics(run).keys().last().is_none_or(|last| *last < step) {
            let over = started.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                over.is_none() && started.since.elapsed() < PATIENCE,
                "step {step} never came ({over:?}):\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The lines of pre-training by step.
    pub fn metrics(&self, run: &str) -> BTreeMap<u64, Value> {
        common::metrics(&self.path(run), "pretrain")
    }

    /// The process of a rank.
    pub fn process(&self, run: &str, rank: usize) -> i32 {
        let recordings = Recording::read_all(&self.path(run)).unwrap();
        recordings.iter().find(|recording| recording.rank == rank).unwrap().pid as i32
    }

    pub fn signal(&self, run: &str, rank: usize, signal: i32) {
        // SAFETY: a plain call with numbers.
        assert_eq!(unsafe { libc::kill(self.process(run, rank), signal) }, 0);
    }

    /// Weights and moments at the end of pre-training, by file.
    pub fn final_hashes(&self, run: &str) -> Vec<blake3::Hash> {
        let folder = self.path(run).join("checkpoints/pretrain/step-00000040");
        ["model", "heads", "optimizer"]
            .map(|name| {
                blake3::hash(&fs_err::read(folder.join(format!("{name}.safetensors"))).unwrap())
            })
            .into()
    }

    /// Prepares data and ranker once; runs start as copies, so that only pre-training is repeated.
    /// `calm` is the undisturbed run.
    pub fn prepared(&self, ranks: usize) {
        self.finish(ranks, "ready", "");
        fs_err::remove_dir_all(self.path("ready/checkpoints/finetune-pretrained")).unwrap();
        copy(&self.path("ready"), &self.path(format!("calm{ranks}")));
        fs_err::remove_dir_all(self.path("ready/checkpoints/pretrain")).unwrap();
        fs_err::remove_file(self.path("ready/metrics.jsonl")).unwrap();
    }

    pub fn fresh(&self, run: &str) {
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

/// Numbers from a seed: a step of SplitMix64.
pub fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *seed;
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}
