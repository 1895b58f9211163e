//! The program from outside: exit codes, messages, and what a run leaves on disk. Tests use small
//! generated worlds.
//!
//! Not for: what single functions compute; those tests are beside the code.
#![allow(clippy::unwrap_used, reason = "a call that fails fails its test")]

mod common;
#[cfg(test)]
#[path = "support/reference_data.rs"]
mod reference_data;

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, UInt32Type};
use docre::OrderHash;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use common::{allow_mpirun, copy, free_of_launchers, metrics, program};

/// A temporary folder in which the program runs.
struct Place(TempDir);

/// A finished run of `jobs/smoke.toml` with few documents and steps, and a mirror of its
/// checkpoints. It is made once for all tests, which only read it or copy it.
struct Smoke {
    run: PathBuf,
    mirror: PathBuf,
    stdout: String,
}

/// The key that names the folder of a mirror.
fn mirror_setting(folder: &Path) -> String {
    format!("--set checkpoint_mirror=file://{}", folder.display())
}

fn smoke() -> &'static Smoke {
    static SMOKE: OnceLock<Smoke> = OnceLock::new();
    SMOKE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-smoke");
        if folder.exists() {
            fs_err::remove_dir_all(&folder).unwrap();
        }
        let (run, mirror) = (folder.join("run"), folder.join("mirror"));
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/smoke.toml");
        let small = "threads=1 device=cpu data.synth.distant=24 data.synth.human=8 \
            data.synth.dev=4 data.synth.test=4 dsdocre.relation_width=16 rank.steps=2 \
            pretrain.steps=2 finetune.steps=2";
        let settings: String =
            small.split_whitespace().map(|setting| format!("--set {setting} ")).collect();
        let stdout = Place::new()
            .good(&format!(
                "run {} --run-dir {} {settings} {}",
                recipe.display(),
                run.display(),
                mirror_setting(&mirror)
            ))
            .stdout;
        Smoke { run, mirror, stdout }
    })
}

/// How the program ended.
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs_err::write(place.path("recipe.toml"), common::recipe("cli", 24, "", "steps = 4", 4))
            .unwrap();
        place
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program with the words of `line` as arguments, in this folder and free of any launcher's
    /// variables.
    fn command(&self, line: &str) -> Command {
        self.prepared(Command::new(program()), line)
    }

    fn prepared(&self, mut command: Command, line: &str) -> Command {
        free_of_launchers(&mut command);
        command.args(line.split_whitespace()).current_dir(self.0.path());
        command
    }

    fn call(&self, line: &str) -> Outcome {
        finish(self.command(line))
    }

    /// Calls the program and expects success.
    fn good(&self, line: &str) -> Outcome {
        let outcome = self.call(line);
        assert_eq!(outcome.code, Some(0), "`{line}` said:\n{}", outcome.stderr);
        outcome
    }

    /// Calls the program and expects an exit code and parts of what it says.
    fn bad(&self, line: &str, code: i32, parts: &[&str]) -> Outcome {
        let outcome = self.call(line);
        assert_eq!(outcome.code, Some(code), "`{line}` said:\n{}", outcome.stderr);
        for part in parts {
            assert!(
                outcome.stderr.contains(part),
                "`{line}` did not say `{part}`:\n{}",
                outcome.stderr
            );
        }
        outcome
    }

    fn world(&self) {
        self.good(
            "synth --output world --distant 12 --human 8 --dev 4 --test 4 --noise 0.4 --seed 3",
        );
    }

    /// Copies a finished run and its mirror to `r` and `mirror`.
    fn copy_run(&self, smoke: &Smoke) {
        copy(&smoke.run, &self.path("r"));
        copy(&smoke.mirror, &self.path("mirror"));
    }

    fn json(&self, name: impl AsRef<Path>) -> Value {
        serde_json::from_slice(&self.bytes(name)).unwrap()
    }

    fn bytes(&self, name: impl AsRef<Path>) -> Vec<u8> {
        fs_err::read(self.path(name)).unwrap()
    }

    /// Writes `dev.json` of the world with its second document changed.
    fn write_changed(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut documents = self.json("world/dev.json");
        change(&mut documents[1]);
        fs_err::write(self.path(name), documents.to_string()).unwrap();
    }
}

fn finish(mut command: Command) -> Outcome {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The folder of the only fine-tuned checkpoint, or of the best one where there are two.
fn best_checkpoint(place: &Place, run: &str) -> String {
    let stage = format!("{run}/checkpoints/finetune-pretrained");
    let mut steps: Vec<_> = fs_err::read_dir(place.path(&stage))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    steps.sort();
    let last = steps.last().unwrap().to_str().unwrap().to_owned();
    let best = place.json(format!("{stage}/{last}/trainer.json"))["best"][1].as_u64().unwrap();
    format!("{stage}/step-{best:08}")
}

#[test]
fn help_and_version_are_printed() {
    let place = Place::new();
    let help = place.good("--help").stdout;
    for part in ["run quickstart", "Looking into a run:", "pretrain", "75  stopped on request"] {
        assert!(help.contains(part), "{help}");
    }
    assert_eq!(
        place.good("--version").stdout,
        format!("docre-pretrain {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert!(place.good("finetune --help").stdout.contains("--ranker"));
    assert!(place.good("man").stdout.contains("docre\\-pretrain"));
    assert!(place.good("completions bash").stdout.contains("docre-pretrain"));
    let bare = place.bad("", 2, &["Looking into a run:"]);
    assert_eq!(bare.stderr.matches("Usage:").count(), 1, "{}", bare.stderr);
}

#[test]
fn an_override_that_a_flag_of_the_verb_decides_is_refused() {
    let place = Place::new();
    let stage = "--encoder tiny --run-dir r";
    let lines = [
        ("rank --train s", "--set device=cpu", "--device"),
        ("rank --train s", "--set threads=1", "--threads"),
        ("rank --train s", "--set data.format=cdr", "--train"),
        ("pretrain --distant s", "--set encoder.name=mini", "--encoder"),
        ("pretrain --distant s", "--set data.format=cdr", "--distant"),
        ("finetune --train s --dev d", "--set encoder={name=\"mini\"}", "--encoder"),
        ("finetune --train s --dev d", "--set system=atlop", "--system"),
    ];
    for (verb, set, flag) in lines {
        let hint = format!("hint: use {flag} instead");
        place.bad(&format!("{verb} {stage} {set}"), 64, &[set, &hint]);
    }
    place.bad("bench systems --set system=cnn", 64, &["hint: use --systems instead"]);
    place.bad("submit recipe.toml --set system=cnn", 64, &["hint: use --system instead"]);
    assert!(!place.path("r").exists(), "a refused override must leave no run folder");
}

#[test]
fn survey_says_what_files_hold_and_writes_nothing_but_its_json() {
    let place = Place::new();
    place.world();
    let before = fs_err::read_dir(place.path("")).unwrap().count();
    let files = "--format docred --input world/train_annotated.json world/dev.json";
    let said = place.good(&format!("survey {files} --json survey.json")).stdout;
    assert!(said.contains("train_annotated.json") && said.contains("dev.json"), "{said}");
    assert!(place.json("survey.json").is_array() || place.json("survey.json").is_object());
    assert_eq!(fs_err::read_dir(place.path("")).unwrap().count(), before + 1);
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let place = Place::new();
    let mut child =
        place.command("doctor").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap().as_str()),
        (Some(141), "")
    );
}

#[test]
fn wrong_usage_ends_with_2_and_a_bad_recipe_with_64() {
    let place = Place::new();
    place.bad("run recipe.toml --no-such-flag", 2, &["--no-such-flag"]);
    place.bad("no-such-verb", 2, &["no-such-verb"]);
    place.bad("run nowhere.toml", 64, &["there is no recipe at nowhere.toml", "hint: "]);
    place.bad(
        "run recipe.toml --set pretrain.lerning_rate=1e-3",
        64,
        &[
            "recipe.toml: unknown key `pretrain.lerning_rate`",
            "hint: did you mean `learning_rate`?",
        ],
    );
    place.bad("run recipe.toml --set pretrain.batch=0", 64, &["pretrain.batch = 0"]);
    place.bad("run recipe.toml --set batch", 64, &["not of the form key=value"]);
    assert!(!place.path("runs").exists(), "a bad recipe must leave no run folder");
}

#[test]
fn a_mirror_that_cannot_be_reached_at_the_start_ends_the_run_and_names_the_way_out() {
    let place = Place::new();
    let mut command =
        place.command("run recipe.toml --run-dir r --set checkpoint_mirror=s3://bucket/a");
    // Nothing listens on the first port.
    command.envs([
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_SKIP_SIGNATURE", "true"),
    ]);
    let outcome = finish(command);
    let (code, hint) =
        if cfg!(feature = "cloud") { (74, "AWS_ENDPOINT_URL") } else { (64, "--features cloud") };
    assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("s3://bucket/a")
            && outcome.stderr.contains("hint: ")
            && outcome.stderr.contains(hint),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_job_that_was_given_a_gpu_never_trains_on_the_cpu_unasked() {
    if Path::new("/dev/nvidia0").exists() {
        // This machine would train on its GPU.
        return;
    }
    let place = Place::new();
    place.world();
    let train = |device: &str| {
        let mut command = place.command(&format!(
            "rank --train shards/human --encoder tiny --run-dir r --set rank.steps=1 {device}"
        ));
        command.env("SLURM_GPUS_ON_NODE", "1").env_remove("CUDA_VISIBLE_DEVICES");
        finish(command)
    };
    let refused = train("");
    assert_eq!(refused.code, Some(64), "{}", refused.stderr);
    for part in ["this machine has a GPU", "SLURM_GPUS_ON_NODE", "or use `--device cpu`"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    let asked = train("--device cpu");
    assert!(!asked.stderr.contains("this machine has a GPU"), "{}", asked.stderr);
}

#[test]
fn bad_documents_end_with_65_and_are_named_to_the_field() {
    let place = Place::new();
    place.world();
    let title = place.json("world/dev.json")[1]["title"].as_str().unwrap().to_owned();
    let prepare = |name: &str| {
        format!(
            "prepare --format docred --input {name} --output shards --tokenizer world/tokenizer \
             --relations world/rel_info.json"
        )
    };
    let place_in =
        |name: &str, field: &str| format!("{name}, row 1, document `{title}`, field `{field}`");

    place.write_changed("span.json", |document| {
        document["vertexSet"][0][0]["pos"] = json!([3, 900]);
    });
    place.bad(
        &prepare("span.json"),
        65,
        &[&place_in("span.json", "vertexSet[0][0].pos"), "[3, 900)", "hint: "],
    );
    place.write_changed("relation.json", |document| document["labels"][0]["r"] = json!("R999"));
    place.bad(
        &prepare("relation.json"),
        65,
        &[&place_in("relation.json", "labels[0].r"), "unknown relation `R999`", "hint: "],
    );
    place.write_changed("head.json", |document| document["labels"][0]["h"] = json!(-1));
    place.bad(
        &prepare("head.json"),
        65,
        &[&place_in("head.json", "labels[0].h"), "-1 is out of range", "hint: "],
    );

    let text = fs_err::read(place.path("world/dev.json")).unwrap();
    fs_err::write(place.path("cut.json"), &text[..text.len() / 2]).unwrap();
    place.bad(&prepare("cut.json"), 65, &["cut.json, row ", "ends too early", "hint: "]);
    place.bad(&prepare("nowhere.json"), 74, &["nowhere.json"]);
    assert!(!place.path("shards").exists(), "a failed prepare must leave no folder");
}

#[test]
fn the_smoke_recipe_leaves_a_complete_run() {
    let (place, smoke) = (Place::new(), smoke());
    for row in ["DSDocRE  ", "DSDocRE +D ", "DSDocRE +D+P ", "of the gold facts of dev at k = 2N"] {
        assert!(smoke.stdout.contains(row), "{}", smoke.stdout);
    }
    let (run, scores) = (smoke.run.display(), place.json(smoke.run.join("scores.json")));
    for variant in ["baseline", "denoised", "pretrained"] {
        for split in ["dev", "test"] {
            let name = format!("{variant}-{split}");
            assert!(scores[&name]["official"]["f1"].is_number(), "{name}");
            assert!(place.json(smoke.run.join(format!("predictions/{name}.json"))).is_array());
            // Recall of gold facts by k, where a ranker chose the pairs.
            let recall = scores[&name]["ranker"].as_array().unwrap();
            assert_eq!(recall.is_empty(), variant == "baseline", "{name}");
            for at in recall {
                let total = &at["labels"]["total"];
                assert_eq!(total, &scores[&name]["official"]["counts"]["gold"], "{name}");
            }
        }
    }
    let submitted = place.good(&format!(
        "evaluate --gold {run}/data/world/test.json --predictions {run}/predictions/result.zip \
         --json zip.json"
    ));
    assert_eq!(
        place.json("zip.json")["official"]["f1"],
        scores["pretrained-test"]["official"]["f1"],
        "{}",
        submitted.stdout
    );
    let page = String::from_utf8(place.bytes(smoke.run.join("report.html"))).unwrap();
    assert!(page.contains("<html"));
    for stage in
        ["rank", "pretrain", "finetune-baseline", "finetune-denoised", "finetune-pretrained"]
    {
        let said = place.good(&format!("inspect {run}/checkpoints/{stage}/step-00000002")).stdout;
        assert!(
            said.contains("all hashes match")
                && said.contains(&format!("stage {stage}, step 2 of 2")),
            "{said}"
        );
    }
    let shards = place.good(&format!("inspect {run}/data/scored/distant")).stdout;
    assert!(shards.contains("24 documents"), "{shards}");
    let stages = place.good(&format!("inspect {run}")).stdout;
    assert!(stages.contains("pretrain                 step 2 of 2, finished"), "{stages}");
}

#[test]
fn a_finished_run_is_skipped_the_second_time() {
    let (place, smoke) = (Place::new(), smoke());
    place.copy_run(smoke);
    let metrics = place.bytes("r/metrics.jsonl");
    let again = place.good(&format!(
        "run r/recipe.toml --run-dir r --json again.json {}",
        mirror_setting(&place.path("mirror"))
    ));
    assert_eq!(again.stdout, smoke.stdout);
    assert_eq!(place.bytes("r/metrics.jsonl"), metrics, "the second time no step may be trained");
    let scores = place.json(smoke.run.join("scores.json"));
    assert_eq!(place.json("again.json")["scores"], scores);
    assert_eq!(place.json("r/scores.json"), scores);
    assert_eq!(place.json("r/run.json")["starts"], 2);
    let told = again.stderr.lines().filter_map(|line| line.strip_prefix("best checkpoint of "));
    let best: Vec<&str> = told.filter_map(|row| Some(row.split_once(": ")?.1)).collect();
    assert_eq!(best.len(), 3, "{}", again.stderr);
    best.iter().for_each(|folder| drop(place.good(&format!("inspect {folder}"))));
}

#[test]
fn a_lost_run_folder_comes_back_from_its_mirror_without_training_again() {
    let (place, smoke) = (Place::new(), smoke());
    place.copy_run(smoke);
    fs_err::rename(place.path("r/recipe.toml"), place.path("kept.toml")).unwrap();
    fs_err::remove_dir_all(place.path("r")).unwrap();
    let line = "run kept.toml --run-dir r --resume";
    let back = place.good(&format!("{line} {}", mirror_setting(&place.path("mirror"))));
    assert_eq!(back.stdout, smoke.stdout);
    assert_eq!(place.json("r/scores.json"), place.json(smoke.run.join("scores.json")));
    assert!(place.path("r/report.html").exists() && !place.path("r/metrics.jsonl").exists());
}

#[test]
fn verbs_that_make_something_write_as_json_what_where_and_how_long_it_took() {
    let (place, run) = (Place::new(), smoke().run.display());
    let done = |line: &str, output: &str| {
        place.good(&format!("{line} --json done.json"));
        let done = place.json("done.json");
        assert!(
            done["output"] == output
                && done["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0),
            "{line}: {done}"
        );
        done
    };
    let rate = |done: &Value, documents: f64| {
        let [seconds, rate] = ["seconds", "documents_per_s"].map(|key| done[key].as_f64().unwrap());
        assert!((rate * seconds - documents).abs() < 1e-6, "{done}");
    };
    let made = done("synth --output w --distant 9 --human 2 --dev 1 --test 1", "w");
    assert_eq!(
        (&made["distant"]["documents"], &made["human"]["documents"]),
        (&json!(9), &json!(2))
    );
    rate(&made, 13.0);
    let prepared = done("prepare --format docred --input w/train_distant.json --output s", "s");
    assert_eq!((&prepared["manifest"]["documents"], &prepared["dropped"]), (&json!(9), &json!(0)));
    rate(&prepared, 9.0);
    let table =
        done("convert --format docred --to cdr --input w/dev.json --output dev.data", "dev.data");
    assert_eq!(
        (&table["documents"], table["losses"].as_str().unwrap().contains("evidence")),
        (&json!(1), true)
    );
    let train = format!(
        "rank --train {run}/data/shards/human --encoder tiny --run-dir k --set rank.steps=1 --set \
         rank.batch=2"
    );
    let trained = done(&train, "k/checkpoints/rank/step-00000001");
    assert_eq!(
        (&trained["kind"], &trained["state"]["step"], &trained["state"]["finished"]),
        (&json!("ranker"), &json!(1), &json!(true))
    );
    let scored = done(
        &format!(
            "score --checkpoint k/checkpoints/rank/step-00000001 --input {run}/data/shards/dev \
             --output c"
        ),
        "c",
    );
    assert_eq!(
        (&scored["documents"], &scored["scored"]["checkpoint"]),
        (&json!(4), &trained["identity"])
    );
    let exported = done(
        &format!(
            "export --checkpoint {run}/checkpoints/finetune-pretrained/step-00000002 --output x"
        ),
        "x",
    );
    assert_eq!((&exported["kind"], &exported["state"]["step"]), (&json!("finetuner"), &json!(2)));
    let predicted = done(
        &format!("predict --checkpoint x --input {run}/data/world/test.json --output p.json"),
        "p.json",
    );
    assert_eq!(
        (&predicted["documents"], &predicted["facts"]),
        (&json!(4), &json!(place.json("p.json").as_array().unwrap().len()))
    );
    place.good("submit recipe.toml --dry-run --json job.json");
    let job = place.json("job.json");
    assert!(
        job["script"].as_str().unwrap().starts_with("#!/bin/bash") && job["job"].is_null(),
        "{job}"
    );
}

/// The last checkpoint in the folder of a stage.
fn last_step(stage: &Path) -> PathBuf {
    fs_err::read_dir(stage).unwrap().map(|entry| entry.unwrap().path()).max().unwrap()
}

/// The documents of the small recipe and a single row, so that a run takes seconds.
const ONE_ROW: &str = "--set finetune.epochs=1 --set dsdocre.decision=threshold \
    --set finetune.select=ign-f1 --set variants=[\"baseline\"]";

#[test]
fn ign_f1_is_the_same_while_fine_tuning_and_in_the_results() {
    let place = Place::new();
    place.good(&format!("run recipe.toml --run-dir r {ONE_ROW}"));
    let last = last_step(&place.path("r/checkpoints/finetune-baseline"));
    let best = place.json(last.join("trainer.json"))["best"][0].as_f64().unwrap();
    let official = &place.json("r/scores.json")["baseline-dev"]["official"];
    assert_eq!(official["ign_annotated"]["f1"].as_f64().unwrap().to_bits(), best.to_bits());
    assert_eq!(place.json("r/report.json")["notes"], json!([]));
}

#[test]
fn train_on_dev_is_said_by_log_and_report_and_ign_f1_ignores_the_facts_of_dev() {
    let place = Place::new();
    let said =
        place.good(&format!("run recipe.toml --run-dir r {ONE_ROW} --set data.train_on_dev=true"));
    let told = "documents of dev are trained on too";
    assert!(said.stderr.contains(told), "{}", said.stderr);
    let notes = place.json("r/report.json")["notes"].to_string();
    assert!(notes.contains(told), "{notes}");
    let official = &place.json("r/scores.json")["baseline-dev"]["official"];
    assert_eq!(official["ign_annotated"]["f1"], json!(0.0));
    let shared = |role: &str| place.json(format!("r/data/shards/{role}/manifest.json"));
    let [human, dev] = ["human", "dev"].map(|role| shared(role)["documents"].as_u64().unwrap());
    let annotated = place.json("r/data/world/train_annotated.json").as_array().unwrap().len();
    assert_eq!(human, annotated as u64 + dev);
}

#[test]
fn pre_training_without_a_ranker_trains_none_and_is_called_p() {
    let place = Place::new();
    let brief = "--set pretrain.steps=2 --set finetune.epochs=1";
    let said = place.good(&format!(
        "run recipe.toml --run-dir r {brief} --set variants=[\"unranked-pretrained\"]"
    ));
    assert!(said.stdout.contains("DSDocRE +P "), "{}", said.stdout);
    let stages = place.good("inspect r").stdout;
    assert!(stages.contains("pretrain-unranked") && !stages.contains("rank  "), "{stages}");
    assert!(!place.path("r/data/scored").exists() && !place.path("r/labels.parquet").exists());
    let last = last_step(&place.path("r/checkpoints/finetune-unranked-pretrained"));
    assert!(place.json(last.join("docre.json"))["ranker"].is_null());
    place.good("batch r --stage pretrain-unranked --step 1");
    place.bad(
        "run recipe.toml --run-dir other --set dsdocre.k_pretrain=0",
        64,
        &["pre-trains without denoising", "unranked-pretrained"],
    );
}

#[test]
fn docre_ii_without_pre_training_is_one_stage_by_the_second_schedule() {
    let place = Place::new();
    let small = "--set docre-ii.averaged_layers=2 --set docre-ii.emb_size=64 \
        --set docre-ii.inference_width=32 --set docre-ii.ffn_width=32";
    let steps = "--set finetune.steps=1 --set inference.steps=2 --set variants=[\"baseline\"]";
    let said = place.good(&format!(
        "run recipe.toml --run-dir r --set system=docre-ii {small} {steps} \
         --set docre-ii.pretrained_base=false"
    ));
    assert!(said.stdout.contains("DocRE-II  "), "{}", said.stdout);
    let stages = place.good("inspect r").stdout;
    assert!(
        stages.contains("step 2 of 2, finished") && !stages.contains("finetune-baseline-base"),
        "{stages}"
    );
}

#[test]
fn missing_files_and_folders_are_errors_of_the_recipe_that_say_where_to_get_them() {
    let place = Place::new();
    fs_err::create_dir(place.path("jobs")).unwrap();
    let recipe = "variants = [\"baseline\"]\n[data]\nhuman = [\"docred/train_annotated.json\"]\n\
                  dev = [\"docred/train_annotated.json\"]\n[encoder]\nname = \"bilstm\"";
    fs_err::write(place.path("jobs/a.toml"), recipe).unwrap();
    let parts = ["data.human: there is no ", "jobs/docred/train_annotated.json", "thunlp/DocRED"];
    place.bad("run jobs/a.toml --run-dir r", 64, &parts);
    place.bad("plan jobs/a.toml", 64, &parts);
    // What is only in the working directory is read there, with a note.
    fs_err::create_dir(place.path("docred")).unwrap();
    fs_err::write(place.path("docred/train_annotated.json"), "[]").unwrap();
    let said = place.bad("run jobs/a.toml --run-dir r", 64, &["brings no tokenizer"]);
    assert_eq!(said.stderr.matches("note: ").count(), 1, "{}", said.stderr);
    let resolved = String::from_utf8(place.bytes("r/recipe.toml")).unwrap();
    let file = fs_err::canonicalize(place.path("docred/train_annotated.json")).unwrap();
    assert!(resolved.contains(&file.display().to_string()), "{resolved}");
}

#[test]
fn one_rank_answers_what_all_ranks_are_asked() {
    let place = Place::new();
    for (line, code) in [("", 2), ("--help", 0), ("--version", 0), ("run", 2), ("nothing", 2)] {
        for rank in ["0", "3"] {
            let mut command = place.command(line);
            command.envs([("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", rank)]);
            let said = finish(command);
            let silent = said.stdout.is_empty() && said.stderr.is_empty();
            assert_eq!((said.code, silent), (Some(code), rank == "3"), "`{line}` on rank {rank}");
        }
    }
}

/// What the server of `watch` answers to a request for `target`.
fn page_of(address: &str, target: &str) -> String {
    let mut server = TcpStream::connect(address).unwrap();
    write!(server, "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    server.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn watch_serves_the_page_of_a_run_until_it_is_ended() {
    let place = Place::new();
    place.copy_run(smoke());
    let mut command = place.command("watch r --serve 127.0.0.1:0");
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(watch.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let address = first.trim().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let page = page_of(&address, "/");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("</html>"), "{first}: {page}");
    let data = page_of(&address, "/data.json");
    let data: Value = serde_json::from_str(data.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert!(data.to_string().contains("finetune-pretrained"), "{data}");
    watch.kill().unwrap();
    watch.wait().unwrap();
    place.bad("watch r --serve nowhere", 64, &["--serve nowhere", "hint: "]);
}

#[test]
fn annotated_documents_take_part_in_pretraining() {
    let place = Place::new();
    let brief = "--set pretrain.steps=2 --set rank.steps=1 --set finetune.epochs=1";
    let run = format!("run recipe.toml --set dsdocre.pretrain_on_human=true {brief} --run-dir");
    let outcome = place.good(&format!("{run} r"));
    let pretrained = outcome
        .stderr
        .lines()
        .find(|line| line.contains("pretrain: ") && line.contains("annotated: all labels count"));
    assert!(pretrained.is_some(), "{}", outcome.stderr);
    let documents = |folder: &str| {
        place.json(format!("r/data/{folder}/manifest.json"))["documents"].as_u64().unwrap()
    };
    let distant = place.json("r/data/world/train_distant.json").as_array().unwrap().len() as u64;
    assert_eq!(documents("scored/distant"), documents("shards/human") + distant);
    // The verb gives the same shards.
    let score = |annotated: &str, output: &str| {
        let from =
            "score --checkpoint r/checkpoints/rank/step-00000001 --input r/data/shards/distant";
        format!("{from} --output {output} --annotated r/data/shards/{annotated}")
    };
    place.good(&score("human", "c"));
    assert_eq!(
        place.json("c/manifest.json")["shards"],
        place.json("r/data/scored/distant/manifest.json")["shards"]
    );
    place.bad(
        &score("dev", "d"),
        64,
        &["none of the documents of", "hint: prepare both files into one folder"],
    );
    // One of them can be asked about; nobody ranked its pairs.
    let title =
        place.json("r/data/world/train_annotated.json")[0]["title"].as_str().unwrap().to_owned();
    let mut why = place.command("why r --json why.json");
    why.args(["--title", &title]);
    assert_eq!(finish(why).code, Some(0));
}

#[test]
fn verbs_that_show_something_write_it_as_json_too() {
    let (place, run) = (Place::new(), smoke().run.display());
    let found = |line: String| {
        place.good(&format!("{line} --json found.json"));
        place.json("found.json")
    };
    let checkpoint = found(format!("inspect {run}/checkpoints/rank/step-00000002"));
    assert_eq!(
        (&checkpoint["state"]["step"], &checkpoint["encoder"]["name"]),
        (&json!(2), &json!("tiny"))
    );
    assert_eq!(found(format!("inspect {run}/data/shards/dev"))["documents"], 4);
    assert_eq!(found(format!("inspect {run}"))["stages"].as_array().unwrap().len(), 5);
    let batch = found(format!("batch {run} --stage pretrain --step 2"));
    assert_eq!(
        (&batch["step"], batch["items"][3]["titles"].as_array().unwrap().len()),
        (&json!(2), 2)
    );
    let batch = found(format!("batch {run} --stage finetune --step 1"));
    assert_eq!((&batch["epoch"], batch["items"].as_array().unwrap().len()), (&json!(1), 8));
    let autopsy = found(format!("autopsy {run} --events 3"));
    assert_eq!(
        (&autopsy["ranks"][0]["exit_code"], autopsy["events"].as_array().unwrap().len()),
        (&json!(0), 3)
    );
    let page = found(format!("report {run} --output page.html"));
    assert_eq!(
        (&page["output"], page["scores"].as_array().unwrap().len()),
        (&json!("page.html"), 6)
    );
    let state = found(format!("watch {run} --once"));
    assert_eq!(
        (&state["stages"][0]["stage"], &state["ranks"][0]["exit_code"]),
        (&json!("rank"), &json!(0))
    );
    assert_eq!(
        found("systems".into()).as_array().unwrap().len(),
        place.good("systems").stdout.lines().count()
    );
    let system = found("systems atlop --encoder tiny".into());
    assert_eq!(
        (&system["system"]["name"], &system["layers"][0][1]),
        (&json!("atlop"), &json!([768, 256]))
    );
    assert!(found("doctor".into())["matmul_gflops"]["fp32"].as_f64().unwrap() > 0.0);
    let explained = found("explain k_pretrain --set dsdocre.k_pretrain=3".into());
    let key = &explained["keys"][0];
    assert_eq!(
        (&key["key"], &key["current"], &key["values"]),
        (&json!("dsdocre.k_pretrain"), &json!(3), &json!([20, 20, 30]))
    );
    let plan = found(format!("plan {run}/recipe.toml --run-dir {run} --tflops 1"));
    let took = plan["stages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|stage| stage["took"]["steps"] == 2 && stage["took"]["ranks"] == 1);
    assert_eq!(took.count(), 5, "{plan}");
    let same = found(format!("inspect {run} {run}"));
    assert_eq!(
        (&same["recipe"], &same["stages"][0]["checkpoints"]),
        (&json!([]), &json!([[2, 0]]))
    );
}

#[test]
fn batch_prints_the_documents_whose_hash_training_has_recorded_for_each_step() {
    let (place, smoke) = (Place::new(), smoke());
    let run = smoke.run.display();
    for stage in ["rank", "pretrain", "finetune-denoised"] {
        let lines = metrics(&smoke.run, stage);
        let mut hash = OrderHash::default();
        for step in 1..=2 {
            place.good(&format!("batch {run} --stage {stage} --step {step} --json batch.json"));
            let items = place.json("batch.json")["items"].as_array().unwrap().clone();
            let rows = items.iter().flat_map(|item| {
                item["rows"].as_array().cloned().unwrap_or_else(|| vec![item["row"].clone()])
            });
            hash.add(step, rows.map(|row| row.as_u64().unwrap() as usize));
            assert_eq!(lines[&step]["order_hash"], hash.to_hex(), "{stage}, step {step}");
        }
    }
}

#[test]
fn the_ledger_has_a_row_for_every_distant_label_and_agrees_with_why() {
    let (place, run) = (Place::new(), smoke().run.display());
    place.good(&format!("ledger {run} --output labels.parquet --json ledger.json"));
    assert_eq!(place.bytes("labels.parquet"), place.bytes(format!("{run}/labels.parquet")));
    let (rows, counts) = (table(&place.path("labels.parquet")), place.json("ledger.json"));
    let documents =
        place.json(format!("{run}/data/world/train_distant.json")).as_array().unwrap().clone();
    let labels: Vec<[Value; 4]> = documents
        .iter()
        .flat_map(|document| {
            let labels = document["labels"].as_array().unwrap().iter();
            labels.map(|label| {
                [&document["title"], &label["h"], &label["t"], &label["r"]].map(Value::clone)
            })
        })
        .collect();
    let told: Vec<[Value; 4]> = rows
        .iter()
        .map(|row| ["title", "head", "tail", "relation"].map(|name| row[name].clone()))
        .collect();
    assert_eq!(told, labels);
    let kept = rows.iter().filter(|row| row["kept"] == true).count();
    assert_eq!((&counts["labels"], &counts["kept"]), (&json!(labels.len()), &json!(kept)));
    assert!(0 < kept && kept < labels.len(), "{kept} of {} labels", labels.len());

    let title = &documents[1]["title"];
    let mut why = place.command(&format!("why {run} --json why.json --title"));
    why.arg(title.as_str().unwrap());
    assert_eq!(finish(why).code, Some(0));
    let about = place.json("why.json")["roles"][0]["about"].as_array().unwrap().clone();
    for row in rows.iter().filter(|row| row["title"] == *title) {
        let pair = about
            .iter()
            .find(|pair| (&pair["head"], &pair["tail"]) == (&row["head"], &row["tail"]))
            .unwrap();
        let label = pair["labels"]
            .as_array()
            .unwrap()
            .iter()
            .find(|label| label["relation"] == row["relation"])
            .unwrap();
        assert_eq!(
            (&pair["rank"], &pair["kept"], &label["truth"]),
            (&row["rank"], &row["kept"], &row["true"]),
            "{row}"
        );
        assert_eq!(
            pair["together"].as_array().unwrap().len() as u64,
            row["sentences"].as_u64().unwrap(),
            "{row}"
        );
        assert_eq!(
            label["elsewhere_count"].as_u64().unwrap() + 1,
            row["documents"].as_u64().unwrap(),
            "{row}"
        );
        assert_eq!(row["reason"] == "rank", row["kept"] == false, "{row}");
    }
    place.bad(&format!("ledger {run}/data/scored/distant"), 64, &["needs --output"]);
    // Documents with fewer than five entities take no part; with every pair kept nothing else is
    // left out.
    place.good(&format!("ledger {run} --output all.parquet --keep 0 --json ledger.json"));
    assert_eq!(place.json("ledger.json")["kept"], labels.len());
}

/// The rows of a Parquet file of texts, numbers and truths.
fn table(path: &Path) -> Vec<Value> {
    let value = |column: &ArrayRef, row: usize| match column.data_type() {
        _ if column.is_null(row) => Value::Null,
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        DataType::UInt32 => json!(column.as_primitive::<UInt32Type>().value(row)),
        DataType::Float32 => json!(column.as_primitive::<Float32Type>().value(row)),
        _ => json!(column.as_boolean().value(row)),
    };
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(fs_err::File::open(path).unwrap().into_file())
            .unwrap()
            .build()
            .unwrap();
    let mut rows = Vec::new();
    for batch in reader.map(Result::unwrap) {
        let fields = batch.schema();
        let named = || fields.fields().iter().zip(batch.columns());
        let object = |row| {
            named()
                .map(|(field, column)| (field.name().clone(), value(column, row)))
                .collect::<Value>()
        };
        rows.extend((0..batch.num_rows()).map(object));
    }
    rows
}

#[test]
fn why_agrees_with_the_files_of_a_finished_run_of_all_variants() {
    let (place, run) = (Place::new(), smoke().run.display());
    let why = |title: &Value, line: &str| {
        let mut command = place.command(&format!("why {run} --json why.json {line} --title"));
        command.arg(title.as_str().unwrap());
        let outcome = finish(command);
        (outcome.code, outcome.stdout + &outcome.stderr)
    };
    let world = |name: &str| place.json(format!("{run}/data/world/{name}.json"));
    let all = |field: &'static str| {
        let about = place.json("why.json")["roles"][0]["about"].clone();
        about
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|pair| pair[field].as_array().unwrap().clone())
            .collect::<Vec<_>>()
    };

    let document = &world("dev")[0];
    assert_eq!(why(&document["title"], "").0, Some(0));
    assert_eq!(all("labels").len(), document["labels"].as_array().unwrap().len());
    let predicted = ["baseline", "denoised", "pretrained"].map(|variant| {
        let facts = place.json(format!("{run}/predictions/{variant}-dev.json"));
        facts.as_array().unwrap().iter().filter(|fact| fact["title"] == document["title"]).count()
    });
    assert_eq!(all("predictions").len(), predicted.iter().sum::<usize>());

    let (document, truth) = (&world("train_distant")[1], world("truth"));
    let (code, said) = why(&document["title"], "");
    assert_eq!(code, Some(0), "{said}");
    let count = |list: &[Value], field: &str| {
        list.iter().filter(|entry| entry[field] == Value::Bool(true)).count()
    };
    let right = truth[document["title"].as_str().unwrap()]["labels"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|label| **label == true)
        .count();
    assert_eq!(count(&all("labels"), "truth"), right);
    let explained = place.json("why.json")["roles"][0].clone();
    let pairs = explained["about"].as_array().unwrap();
    let within =
        pairs.iter().filter(|pair| pair["rank"].as_u64().is_some_and(|rank| rank <= 20)).count();
    assert_eq!((explained["kept"].as_u64(), count(pairs, "kept")), (Some(20), within));

    let (code, said) = why(&document["title"], "--head 1 --tail 0");
    assert_eq!((code, said.matches('→').count()), (Some(0), 2), "{said}");
    assert!(said.contains("]h") && said.contains("]t"), "{said}");
    let (code, said) = why(&document["title"], "--head nobody");
    assert!(
        code == Some(65)
            && said.contains("no entity is called `nobody`")
            && said.contains("its entities: 0 "),
        "{said}"
    );
    let (code, said) = why(&Value::from("nothing"), "");
    assert!(code == Some(65) && said.contains("no document of the run has this title"), "{said}");
    let (code, said) = why(&document["title"], "--relation friend");
    assert!(code == Some(64) && said.contains("no relation `friend`"), "{said}");

    // Runs on the same data stand side by side; files of iterations are found by their names.
    copy(&smoke().run, &place.path("again"));
    let predictions = place.path("again/predictions");
    fs_err::copy(predictions.join("baseline-dev.json"), predictions.join("baseline-dev-k0.json"))
        .unwrap();
    let title = &world("dev")[0]["title"];
    let (code, said) = why(title, "again");
    assert_eq!(code, Some(0), "{said}");
    let explained = place.json("why.json")["roles"][0].clone();
    let predictors: Vec<&str> = explained["predictors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|who| who.as_str().unwrap())
        .collect();
    assert_eq!(predictors.len(), 7, "{predictors:?}");
    assert!(predictors.contains(&"again, baseline, K = 0"), "{predictors:?}");
    let twice = 2 * predicted.iter().sum::<usize>() + predicted[0];
    assert_eq!(all("predictions").len(), twice);
    fs_err::remove_dir_all(place.path("again/data")).unwrap();
    let (code, said) = why(title, "again");
    assert!(code == Some(65) && said.contains("has no dev shards"), "{said}");
}

#[test]
fn resume_is_exact_to_the_last_bit() {
    let place = Place::new();
    let run = |folder: &str| {
        format!(
            "run recipe.toml --run-dir {folder} --set pretrain.steps=8 --set \
             pretrain.checkpoint_steps=3 --set pretrain.keep_checkpoints=9"
        )
    };
    place.good(&run("whole"));
    copy(&place.path("whole"), &place.path("cut"));
    // What a run looks like that ended between the steps 3 and 6.
    for step in [6, 8] {
        fs_err::remove_dir_all(place.path(format!("cut/checkpoints/pretrain/step-{step:08}")))
            .unwrap();
    }
    fs_err::remove_dir_all(place.path("cut/checkpoints/finetune-pretrained")).unwrap();
    place.bad(&run("cut"), 64, &["unfinished stage (step 3 of 8)", "hint: add --resume"]);
    let resumed = place.good(&(run("cut") + " --resume"));
    assert!(resumed.stderr.contains("pretrain: going on at step 3"), "{}", resumed.stderr);

    let tensors = |run: &str, step: u64, name: &str| {
        place.bytes(format!("{run}/checkpoints/pretrain/step-{step:08}/{name}.safetensors"))
    };
    for name in ["model", "heads", "optimizer"] {
        assert!(
            tensors("whole", 8, name) == tensors("cut", 8, name),
            "{name}.safetensors differs after a resume"
        );
        assert!(
            tensors("whole", 8, name) != tensors("whole", 3, name),
            "{name}.safetensors does not change in training"
        );
    }
    for stage in ["pretrain", "finetune-pretrained"] {
        let (whole, cut) =
            (metrics(&place.path("whole"), stage), metrics(&place.path("cut"), stage));
        assert_eq!(whole.keys().collect::<Vec<_>>(), cut.keys().collect::<Vec<_>>());
        for (step, line) in &whole {
            assert_eq!(
                (&line["order_hash"], &line["loss"]),
                (&cut[step]["order_hash"], &cut[step]["loss"]),
                "{stage}, step {step}"
            );
        }
    }
    assert_eq!(
        place.bytes("whole/predictions/pretrained-test.json"),
        place.bytes("cut/predictions/pretrained-test.json")
    );
    let said = place.good("inspect whole cut").stdout;
    assert!(
        said.contains(
            "pretrain: 8 and 8 steps; the same documents in the same order; losses equal to the bit"
        ),
        "{said}"
    );
    assert!(said.contains("checkpoint of step 8: all tensors equal to the bit"), "{said}");
}

/// A run of a single row on the annotated documents and half of the distant ones of a world: eight
/// and six visits an epoch, in four steps.
const MIXED: &str = "--set variants=[\"baseline\"] --set finetune.steps=8 \
    --set finetune.keep_checkpoints=9 --set data.source=[{name=\"far\",kind=\"distant\",\
    weight=0.5,files=[\"world/train_distant.json\"]}]";

#[test]
fn a_mixture_of_sources_is_told_printed_and_resumed_to_the_last_bit() {
    let place = Place::new();
    place.world();
    let run = |folder: &str| format!("run recipe.toml --run-dir {folder} {MIXED}");
    let said = place.good(&run("whole")).stderr;
    let told = "human 8 × 1, far (distant) 12 × 0.5, 14 visits an epoch";
    assert!(said.contains(&format!("finetune-baseline: {told}")), "{said}");
    assert!(place.json("whole/report.json")["run"].to_string().contains(told));
    let mut visited = HashMap::<String, usize>::new();
    for step in 1..=8 {
        place.good(&format!("batch whole --stage finetune --step {step} --json batch.json"));
        for item in place.json("batch.json")["items"].as_array().unwrap() {
            *visited.entry(item["source"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert_eq!(visited, HashMap::from([("human".into(), 16), ("far (distant)".into(), 12)]));
    let title = place.json("world/train_distant.json")[0]["title"].as_str().unwrap().to_owned();
    fs_err::write(place.path("why.json"), "").unwrap();
    let mut command = place.command("why whole --json why.json --title");
    command.arg(&title);
    assert_eq!(finish(command).code, Some(0));
    assert_eq!(place.json("why.json")["roles"][0]["role"], json!("far"));

    copy(&place.path("whole"), &place.path("cut"));
    let stage = place.path("cut/checkpoints/finetune-baseline");
    fs_err::remove_dir_all(stage.join("step-00000008")).unwrap();
    place.bad(
        &(run("cut").replace("0.5", "0.6") + " --resume"),
        64,
        &["started with another recipe: `data.source` was"],
    );
    let resumed = place.good(&(run("cut") + " --resume")).stderr;
    assert!(resumed.contains("finetune-baseline: going on at step 4"), "{resumed}");
    let compared = place.good("inspect whole cut").stdout;
    let same = "finetune-baseline: 8 and 8 steps; the same documents in the same order; losses \
                equal to the bit";
    assert!(compared.contains(same), "{compared}");
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_mixture_of_sources_has_one_order_for_any_number_of_ranks() {
    let place = Place::new();
    place.world();
    for ranks in [1, 2] {
        let line = format!(
            "-n {ranks} {} run recipe.toml --run-dir r{ranks} {MIXED} --set \
             finetune.learning_rate=1e-4",
            program().display()
        );
        let mut command = place.prepared(Command::new("mpirun"), &line);
        allow_mpirun(&mut command);
        let outcome = finish(command);
        assert_eq!(outcome.code, Some(0), "{ranks} ranks said:\n{}", outcome.stderr);
    }
    let [one, two] = ["r1", "r2"].map(|run| metrics(&place.path(run), "finetune-baseline"));
    assert_eq!((one.len(), two.len()), (8, 8));
    for (step, line) in &one {
        let other = &two[step];
        assert_eq!(line["order_hash"], other["order_hash"], "step {step}");
        let (one, two) = (line["loss"].as_f64().unwrap(), other["loss"].as_f64().unwrap());
        // As for the ranks of pre-training: only the order of a sum differs.
        assert!((one - two).abs() <= 1e-5 * one.abs().max(1.0), "step {step}: {one} and {two}");
    }
}

#[test]
fn finetune_takes_several_shards_with_weights_and_resumes_with_these_alone() {
    let place = Place::new();
    let rest = finetuning(&place, 8);
    place.good(
        "prepare --format docred --input world/train_distant.json --output far \
         --tokenizer world/tokenizer --relations world/rel_info.json",
    );
    let line = |far: &str| format!("finetune --encoder tiny --run-dir f --train {far} {rest}");
    let said = place.good(&line("far=0.5")).stderr;
    assert!(said.contains("finetune: far 12 × 0.5, train 8 × 1, 14 visits an epoch"), "{said}");
    fs_err::remove_dir_all(place.path("f/checkpoints/finetune/step-00000008")).unwrap();
    let other = line("far=0.25") + " --resume";
    place.bad(&other, 64, &["on other sources of documents", "hint: resume with the same sources"]);
    place.good(&(line("far=0.5") + " --resume"));
    for (wrong, told) in [
        ("far=0", "the weight is 0"),
        ("far=x", "the weight `x` is no number"),
        ("far=0.01", "source far: weight 0.01 leaves no visit"),
    ] {
        place.bad(&(line(wrong).replace("-dir f ", "-dir g ")), 64, &[told, "hint: "]);
    }
    // Another order of relations makes other classes.
    let relations = place.json("world/rel_info.json");
    let names = relations.as_object().unwrap();
    let entry = |id: &String| format!("\"{id}\": {}", names[id]);
    let reversed: Vec<String> = names.keys().rev().map(entry).collect();
    fs_err::write(place.path("other.json"), format!("{{{}}}", reversed.join(", "))).unwrap();
    place.good(
        "prepare --format docred --input world/train_distant.json --output odd \
         --tokenizer world/tokenizer --relations other.json",
    );
    place.bad(
        &line("odd").replace("-dir f ", "-dir g "),
        64,
        &["have different relations", "hint: prepare both"],
    );
}

#[test]
fn relation_vectors_start_from_names_where_relations_have_some() {
    let place = Place::new();
    let rest = finetuning(&place, 2);
    for (system, sizes) in [("atlop", "emb_size=16"), ("dsdocre", "relation_width=16")] {
        let line = |run: &str, more: &str| {
            let block = if system == "atlop" { "--set atlop.block_size=4" } else { "" };
            format!(
                "finetune --system {system} --encoder tiny --run-dir {run} --set {system}.{sizes} \
                 {block} {rest} {more}"
            )
        };
        let names = format!("--set {system}.relation_start=names");
        let run = |part: &str| format!("{system}-{part}");
        place.good(&line(&run("names"), &names));
        place.good(&line(&run("again"), &names));
        place.good(&line(&run("random"), ""));
        let losses = |part: &str| -> Vec<Value> {
            let lines = metrics(&place.path(run(part)), "finetune");
            lines.values().map(|line| line["loss"].clone()).collect()
        };
        assert_eq!(losses("names"), losses("again"), "{system}");
        assert_ne!(losses("names"), losses("random"), "{system}");
        // Without a file of relations, an identifier is all that is known of one.
        if !place.path("bare").exists() {
            place.good(
                "prepare --format docred --input world/train_annotated.json --output bare \
                 --tokenizer world/tokenizer",
            );
        }
        let bare = line(&run("bare"), &names).replace("--train train --dev dev", "");
        place.bad(
            &format!("{bare} --train bare --dev bare"),
            64,
            &[
                "has no name besides its identifier",
                &format!("{system}.relation_start = \"random\""),
            ],
        );
    }
}

#[test]
fn a_part_of_the_annotated_documents_is_told_in_log_and_report() {
    let place = Place::new();
    let few = format!("run recipe.toml --run-dir r {ONE_ROW} --set data.human_documents=");
    let said = place.good(&(few.clone() + "5")).stderr;
    let told = "5 of the 8 annotated documents are trained on";
    assert!(said.contains(told), "{said}");
    assert!(said.contains("finetune-baseline: human 5 × 1, 5 visits an epoch"), "{said}");
    assert!(place.json("r/report.json")["notes"].to_string().contains(told));
    place.bad(
        &few.replace("-dir r ", "-dir q ").replace("documents=", "documents=9"),
        64,
        &["data.human_documents = 9, but there are 8 annotated documents", "hint: "],
    );
}

#[test]
fn blame_traces_a_leap_of_the_loss_to_the_documents_that_batch_prints() {
    let place = Place::new();
    place.copy_run(smoke());
    assert!(place.good("blame r").stdout.starts_with("0 of "));
    let line = |step: u64, loss: f64| {
        json!({"stage": "pretrain", "step": step, "loss": loss, "loss/RelDet": loss}).to_string()
            + "\n"
    };
    let mut lines: String = (3..40).map(|step| line(step, 5.0 + 0.1 * (step % 3) as f64)).collect();
    lines += &line(40, 50.0);
    let path = place.path("r/metrics.jsonl");
    fs_err::write(&path, fs_err::read_to_string(&path).unwrap() + &lines).unwrap();
    let said = place.good("blame r --json blame.json").stdout;
    assert!(
        said.starts_with("1 of ")
            && said.contains("pretrain, loss 50.0000, ")
            && said.contains("RelDet +"),
        "{said}"
    );
    place.good("batch r --step 40 --json batch.json");
    assert_eq!(place.json("blame.json")["spikes"][0]["items"], place.json("batch.json")["items"]);
    place.good("batch r --step 40 --shards r/data/scored/distant --json elsewhere.json");
    assert_eq!(place.bytes("elsewhere.json"), place.bytes("batch.json"));
    place.bad("blame world", 64, &["there is no recipe"]);
}

#[test]
fn a_stop_file_ends_the_run_with_75_and_meanwhile_the_folder_is_taken() {
    let place = Place::new();
    let line = "run recipe.toml --run-dir r --set pretrain.steps=100000";
    let mut child =
        place.command(line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(120);
    while metrics(&place.path("r"), "pretrain").is_empty() {
        assert!(
            Instant::now() < patience && child.try_wait().unwrap().is_none(),
            "pre-training did not start"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    place.bad(line, 64, &["r is in use by process", "hint: "]);
    fs_err::write(place.path("r/STOP"), "").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(
        said.contains("of stage `pretrain`")
            && said.contains("hint: run the same command again with --resume"),
        "{said}"
    );
    let step = *metrics(&place.path("r"), "pretrain").keys().last().unwrap();
    place.good(&format!("inspect r/checkpoints/pretrain/step-{step:08}"));
    place.bad("run recipe.toml --run-dir r", 64, &["started with another recipe"]);
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn the_order_of_the_data_and_the_losses_do_not_depend_on_the_number_of_ranks() {
    let place = Place::new();
    for ranks in [1, 2, 4] {
        // At ten times this rate the last bits of a sum, which differ with the number of ranks,
        // grow within twenty steps of Adam.
        let rates = "--set rank.learning_rate=1e-4 --set pretrain.learning_rate=1e-4";
        let line = format!(
            "-n {ranks} {} run recipe.toml --run-dir r{ranks} --set pretrain.steps=20 {rates}",
            program().display()
        );
        let mut command = place.prepared(Command::new("mpirun"), &line);
        allow_mpirun(&mut command);
        let outcome = finish(command);
        assert_eq!(outcome.code, Some(0), "{ranks} ranks said:\n{}", outcome.stderr);
        assert_eq!(place.json(format!("r{ranks}/run.json"))["world_size"], ranks);
    }
    let single = metrics(&place.path("r1"), "pretrain");
    assert_eq!(single.len(), 20);
    for run in ["r2", "r4"] {
        let several = metrics(&place.path(run), "pretrain");
        for (step, line) in &single {
            let other = &several[step];
            assert_eq!(line["order_hash"], other["order_hash"], "{run}, step {step}");
            let (one, many) = (line["loss"].as_f64().unwrap(), other["loss"].as_f64().unwrap());
            assert!(
                (one - many).abs() <= 1e-5 * one.abs().max(1.0),
                "{run}, step {step}: {one} and {many}"
            );
        }
    }
}

#[test]
fn predictions_repeat_the_run_from_the_checkpoint_and_from_its_export() {
    let place = Place::new();
    // Enough steps and a loose enough rule that something is predicted.
    place.good("run recipe.toml --run-dir r --set dsdocre.decision=threshold");
    let best = best_checkpoint(&place, "r");
    let predict = |checkpoint: &str, input: &str, output: &str| {
        place.good(&format!(
            "predict --checkpoint {checkpoint} --input {input} --output {output} \
            --threads 1 --device cpu"
        ));
        place.bytes(output)
    };
    let own = place.bytes("r/predictions/pretrained-dev.json");
    assert!(
        !place.json("r/predictions/pretrained-dev.json").as_array().unwrap().is_empty(),
        "nothing to compare"
    );
    assert_eq!(predict(&best, "r/data/world/dev.json", "labelled.json"), own);

    let mut documents = place.json("r/data/world/dev.json");
    for document in documents.as_array_mut().unwrap() {
        document.as_object_mut().unwrap().remove("labels");
    }
    fs_err::write(place.path("hidden.json"), documents.to_string()).unwrap();
    assert_eq!(predict(&best, "hidden.json", "unlabelled.json"), own);
    place.good(&format!("export --checkpoint {best} --output model"));
    fs_err::rename(place.path("r/checkpoints"), place.path("elsewhere")).unwrap();
    assert_eq!(predict("model", "hidden.json", "exported.json"), own);

    let world = "r/data/world";
    let files = format!(
        "--gold {world}/dev.json --predictions unlabelled.json --train-facts \
         {world}/train_annotated.json"
    );
    place.good(&format!("evaluate {files} --json scores.json"));
    let (again, run) = (place.json("scores.json"), place.json("r/scores.json"));
    for part in ["documents", "official", "breakdown"] {
        assert_eq!(again[part], run["pretrained-dev"][part], "{part}");
    }
    // The scores of all relations lead to the thresholds of the run.
    let options = "--output p.json --scores p.parquet --zip --threads 1 --device cpu";
    place.good(&format!("predict --checkpoint model --input {world}/dev.json {options}"));
    place.good(&format!(
        "evaluate --gold {world}/dev.json --scores p.parquet --train-facts \
        {world}/train_annotated.json --json t.json"
    ));
    let from_scores = place.json("t.json");
    assert_eq!(from_scores["threshold"], run["pretrained-dev"]["threshold"]);
    assert_eq!(from_scores["official"]["f1"], from_scores["threshold"]["f1"]);
    place.good(&format!("evaluate --gold {world}/dev.json --predictions result.zip"));
    place.bad(
        "evaluate --gold hidden.json --predictions unlabelled.json",
        65,
        &["hidden.json", "no document has labels"],
    );
}

#[test]
fn uncertain_pairs_are_written_for_review_and_their_answers_become_labels() {
    let place = Place::new();
    place.copy_run(smoke());
    let checkpoint = best_checkpoint(&place, "r");
    let dev = "r/data/world/dev.json";
    let predict =
        format!("predict --checkpoint {checkpoint} --input {dev} --threads 1 --device cpu");
    place.good(&format!("{predict} --output plain.json"));
    let said = place.good(&format!(
        "{predict} --output p.json --scores p.parquet --review review.jsonl --review-band 0,1 \
         --review-limit 5 --json done.json"
    ));
    assert!(said.stderr.contains("review.jsonl: 5 of "), "{}", said.stderr);
    assert_eq!(place.json("done.json")["review"], json!(5));
    assert_eq!(place.bytes("p.json"), place.bytes("plain.json"));
    let text = String::from_utf8(place.bytes("review.jsonl")).unwrap();
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    for line in &lines {
        assert_eq!(line["relations"], Value::Null);
        assert!(!line["candidates"].as_array().unwrap().is_empty(), "{line}");
        assert!(line["excerpt"].as_str().unwrap().contains("<head>"), "{line}");
    }

    // Calibrated probabilities stand beside the scores, and are judged beside them.
    place.good(&format!("evaluate --gold {dev} --scores p.parquet --json s.json --plots plots"));
    let scores = place.json("s.json");
    for part in ["reliability", "calibrated"] {
        assert!(scores[part]["ece"].as_f64().is_some_and(|ece| ece < 1.0), "{part}: {scores}");
    }
    let chart = String::from_utf8(place.bytes("plots/reliability.svg")).unwrap();
    assert!(chart.contains("calibrated"), "{chart}");

    let facts = place.json("p.json").as_array().unwrap().clone();
    assert!(facts.iter().all(|fact| fact["confidence"].is_f64()), "{facts:?}");
    let said =
        place.good(&format!("{predict} --output few.json --min-confidence 1 --json few-done.json"));
    assert!(said.stderr.contains("with a calibrated probability below 1"), "{}", said.stderr);
    let kept = place.json("few.json").as_array().unwrap().len();
    assert_eq!(place.json("few-done.json")["below_confidence"], json!(facts.len() - kept));
    let refused = |more: &str, code, parts: &[&str]| {
        place.bad(&format!("{predict} --output x.json {more}"), code, parts);
    };
    refused("--min-confidence 2", 64, &["--min-confidence 2", "hint: "]);
    refused("--review x.jsonl --review-band 0.7,0.3", 64, &["--review-band 0.7,0.3", "hint: "]);
    refused("--review-limit 3", 2, &["--review"]);

    lines[0]["relations"] = json!([lines[0]["candidates"][0]["relation"]]);
    lines[1]["relations"] = json!([]);
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    fs_err::write(place.path("review.jsonl"), text.join("\n")).unwrap();
    let label = format!("label --reviewed review.jsonl --input {dev} --output labelled.json");
    place.good(&format!("{label} --json counts.json"));
    let counts = place.json("counts.json");
    assert_eq!((&counts["reviewed"], &counts["not_reviewed"]), (&json!(2), &json!(3)));
    let labelled = place.json("labelled.json");
    let labels = |line: &Value| -> Vec<Value> {
        let of_title = |document: &&Value| document["title"] == line["title"];
        let document = labelled.as_array().unwrap().iter().find(of_title).unwrap();
        let own = |label: &&Value| {
            label["h"] == line["head"]["entity"] && label["t"] == line["tail"]["entity"]
        };
        let labels = document["labels"].as_array().unwrap().iter().filter(own);
        labels.map(|label| label["r"].clone()).collect()
    };
    assert_eq!(json!(labels(&lines[0])), lines[0]["relations"]);
    assert!(labels(&lines[1]).is_empty());
    let other = "label --reviewed review.jsonl --input r/data/world/test.json --output x.json";
    place.bad(other, 65, &["review.jsonl, row 0", "field `title`", "hint: "]);
    place.bad(&format!("{label} --facts f.json"), 2, &["--facts"]);
    place.bad(&format!("label --input {dev} --output x.json"), 2, &["--facts"]);
    assert!(!place.path("x.json").exists());
}

/// Shards of the world's annotated documents, and the flags that fine-tune a system on them for a
/// few steps.
fn finetuning(place: &Place, steps: usize) -> String {
    place.world();
    for (name, file) in [("train", "train_annotated"), ("dev", "dev")] {
        let prepared = "--tokenizer world/tokenizer --relations world/rel_info.json";
        place.good(&format!(
            "prepare --format docred --input world/{file}.json --output {name} {prepared}"
        ));
    }
    let schedule = format!(
        "--set finetune.batch=4 --set finetune.steps={steps} --set finetune.learning_rate=1e-3"
    );
    format!("--train train --dev dev --threads 1 --device cpu {schedule}")
}

#[test]
fn the_evidence_predictor_is_trained_and_names_the_sentences_of_predicted_facts() {
    let place = Place::new();
    let flags = finetuning(&place, 6);
    place.good(&format!("finetune --system bilstm --encoder words --run-dir relations {flags}"));
    let trained = place
        .good(&format!("finetune --system lstm-sp --encoder words --run-dir evidence {flags}"));
    assert!(trained.stderr.contains("dev evidence F1"), "{}", trained.stderr);
    let checkpoint = |run: &str| format!("{run}/checkpoints/finetune/step-00000006");
    let (relations, evidence) = (checkpoint("relations"), checkpoint("evidence"));
    let threshold = place.json(format!("{evidence}/trainer.json"))["threshold"].as_f64().unwrap();
    assert!(0.0 < threshold && threshold < 1.0, "{threshold}");
    // A folder of the same name does not stand in for a preset.
    fs_err::create_dir(place.path("words")).unwrap();
    // Done is done; and a run folder of one system is not another's.
    place.good(&format!(
        "finetune --system lstm-sp --encoder words --run-dir evidence --resume {flags}"
    ));
    let other =
        format!("finetune --system hin --encoder words --run-dir evidence --resume {flags}");
    place.bad(&other, 65, &["step-00000006", "`lstm-sp`", "`hin`", "hint: "]);

    // Hardly trained, the system takes nearly everything: a document of few entities keeps that
    // small.
    let mut documents = json!([place.json("world/dev.json")[0]]);
    documents[0]["vertexSet"].as_array_mut().unwrap().truncate(4);
    documents[0].as_object_mut().unwrap().remove("labels");
    fs_err::write(place.path("small.json"), documents.to_string()).unwrap();
    let predict =
        |more: &str| format!("predict --input small.json --threads 1 --device cpu {more}");
    place.good(&predict(&format!("--checkpoint {relations} --output plain.json")));
    place.good(&predict(&format!(
        "--checkpoint {relations} --evidence {evidence} --output filled.json"
    )));
    let (plain, mut filled) = (place.json("plain.json"), place.json("filled.json"));
    let sentences = documents[0]["sents"].as_array().unwrap().len() as u64;
    let mut found = 0;
    for fact in filled.as_array_mut().unwrap() {
        let listed: Vec<u64> = fact["evidence"]
            .as_array()
            .unwrap()
            .iter()
            .map(|sentence| sentence.as_u64().unwrap())
            .collect();
        assert!(
            listed.is_sorted() && listed.iter().all(|&sentence| sentence < sentences),
            "{fact}"
        );
        found += listed.len();
        fact["evidence"] = json!([]);
    }
    assert!(found > 0 && filled == plain, "{found} sentences of {plain}");

    // A checkpoint of the wrong kind, either way round.
    place.bad(
        &predict(&format!("--checkpoint {evidence} --output x.json")),
        65,
        &["`lstm-sp`, which extracts no relations", "hint: "],
    );
    let swapped = format!("--checkpoint {relations} --evidence {relations} --output x.json");
    place.bad(
        &predict(&swapped),
        65,
        &["holds system `bilstm`, which judges no sentences", "hint: "],
    );
    place.bad(
        "run recipe.toml --set system=lstm-sp --set variants=[\"baseline\"]",
        64,
        &["lstm-sp", "hint: "],
    );
    assert!(!place.path("x.json").exists());
    place.good(&format!("export --checkpoint {evidence} --output model"));
    place.good(&predict(&format!("--checkpoint {relations} --evidence model --output again.json")));
    assert_eq!(place.bytes("again.json"), place.bytes("filled.json"));
}

#[test]
fn what_a_system_cannot_work_with_is_one_clear_error() {
    let place = Place::new();
    let flags = finetuning(&place, 1);
    let finetune = |system: &str, more: &str| {
        format!("finetune --system {system} --run-dir r-{system} {flags} {more}")
    };
    let short = "--encoder tiny --set encoder.max_pieces=20";
    let together = "--set docre-ii.pretrained_base=false";
    place.bad(
        &finetune("docre-ii", "--encoder tiny"),
        64,
        &["the second stage of `docre-ii` starts from the heads of its first", "hint: "],
    );
    place.bad(&finetune("dsdocre", short), 65, &["document `", "the encoder takes 20", "hint: "]);
    place.bad(
        &finetune("docre-ii", &format!("{short} {together} --set docre-ii.averaged_layers=2")),
        65,
        &["document `", "the encoder takes", "hint: "],
    );
    let (of_pieces, of_words) = ("the encoder takes", "more than the limit");
    for (system, table, told) in [
        ("atlop", "atlop", of_pieces),
        ("glre", "glre", of_words),
        ("hin", "hin", of_words),
        ("bert-re", "baseline", of_words),
        ("lstm-sp", "lstm-sp", of_words),
    ] {
        let cut = format!("{short} --set {table}.long_documents=cut");
        place.bad(&finetune(system, &cut), 65, &["document `", told, "hint: "]);
        let extended = format!("{short} --set {table}.long_documents=extended-positions");
        place.bad(&finetune(system, &extended), 64, &["has no extended positions", "hint: "]);
        place.good(&format!(
            "finetune --system {system} --run-dir in-windows-{system} {flags} {short}"
        ));
    }
    fs_err::create_dir(place.path("gpt2")).unwrap();
    fs_err::write(
        place.path("gpt2/config.json"),
        r#"{"model_type": "gpt2", "architectures": ["GPT2Model"]}"#,
    )
    .unwrap();
    place.bad(&finetune("atlop", "--encoder gpt2"), 65, &["gpt2", "hint: "]);
    place.bad(
        &finetune("docre-ii", &format!("--encoder tiny {together}")),
        64,
        &["`averaged_layers` is 3, but the encoder has 2", "hint: "],
    );
    place.bad(
        &finetune("cnn", "--encoder words --ranker gpt2"),
        64,
        &["`cnn` does not choose pairs by a ranker", "hint: "],
    );
    place.bad(
        &finetune("lstmsp", "--encoder words"),
        64,
        &["there is no system `lstmsp`", "lstm-sp"],
    );
    // Heads of another system share no layer.
    place.good(&finetune("bilstm", "--encoder words"));
    let from = "--encoder tiny --heads-from r-bilstm/checkpoints/finetune/step-00000001";
    place.bad(&finetune("atlop", from), 65, &["shares no layer", "hint: "]);
}

#[test]
fn docre_ii_predicts_after_each_iteration_and_weighs_its_parts() {
    let place = Place::new();
    let flags = finetuning(&place, 1);
    let small = "--encoder tiny --set docre-ii.averaged_layers=2 --set docre-ii.emb_size=64 \
        --set docre-ii.inference_width=32 --set docre-ii.ffn_width=32";
    let tune = |run: &str, more: &str| {
        format!("finetune --system docre-ii --run-dir {run} {flags} {small} {more}")
    };
    place.good(&tune("base", "--set docre-ii.stage=base"));
    let last = |run: &str| format!("{run}/checkpoints/finetune/step-00000001");
    let second = "--set inference.batch=4 --set inference.steps=1";
    place.good(&tune("both", &format!("--heads-from {} {second}", last("base"))));
    let predict = |run: &str, more: &str| {
        let input = "--input world/dev.json --threads 1 --device cpu";
        format!("predict --checkpoint {} {input} {more}", last(run))
    };
    place.good(&predict("both", "--all-iterations --output r.json --json all.json --zip"));
    let told = place.json("all.json")["iterations"].as_array().unwrap().clone();
    let numbers: Vec<_> = told.iter().map(|each| each["iterations"].clone()).collect();
    assert_eq!(numbers, [0, 1, 2, 3].map(Value::from));
    place.good(&predict("both", "--iterations 0 --output zero.json"));
    place.good(&predict("both", "--output three.json"));
    let read = |file: &str| fs_err::read(place.path(file)).unwrap();
    assert!(read("zero.json") == read("r-k0.json"), "0 iterations are the base module");
    assert!(read("three.json") == read("r-k3.json"), "the checkpoint has 3 iterations");
    assert!(place.path("r-k2.zip").exists());
    let refused = ["in a form without iterations", "hint: "];
    place.bad(&predict("base", "--iterations 2 --output x.json"), 65, &refused);
    place.bad(&predict("base", "--all-iterations --output x.json"), 65, &refused);
    let weights = place.good(&format!("inspect {} --weights --json w.json", last("both")));
    assert!(weights.stdout.contains("features F: mean absolute weight 0."));
    assert_eq!(place.json("w.json")["parts"][1]["part"], "relations R");
    place.bad(&format!("inspect {} --weights", last("base")), 65, &["no layer that joins parts"]);
}

/// Evidence F1 and F1 of predictions, counted sentence by sentence and fact by fact.
fn counted_scores(gold: &Value, predictions: &Value) -> (f64, f64) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let numbers =
        |value: &Value| -> HashSet<u64> { list(value).iter().filter_map(Value::as_u64).collect() };
    let (mut facts, mut sentences) = (HashMap::new(), 0);
    for document in list(gold) {
        for label in list(&document["labels"]) {
            let evidence = numbers(&label["evidence"]);
            sentences += evidence.len();
            let fact = [&document["title"], &label["h"], &label["t"], &label["r"]];
            facts.insert(fact.map(Value::to_string), evidence);
        }
    }
    let (mut right, mut told, mut right_told) = (0, 0, 0);
    for prediction in list(predictions) {
        let evidence = numbers(&prediction["evidence"]);
        told += evidence.len();
        let fact = ["title", "h_idx", "t_idx", "r"].map(|key| prediction[key].to_string());
        if let Some(gold) = facts.get(&fact) {
            right += 1;
            right_told += gold.intersection(&evidence).count();
        }
    }
    let f1 = |right: usize, told: usize, all: usize| {
        if right == 0 { 0.0 } else { 2.0 * right as f64 / (told + all) as f64 }
    };
    (f1(right_told, told, sentences), f1(right, list(predictions).len(), facts.len()))
}

#[test]
fn dreeam_predicts_evidence_and_fuses_two_runs() {
    let place = Place::new();
    let flags = finetuning(&place, 12);
    let small = "--encoder tiny --set dreeam.averaged_layers=2 --set dreeam.emb_size=64";
    let tuned = place.good(&format!("finetune --system dreeam --run-dir teacher {flags} {small}"));
    let best = tuned.stderr.lines().rfind(|line| line.contains("with fusion F1")).unwrap();
    let said = best.rsplit("with fusion F1 ").next().unwrap().trim_end_matches(')');
    let folder = place.path("teacher/checkpoints/finetune");
    let mut steps: Vec<_> = fs_err::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("step-"))
        .collect();
    steps.sort();
    // The best step is kept beside the last one.
    let state =
        |step: &String| place.json(format!("teacher/checkpoints/finetune/{step}/trainer.json"));
    let step = steps.iter().find(|step| {
        let state = state(step);
        state["best"][1] == state["step"]
    });
    let checkpoint = format!("teacher/checkpoints/finetune/{}", step.unwrap());
    assert!(place.json(format!("{checkpoint}/trainer.json"))["threshold"].is_f64());

    let predict = |more: &str| {
        let input = "--input world/dev.json --threads 1 --device cpu";
        format!("predict --checkpoint {checkpoint} {input} {more}")
    };
    place.good(&predict("--output fused.json"));
    place.good(&predict("--without-fusion --output plain.json"));
    assert_ne!(place.bytes("fused.json"), place.bytes("plain.json"));
    let gold = place.json("world/dev.json");
    for file in ["fused.json", "plain.json"] {
        place.good(&format!("evaluate --gold world/dev.json --predictions {file} --json s.json"));
        let (evidence, f1) = counted_scores(&gold, &place.json(file));
        let scores = &place.json("s.json")["official"];
        let near = |key: &str, ours: f64| (scores[key].as_f64().unwrap() - ours).abs() < 1e-9;
        assert!(
            near("evidence_f1", evidence) && near("f1", f1),
            "{file}: {scores} {evidence} {f1}"
        );
        if file == "fused.json" {
            assert_eq!(format!("{:.2}", 100.0 * f1), said, "the F1 that was told on dev");
        }
    }
    let sentences = |file: &str| -> usize {
        let facts = place.json(file);
        facts.as_array().unwrap().iter().map(|f| f["evidence"].as_array().unwrap().len()).sum()
    };
    // A lower threshold gives more sentences a fact, a higher one none.
    let facts = |file: &str| place.json(file).as_array().unwrap().len();
    place.good(&predict("--evidence-threshold 0.01 --output many.json"));
    assert!(sentences("fused.json") > 0);
    assert!(
        sentences("many.json") * facts("fused.json") > sentences("fused.json") * facts("many.json")
    );
    place.good(&predict("--evidence-threshold 0.999 --output none.json"));
    assert_eq!(sentences("none.json"), 0);
    place.bad(
        &predict("--evidence-threshold 1.5 --output x.json"),
        64,
        &["--evidence-threshold 1.5", "hint: "],
    );

    // Other systems tell evidence when they are asked, if they attend.
    let last = |run: &str| format!("{run}/checkpoints/finetune/step-00000012");
    let input = "--input world/dev.json --threads 1 --device cpu --output asked.json";
    let asked =
        |run: &str, more: &str| format!("predict --checkpoint {} {input} {more}", last(run));
    let narrow = "--encoder tiny --set atlop.emb_size=64 --set atlop.threshold=global";
    place.good(&format!("finetune --system atlop --run-dir atlop {flags} {narrow}"));
    place.good(&asked("atlop", "--threshold 0"));
    assert_eq!(sentences("asked.json"), 0);
    place.good(&asked("atlop", "--threshold 0 --evidence-threshold 0.01"));
    assert!(sentences("asked.json") > 0);
    place.good(&format!("finetune --system cnn --encoder words --run-dir cnn {flags}"));
    let refused = ["system `cnn` tells no evidence", "hint: "];
    place.bad(&asked("cnn", "--evidence-threshold 0.2"), 64, &refused);
}

#[test]
fn all_systems_are_compared_in_one_table() {
    let place = Place::new();
    let brief =
        "--documents 6 --threads 1 --device cpu --set finetune.epochs=1 --set inference.epochs=1";
    let small =
        "--set docre-ii.emb_size=64 --set docre-ii.inference_width=32 --set docre-ii.ffn_width=32";
    let outcome = place.good(&format!(
        "bench systems --systems cnn,docre-ii,lstm-sp {brief} {small} --json table.json"
    ));
    let table = place.json("table.json");
    let rows = table["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["system"].as_str().unwrap()).collect();
    assert_eq!(names, ["type prior", "cnn", "docre-ii", "lstm-sp"]);
    for row in &rows[1..] {
        assert!(outcome.stdout.contains(row["system"].as_str().unwrap()), "{}", outcome.stdout);
        for key in
            ["train_documents_per_s", "predict_documents_per_s", "parameters", "peak_memory_mb"]
        {
            assert!(row[key].as_f64().unwrap() > 0.0, "{key} of {row}");
        }
    }
    assert_eq!(rows[2]["losses"].as_array().unwrap().len(), 2, "two stages: {}", rows[2]);
    place.bad("bench systems --systems cnn,atlopp", 64, &["there is no system `atlopp`", "hint: "]);
    // A system that fails leaves the rows of the others; an LSTM has no attention for ATLOP's
    // contexts.
    let mixed = "bench systems --systems atlop,cnn --encoder tiny,atlop=bilstm";
    let outcome = place.bad(
        &format!("{mixed} {brief} --json table.json"),
        64,
        &["no attention layers", "not in the table: atlop", "hint: "],
    );
    assert!(outcome.stdout.contains("cnn"), "{}", outcome.stdout);
    assert_eq!(place.json("table.json")["failed"], json!([{ "system": "atlop", "exit_code": 64 }]));
    // One step is not enough to learn anything by heart.
    let overfit = "bench systems --systems cnn --overfit --documents 4 --threads 1 --device cpu \
        --set finetune.steps=1";
    place.bad(overfit, 70, &["did not fall below a tenth: cnn"]);
}

/// Four annotated documents with two facts each, and the predictions `a.json`, which gets one fact
/// of each document, and `b.json`, which gets one of two.
fn four_documents(place: &Place) {
    let write = |name: &str, value: Value| {
        fs_err::write(place.path(name), value.to_string()).unwrap();
    };
    let mention =
        |sentence: usize| json!({"name": "x", "sent_id": sentence, "pos": [0, 1], "type": "ORG"});
    let gold = (0..4).map(|number| {
        json!({
            "title": format!("d{number}"),
            "sents": [["x", "y"], ["x"]],
            "vertexSet": [[mention(0)], [mention(0)], [mention(1)]],
            "labels": [
                {"h": 0, "t": 1, "r": "P17", "evidence": [0]},
                {"h": 1, "t": 2, "r": "P131", "evidence": []},
            ],
        })
    });
    let fact = |number: usize, head: usize, tail: usize, relation: &str| {
        let title = format!("d{number}");
        json!({"title": title, "h_idx": head, "t_idx": tail, "r": relation})
    };
    write("gold.json", gold.collect());
    write("a.json", (0..4).map(|number| fact(number, 0, 1, "P17")).collect());
    write("b.json", json!([fact(0, 1, 2, "P131"), fact(0, 0, 1, "P131")]));
    write("other.json", json!([{"title": "z", "h_idx": 0, "t_idx": 1, "r": "P17"}]));
}

#[test]
fn evaluate_compares_two_files_and_draws() {
    let place = Place::new();
    four_documents(&place);
    let outputs = "--json s.json --csv out/s.csv --plots plots --samples 50 --seed 2";
    let line = format!("evaluate --gold gold.json --predictions a.json --compare b.json {outputs}");
    let said = place.good(&line).stdout;
    assert!(
        said.contains("A gets and B misses: 4 facts")
            && said.contains("distance: Smallest distance in sentences"),
        "{said}"
    );
    let scores = place.json("s.json");
    assert_eq!(scores["official"]["counts"]["correct"], 4);
    let group = &scores["comparison"]["groups"][0];
    assert_eq!((&group["only_a"], &group["only_b"]), (&json!(4), &json!(1)));
    let text = |name: &str| String::from_utf8(place.bytes(name)).unwrap();
    let csv = text("out/s.csv");
    assert!(csv.contains("\nfacts,all facts,4,8,1,0.5,0.6666666666666666\n"), "{csv}");
    assert!(text("out/s-comparison.csv").contains("relation,P17,4,0,4,0,1,0,1,1,1,0\n"));
    assert!(text("plots/confusion.svg").contains("P131"));
    assert_eq!(place.good(&line).stdout, said, "the bootstrap is not deterministic");
}

#[test]
fn evaluate_puts_any_number_of_systems_side_by_side() {
    let place = Place::new();
    four_documents(&place);
    fs_err::create_dir(place.path("again")).unwrap();
    fs_err::copy(place.path("b.json"), place.path("again/a.json")).unwrap();
    let outputs = "--json s.json --csv s.csv --plots plots --report page.html";
    let bins = "--mention-bins 1,3 --distance-bins 0,2";
    let systems = "--system HIN=a.json --system GLRE=again/a.json --system none=other.json";
    let said = place.good(&format!("evaluate --gold gold.json {systems} {bins} {outputs}"));
    let row = said.stdout.lines().find(|line| line.starts_with("all facts")).unwrap();
    let cells: Vec<&str> = row["all facts".len()..].split_whitespace().collect();
    assert_eq!(cells, ["66.67", "20.00", "0.00", "8"]);
    assert!(said.stdout.contains("\n[1,3)") && said.stdout.contains("\n[3,∞)"), "{}", said.stdout);
    assert!(said.stdout.contains("\n[0,2)"), "{}", said.stdout);
    assert!(said.stderr.contains("warning: none: these predictions"), "{}", said.stderr);
    let systems = place.json("s.json")["systems"].clone();
    assert_eq!(systems[1]["name"], "GLRE");
    assert_eq!(systems[1]["official"]["counts"]["correct"], 1);
    let text = |name: &str| String::from_utf8(place.bytes(name)).unwrap();
    assert!(text("s.csv").contains("\nGLRE,facts,all facts,2,8,0.5,0.125,0.2\n"));
    for name in ["HIN", "GLRE", "none"] {
        assert!(text("plots/f1-by-distance.svg").contains(&format!(">{name}<")));
        assert!(text("page.html").contains(&format!(">{name}</th>")));
    }
    let same = "--predictions a.json --compare again/a.json --plots two";
    place.good(&format!("evaluate --gold gold.json {same}"));
    assert!(text("two/f1-by-distance.svg").contains(">B: again/a.json<"));
    let evaluate = |flags: &str| format!("evaluate --gold gold.json {flags}");
    let twice = evaluate("--system A=a.json --system A=b.json");
    place.bad(&twice, 64, &["two systems are called `A`", "hint: "]);
    let falling = evaluate("--predictions a.json --mention-bins 2,1");
    place.bad(&falling, 64, &["--mention-bins 2,1: the bins must rise", "hint: "]);
    place.bad(&evaluate("--system a.json"), 2, &["NAME=FILE"]);
    place.bad(&evaluate("--system A=a.json --predictions b.json"), 2, &["cannot be used with"]);
}

#[test]
fn audit_compares_labels_with_human_ones_and_denoisers_with_each_other() {
    let place = Place::new();
    four_documents(&place);
    let mut labelled = place.json("gold.json");
    for document in labelled.as_array_mut().unwrap() {
        document["labels"][1]["r"] = json!("P36");
    }
    fs_err::write(place.path("distant.json"), labelled.to_string()).unwrap();
    let files = "audit --distant distant.json --gold gold.json";
    let said =
        place.good(&format!("{files} --denoiser first=a.json --json a-out.json --report a.html"));
    assert!(said.stdout.starts_with("8 distant labels in 4 documents: 50.0 % are right"));
    let audit = place.json("a-out.json");
    assert_eq!(audit["denoisers"][0]["area"], 1.0);
    let page = String::from_utf8(place.bytes("a.html")).unwrap();
    assert!(page.contains(">first</th>") && page.contains("P36"), "{page}");
    let unknown = format!("{files} --denoiser none=other.json");
    place.bad(&unknown, 65, &["none of the distant labels has a score here", "hint:"]);
}

#[test]
fn evaluate_averages_several_files() {
    let place = Place::new();
    four_documents(&place);
    place.good(
        "evaluate --gold gold.json --predictions a.json --predictions b.json --json m.json \
         --csv m.csv",
    );
    let f1 = &place.json("m.json")["seeds"]["rows"][0]["f1"];
    assert!(
        (f1["mean"].as_f64().unwrap() - (2.0 / 3.0 + 0.2) / 2.0).abs() < 1e-12 && f1["n"] == 2,
        "{f1}"
    );
}

#[test]
fn evaluate_names_what_it_cannot_score() {
    let place = Place::new();
    four_documents(&place);
    let evaluate = |files: &str| format!("evaluate --gold gold.json {files}");
    let wrong = place.good(&evaluate("--predictions other.json"));
    assert!(wrong.stderr.contains("0 of 1 titles match the 4 gold documents"), "{}", wrong.stderr);

    place.bad(&evaluate(""), 64, &["there is nothing to score", "hint: "]);
    let several = evaluate("--predictions a.json --predictions b.json --compare b.json");
    place.bad(&several, 64, &["single file"]);
    let none = evaluate("--predictions a.json --compare b.json --samples 0");
    place.bad(&none, 64, &["--samples 0"]);
    fs_err::write(place.path("cut.json"), &place.bytes("a.json")[..60]).unwrap();
    let cut = ["cut.json, row 1", "ends too early", "hint: "];
    place.bad(&evaluate("--predictions cut.json"), 65, &cut);
    place.bad("evaluate --gold cut.json --predictions a.json", 65, &["cut.json, row 0", "hint: "]);
    place.bad(&evaluate("--scores a.json"), 65, &["a.json", "hint: "]);
    place.bad(&evaluate("--predictions none.json"), 74, &["none.json"]);
}

#[test]
fn evaluate_scores_listed_pairs() {
    let place = Place::new();
    let argument = |id: &str, kind: &str, start: usize, sentence: usize| {
        format!("{id}\tx\t{kind}\t{start}\t{}\t{sentence}", start + 1)
    };
    let chemical = argument("C1", "Chemical", 0, 0);
    let pair = |label: &str, cross: &str, disease: &str| {
        format!("\t{label}\tL2R\t{cross}\t0-1\t1-2\t{chemical}\t{disease}")
    };
    let diseases = [
        argument("D1", "Disease", 1, 0),
        argument("D2", "Disease", 3, 1),
        argument("D3", "Disease", 4, 1),
    ];
    let line = [
        "7\tx x y|x x".to_owned(),
        pair("1:CID:2", "NON-CROSS", &diseases[0]),
        pair("1:CID:2", "CROSS", &diseases[1]),
        pair("1:NR:2", "CROSS", &diseases[2]),
    ];
    fs_err::write(place.path("dev.data"), line.concat()).unwrap();
    let fact = |t: usize| json!({"title": "7", "h_idx": 0, "t_idx": t, "r": "CID"});
    fs_err::write(place.path("p.json"), json!([fact(1), fact(3)]).to_string()).unwrap();
    fs_err::write(place.path("tree.txt"), "head\nC1\tD3\nC1.5\tD1\n").unwrap();

    place.good("evaluate --dataset cdr --gold dev.data --predictions p.json --json s.json");
    let pairs = &place.json("s.json")["pairs"];
    assert_eq!(
        (&pairs["positive"], &pairs["negative"], &pairs["filtered"]),
        (&json!(2), &json!(1), &json!(0))
    );
    assert_eq!(
        (&pairs["scores"]["overall"]["precision"], &pairs["scores"]["near"]["predicted"]),
        (&json!(0.5), &json!(1))
    );
    // D3 is more general than D1, which the same chemical causes: the pair is no longer wrong.
    let said = place
        .good(
            "evaluate --dataset cdr --gold dev.data --predictions p.json --mesh-tree \
        tree.txt --json f.json",
        )
        .stdout;
    let scores = place.json("f.json");
    assert_eq!(
        (&scores["pairs"]["filtered"], &scores["pairs"]["scores"]["overall"]["precision"]),
        (&json!(1), &json!(1.0))
    );
    assert_eq!(
        (&scores["official"]["precision"], &scores["pairs"]["counting_filtered"]["precision"]),
        (&json!(1.0), &json!(0.5))
    );
    assert!(said.contains("filtered pairs wrong"), "{said}");
    place.bad(
        "evaluate --dataset gda --gold dev.data --predictions p.json --mesh-tree tree.txt",
        64,
        &["--mesh-tree", "hint: "],
    );
    place.bad(
        "evaluate --dataset cdr --gold p.json --predictions p.json",
        65,
        &["p.json", "hint: "],
    );
}

#[test]
fn a_damaged_checkpoint_is_refused_by_name() {
    let place = Place::new();
    place.good("run recipe.toml --run-dir r");
    let best = best_checkpoint(&place, "r");
    let file = format!("{best}/model.safetensors");
    let mut bytes = place.bytes(&file);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::write(place.path(&file), bytes).unwrap();
    place.bad(
        &format!("inspect {best}"),
        65,
        &["model.safetensors", "differs from the hash", "hint: "],
    );
    place.bad(
        &format!("predict --checkpoint {best} --input r/data/world/dev.json --output x.json"),
        65,
        &["model.safetensors"],
    );
    fs_err::remove_file(place.path(format!("{best}/MANIFEST.json"))).unwrap();
    place.bad(
        &format!("export --checkpoint {best} --output x"),
        65,
        &["is not a complete checkpoint", "hint: "],
    );
    assert!(!place.path("x.json").exists() && !place.path("x").exists());
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn the_parity_cases_hold() {
    let shared = reference_data::reference_data();
    let place = Place::new();
    let mut command = place.command("verify --json outcome.json --all");
    command.arg(Path::new(&shared).join("parity"));
    let outcome = finish(command);
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.stdout, outcome.stderr);
    assert!(!place.json("outcome.json").as_array().unwrap().is_empty(), "no case was found");
}
