//! Tests of `PrepareJob`: faulty, excluded and skipped documents, unknown pieces.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::corpus::formats::OnError;

/// A document with a label; its first mention is `[0, end)`.
fn document(title: &str, end: usize) -> Value {
    json!({
        "title": title,
        "sents": [["Ada", "ran", "Unit"]],
        "vertexSet": [
            [{"name": "Ada", "sent_id": 0, "pos": [0, end], "type": "PER"}],
            [{"name": "Unit", "sent_id": 0, "pos": [2, 3], "type": "ORG"}],
        ],
        "labels": [{"h": 0, "t": 1, "r": "runs", "evidence": []}],
    })
}

struct Files {
    folder: tempfile::TempDir,
    inputs: Vec<InputFile>,
}

/// Two files, each with a document that cannot be read, and a vocabulary.
fn files(pieces: &str) -> Files {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let documents = [[document("a", 0), document("b", 1)], [document("c", 1), document("d", 9)]];
    for (name, documents) in ["x.json", "y.json"].iter().zip(documents) {
        fs_err::write(path(name), json!(documents).to_string()).unwrap();
    }
    let special = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
    fs_err::write(path("vocab.txt"), format!("{special}{pieces}")).unwrap();
    let inputs = InputFile::all(&[path("x.json"), path("y.json")], Format::DOCRED);
    Files { folder, inputs }
}

impl Files {
    fn prepare(&self, read: &ReadOptions) -> Result<PrepareReport> {
        let path = |name: &str| self.folder.path().join(name);
        let relations = relations_in(&self.inputs, read)?;
        PrepareJob::new(&self.inputs, read, &path("out"), &path("vocab.txt"), &relations).run()
    }

    fn list(&self) -> PathBuf {
        self.folder.path().join("out.left-out.jsonl")
    }
}

#[test]
fn the_error_lists_the_faulty_documents_of_all_files() {
    let files = files("ada\nran\nunit\n");
    let error = files.prepare(&ReadOptions::default()).unwrap_err();
    assert_eq!(error.exit_code(), 65);
    let text = error.to_string();
    assert!(text.contains("x.json, row 0, document `a`"), "{text}");
    assert!(text.contains("y.json, row 1, document `d`"), "{text}");
    assert!(!files.list().exists());
}

#[test]
fn skipped_documents_are_counted_and_listed_beside_the_output() {
    let files = files("ada\nran\nunit\n");
    let read = ReadOptions { on_error: OnError::Skip, ..ReadOptions::default() };
    let report = files.prepare(&read).unwrap();
    assert_eq!((report.manifest.documents, report.left_out), (2, 2));
    assert_eq!(report.pieces, crate::shards::PieceCount { all: 6, unknown: 0 });
    let list = fs_err::read_to_string(files.list()).unwrap();
    let titles: Vec<Value> = list
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["title"].clone())
        .collect();
    assert_eq!(titles, ["a", "d"]);
}

#[test]
fn excluded_titles_may_be_faulty() {
    let files = files("ada\nran\nunit\n");
    let titles: HashSet<String> = ["a", "b", "d"].map(String::from).into();
    let read = ReadOptions { excluded: Some(Arc::new(titles.clone())), ..ReadOptions::default() };
    let report = files.prepare(&read).unwrap();
    assert_eq!((report.manifest.documents, report.left_out), (2, 0));
    fs_err::remove_dir_all(files.folder.path().join("out")).unwrap();
    let [output, vocabulary] = ["out", "vocab.txt"].map(|name| files.folder.path().join(name));
    let relations = relations_in(&files.inputs, &read).unwrap();
    let job = PrepareJob {
        exclude: Some(&titles),
        ..PrepareJob::new(&files.inputs, &read, &output, &vocabulary, &relations)
    };
    assert_eq!(job.run().unwrap().manifest.documents, 1);
}

#[test]
fn the_share_of_unknown_pieces_is_told_and_all_unknown_is_an_error() {
    let read = ReadOptions { on_error: OnError::Skip, ..ReadOptions::default() };
    let report = files("ada\nran\n").prepare(&read).unwrap();
    assert!(report.pieces.warning().unwrap().contains("2 of 6 pieces are unknown (33.3 %)"));
    assert!(report.to_string().contains("2 of 6 pieces are unknown (33.3 %)"), "{report}");
    let error = files("other\n").prepare(&read).unwrap_err();
    assert!(error.to_string().contains("all 6 pieces are unknown"), "{error}");
    assert_eq!((error.exit_code(), error.hint().is_some()), (65, true));
}
