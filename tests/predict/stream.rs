//! `predict --stream`: one answer for each line, in order, whatever the lines are.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::place::{
    ATLOP, DREEAM, Model, Place, RANKED, documents, finish, lines, wait_for, world,
};

fn joined(documents: &[Value]) -> Vec<u8> {
    documents.iter().flat_map(|document| format!("{document}\n").into_bytes()).collect()
}

/// A document in the words of JSONL.
fn in_jsonl(document: &Value) -> Value {
    let mention = |mention: &Value| {
        json!({"name": mention["name"], "type": mention["type"], "sentence": mention["sent_id"],
            "start": mention["pos"][0], "end": mention["pos"][1]})
    };
    let entity = |mentions: &Value| {
        let mentions: Vec<_> = mentions.as_array().unwrap().iter().map(mention).collect();
        json!({"mentions": mentions})
    };
    let entities: Vec<_> = document["vertexSet"].as_array().unwrap().iter().map(entity).collect();
    json!({"title": document["title"], "sentences": document["sents"], "entities": entities})
}

/// The facts of answers as they stand in a file of predictions.
fn as_predictions(answers: &[Value]) -> Vec<Value> {
    let fact = |answer: &Value, fact: &Value| {
        let mut fields = serde_json::Map::from_iter([("title".into(), answer["title"].clone())]);
        fields.extend(fact.as_object().unwrap().clone());
        fields.shift_remove("relation");
        Value::Object(fields)
    };
    let of_answer = |answer: &Value| {
        let facts = answer["facts"].as_array().unwrap().iter();
        facts.map(|one| fact(answer, one)).collect::<Vec<_>>()
    };
    answers.iter().flat_map(of_answer).collect()
}

fn stream(place: &Place, model: Model, more: &str, input: &[u8]) -> Vec<Value> {
    let outcome = place.call(&model.predict(&format!("--stream {more}")), input);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    lines(&outcome.stdout)
}

#[test]
fn answers_are_the_predictions_of_the_same_documents_in_a_file() {
    let place = Place::new();
    let documents = documents();
    place.write("in.json", &documents);
    let jsonl: Vec<Value> = documents.iter().map(in_jsonl).collect();
    fs_err::write(place.path("in.jsonl"), joined(&jsonl)).unwrap();
    for model in [ATLOP, DREEAM, RANKED] {
        place.good(&model.predict("--input in.json --output p.json"));
        place.good(&model.predict("--input in.jsonl --format jsonl --output q.json"));
        assert_eq!(place.bytes("p.json"), place.bytes("q.json"), "{model:?}");
        let expected = place.json("p.json");
        assert!(!expected.as_array().unwrap().is_empty(), "{model:?} finds nothing");
        for form in [&documents, &jsonl] {
            let answers = stream(&place, model, "", &joined(form));
            assert_eq!(Value::from(as_predictions(&answers)), expected, "{model:?}");
            let numbers: Vec<_> = answers.iter().map(|answer| answer["line"].as_u64()).collect();
            assert!(numbers.iter().copied().eq((1..=documents.len() as u64).map(Some)));
        }
    }
    // As bytes too: the fields of a fact stand in the same order.
    let outcome = place.call(&ATLOP.predict("--stream"), &joined(&documents[..1]));
    let answer = String::from_utf8(outcome.stdout).unwrap();
    assert!(answer.starts_with(r#"{"line":1,"title":""#), "{answer}");
    assert!(answer.contains(r#""facts":[{"h_idx":"#), "{answer}");
    let names = place.json(&world("rel_info.json"));
    let facts = lines(answer.as_bytes())[0]["facts"].as_array().unwrap().clone();
    for fact in &facts {
        assert_eq!(fact["relation"], names[fact["r"].as_str().unwrap()], "{fact}");
        let keys: Vec<_> = fact.as_object().unwrap().keys().map(String::as_str).collect();
        let expected =
            ["h_idx", "t_idx", "r", "evidence", "score", "confidence", "relation"].as_slice();
        assert_eq!(keys, expected, "{fact}");
    }
    assert!(!facts.is_empty());
}

#[test]
fn an_answer_names_entities_and_the_words_of_running_text() {
    let place = Place::new();
    let line = json!({
        "text": "Ada Byron left Leeds. She ran a mill.",
        "entities": [
            {"id": "Q1", "type": "PER",
                "mentions": [{"start": 0, "end": 9}, {"start": 22, "end": 25}]},
            {"type": "LOC", "mentions": [{"start": 15, "end": 20}]},
        ],
        "facts": [{"head": 0, "tail": 1, "relation": "no such relation"}],
    });
    let all = Model { flags: "--threshold 0", ..ATLOP };
    let answers = stream(&place, all, "", &joined(&[line, documents().remove(0)]));
    assert_eq!(answers[0]["title"], "line 1");
    assert_eq!(
        answers[0]["entities"],
        json!([{"name": "Ada Byron", "type": "PER", "id": "Q1"}, {"name": "Leeds", "type": "LOC"}])
    );
    let words = json!([["Ada", "Byron", "left", "Leeds", "."], ["She", "ran", "a", "mill", "."]]);
    assert_eq!(answers[0]["sentences"], words);
    assert!(!answers[0]["facts"].as_array().unwrap().is_empty());
    assert!(answers[1].get("sentences").is_none(), "the caller has the words");
}

/// Lines that are no documents, each with a part of what is said of it.
fn damaged(document: &Value) -> Vec<(Vec<u8>, &'static str)> {
    let with = |field: &str, value: Value| {
        let mut document = document.clone();
        document[field] = value;
        document.to_string().into_bytes()
    };
    let cut = document.to_string();
    vec![
        (b"".to_vec(), "empty"),
        (b"   ".to_vec(), "empty"),
        (b"\xff\xfe{}".to_vec(), "UTF-8"),
        (b"{\"title\": \"\xc3\"}".to_vec(), "UTF-8"),
        (cut.as_bytes()[..cut.len() / 2].to_vec(), "JSON"),
        (format!("[{document}]").into_bytes(), "a list"),
        (b"17".to_vec(), "JSON"),
        (b"null".to_vec(), "JSON"),
        (b"{}".to_vec(), "neither `text` nor `sentences`"),
        (b"{\"title\": NaN}".to_vec(), "JSON"),
        (with("sents", json!("text")), "invalid type"),
        (with("vertexSet", json!([[]])), "no mentions"),
        (
            with("vertexSet", json!([[{"name": "x", "sent_id": 99, "pos": [0, 1], "type": "T"}]])),
            "out of range",
        ),
        ("[".repeat(200_000).into_bytes(), "a list"),
        ("{\"a\":".repeat(100_000).into_bytes(), "JSON"),
    ]
}

#[test]
fn a_damaged_line_costs_one_error_and_nothing_else() {
    let place = Place::new();
    let documents = documents();
    let good = stream(&place, ATLOP, "", &joined(&documents));
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut input, mut expected) = (Vec::new(), Vec::new());
    let faults = damaged(&documents[0]);
    for round in 0..20 {
        for (fault, part) in &faults {
            input.extend_from_slice(fault);
            input.push(b'\n');
            expected.push(Err(*part));
            if rng.random_bool(0.3) {
                let number = (round + expected.len()) % documents.len();
                input.extend(joined(&documents[number..=number]));
                expected.push(Ok(number));
            }
        }
    }
    // The last line has no end.
    input.extend(documents[1].to_string().bytes());
    expected.push(Ok(1));
    let answers = stream(&place, ATLOP, "", &input);
    assert_eq!(answers.len(), expected.len());
    for (number, (answer, expected)) in answers.iter().zip(expected).enumerate() {
        assert_eq!(answer["line"], json!(number + 1));
        match expected {
            Ok(document) => {
                assert_eq!(answer["facts"], good[document]["facts"]);
                assert_eq!(answer["entities"], good[document]["entities"]);
            }
            Err(part) => {
                let message = answer["error"]["message"].as_str().unwrap();
                assert!(message.contains(part), "line {}: {answer}", number + 1);
                assert!(answer["error"]["hint"].is_string(), "{answer}");
            }
        }
    }
}

/// Mutations of good lines: whatever they are, each has one answer.
#[test]
fn mutated_lines_have_one_answer_each() {
    let place = Place::new();
    let documents = documents();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut input = Vec::new();
    let count = 300;
    for number in 0..count {
        let document = &documents[number % documents.len()];
        let document = if number % 2 == 0 { document.clone() } else { in_jsonl(document) };
        let mut line = document.to_string().into_bytes();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..line.len());
            match rng.random_range(0..4) {
                0 => line[at] ^= 1 << rng.random_range(0..8),
                1 => drop(line.drain(at..(at + rng.random_range(0..12)).min(line.len()))),
                2 => line.insert(at, b"\"{}[],:-9"[rng.random_range(0..9)]),
                _ => line.truncate(line.len() - rng.random_range(0..9)),
            }
        }
        line.retain(|byte| *byte != b'\n');
        input.extend(line);
        input.push(b'\n');
    }
    let answers = stream(&place, ATLOP, "", &input);
    assert_eq!(answers.len(), count);
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer["line"], json!(number + 1));
        assert!(answer["facts"].is_array() != answer["error"].is_object(), "{answer}");
    }
}

#[test]
fn a_document_that_is_too_long_is_refused_alone_and_truncated_on_request() {
    let place = Place::new();
    let documents = documents();
    let mut long = documents[0].clone();
    let sentences = long["sents"].as_array().unwrap().clone();
    long["sents"] = (0..200).flat_map(|_| sentences.clone()).collect();
    let lines = [documents[1].clone(), long, documents[2].clone()];
    let answers = stream(&place, RANKED, "", &joined(&lines));
    assert!(answers[1]["error"]["hint"].as_str().unwrap().contains("--truncate"), "{}", answers[1]);
    assert_eq!(answers[1]["title"], documents[0]["title"]);
    let good = stream(&place, RANKED, "", &joined(&[lines[0].clone(), lines[2].clone()]));
    assert_eq!(
        [&answers[0]["facts"], &answers[2]["facts"]],
        [&good[0]["facts"], &good[1]["facts"]]
    );
    let answers = stream(&place, RANKED, "--truncate", &joined(&lines));
    assert!(answers.iter().all(|answer| answer["facts"].is_array()), "{}", answers[1]);
}

#[test]
fn a_lone_line_is_answered_at_once_and_a_request_to_stop_ends_the_stream() {
    let place = Place::new();
    let documents = documents();
    let mut command = place.command(&ATLOP.predict("--stream"));
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for (number, document) in documents[..3].iter().enumerate() {
        // The next line is sent once this one is answered.
        writeln!(input, "{document}").unwrap();
        let mut answer = String::new();
        output.read_line(&mut answer).unwrap();
        assert_eq!(lines(answer.as_bytes())[0]["line"], json!(number + 1));
    }
    // SAFETY: a plain call about a process of this test.
    unsafe { libc::kill(i32::try_from(child.id()).unwrap(), libc::SIGTERM) };
    wait_for("the end", || child.try_wait().unwrap().is_some());
    drop(input);
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(75), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("3 documents, 0 lines"), "{}", outcome.stderr);
}

#[test]
fn a_closed_output_ends_the_stream_without_a_word() {
    let place = Place::new();
    let mut command = place.command(&ATLOP.predict("--stream"));
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    drop(child.stdout.take());
    let documents = joined(&documents());
    let written = std::thread::spawn(move || while input.write_all(&documents).is_ok() {});
    let outcome = finish(child);
    written.join().unwrap();
    assert_eq!(outcome.code, Some(141), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("error"), "{}", outcome.stderr);
}

#[test]
fn what_does_not_go_with_a_stream_is_refused() {
    let place = Place::new();
    place.bad(&ATLOP.predict("--stream --input x.json"), 2, &["--stream", "--input"]);
    place.bad(&ATLOP.predict("--stream --review-limit 3"), 2, &["--stream"]);
    place.bad(&ATLOP.predict(""), 2, &["--input", "--output"]);
    place.bad(&ATLOP.predict("--stream --min-confidence 2"), 64, &["--min-confidence 2", "hint: "]);
    let launched = format!("launch -n 2 {}", ATLOP.predict("--stream"));
    place.bad(&launched, 64, &["several ranks", "hint: "]);
    let outcome = place.call(&ATLOP.predict("--stream --json done.json"), b"");
    assert_eq!((outcome.code, outcome.stdout.len()), (Some(0), 0));
    let done = place.json("done.json");
    assert_eq!((&done["documents"], &done["errors"]), (&json!(0), &json!(0)));
}
