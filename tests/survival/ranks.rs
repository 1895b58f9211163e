//! Ranks that are stopped, slow, gone, different or broken, and requests that reach one of them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::common::{copy, program};
use super::place::{By, PATIENCE, Place};

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_stopped_rank_is_named_within_the_limit() {
    stopped_rank_is_named(By::Mpirun);
}

#[test]
fn a_stopped_rank_is_named_within_the_limit_over_c10d() {
    stopped_rank_is_named(By::Launch);
}

fn stopped_rank_is_named(by: By) {
    let place = Place::with(by);
    let mut started = place.start(2, "r", "--set pretrain.steps=100000 --set hang_limit_s=4");
    place.await_step("r", 3, &mut started);
    let process = place.process("r", 1);
    place.signal("r", 1, libc::SIGSTOP);
    let stopped = Instant::now();
    let ended = place.end(started);
    assert_eq!(ended.code, Some(71), "{}", ended.said);
    assert!(stopped.elapsed() < Duration::from_secs(60), "{:?}", stopped.elapsed());
    let sentence = ended
        .said
        .lines()
        .find(|line| line.starts_with("rank 1 on "))
        .unwrap_or_else(|| panic!("{}", ended.said));
    assert!(
        sentence.contains("no sign of life for") && sentence.contains("of pretrain"),
        "{sentence}"
    );
    let gone = || !Path::new("/proc").join(process.to_string()).exists();
    let end = Instant::now() + Duration::from_secs(10);
    while !gone() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(gone(), "the stopped process is left behind");
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn signals_stop_all_ranks_and_other_numbers_of_ranks_go_on() {
    signals_stop(
        By::Mpirun,
        &[
            (1, 0, libc::SIGUSR1),
            (2, 1, libc::SIGUSR2),
            (4, 3, libc::SIGTERM),
            (2, 0, libc::SIGINT),
        ],
    );
}

#[test]
fn signals_stop_all_ranks_over_c10d() {
    signals_stop(By::Launch, &[(4, 3, libc::SIGTERM), (2, 1, libc::SIGUSR2)]);
}

fn signals_stop(by: By, signals: &[(usize, usize, i32)]) {
    let place = Place::with(by);
    place.prepared(1);
    place.fresh("r");
    for &(ranks, rank, signal) in signals {
        let before = place.metrics("r").keys().last().copied().unwrap_or_default();
        let mut started = place.start(ranks, "r", "--resume");
        place.await_step("r", before + 3, &mut started);
        place.signal("r", rank, signal);
        let ended = place.end(started);
        let last = *place.metrics("r").keys().last().unwrap();
        assert_eq!(
            ended.code,
            Some(75),
            "signal {signal} to rank {rank} of {ranks} by step {last}:\n{}",
            ended.said
        );
        assert!(
            place.path(format!("r/checkpoints/pretrain/step-{last:08}/MANIFEST.json")).exists(),
            "no checkpoint of step {last}"
        );
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
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn stop_and_save_files_work_on_several_ranks() {
    let place = Place::new();
    let mut started =
        place.start(2, "r", "--set pretrain.steps=100000 --set pretrain.checkpoint_steps=0");
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
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_rank_with_another_recipe_is_named_at_the_start() {
    let place = Place::new();
    let program = program();
    let run = format!("{} run recipe.toml --run-dir r", program.display());
    let ended =
        place.end(place.mpirun(&format!("-n 1 {run} : -n 1 {run} --set pretrain.steps=41")));
    assert_eq!(ended.code, Some(64), "{}", ended.said);
    let told =
        "the recipe differs between ranks: rank 1 has `steps = 41`, the others have `steps = 40`";
    assert!(ended.said.contains(told) && ended.said.contains("hint: "), "{}", ended.said);
    assert!(ended.took < Duration::from_secs(60), "{:?}", ended.took);
}

/// A library that ends the process whose number is written to a file, at once and with 0, as a
/// careless library does it.
const QUITTER: &str = r#"
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
static void *wait_for_it(void *path) {
  for (;; usleep(2000)) {
    char text[32] = {0};
    int file = open(path, O_RDONLY);
    if (file < 0) continue;
    if (read(file, text, sizeof text - 1) > 0 && atoi(text) == getpid()) _exit(0);
    close(file);
  }
}
static void in_child(void) {
  pthread_t thread;
  if (getenv("DOCRE_TEST_QUIT")) pthread_create(&thread, 0, wait_for_it, getenv("DOCRE_TEST_QUIT"));
}
__attribute__((constructor)) static void start(void) { pthread_atfork(0, 0, in_child); }
"#;

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_rank_that_leaves_in_the_middle_with_code_0_is_named() {
    let place = Place::new();
    fs_err::write(place.path("quitter.c"), QUITTER).unwrap();
    let compiler = Command::new("cc")
        .args(["-shared", "-fPIC", "-o", "quitter.so", "quitter.c", "-lpthread"])
        .current_dir(place.path(""))
        .status();
    assert!(compiler.unwrap().success(), "the build of this program needs a compiler as well");
    let (library, order) = (place.path("quitter.so"), place.path("quit"));
    let run =
        format!("{} run recipe.toml --run-dir r --set pretrain.steps=100000", program().display());
    let quitter =
        format!("env LD_PRELOAD={} DOCRE_TEST_QUIT={}", library.display(), order.display());
    let mut started = place.mpirun(&format!("-n 1 {run} : -n 1 {quitter} {run}"));
    place.await_step("r", 3, &mut started);
    fs_err::write(&order, place.process("r", 1).to_string()).unwrap();
    let told = Instant::now();
    let ended = place.end(started);
    assert!(told.elapsed() < Duration::from_secs(60), "{:?}", told.elapsed());
    assert_eq!(ended.code, Some(71), "{}", ended.said);
    let sentence = ended
        .said
        .lines()
        .find(|line| line.starts_with("rank 1 on "))
        .unwrap_or_else(|| panic!("{}", ended.said));
    assert!(
        sentence.contains("left with exit code 0 in the middle of its work")
            && sentence.contains("of pretrain"),
        "{sentence}"
    );
}

/// Other work on the machine slows the other rank too, so there are three attempts.
#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_rank_three_times_as_slow_is_named_in_the_metrics() {
    slow_rank_is_named_in_three_attempts(By::Mpirun);
}

#[test]
fn a_rank_three_times_as_slow_over_c10d_is_named_too() {
    slow_rank_is_named_in_three_attempts(By::Launch);
}

fn slow_rank_is_named_in_three_attempts(by: By) {
    let attempts: Vec<String> = (0..3).map_while(|_| slow_rank_is_named(by).err()).collect();
    assert!(attempts.len() < 3, "{}", attempts.join("\n"));
}

fn slow_rank_is_named(by: By) -> Result<(), String> {
    let place = Place::with(by);
    let mut started =
        place.start(2, "r", "--set pretrain.steps=100000 --set pretrain.checkpoint_steps=0");
    place.await_step("r", 5, &mut started);
    let first = *place.metrics("r").keys().last().unwrap() + 2;
    // A third of the time is left to it.
    let end = Instant::now() + Duration::from_secs(6);
    while Instant::now() < end {
        place.signal("r", 1, libc::SIGSTOP);
        std::thread::sleep(Duration::from_millis(20));
        place.signal("r", 1, libc::SIGCONT);
        std::thread::sleep(Duration::from_millis(10));
    }
    let slow: Vec<_> = place
        .metrics("r")
        .into_values()
        .filter(|line| line["step"].as_u64().unwrap() >= first)
        .collect();
    fs_err::write(place.path("r/STOP"), "").unwrap();
    assert_eq!(place.end(started).code, Some(75), "slow is not hung");
    let named = slow.iter().filter(|line| line["straggler_rank"] == 1.0).count();
    let mut scores: Vec<f64> =
        slow.iter().map(|line| line["straggler"].as_f64().unwrap()).collect();
    scores.sort_by(f64::total_cmp);
    let median = scores.get(scores.len() / 2).copied().unwrap_or(0.0);
    if slow.len() >= 5 && named * 10 >= slow.len() * 9 && median > 1.8 {
        return Ok(());
    }
    let steps = slow.len();
    Err(format!("rank 1 in {named} of {steps} steps, {median} times as long: {scores:?}"))
}

/// A table of word vectors for the words of the generated corpus; `vector` gives the numbers of a
/// word.
fn word_vectors(place: &Place, run: &str, folder: &str, vector: impl Fn(&str) -> String) {
    let vocabulary =
        fs_err::read_to_string(place.path(run).join("data/world/tokenizer/vocab.txt")).unwrap();
    let words = vocabulary.lines().filter(|word| !word.starts_with('[') && !word.starts_with("##"));
    let lines: Vec<String> = words.map(|word| format!("{word} {}\n", vector(word))).collect();
    fs_err::create_dir_all(place.path(folder)).unwrap();
    fs_err::write(place.path(folder).join("vectors.txt"), lines.concat()).unwrap();
}

/// Fine-tuning of a BiLSTM over word vectors in the folder that a rank works in.
const OVER_VECTORS: &str = "--set variants=[\"baseline\"] --set encoder.name=bilstm --set \
    encoder.word_vectors=/proc/self/cwd/vectors.txt";

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn ranks_whose_shapes_differ_are_named() {
    let place = Place::new();
    place.finish(1, "world", "--set variants=[\"baseline\"]");
    word_vectors(&place, "world", "a", |_| "0.5 ".repeat(8).trim_end().to_owned());
    word_vectors(&place, "world", "b", |_| "0.5 ".repeat(9).trim_end().to_owned());
    let (recipe, run) = (place.path("recipe.toml"), place.path("r"));
    let run = format!(
        "{} run {} --run-dir {} {OVER_VECTORS}",
        program().display(),
        recipe.display(),
        run.display()
    );
    let (a, b) = (place.path("a"), place.path("b"));
    let ended = place.end(place.mpirun(&format!(
        "-n 1 -wdir {} {run} : -n 1 -wdir {} {run}",
        a.display(),
        b.display()
    )));
    assert_eq!(ended.code, Some(64), "{}", ended.said);
    let line = ended
        .said
        .lines()
        .find(|line| line.contains("the list of parameters differs between ranks"))
        .unwrap_or_else(|| panic!("{}", ended.said));
    assert!(
        line.contains("rank 1 has") && line.contains(", 9]") && line.contains(", 8]"),
        "{line}"
    );
}

/// A word piece of the generated corpus that one human document has and no document of dev and
/// test, with the title of that document.
fn piece_of_one_document(place: &Place, run: &str) -> (usize, String) {
    let world = place.path(run).join("data/world");
    let documents = |name: &str| -> Vec<(String, Vec<String>)> {
        let list: Vec<Value> =
            serde_json::from_slice(&fs_err::read(world.join(name)).unwrap()).unwrap();
        let words = |document: &Value| {
            document["sents"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|sentence| sentence.as_array().unwrap().clone())
                .collect()
        };
        let lower = |words: Vec<Value>| {
            words.iter().map(|word| word.as_str().unwrap().to_lowercase()).collect()
        };
        list.iter()
            .map(|document| {
                (document["title"].as_str().unwrap().to_owned(), lower(words(document)))
            })
            .collect()
    };
    let (human, rest) = (
        documents("train_annotated.json"),
        [documents("dev.json"), documents("test.json")].concat(),
    );
    let vocabulary = fs_err::read_to_string(world.join("tokenizer/vocab.txt")).unwrap();
    let has = |words: &[String], piece: &str| {
        words.iter().any(|word| word.starts_with(&piece.to_lowercase()))
    };
    let only = |(id, piece): (usize, &str)| {
        let titles: Vec<&String> =
            human.iter().filter(|(_, words)| has(words, piece)).map(|(title, _)| title).collect();
        let fits = piece.len() > 2
            && !piece.starts_with(['[', '#'])
            && !rest.iter().any(|(_, words)| has(words, piece));
        let whole = human.iter().any(|(_, words)| words.contains(&piece.to_lowercase()));
        (fits && whole && titles.len() == 1).then(|| (id, titles[0].clone()))
    };
    vocabulary.lines().enumerate().find_map(only).unwrap()
}

/// Makes the vector of one word piece of an encoder's folder a row of NaN.
fn break_piece(folder: &Path, piece: usize) {
    let path = folder.join("model.safetensors");
    let mut bytes = fs_err::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let index: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let (_, table) = index
        .as_object()
        .unwrap()
        .iter()
        .find(|(name, _)| name.ends_with("word_embeddings.weight"))
        .unwrap();
    let width = table["shape"][1].as_u64().unwrap() as usize;
    let start = header + table["data_offsets"][0].as_u64().unwrap() as usize + 4 * width * piece;
    bytes[start..start + 4 * width].copy_from_slice(&f32::NAN.to_le_bytes().repeat(width));
    fs_err::write(path, bytes).unwrap();
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_document_that_is_not_finite_on_one_rank_changes_no_weight_on_any() {
    let place = Place::new();
    place.finish(1, "world", "--set variants=[\"baseline\"] --set finetune.steps=1");
    let (piece, title) = piece_of_one_document(&place, "world");
    copy(&place.path("world/checkpoints/finetune-baseline/step-00000001"), &place.path("broken"));
    break_piece(&place.path("broken"), piece);
    let settings = "--set variants=[\"baseline\"] --set encoder.name=broken \
                    --set finetune.steps=4 \
                    --set finetune.checkpoint_steps=1 --set finetune.keep_checkpoints=9 \
                    --set finetune.compare_ranks_steps=1";
    let ended = place.end(place.start(2, "stopped", settings));
    assert_eq!(ended.code, Some(70), "{}", ended.said);
    assert!(
        ended.said.contains(&format!("made by `{title}`)")) && ended.said.contains("on rank "),
        "{title}:\n{}",
        ended.said
    );
    place.finish(2, "skipped", &format!("{settings} --set finetune.non_finite=\"skip\""));
    let said = fs_err::read_to_string(place.path("skipped/log/non-finite.jsonl")).unwrap();
    let findings: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!findings.is_empty() && findings.len() < 4, "{said}");
    for finding in &findings {
        assert_eq!(
            (&finding["documents"], finding["ranks"].as_array().unwrap().len()),
            (&serde_json::json!([title]), 1),
            "{said}"
        );
        let step = finding["step"].as_u64().unwrap();
        let tensors = |step: u64| {
            let folder =
                place.path(format!("skipped/checkpoints/finetune-baseline/step-{step:08}"));
            ["model", "heads", "optimizer"]
                .map(|name| fs_err::read(folder.join(format!("{name}.safetensors"))).unwrap())
        };
        if step > 1 {
            assert!(tensors(step) == tensors(step - 1), "step {step} changed something");
        }
    }
    assert!(findings.iter().any(|finding| finding["step"] != 1), "or nothing was compared: {said}");
}
