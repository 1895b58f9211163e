//! Damage in any file of a folder of scored shards, and disks without room for one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::facts::FactIndex;
use super::testing::{corpus, prepared, relations, tokenizer};
use super::*;
use crate::Result;
use crate::bad_disk::{SmallDisk, damage};
use crate::text::{ScoredPair, TokenizedDocument};

const WITH_WORDS: StoreOptions =
    StoreOptions { with_words: true, verify: true, memory: StoreOptions::MEMORY, disk: 0 };

/// Everything that a folder of shards says.
type Content = (ShardManifest, Vec<TokenizedDocument>, FactIndex, String);

fn content(folder: &Path) -> Result<Content> {
    let store = DocumentStore::open(folder, WITH_WORDS)?;
    let documents = (0..store.len()).map(|row| store.get(row).as_ref().clone()).collect();
    Ok((
        store.manifest().clone(),
        documents,
        store.fact_index()?,
        store.tokenizer()?.identity().to_owned(),
    ))
}

/// The hand-made corpus with scores.
fn scored(folder: &Path) -> PathBuf {
    let (shards, _) = prepared(folder, "shards", &corpus());
    let pairs = vec![
        ScoredPair { head: 1, tail: 0, score: 1.5 },
        ScoredPair { head: 0, tail: 1, score: -0.25 },
    ];
    let output = folder.join("scored");
    let scored = Scored { checkpoint: "0123".into(), keep: "2".into() };
    let write = WriteOptions { rows_per_shard: 3, row_group_rows: 2 };
    let shards = ScoredShards::open(&shards, &output).unwrap().cut(write);
    for group in shards.begin(&"a task").unwrap() {
        let notes = vec![Some(pairs.clone()).into(); shards.group_len(group)];
        shards.keep(group, &notes).unwrap();
    }
    shards.finish(scored).unwrap();
    output
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

#[test]
fn flips_and_cuts_anywhere_give_an_error_or_the_same_content() {
    let temp = tempfile::tempdir().unwrap();
    let folder = scored(temp.path());
    let good = content(&folder).unwrap();
    assert!(
        good.1.iter().all(|document| document.kept.as_ref().is_some_and(|kept| kept.len() == 2))
    );
    let mut answers = BTreeMap::<String, [usize; 2]>::new();
    for path in files(&folder) {
        damage(&path, 120, |what| {
            let counts = answers
                .entry(path.strip_prefix(&folder).unwrap().display().to_string())
                .or_default();
            match content(&folder) {
                Ok(found) => {
                    assert!(found == good, "{what}: other content");
                    counts[0] += 1;
                }
                Err(error) => {
                    assert_eq!(error.exit_code(), 65, "{what}: {error}");
                    counts[1] += 1;
                }
            }
        });
    }
    assert!(
        answers.len() > 5
            && answers
                .iter()
                .all(|(file, [_, refused])| *refused > 50 || !file.ends_with("parquet")),
        "{answers:?}"
    );
    assert!(answers["manifest.json"][1] > 50, "{answers:?}");
    assert!(content(&folder).unwrap() == good, "mended");
}

#[test]
fn a_manifest_of_before_checksums_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let folder = scored(temp.path());
    let path = folder.join("manifest.json");
    let mut value: serde_json::Value =
        serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    value["relations"][0]["name"] = "another".into();
    fs_err::write(&path, value.to_string()).unwrap();
    let error = ShardManifest::read(&folder).unwrap_err();
    assert!(error.exit_code() == 65 && error.to_string().contains("checksum"), "{error}");
    value.as_object_mut().unwrap().remove("checksum").unwrap();
    fs_err::write(&path, value.to_string()).unwrap();
    assert_eq!(ShardManifest::read(&folder).unwrap().documents, 8);
}

#[test]
#[cfg_attr(not(can_mount), ignore = "mounting a file system needs root")]
fn a_full_disk_at_any_write_is_an_io_error_and_leaves_no_folder() {
    let disk = SmallDisk::new(4 << 20);
    let output = disk.path().join("shards");
    let tokenizer_folder = tempfile::tempdir().unwrap();
    let mut refused = 0;
    for left in (0..).map(|page| page * 4096) {
        let ballast = disk.fill(left);
        let write = WriteOptions { rows_per_shard: 3, row_group_rows: 2 };
        let options = PrepareOptions {
            output: output.clone(),
            tokenizer: tokenizer(tokenizer_folder.path()),
            relations: relations(),
            write,
        };
        let documents = corpus();
        match prepare(
            &options,
            &mut |take| documents.iter().cloned().try_for_each(&mut *take),
            &mut |_| (),
        ) {
            Ok(_) => {
                assert!(content(&output).is_ok() && refused > 5, "{refused} refusals");
                break;
            }
            Err(error) => {
                assert_eq!(error.exit_code(), 74, "{left} bytes left: {error}");
                assert!(
                    error.hint().is_some_and(|hint| hint.contains("space")),
                    "{left} bytes left: {error}"
                );
                refused += 1;
            }
        }
        fs_err::remove_file(ballast).unwrap();
        assert_eq!(
            fs_err::read_dir(disk.path()).unwrap().count(),
            0,
            "{left} bytes left: something is left behind"
        );
    }
}
