//! Raw text in: from files of text and names to documents that every verb reads.
//!
//! Not for: which names, dates and spans are found (`src/corpus`).
#![allow(clippy::unwrap_used, reason = "a call that fails fails its test")]

use std::path::PathBuf;
use std::process::Command;

use common::{free_of_launchers, program};
use serde_json::{Value, json};
use tempfile::TempDir;

#[allow(dead_code, reason = "shared with other tests")]
mod common;

const NAMES: &str = "Q1\tPER\tAda Byron\tAda\nQ2\tLOC\tLeeds\nQ3\tORG\tUnit 7\tthe Unit\n\
    Q4\tLOC\tEngland\nQ5\tLOC\tNew England\tEngland\n";

/// A folder and the program in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("names.tsv", NAMES);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs_err::read(self.path(name)).unwrap()).unwrap()
    }

    /// Runs the program, and gives what it says on both outputs.
    fn run(&self, line: &str, code: i32) -> String {
        let mut command = Command::new(program());
        free_of_launchers(&mut command);
        let output = command.current_dir(self.0.path()).args(line.split_whitespace()).output();
        let output = output.unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        said
    }
}

/// The entities of a document in DocRED's form: identifier, type and names.
fn entities(document: &Value) -> Vec<String> {
    let of = |mentions: &Value| {
        let mentions = mentions.as_array().unwrap();
        let names: Vec<&str> = mentions.iter().map(|it| it["name"].as_str().unwrap()).collect();
        let id = mentions[0]["kb_id"].as_str().unwrap_or("-");
        format!("{id} {} {}", mentions[0]["type"].as_str().unwrap(), names.join("|"))
    };
    document["vertexSet"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn texts_become_documents_that_are_labelled_and_surveyed() {
    let place = Place::new();
    place.write("texts/a.txt", "Ada Byron\n\nAda left Leeds in 1843. She ran Unit 7.");
    place.write("texts/b.txt", "England is large.");
    place.write("texts/c.txt", "Nothing here.");
    let all = "--dictionary names.tsv --find dates,numbers";
    let said = place.run(&format!("annotate --input texts {all} --output d.json --json r.json"), 0);
    for part in [
        "7 names of 5 things",
        "3 documents, 5 sentences",
        "5 of the dictionary, 1 dates, 0 numbers",
        "1 documents have no mention",
        "1 documents have one entity alone",
        "`England` (Q4, Q5)",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let report = place.json("r.json");
    assert_eq!(report["found"]["ambiguous"]["England"]["candidates"], json!(["Q4", "Q5"]));
    assert_eq!((&report["documents"], &report["mentions"]), (&json!(3), &json!(6)));
    let documents = place.json("d.json");
    assert_eq!(documents[0]["title"], "a");
    assert_eq!(documents[0]["sents"][0], json!(["Ada", "Byron"]));
    assert_eq!(documents[0].get("labels"), None);
    let expected = ["Q1 PER Ada Byron|Ada", "Q2 LOC Leeds", "- TIME 1843", "Q3 ORG Unit 7"];
    assert_eq!(entities(&documents[0]), expected);
    assert_eq!(entities(&documents[1]), ["- LOC England"]);
    place.write("facts.tsv", "Q1\tQ2\tP551\nAda\tUnit 7\tP108\n");
    let said = place.run("label --facts facts.tsv --input d.json --output l.json", 0);
    assert!(said.contains("2 labels of 2 relations in 1 of 3 documents"), "{said}");
    place.run("survey --format docred --input l.json", 0);
}

#[test]
fn documents_with_mentions_get_more_and_keep_what_they_have() {
    let place = Place::new();
    let spacy = json!({
        "title": "s", "text": "Ada Byron left Leeds for Rome.",
        "ents": [
            {"start": 0, "end": 9, "label": "PERSON"}, {"start": 25, "end": 29, "label": "GPE"},
        ],
        "tokens": [
            {"start": 0, "end": 3}, {"start": 4, "end": 9}, {"start": 10, "end": 14},
            {"start": 15, "end": 20}, {"start": 21, "end": 24}, {"start": 25, "end": 29},
            {"start": 29, "end": 30},
        ],
        "facts": [{"head": 0, "tail": 1, "relation": "P1"}],
    });
    let bare = json!({"text": "Ada saw Leeds."});
    place.write("in.jsonl", &format!("{spacy}\n{bare}\n"));
    let line = "annotate --format jsonl --input in.jsonl --dictionary names.tsv --to jsonl";
    let said = place.run(&format!("{line} --output plain.jsonl"), 0);
    assert!(said.contains("1 entities without identifier have a name"), "{said}");
    let types = "--rename-types PERSON=PER,GPE=LOC";
    place.run(&format!("{line} {types} --output out.jsonl"), 0);
    place.run("convert --format jsonl --input out.jsonl --to docred --output out.json", 0);
    let documents = place.json("out.json");
    assert_eq!(entities(&documents[0]), ["Q1 PER Ada Byron", "- LOC Rome", "Q2 LOC Leeds"]);
    assert_eq!(documents[0]["labels"][0], json!({"h": 0, "t": 1, "r": "P1", "evidence": []}));
    assert_eq!(documents[1]["title"], "in.jsonl:1");
    // Once more, over words: nothing is new.
    let again = "annotate --format docred --input out.json --dictionary names.tsv";
    let said = place.run(&format!("{again} --output again.json"), 0);
    assert!(said.contains("5 given, 0 of the dictionary"), "{said}");
    assert_eq!(place.json("again.json"), documents);
    // Without annotating, a line without mentions is an error.
    let said = place.run("convert --format jsonl --input in.jsonl --to docred --output x.json", 65);
    assert!(said.contains("row 1, document `in.jsonl:1`, field `entities`"), "{said}");
    assert!(said.contains("docre-pretrain annotate"), "{said}");
}

#[test]
fn what_cannot_be_annotated_is_named_and_may_be_left_out() {
    let place = Place::new();
    place.write("a/x.txt", "Ada.");
    place.write("b/x.txt", "Leeds.");
    let output = "--dictionary names.tsv --output o.json";
    let said = place.run(&format!("annotate --input a b {output}"), 65);
    assert!(said.contains("document `x`, field `title`: a has the title, too"), "{said}");
    assert!(!place.path("o.json").exists());
    let bad = json!({"title": "t", "text": "Ada", "ents": [{"start": 0, "end": 9, "label": "P"}]});
    let good = json!({"title": "u", "text": "Ada"});
    place.write("in.jsonl", &format!("{bad}\n{good}\n"));
    let said = place.run(&format!("annotate --input in.jsonl {output}"), 65);
    assert!(said.contains("in.jsonl, row 0, document `t`, field `ents[0].start`"), "{said}");
    let said = place.run(&format!("annotate --input in.jsonl --on-error skip {output}"), 0);
    assert!(said.contains("o.json.left-out.jsonl"), "{said}");
    assert_eq!(place.json("o.json").as_array().unwrap().len(), 1);
    place.run("annotate --input a --output o.json", 2);
    place.run(&format!("annotate --input a --rename-types PER {output}"), 64);
    place.run("annotate --input a --dictionary missing.tsv --output o.json", 74);
    place.run(&format!("annotate --input missing.txt {output}"), 74);
    place.write("names.tsv", "Q1\tPER\n");
    let said = place.run(&format!("annotate --input a {output}"), 65);
    assert!(said.contains("names.tsv, row 0") && said.contains("hint:"), "{said}");
}
