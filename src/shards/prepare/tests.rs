use super::*;
use crate::shards::testing::{corpus, document, prepared, relations, tokenizer};
use crate::shards::{DocumentStore, Scored, StoreOptions, rewrite_with_scores};
use crate::text::ScoredPair;

#[test]
fn a_corpus_becomes_a_folder() {
    let temp = tempfile::tempdir().unwrap();
    let mut documents = corpus();
    documents.insert(3, document("nothing", &[], &[]));
    documents.push(document("self", &[&["a"], &["b", "c", "d"]], &[(0, 0, "P17"), (0, 1, "P19")]));
    let (folder, report) = prepared(temp.path(), "shards", &documents);
    assert_eq!((report.dropped, report.self_facts, report.index), (1, 1, FactCounts { keys: 1, instances: 8, largest_key: 8 }));
    let manifest = Manifest::read(&folder).unwrap();
    assert_eq!(manifest, report.manifest);
    assert_eq!((manifest.documents, manifest.labelled, manifest.facts), (9, 9, 9));
    assert_eq!((manifest.max_pieces, manifest.max_entities, manifest.max_mentions), (4, 2, 3));
    assert_eq!((manifest.entity_types, manifest.shards.len()), (vec!["LOC".to_owned()], 3));
    let mut left: Vec<_> = fs_err::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["shards", "vocab.txt"], "no temporary folder is left");
}

/// More documents than a group, so that order and counts are seen to survive the queue and the threads.
#[test]
fn order_survives_the_threads() {
    let temp = tempfile::tempdir().unwrap();
    let output = temp.path().join("shards");
    let options = PrepareOptions {
        output: output.clone(),
        tokenizer: tokenizer(temp.path()),
        relations: relations(),
        write: WriteOptions::default(),
    };
    let group = options.write.row_group_rows;
    let total = 2 * group + 100;
    let mut told = Vec::new();
    let mut source = |take: &mut dyn FnMut(Document) -> Result<()>| {
        (0..total).try_for_each(|number| {
            take(document(&number.to_string(), &[&["Paris"], &[["France", "Berlin"][number % 2]]], &[(0, 1, "P17")]))
        })
    };
    let report = prepare(&options, &mut source, &mut |count| told.push(count)).unwrap();
    assert_eq!((told, report.index.keys), (vec![group, 2 * group, total], 2));
    let store = DocumentStore::open(&output, StoreOptions::default()).unwrap();
    for row in 0..total {
        let document = store.get(row);
        assert_eq!((document.title.as_str(), &document.pieces), (row.to_string().as_str(), &vec![4, 5 + (row % 2) as u32]));
    }
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let output = temp.path().join("shards");
    let options = PrepareOptions {
        output: output.clone(),
        tokenizer: tokenizer(temp.path()),
        relations: relations(),
        write: WriteOptions::default(),
    };
    let bad = document("bad", &[&["a"], &["b"]], &[(0, 1, "P999")]);
    let error = prepare(&options, &mut |take| take(bad.clone()), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("`bad`") && error.to_string().contains("`P999`"), "{error}");
    let mut endless = |take: &mut dyn FnMut(Document) -> Result<()>| loop {
        take(bad.clone())?;
    };
    assert!(
        prepare(&options, &mut endless, &mut |_| ()).unwrap_err().to_string().contains("`P999`"),
        "a source may not know of the failure"
    );
    let error = prepare(&options, &mut |_| Err(Error::recipe("the source broke")), &mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "the source broke");
    assert_eq!(fs_err::read_dir(temp.path()).unwrap().count(), 1, "only the vocabulary");
    fs_err::create_dir(&output).unwrap();
    fs_err::write(output.join("precious"), "").unwrap();
    let error = prepare(&options, &mut |_| Ok(()), &mut |_| ()).unwrap_err();
    assert_eq!(error.exit_code(), 64, "{error}");
    assert!(output.join("precious").exists());
}

#[test]
fn the_same_corpus_gives_the_same_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let (_, first) = prepared(temp.path(), "a", &corpus());
    let (_, second) = prepared(temp.path(), "b", &corpus());
    assert_eq!(first, second, "hashes of all files included");
}

#[test]
fn scores_are_added_to_every_row() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, report) = prepared(temp.path(), "shards", &corpus());
    let store = DocumentStore::open(&folder, StoreOptions::default()).unwrap();
    let kept: Vec<Vec<ScoredPair>> = (0..8).map(|row| vec![ScoredPair { head: 1, tail: 0, score: row as f32 }]).collect();
    let scored = Scored { checkpoint: "ranker".into(), keep: "2n".into() };
    let write = WriteOptions { rows_per_shard: 3, row_group_rows: 2 };
    let output = temp.path().join("scored");
    rewrite_with_scores(&store, &kept, &output, scored.clone(), write).unwrap();
    let again = DocumentStore::open(&output, StoreOptions { with_words: true, verify: true }).unwrap();
    assert_eq!((again.manifest().scored.clone(), again.manifest().shards.len()), (Some(scored.clone()), report.manifest.shards.len()));
    for (row, kept) in kept.iter().enumerate() {
        assert_eq!((again.get(row).kept.as_ref(), again.get(row).words.is_empty()), (Some(kept), false));
        assert_eq!(
            (again.get(row).pieces.clone(), again.get(row).facts.clone()),
            (store.get(row).pieces.clone(), store.get(row).facts.clone())
        );
    }
    assert_eq!(again.fact_index().unwrap(), store.fact_index().unwrap());
    assert_eq!(again.tokenizer().unwrap().identity(), store.manifest().tokenizer.identity);
    let wrong = |kept: &[Vec<ScoredPair>]| rewrite_with_scores(&store, kept, &temp.path().join("x"), scored.clone(), write).unwrap_err();
    assert_eq!(wrong(&kept[1..]).exit_code(), 70);
    assert_eq!(wrong(&vec![vec![ScoredPair { head: 0, tail: 2, score: 0.0 }]; 8]).exit_code(), 70);
}
