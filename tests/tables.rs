//! The tables of the papers, as they are shipped: every file can be read, and their rows run.
//!
//! Usual runs try a sample of rows on generated documents, and with `DOCRE_ALL_TABLES` all of them.
//! Not for: the numbers of a table, whose arithmetic is tested beside the code.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a call that fails fails its test")]

#[allow(dead_code, reason = "other tests use the rest")]
mod common;
#[path = "support/reference_data.rs"]
#[cfg(reference_data)]
mod reference_data;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use common::{free_of_launchers, program};

/// Rows that the usual run tries: several systems, with and without a ranker.
const SAMPLE: [(&str, &str); 7] = [
    ("dsdocre-table1", "BERT+P"),
    ("dsdocre-table2", "w/o MM"),
    ("hin-table2", "- Above all"),
    ("glre-table4-cdr", "w/o Context rel. rep."),
    ("docre-ii-table4", "w/o ECA"),
    ("docre-ii-table1", "ATLOP-BERT"),
    ("real", "400: ATLOP +P+T soft"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/tables")
}

/// The shipped tables by name.
fn tables() -> Vec<(String, PathBuf)> {
    let entries = fs_err::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|ending| ending == "toml"));
    let mut tables: Vec<_> = files
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), path))
        .collect();
    tables.sort();
    tables
}

fn table_file(name: &str) -> PathBuf {
    folder().join(format!("{name}.toml"))
}

/// Calls `table` in a folder.
fn table(place: &Path, file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    free_of_launchers(&mut command);
    command.arg("table").arg(file).args(arguments).current_dir(place);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Calls `table`, expects success, and returns the table of `--json`.
fn good(place: &Path, file: &Path, arguments: &[&str]) -> Value {
    let json = place.join("result.json");
    let output = table(place, file, &[arguments, &["--json", json.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(0), "{}: {}", file.display(), said(&output));
    serde_json::from_slice(&fs_err::read(json).unwrap()).unwrap()
}

/// The row of a name.
fn row<'a>(table: &'a Value, name: &str) -> &'a Value {
    let rows = table["rows"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap()
}

#[test]
fn every_table_and_figure_of_the_papers_is_shipped_and_its_rows_are_valid_recipes() {
    let names: Vec<String> = tables().into_iter().map(|(name, _)| name).collect();
    let expected = [
        ("dsdocre-table", 1..=2, ""),
        ("hin-table", 1..=2, ""),
        ("hin-figure", 3..=3, ""),
        ("glre-table", 2..=3, ""),
        ("glre-table", 4..=5, "-cdr"),
        ("glre-table", 4..=5, "-docred"),
        ("docre-ii-table", 1..=8, ""),
        ("docre-ii-figure", 5..=5, ""),
    ];
    for (kind, numbers, corpus) in expected {
        for number in numbers {
            let name = format!("{kind}{number}{corpus}");
            assert!(names.contains(&name), "{name} is missing");
        }
    }
    let place = tempfile::tempdir().unwrap();
    for (name, file) in tables() {
        let listed = good(place.path(), &file, &["--list"]);
        assert!(!listed["tasks"].as_array().unwrap().is_empty(), "{name}");
    }
}

#[test]
fn missing_data_is_one_error_that_says_what_to_bring_and_every_file_has_a_size_and_an_origin() {
    let place = tempfile::tempdir().unwrap();
    for (name, file) in tables() {
        let output = table(place.path(), &file, &[]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(64), "{name}: {text}");
        let files: Vec<&str> = text.lines().filter(|line| line.starts_with("  ")).collect();
        assert!(text.contains("files are missing:") && !files.is_empty(), "{name}: {text}");
        for line in files {
            assert!(line.contains(" (") && line.contains("https://"), "{name}: {line}");
        }
        assert!(text.contains("--smoke"), "{name}: {text}");
    }
    assert!(!place.path().join("runs").exists());
}

/// Smoke tests in a folder: of `sample`, or of all tables where `DOCRE_ALL_TABLES` is set. Returns
/// what the tables say about their data.
fn smoke(place: &Path, sample: &[(&str, &str)]) -> Vec<String> {
    let remark = |result: &Value| {
        let notes = result["notes"].as_array().unwrap();
        let notes = notes.iter().filter_map(Value::as_str);
        notes.filter(|note| note.starts_with("smoke test on ")).map(str::to_owned).collect()
    };
    let mut remarks: Vec<Vec<String>> = Vec::new();
    if std::env::var_os("DOCRE_ALL_TABLES").is_some() {
        for (name, file) in tables() {
            let result = good(place, &file, &["--smoke"]);
            for row in result["rows"].as_array().unwrap() {
                assert_eq!(row["finished"], row["runs"], "{name}: {row}");
            }
            remarks.push(remark(&result));
        }
    } else {
        for (name, chosen) in sample {
            let result = good(place, &table_file(name), &["--smoke", "--rows", chosen]);
            assert_eq!(row(&result, chosen)["finished"], 1, "{name}: {chosen}");
            remarks.push(remark(&result));
        }
    }
    remarks.concat()
}

#[test]
fn a_smoke_test_runs_rows_of_the_shipped_tables() {
    let place = tempfile::tempdir().unwrap();
    for remark in smoke(place.path(), &SAMPLE) {
        assert!(remark.contains("a generated corpus"), "{remark}");
    }
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn a_smoke_test_reads_a_few_documents_of_real_files() {
    #[cfg(reference_data)]
    {
        let place = tempfile::tempdir().unwrap();
        bring_data(place.path());
        let sample = [
            ("dsdocre-table1", "BERT+D+P"),
            ("dsdocre-table1", "BiLSTM"),
            ("docre-ii-table8", "Ours-SciBERT (GDA)"),
            ("glre-table2", "GLRE"),
            ("docred-small-systems", "DSDocRE+D"),
        ];
        for remark in smoke(place.path(), &sample) {
            assert!(remark.contains("a few documents of the recipe's files"), "{remark}");
        }
    }
}

/// Puts real documents and vocabularies to the places that the shipped recipes name. The splits of
/// the papers are not among them; others stand in for them.
#[cfg(reference_data)]
fn bring_data(place: &Path) {
    let data = reference_data::reference_data().join("data");
    let read = |name: &str| fs_err::read_to_string(data.join(name)).unwrap();
    let write = |name: &str, text: &str| {
        let path = place.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    };
    for (name, from) in [
        ("train_annotated.json", "docred/train_annotated_t5aug_447.json"),
        ("dev.json", "redocred/dev_revised.json"),
        ("test.json", "docred/test.json"),
        ("rel_info.json", "docred/rel_info.json"),
    ] {
        write(&format!("data/docred/{name}"), &read(from));
    }
    // From the end, so that the first documents are not those of test.
    let mut distant: Vec<Value> = serde_json::from_str(&read("wikidata/docred_test.json")).unwrap();
    distant.reverse();
    write("data/docred/train_distant.json", &serde_json::to_string(&distant).unwrap());
    write("data/cdr/train_filter.data", &read("cdr/train_filter.data"));
    for split in ["dev", "test"] {
        write(&format!("data/cdr/{split}_filter.data"), &read("cdr/dev_filter.data"));
    }
    let gda = read("gda/part_a.data");
    let lines: Vec<&str> = gda.lines().collect();
    for (split, lines) in ["train", "dev", "test"].into_iter().zip(lines.chunks(200)) {
        write(&format!("data/gda/{split}.data"), &lines.join("\n"));
    }
    let folders = [
        ("bert-base-uncased", "data/vocab/bert-base-uncased"),
        ("bert-large-uncased", "data/vocab/bert-base-uncased"),
        ("roberta-large", "data/vocab/roberta-base"),
        ("scibert_scivocab_cased", "data/vocab/scibert_scivocab_uncased"),
        ("biobert-base-cased-v1.1", "data/vocab/bert-base-cased"),
        ("biobert-large-cased-v1.1", "data/vocab/bert-base-cased"),
        ("xlnet-large-cased", "parity-encoders/encoder-xlnet/model"),
        ("albert-xxlarge-v2", "parity-encoders/encoder-albert/model"),
    ];
    for (model, folder) in folders {
        let to = place.join("models").join(model);
        fs_err::create_dir_all(&to).unwrap();
        for file in fs_err::read_dir(reference_data::reference_data().join(folder)).unwrap() {
            let file = file.unwrap();
            let bytes = fs_err::read(file.path()).unwrap();
            fs_err::write(to.join(file.file_name()), bytes).unwrap();
        }
    }
    for name in ["train_annotated.fact", "train_annotated_t5aug_447.json", "rel_info.json"] {
        write(&format!("docred/{name}"), &read(&format!("docred/{name}")));
    }
    write("redocred/dev_revised.json", &read("redocred/dev_revised.json"));
    write("vocab/bert-base-uncased/vocab.txt", &read("vocab/bert-base-uncased/vocab.txt"));
    let vectors = "the 0.1 0.2\nof -0.1 0.3\nin 0.5 0.5\nand 0.4 -0.2\n";
    write("data/glove/glove.6B.100d.txt", vectors);
    write("data/pubmed/PubMed-shuffle-win-2.txt", vectors);
    let small = place.join("glove/glove.6B.50d.first150k.txt.gz");
    fs_err::create_dir_all(small.parent().unwrap()).unwrap();
    fs_err::copy(data.join("glove/glove.6B.50d.first150k.txt.gz"), small).unwrap();
}

#[test]
fn rows_share_stages_finished_ones_are_skipped_and_another_recipe_is_refused() {
    let place = small_table("");
    let (path, file) = (place.path(), place.path().join("table.toml"));
    // As two tasks of an array.
    good(path, &file, &["--run-dir", "R", "--task", "1"]);
    let result = good(path, &file, &["--run-dir", "R", "--task", "3"]);
    assert_eq!(
        (&row(&result, "one")["finished"], &row(&result, "one")["runs"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(row(&result, "theirs")["cells"][0]["published"]["value"], 57.42);
    let shared = |kind: &str| {
        let entries = fs_err::read_dir(path.join("R/shared")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(kind) && !name.ends_with(".lock")).count()
    };
    // Tasks 1 and 3 are both rows with seed 1: they differ in fine-tuning alone.
    assert_eq!((shared("data-"), shared("ranker-")), (1, 1));
    let result = good(path, &file, &["--run-dir", "R"]);
    // The ranker depends on the seed, the data do not.
    assert_eq!((shared("data-"), shared("ranker-")), (1, 2));
    let cell = &row(&result, "one")["cells"][0]["measured"];
    assert_eq!(cell["n"], 2);
    let scores = |seed: u64| {
        let path = path.join(format!("R/rows/one/seed-{seed}/scores.json"));
        let scores: Value = serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap();
        scores["denoised-dev"]["official"]["f1"].as_f64().unwrap()
    };
    let mean = f64::midpoint(scores(1), scores(2));
    assert!((cell["mean"].as_f64().unwrap() - mean).abs() < 1e-12, "{cell}");
    for name in ["table.html", "table.csv", "table.tex", "table.json"] {
        assert!(path.join("R").join(name).exists(), "{name}");
    }
    let again = table(path, &file, &["--run-dir", "R"]);
    assert_eq!(said(&again).matches("finished before").count(), 4, "{}", said(&again));
    assert!(said(&again).contains("complete") && !said(&again).contains("steps done"));
    // The run folder of a row answers questions like any other.
    let mut ledger = Command::new(program());
    free_of_launchers(&mut ledger);
    ledger.args(["ledger", "R/rows/one/seed-1"]).current_dir(path);
    assert!(ledger.output().unwrap().status.success());
    let other = small_table("finetune.learning_rate = 5e-4");
    fs_err::copy(other.path().join("table.toml"), &file).unwrap();
    let refused = table(path, &file, &["--run-dir", "R"]);
    assert_eq!(refused.status.code(), Some(64), "{}", said(&refused));
    assert!(said(&refused).contains("`finetune.learning_rate` was"), "{}", said(&refused));
}

#[test]
fn rows_of_docre_ii_train_their_base_module_once() {
    let place = tempfile::tempdir().unwrap();
    let rows = ["K = 1 and N_I = 1", "K = 3 and N_I = 2"];
    let arguments = ["--smoke", "--rows", &rows.join(","), "--run-dir", "R"];
    let output = table(place.path(), &table_file("docre-ii-table2"), &arguments);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text.matches("finetune-baseline-base: 2 steps done").count(), 1, "{text}");
    assert_eq!(text.matches("finetune-baseline: 2 steps done").count(), 2, "{text}");
    let base = |row: &str| {
        let name = format!("R/rows/{row}/seed-1/checkpoints/finetune-baseline-base");
        fs_err::canonicalize(place.path().join(name)).unwrap()
    };
    let folders = fs_err::read_dir(place.path().join("R/rows")).unwrap();
    let names = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let bases: Vec<PathBuf> = names.map(|name| base(&name)).collect();
    assert!(bases.len() == 2 && bases[0] == bases[1], "{bases:?}");
}

#[test]
fn what_cannot_be_selected_is_an_error() {
    let place = small_table("");
    let (path, file) = (place.path(), place.path().join("table.toml"));
    for (arguments, parts) in [
        (["--task", "9"], ["--task 9, but the tasks are 1 to 4", "--list"]),
        (["--rows", "on"], ["there is no such row", "one, two, theirs"]),
        (["--rows", "theirs"], ["only printed", ""]),
    ] {
        let output = table(path, &file, &arguments);
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        parts.iter().for_each(|part| assert!(said(&output).contains(part), "{}", said(&output)));
    }
    let unknown = small_table("finetune.learning_rat = 1");
    let output = table(unknown.path(), &unknown.path().join("table.toml"), &[]);
    let text = said(&output);
    assert!(text.contains("row `one`") && text.contains("did you mean `learning_rate`?"), "{text}");
}

#[test]
fn a_stage_that_two_tasks_need_at_the_same_time_is_computed_once() {
    let place = small_table("");
    let (path, file) = (place.path(), place.path().join("table.toml"));
    let said: Vec<String> = std::thread::scope(|scope| {
        let start = |task| {
            let file = &file;
            scope.spawn(move || table(path, file, &["--run-dir", "R", "--task", task]))
        };
        let both = ["1", "3"].map(start);
        let ended = both.map(|task| task.join().unwrap());
        let told = ended.iter().map(|output| {
            assert_eq!(output.status.code(), Some(0), "{}", said(output));
            said(output)
        });
        told.collect()
    });
    let all = said.concat();
    assert_eq!(all.matches("rank: 2 steps done").count(), 1, "{all}");
    assert_eq!(all.matches("finetune-denoised: 2 steps done").count(), 2, "{all}");
    // What a process that has died leaves of a lock holds nobody up.
    let locks = fs_err::read_dir(path.join("R/shared")).unwrap().map(|entry| entry.unwrap());
    let locks = locks.filter(|entry| entry.path().extension().is_some_and(|end| end == "lock"));
    locks.for_each(|lock| fs_err::write(lock.path(), "process 1 on nowhere").unwrap());
    for folder in ["R/rows", "R/shared"] {
        let finished = fs_err::read_dir(path.join(folder)).unwrap().map(|entry| entry.unwrap());
        for entry in finished.filter(|entry| entry.path().is_dir()) {
            fs_err::remove_dir_all(entry.path()).unwrap();
        }
    }
    good(path, &file, &["--run-dir", "R", "--task", "1"]);
}

/// A table of two rows and two seeds on a small generated corpus; `set` is for all rows.
fn small_table(set: &str) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let recipe = common::recipe("small", 24, "", "steps = 2", 2);
    fs_err::write(place.path().join("base.toml"), recipe).unwrap();
    let text = format!(
        r#"
title = "Small"
base = "base.toml"
seeds = [1, 2]
columns = ["dev.f1"]
[set]
{set}
[[rows]]
name = "one"
variant = "denoised"
[[rows]]
name = "two"
variant = "denoised"
set.dsdocre.decision = "threshold"
[[rows]]
name = "theirs"
published = "57.42"
"#
    );
    fs_err::write(place.path().join("table.toml"), text).unwrap();
    place
}
