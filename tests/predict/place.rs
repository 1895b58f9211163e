//! Small fine-tuned models, made once for all tests, and a folder to predict in.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{free_of_launchers, program};

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A model, and flags with which it finds facts.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Folder of its run.
    pub run: &'static str,
    pub stage: &'static str,
    pub flags: &'static str,
}

/// ATLOP with one threshold, which takes a part of all facts.
pub const ATLOP: Model =
    Model { run: "atlop", stage: "finetune-baseline", flags: "--threshold 0.25" };
/// DREEAM, whose facts are fused from two runs.
pub const DREEAM: Model =
    Model { run: "dreeam", stage: "finetune-baseline", flags: "--threshold=-11" };
/// DSDocRE, for the pairs that its ranker keeps.
pub const RANKED: Model =
    Model { run: "ranked", stage: "finetune-pretrained", flags: "--threshold 0.02" };

/// The folder with the runs of all models.
fn models() -> &'static Path {
    static MODELS: OnceLock<PathBuf> = OnceLock::new();
    MODELS.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("predict-models");
        if folder.exists() {
            fs_err::remove_dir_all(&folder).unwrap();
        }
        fs_err::create_dir_all(&folder).unwrap();
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/smoke.toml");
        let small = "threads=1 device=cpu data.synth.distant=24 data.synth.human=8 \
            data.synth.dev=8 data.synth.test=4 dsdocre.relation_width=16 rank.steps=2 \
            pretrain.steps=2 finetune.steps=4";
        let baseline = "variants=[\"baseline\"]";
        for (run, own) in [
            ("atlop", format!("system=atlop {baseline} atlop.emb_size=64 atlop.threshold=global")),
            (
                "dreeam",
                format!("system=dreeam {baseline} dreeam.averaged_layers=2 dreeam.emb_size=64"),
            ),
            ("ranked", "variants=[\"pretrained\"] dsdocre.decision=threshold".to_owned()),
        ] {
            let mut command = Command::new(program());
            free_of_launchers(&mut command);
            command.arg("run").arg(&recipe).args(["--run-dir", run]).current_dir(&folder);
            for setting in small.split_whitespace().chain(own.split_whitespace()) {
                command.args(["--set", setting]);
            }
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        folder
    })
}

impl Model {
    /// Its last checkpoint.
    pub fn checkpoint(self) -> String {
        let folder = models().join(self.run).join("checkpoints").join(self.stage);
        let steps = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        steps.max().unwrap().to_str().unwrap().to_owned()
    }

    /// The words of a call of `predict` with it.
    pub fn predict(self, more: &str) -> String {
        let (checkpoint, flags) = (self.checkpoint(), self.flags);
        format!("predict --checkpoint {checkpoint} --threads 1 --device cpu {flags} {more}")
    }
}

/// The generated documents, as they stand in their file.
pub fn documents() -> Vec<Value> {
    let world = models().join("atlop/data/world");
    let read = |name| -> Vec<Value> {
        serde_json::from_slice(&fs_err::read(world.join(name)).unwrap()).unwrap()
    };
    [read("dev.json"), read("test.json"), read("train_annotated.json")].concat()
}

/// The tokenizer and the relations of the models.
pub fn world(name: &str) -> String {
    models().join("atlop/data/world").join(name).to_str().unwrap().to_owned()
}

/// How the program ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// A temporary folder in which the program runs.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(program());
        free_of_launchers(&mut command);
        command.args(line.split_whitespace()).current_dir(self.0.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Calls the program; `input` goes to its standard input.
    pub fn call(&self, line: &str, input: &[u8]) -> Outcome {
        let mut child = self.command(line).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // The program may answer before it has read everything, or end.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let outcome = finish(child);
        writer.join().unwrap();
        outcome
    }

    pub fn good(&self, line: &str) -> Outcome {
        let outcome = self.call(line, b"");
        assert_eq!(outcome.code, Some(0), "`{line}` said:\n{}", outcome.stderr);
        outcome
    }

    pub fn bad(&self, line: &str, code: i32, parts: &[&str]) {
        let outcome = self.call(line, b"");
        assert_eq!(outcome.code, Some(code), "`{line}` said:\n{}", outcome.stderr);
        for part in parts {
            assert!(outcome.stderr.contains(part), "`{part}` is not in:\n{}", outcome.stderr);
        }
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs_err::read(self.path(name)).unwrap()
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.bytes(name)).unwrap()
    }

    pub fn write(&self, name: &str, documents: &[Value]) {
        fs_err::write(self.path(name), Value::from(documents.to_vec()).to_string()).unwrap();
    }
}

/// Waits for the end of a process.
pub fn finish(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Outcome { code: output.status.code(), stdout: output.stdout, stderr }
}

/// Waits until something holds.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < limit, "{what} never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The lines of an output as JSON.
pub fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
