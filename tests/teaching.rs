//! Teachers and students from outside: `teach`, the rules of labels, and the variants of `run` that
//! learn from taught documents. Tests use small generated worlds.
#![allow(clippy::unwrap_used, reason = "a call that fails fails its test")]

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use common::{allow_mpirun, free_of_launchers, metrics, program};

const SMALL: &str = "--set system=atlop --set atlop.emb_size=64";

/// A temporary folder in which the program runs.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let recipe = common::recipe("teaching", 24, "", "steps = 2", 6);
        fs_err::write(place.path("recipe.toml"), recipe).unwrap();
        place
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// Calls the program on a number of ranks; exit code, and all that it said.
    fn call(&self, ranks: usize, line: &str) -> (Option<i32>, String) {
        self.call_with(ranks, &line.split_whitespace().collect::<Vec<_>>())
    }

    /// As [`call`](Self::call), for arguments that may hold spaces.
    fn call_with(&self, ranks: usize, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = if ranks == 1 {
            Command::new(program())
        } else {
            let mut command = Command::new("mpirun");
            command.args(["-n", &ranks.to_string()]).arg(program());
            allow_mpirun(&mut command);
            command
        };
        free_of_launchers(&mut command);
        let output = command.args(arguments).current_dir(self.0.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }

    fn good(&self, line: &str) -> String {
        let (code, said) = self.call(1, line);
        assert_eq!(code, Some(0), "`{line}` said:\n{said}");
        said
    }

    fn bad(&self, line: &str, code: i32, parts: &[&str]) {
        let (found, said) = self.call(1, line);
        assert_eq!(found, Some(code), "`{line}` said:\n{said}");
        for part in parts {
            assert!(said.contains(part), "`{line}` did not say `{part}`:\n{said}");
        }
    }

    fn json(&self, name: impl AsRef<Path>) -> Value {
        serde_json::from_slice(&fs_err::read(self.path(name)).unwrap()).unwrap()
    }

    /// The only checkpoint of a stage, or the last one.
    fn checkpoint(&self, stage: &str) -> String {
        let folder = self.path(stage);
        let names = fs_err::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        format!("{stage}/{}", names.filter(|name| name.starts_with("step-")).max().unwrap())
    }

    /// Bytes of all files of a folder of shards.
    fn shards(&self, folder: &str) -> Vec<(String, Vec<u8>)> {
        let entries = fs_err::read_dir(self.path(folder)).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| (path.display().to_string(), fs_err::read(&path).unwrap()))
            .map(|(path, bytes)| (path.rsplit('/').next().unwrap().to_owned(), bytes))
            .collect();
        files.sort();
        files
    }
}

/// The student of a run learns what the baseline says; each stage stands in the run folder, and the
/// second run does nothing.
#[test]
fn a_student_learns_what_the_baseline_says() {
    let place = Place::new();
    let line = format!(
        "run recipe.toml --run-dir r {SMALL} --set variants=[\"baseline\",\"student\"] \
         --set student.steps=4 --set refine.steps=3"
    );
    let said = place.good(&line);
    for part in ["ATLOP +T", "by rule \"soft\"", "bytes each for what the teacher says"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for (stage, steps) in
        [("finetune-baseline", 6), ("student-distant", 4), ("finetune-student", 3)]
    {
        assert_eq!(metrics(&place.path("r"), stage).len(), steps, "{stage}");
    }
    let taught = &place.json("r/data/taught/baseline/manifest.json")["taught"];
    assert_eq!(taught["system"], "atlop");
    assert_eq!(taught["fit"]["documents"], 4);
    assert!(taught["calibration"]["common"]["label"].as_f64().unwrap() != 0.0);
    let ledger = place.good("ledger r --rule predicted --output l.parquet --json ledger.json");
    assert!(ledger.contains("of which training keeps"), "{ledger}");
    let counts = place.json("ledger.json");
    assert!(counts["kept"].as_u64() < counts["labels"].as_u64(), "{ledger}");
    assert!(place.path("r/labels.parquet").exists());
    let world = place.json("r/data/world/train_distant.json");
    let title = world[0]["title"].as_str().unwrap();
    let mut query = vec!["why", "r", "--title", title, "--json", "why.json"];
    let label = &world[0]["labels"][0];
    let (head, tail) = (label["h"].to_string(), label["t"].to_string());
    query.extend(["--head", &head, "--tail", &tail]);
    let (code, said) = place.call_with(1, &query);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("judged by baseline: ") && said.contains("by the rule: soft"), "{said}");
    let judged = &place.json("why.json")["roles"][0]["about"][0]["judgements"];
    let own = judged.as_array().unwrap().iter().find(|said| said["relation"] == label["r"]);
    let target = own.unwrap()["target"].as_f64().unwrap();
    let probability = own.unwrap()["probability"].as_f64().unwrap_or_default();
    assert!((target - probability).abs() < 1e-6, "{judged}");
    let again = place.good(&line);
    assert!(!again.contains("student-distant: step"), "{again}");
    // What is not known to any teacher: labels as they are.
    let audit = "audit --distant r/data/world/dev_distant.json --gold r/data/world/dev.json";
    let best = place.checkpoint("r/checkpoints/finetune-baseline");
    let said = place.good(&format!("{audit} --checkpoint {best} --json audit.json"));
    assert!(said.contains("checkpoint"), "{said}");
    assert_eq!(place.json("audit.json")["denoisers"][0]["name"], "checkpoint");
}

/// Ranks share the documents of a row group. The shards are the same to the last bit.
#[test]
fn teaching_gives_the_same_shards_on_any_number_of_ranks_and_after_a_break() {
    let place = Place::new();
    let brief = "--set variants=[\"baseline\"] --set finetune.steps=2";
    place.good(&format!("run recipe.toml --run-dir r {SMALL} {brief}"));
    let teacher = place.checkpoint("r/checkpoints/finetune-baseline");
    let data = "--input r/data/shards/distant --dev r/data/shards/dev \
        --dev-labels r/data/shards/dev-distant";
    let teach = |output: &str, more: &str| {
        format!("teach --checkpoint {teacher} {data} --output {output} --threads 1 {more}")
    };
    let told = place.good(&teach("one", "--json one.json"));
    assert!(told.contains("expected calibration error"), "{told}");
    assert_eq!(place.json("one.json")["documents"], 24);
    let (code, said) = place.call(2, &teach("two", ""));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(place.shards("one"), place.shards("two"));
    place.bad(&teach("one", ""), 64, &["exists already", "hint:"]);
    // A work of another teacher is not gone on with.
    fs_err::create_dir(place.path("three.unfinished")).unwrap();
    fs_err::write(place.path("three.unfinished/task.json"), "{}").unwrap();
    place.bad(&teach("three", ""), 65, &["another teacher", "hint:"]);

    // Several passes tell how certain predictions are, on any number of ranks.
    place.good(&teach("passes", "--passes 2"));
    let (code, said) = place.call(2, &teach("passes-2", "--passes 2"));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(place.shards("passes"), place.shards("passes-2"));
    let tuned = |train: &str, rule: &str, run: &str| {
        format!(
            "finetune --system atlop --train {train} --dev r/data/shards/dev --encoder tiny \
             --run-dir {run} --threads 1 --set finetune.steps=2 --set atlop.emb_size=64 \
             --set distant.rule={rule}"
        )
    };
    let said = place.good(&tuned("passes", "certain", "certain"));
    assert!(said.contains("by rule \"certain\""), "{said}");
    place.bad(&tuned("one", "certain", "wrong"), 64, &["one pass", "--passes 10"]);
    // As it is, training does not know that there was a teacher.
    for (train, run) in [("one", "as-is"), ("r/data/shards/distant", "plain")] {
        place.good(&tuned(train, "as-is", run));
    }
    let losses = |run: &str| {
        let lines = metrics(&place.path(run), "finetune");
        lines.values().map(|line| line["loss"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(losses("as-is"), losses("plain"));
    let mixed = "run recipe.toml --run-dir m --set system=atlop --set atlop.emb_size=64 \
        --set variants=[\"student\"] --set distant.human_weight=2 --set student.steps=2 \
        --set refine.steps=1 --set finetune.steps=1";
    let said = place.good(mixed);
    assert!(said.contains("student-distant: distant 24 × 1, human 8 × 2, 40 visits"), "{said}");
    for rule in ["weighted", "drop", "hard", "mixed", "predicted"] {
        place.good(&tuned("one", rule, rule));
    }
    assert_ne!(losses("hard"), losses("mixed"));
}

/// Students of DREEAM learn a teacher's attention, those of KD-DocRE its logits.
#[test]
fn students_of_dreeam_and_kd_docre_learn_what_their_papers_say() {
    let place = Place::new();
    let run = |system: &str, more: &str| {
        format!(
            "run recipe.toml --run-dir {system} --set system={system} --set {system}.emb_size=64 \
             --set variants=[\"student\"] --set student.steps=2 --set refine.steps=1 \
             --set finetune.steps=2 {more}"
        )
    };
    let few = "--set dreeam.averaged_layers=2";
    place.bad(&run("dreeam", few), 64, &["distant.tokens"]);
    place.good(&run("dreeam", &format!("{few} --set distant.tokens=8")));
    let slots = |system: &str, slot: &str| {
        let lines = metrics(&place.path(system), "student-distant");
        lines.values().map(|line| line[slot].as_f64().unwrap()).collect::<Vec<_>>()
    };
    assert!(slots("dreeam", "loss/attention").iter().all(|loss| loss.is_finite() && *loss > 0.0));
    let axial = "--set kd-docre.axial_layers=2 --set kd-docre.axial_heads=2";
    place.bad(&run("kd-docre", axial), 64, &["distant.logits"]);
    place.good(&run("kd-docre", &format!("{axial} --set distant.logits=true")));
    assert!(slots("kd-docre", "loss/distillation").iter().all(|loss| *loss > 0.0));
}

/// The rules are settings of pre-training too: what they drop is no fact to pre-train on. The
/// batches of every stage can be printed.
#[test]
fn pre_training_takes_what_the_rules_leave() {
    let place = Place::new();
    let line = "run recipe.toml --run-dir s --set variants=[\"taught-pretrained\",\"student\"] \
        --set distant.rule=predicted --set student.steps=2 --set refine.steps=1";
    let said = place.good(line);
    for part in ["DSDocRE +T+P", "DSDocRE +T ", "pretrain-taught: ", "by rule \"predicted\""] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for stage in ["pretrain-taught", "student-distant", "finetune-student", "finetune-baseline"] {
        let recorded = &metrics(&place.path("s"), stage)[&1]["order_hash"];
        let printed = place.good(&format!("batch s --stage {stage} --step 1 --json b.json"));
        assert!(printed.contains("step 1"), "{printed}");
        assert!(recorded.is_string() || recorded.is_number(), "{stage}: {recorded}");
    }
}
