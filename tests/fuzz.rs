//! Mutated files at every reader of documents: each gives documents or an error about the data, never a panic and never a hang.
//!
//! A few seconds in the usual tests; `DOCRE_FUZZ_SECONDS=600 cargo test --test fuzz` for longer, `DOCRE_FUZZ_SEED` for other mutations. Not
//! for: what a reader makes of a good file.
#![allow(clippy::unwrap_used, reason = "a call that fails fails its test")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use docre::corpus::label::Matching;
use docre::corpus::{Document, FactBase, Format, MeshTree, ReadOptions, load_relations};
use docre::shards::read_document_table;
use docre::stages::{Form, convert};
use docre::{Error, Result};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Longest time one reading of a small file may take, in a debug build on a busy machine.
const LONGEST: Duration = Duration::from_secs(60);

const DOCRED: &str = r#"[{"title": "a", "sents": [["Ada", "ran", "a", "mill", "."], ["She", "left", "Leeds", "."]],
 "vertexSet": [[{"name": "Ada", "sent_id": 0, "pos": [0, 1], "type": "PER", "kb_id": "Q1"}, {"name": "She", "sent_id": 1, "pos": [0, 1], "type": "PER"}],
  [{"name": "Leeds", "sent_id": 1, "pos": [2, 3], "type": "LOC"}]],
 "labels": [{"h": 0, "t": 1, "r": "P1", "evidence": [1]}], "candidates": [{"h": 0, "t": 1}, {"h": 1, "t": 0, "excluded": true}]},
 {"title": "b \u00e9\n", "sents": [], "vertexSet": []}]"#;
const JSONL: &str = concat!(
    r#"{"title": "a", "text": "Ada ran Ünit 7. She left it.", "entities": [{"id": "Q1", "type": "PER", "mentions": [{"start": 0, "end": 3}]}, {"type": "ORG", "mentions": [{"start": 8, "end": 14}]}], "facts": [{"head": 0, "tail": 1, "relation": "runs"}]}"#,
    "\n",
    r#"{"title": "b", "sentences": [["Ada", "ran"], ["it"]], "entities": [{"mentions": [{"sentence": 0, "start": 0, "end": 2, "type": "X"}]}], "candidates": []}"#,
    "\n"
);
const PUBTATOR: &str = "7|t|Aspirin and ulcers.\n7|a|Ulcers follow ünder aspirin. Pain too.\n7\t0\t7\tAspirin\tChemical\tD1\n\
                        7\t12\t18\tulcers\tDisease\tD2|D3\n7\t49\t53\tPain\tDisease\tD4\n7\tCID\tD1\tD3\n\n8|t|Bare.\n";
const CHEMDISGENE: &str = r#"[{"docid": "1", "title": "ABC1 eases pain.", "abstract": "Aspirin X.", "entity": [
 {"start": 0, "end": 4, "mention": "ABC1", "type": "Gene", "id": "7;8"}, {"start": 11, "end": 15, "mention": "pain", "type": "Disease", "id": "D1"}],
 "relation": [{"type": "gd", "subj": "D1", "obj": "8"}]}]"#;
const EOG: &str = "77\tAspirin and ulcers .|Ulcers follow it .\t1:CID:2\tL2R\tNON-CROSS\t0-1\t2-3\tD1\tAspirin|it\tChemical\t0:6\t1:7\t0:1\tD2\tulcers\tDisease\t2\t3\t0\t\
                   not_include\tL2R\tCROSS\t0-1\t5-6\tD1\tAspirin|it\tChemical\t0:6\t1:7\t0:1\tD3\tfollow\tDisease\t5\t6\t1\n";
const ITEMS: &str = "{\"id\": \"Q1\", \"label\": \"ada\", \"aliases\": [\"Lovelace\"], \"claims\": {\"P1\": [\"Q2\"]}}\n{\"id\": \"Q2\", \"label\": \"Rome\"}\n";
const TREE: &str = "Tree\tUi\tName\nC10.5\tD1\tbroad\nC10.5.2\tD2\tnarrow\n";

/// Text that hits the joints of the formats.
const TOKENS: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b",",
    b":",
    b"\t",
    b"\n",
    b"\n\n",
    b"|",
    b"|t|",
    b"|a|",
    b"-1",
    b"99999999999999999999",
    b"NaN",
    b"null",
    b"\xff",
    b"\xf0\x9f\x98\x80",
    b"\\ud800",
    b" ",
    b"\0",
    b"1e309",
];

/// A reader under test: the name of its file, a good file, and how it is read.
struct Target {
    name: &'static str,
    good: Vec<u8>,
    read: fn(&Path) -> Result<()>,
}

fn read(format: Format, path: &Path) -> Result<()> {
    format.read(path, &ReadOptions::default(), &mut |document| check(&document)).map(drop)
}

/// Whatever a reader gives out holds together.
fn check(document: &Document) -> Result<()> {
    for mention in document.entities.iter().flat_map(|entity| &entity.mentions) {
        assert!(mention.start < mention.end && mention.end <= document.sentences[mention.sentence].len());
    }
    let count = document.entities.len();
    assert!(document.entities.iter().all(|entity| !entity.mentions.is_empty()));
    let asked: std::collections::HashSet<_> = document.asked_pairs().into_iter().collect();
    assert!(asked.iter().all(|&(head, tail)| head != tail && head < count && tail < count));
    assert!(document.facts().iter().all(|fact| asked.contains(&(fact.head, fact.tail))));
    Ok(())
}

fn table(path: &Path) -> Vec<u8> {
    let (source, table) = (path.join("source.jsonl"), path.join("source.parquet"));
    fs_err::write(&source, JSONL).unwrap();
    convert(Form::Text(Format::Jsonl), &source, Form::Parquet, &table, &ReadOptions::default()).unwrap();
    fs_err::read(table).unwrap()
}

fn targets(folder: &Path) -> Vec<Target> {
    let text = |name, good: &str, read| Target { name, good: good.as_bytes().to_vec(), read };
    vec![
        text("docred.json", DOCRED, |path| read(Format::Docred, path)),
        text("lines.jsonl", JSONL, |path| read(Format::Jsonl, path)),
        text("abstracts.txt", PUBTATOR, |path| read(Format::Pubtator, path)),
        text("human.json", CHEMDISGENE, |path| read(Format::Chemdisgene, path)),
        text("distant.pubtator", PUBTATOR, |path| read(Format::Chemdisgene, path)),
        text("pairs.data", EOG, |path| read(Format::Cdr, path)),
        text("items.jsonl", ITEMS, |path| FactBase::load_with(path, Matching::Alias).map(drop)),
        text("facts.json", r#"[["Ada", "Rome", "P1"], ["Rome", "Ada", "P2"]]"#, |path| FactBase::load(path).map(drop)),
        text("rel_info.json", r#"{"P1": "one", "P2": "two"}"#, |path| load_relations(path).map(drop)),
        text("tree.txt", TREE, |path| MeshTree::load(path).map(drop)),
        Target {
            name: "table.parquet",
            good: table(folder),
            read: |path| read_document_table(path, &mut |document| check(&document)).map(drop),
        },
    ]
}

/// A few changes: bytes flipped, cut out, repeated, or replaced by a joint of the formats.
fn mutate(good: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len().max(1)).min(bytes.len());
        let end = (at + rng.random_range(0..12)).min(bytes.len());
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.truncate(at),
            3 => {
                let piece = bytes[at..end].repeat(rng.random_range(1..200));
                bytes.splice(at..at, piece);
            }
            _ => drop(bytes.splice(at..end.min(at + 3), TOKENS[rng.random_range(0..TOKENS.len())].iter().copied())),
        }
    }
    bytes
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

fn try_one(target: &Target, path: &Path, bytes: &[u8]) {
    fs_err::write(path, bytes).unwrap();
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.read)(path)));
    let told = || format!("{}: {:?}", target.name, String::from_utf8_lossy(bytes));
    match outcome {
        Ok(Ok(()) | Err(Error::Data(_))) => {}
        Ok(Err(error)) => panic!("exit code {}: {error}; {}", error.exit_code(), told()),
        Err(_) => panic!("a panic; {}", told()),
    }
    assert!(started.elapsed() < LONGEST, "a reading took {:?}; {}", started.elapsed(), told());
}

#[test]
fn good_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("distant_relationships.tsv"), "7\tcd\tD1\tD3\n").unwrap();
    for target in targets(folder.path()) {
        let path = folder.path().join(target.name);
        fs_err::write(&path, &target.good).unwrap();
        (target.read)(&path).unwrap();
    }
}

#[test]
fn mutated_files_end_in_documents_or_data_errors() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("distant_relationships.tsv"), "7\tcd\tD1\tD3\n").unwrap();
    let targets = targets(folder.path());
    let until = Instant::now() + Duration::from_secs(number("DOCRE_FUZZ_SECONDS", 5));
    let mut rng = ChaCha8Rng::seed_from_u64(number("DOCRE_FUZZ_SEED", 1));
    let mut rounds = 0;
    while rounds < 20 || Instant::now() < until {
        for target in &targets {
            try_one(target, &folder.path().join(target.name), &mutate(&target.good, &mut rng));
        }
        rounds += 1;
    }
    println!("{rounds} rounds of {} readers", targets.len());
}

#[test]
fn deep_and_endless_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("distant_relationships.tsv"), "7\tcd\tD1\tD3\n").unwrap();
    for target in targets(folder.path()) {
        let path = folder.path().join(target.name);
        for bytes in [
            "[".repeat(1_000_000),
            "{\"a\":".repeat(300_000),
            "x".repeat(1_000_000),
            "\t".repeat(1_000_000),
            "[{\"title\":[".repeat(100_000),
        ] {
            try_one(&target, &path, bytes.as_bytes());
        }
        // Halves of characters, and text that is no text.
        for bytes in [&b"\xc3"[..], b"\xff\xfe[\x00", b"", b"\n\n\n", b"\xef\xbb\xbf[]"] {
            try_one(&target, &path, bytes);
        }
    }
}
