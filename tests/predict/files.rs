//! `predict` from files into files: the same bytes on any number of ranks, from files and from
//! shards, without a break and after one.

use std::path::Path;
use std::time::{Duration, Instant};

use docre::read_predictions;
use serde_json::{Value, json};

use crate::place::{ATLOP, DREEAM, Model, Place, RANKED, documents, finish, wait_for, world};

/// How long a request to stop may take.
const PROMPT: Duration = Duration::from_secs(10);

/// Documents enough for several chunks: the generated ones over and over, with titles of their own.
fn many(count: usize) -> Vec<Value> {
    let some = documents();
    let numbered = |number: usize| {
        let mut document = some[number % some.len()].clone();
        document["title"] = json!(format!("document {number}"));
        document
    };
    (0..count).map(numbered).collect()
}

#[test]
fn two_ranks_write_the_same_files_as_one() {
    let place = Place::new();
    place.write("in.json", &many(400));
    let files = |folder: &str| {
        format!(
            "--input in.json --output {folder}/p.json --zip --scores {folder}/s.parquet --review \
             {folder}/r.jsonl --review-band 0,1 --review-limit 50 --json {folder}/done.json"
        )
    };
    for model in [ATLOP, RANKED] {
        place.good(&model.predict(&files("one")));
        place.good(&format!("launch -n 2 {}", model.predict(&files("two"))));
        for name in ["p.json", "result.zip", "s.parquet", "r.jsonl"] {
            let [one, two] = ["one", "two"].map(|folder| place.bytes(&format!("{folder}/{name}")));
            assert!(one == two && !one.is_empty(), "{name} of {model:?}");
        }
        let done = place.json("two/done.json");
        assert_eq!((&done["documents"], &done["review"]), (&json!(400), &json!(50)));
        for folder in ["one", "two"] {
            let left = fs_err::read_dir(place.path(folder)).unwrap().count();
            assert_eq!(left, 5, "something is left in {folder}");
        }
    }
}

#[test]
fn a_stopped_prediction_goes_on_to_the_same_files() {
    let place = Place::new();
    place.write("in.json", &many(1_200));
    let files = |folder: &str, more: &str| {
        ATLOP.predict(&format!(
            "--input in.json --output {folder}/p.json --zip --scores {folder}/s.parquet --review \
             {folder}/r.jsonl --review-band 0,1 --review-limit 20 {more}"
        ))
    };
    place.good(&files("calm", ""));
    for start in ["", "launch -n 2 "] {
        let child = place.command(&format!("{start}{}", files("r", ""))).spawn().unwrap();
        let kept = || {
            let names = fs_err::read_dir(place.path("r/p.json.unfinished"));
            let names = names.into_iter().flatten().flatten();
            names.filter(|entry| entry.file_name().to_string_lossy().ends_with(".jsonl")).count()
        };
        wait_for("the first chunk", || kept() > 0);
        let asked = Instant::now();
        // SAFETY: a plain call about a process of this test.
        unsafe { libc::kill(i32::try_from(child.id()).unwrap(), libc::SIGTERM) };
        let outcome = finish(child);
        assert_eq!(outcome.code, Some(75), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("--resume"), "{}", outcome.stderr);
        assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
        assert!(!place.path("r/p.json").exists() && kept() > 0);

        place.bad(
            &files("r", "--resume --threshold 0.5").replace(ATLOP.flags, ""),
            65,
            &["p.json.unfinished", "other options", "hint: "],
        );
        // One rank goes on with the work of two.
        place.good(&files("r", "--resume"));
        for name in ["p.json", "result.zip", "s.parquet", "r.jsonl"] {
            let [calm, own] = ["calm", "r"].map(|folder| place.bytes(&format!("{folder}/{name}")));
            assert!(calm == own, "{name}");
        }
        assert!(!place.path("r/p.json.unfinished").exists());
        fs_err::remove_dir_all(place.path("r")).unwrap();
    }
}

#[test]
fn without_resume_a_prediction_begins_anew_and_says_so() {
    let place = Place::new();
    place.write("in.json", &documents());
    fs_err::create_dir(place.path("p.json.unfinished")).unwrap();
    fs_err::write(place.path("p.json.unfinished/part-000000000000-1.jsonl"), "no record").unwrap();
    let outcome = place.good(&ATLOP.predict("--input in.json --output p.json"));
    assert!(outcome.stderr.contains("p.json.unfinished: what"), "{}", outcome.stderr);
    assert!(!place.path("p.json.unfinished").exists());
    assert_eq!(place.json("p.json"), {
        place.good(&ATLOP.predict("--input in.json --output q.json --resume"));
        place.json("q.json")
    });
}

#[test]
fn shards_and_several_inputs_give_the_predictions_of_one_file() {
    let place = Place::new();
    let documents = documents();
    place.write("all.json", &documents);
    place.write("first.json", &documents[..5]);
    place.write("rest.json", &documents[5..]);
    let prepare = |vocabulary: &str, name: &str, input: &str| {
        let (tokenizer, relations) = (world(vocabulary), world("rel_info.json"));
        place.good(&format!(
            "prepare --format docred --input {input} --output {name} --tokenizer {tokenizer} \
             --relations {relations}"
        ));
    };
    prepare("tokenizer", "all", "all.json");
    prepare("tokenizer", "rest", "rest.json");
    for model in [ATLOP, DREEAM, RANKED] {
        let predict = |input: &str, output: &str| {
            place.good(&model.predict(&format!("--input {input} --output {output}")));
            place.bytes(output)
        };
        let whole = predict("all.json", "p.json");
        assert!(whole.len() > 10);
        for input in ["all", "first.json rest.json", "first.json rest", "all --format shards"] {
            assert!(predict(input, "q.json") == whole, "{input} with {model:?}");
        }
    }
    let review = "--output p.json --review-band 0,1 --review";
    place.good(&ATLOP.predict(&format!("--input all.json {review} a.jsonl")));
    place.good(&ATLOP.predict(&format!("--input all {review} b.jsonl")));
    assert_eq!(place.bytes("a.jsonl"), place.bytes("b.jsonl"));

    let refused = |input: &str, parts: &[&str]| {
        place.bad(&ATLOP.predict(&format!("--input {input} --output x.json")), 65, parts);
        assert!(!place.path("x.json").exists());
    };
    refused("first.json all.json", &["all.json", "the same title", "first.json", "hint: "]);
    refused("rest.json all", &["the same title", "hint: "]);
    let mut vocabulary = fs_err::read_to_string(world("tokenizer/vocab.txt")).unwrap();
    vocabulary.push_str("another\n");
    fs_err::write(place.path("vocab.txt"), vocabulary).unwrap();
    place.good(&format!(
        "prepare --format docred --input all.json --output other --tokenizer vocab.txt --relations \
         {}",
        world("rel_info.json")
    ));
    refused("other", &["other", "another tokeniser", "hint: "]);
}

#[test]
fn a_table_holds_what_the_list_holds_and_is_scored_and_joined_alike() {
    let place = Place::new();
    place.write("in.json", &documents());
    for model in [ATLOP, DREEAM] {
        place.good(&model.predict("--input in.json --output p.json"));
        place.good(&model.predict("--input in.json --output p.parquet --zip"));
        let read = |name: &str| read_predictions(&place.path(name)).unwrap();
        assert!(!read("p.json").is_empty());
        for name in ["p.parquet", "result.zip"] {
            assert_eq!(read(name), read("p.json"), "{name}");
        }
        for name in ["p.json", "p.parquet"] {
            let files = format!("--gold in.json --predictions {name} --json {name}.scores");
            place.good(&format!("evaluate {files}"));
            place
                .good(&format!("graph --predictions {name} --documents in.json --output g-{name}"));
        }
        let mut scores = ["p.json", "p.parquet"].map(|name| place.json(&format!("{name}.scores")));
        scores.iter_mut().for_each(|scores| {
            for own in ["output", "seconds", "documents_per_s"] {
                scores.as_object_mut().unwrap().shift_remove(own);
            }
        });
        assert_eq!(scores[0]["official"], scores[1]["official"]);
        let edges = |name: &str| {
            let folder = place.path(format!("g-{name}"));
            let mut names: Vec<_> = fs_err::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .filter(|name| Path::new(name).extension().is_some_and(|end| end == "parquet"))
                .collect();
            names.sort();
            let bytes = |name| fs_err::read(folder.join(name)).unwrap();
            names.into_iter().map(bytes).collect::<Vec<_>>()
        };
        let [list, table] = ["p.json", "p.parquet"].map(edges);
        assert!(list == table && !list.is_empty());
        for name in ["g-p.json", "g-p.parquet"] {
            fs_err::remove_dir_all(place.path(name)).unwrap();
        }
    }
}

#[test]
fn a_pipe_is_read_and_written_once() {
    let place = Place::new();
    let documents = documents();
    place.write("in.json", &documents);
    place.good(&ATLOP.predict("--input in.json --output p.json"));
    let line = ATLOP.predict("--input /dev/stdin --output /dev/stdout");
    let outcome = place.call(&line, &place.bytes("in.json"));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, place.bytes("p.json"));
    place.bad(
        &ATLOP.predict("--input /dev/stdin --output q.json --resume"),
        64,
        &["--resume needs", "hint: "],
    );
}

/// A bad document is told before anything is predicted, wherever it stands.
#[test]
fn a_document_that_cannot_be_read_is_told_first() {
    let place = Place::new();
    let mut documents = many(400);
    documents[399]["vertexSet"][0] = json!([]);
    place.write("in.json", &documents);
    let model: Model = ATLOP;
    place.bad(&model.predict("--input in.json --output p.json"), 65, &["in.json, row 399"]);
    assert!(!place.path("p.json.unfinished").exists() && !place.path("p.json").exists());
}
