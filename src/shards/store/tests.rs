use super::*;
use crate::base::caught;
use crate::shards::WriteOptions;
use crate::shards::testing::{
    corpus, document, largest_block, prepared, prepared_with, store, streamed,
};

#[test]
fn rows_are_numbered_over_all_shards() {
    let (_temp, store) = store(&corpus());
    assert_eq!((store.len(), store.manifest().shards.len(), store.is_empty()), (8, 3, false));
    for row in 0..8 {
        assert_eq!(store.get(row).title, format!("document {row}"));
        assert_eq!(store.find_title(&format!("document {row}")), Some(row));
    }
    assert_eq!(store.find_title("document 8"), None);
    assert!(store.get(0).words.is_empty(), "words were not asked for");
    assert!(store.memory_bytes() > 0);
    assert_eq!(store.relations().len(), 3);
}

#[test]
fn the_tokeniser_must_be_the_one_that_made_the_pieces() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, _) = prepared(temp.path(), "shards", &corpus());
    let open = || DocumentStore::open(&folder, StoreOptions::default()).unwrap();
    assert_eq!(open().tokenizer().unwrap().identity(), open().manifest().tokenizer.identity);
    let vocab = temp.path().join("other.txt");
    fs_err::write(&vocab, "[PAD]\n[UNK]\n[CLS]\n[SEP]\nother\n").unwrap();
    Tokenizer::load(&vocab, None).unwrap().save(&folder.join(TOKENIZER)).unwrap();
    let error = open().tokenizer().unwrap_err();
    assert_eq!(error.exit_code(), 65);
    assert!(error.to_string().contains("another tokeniser"), "{error}");
}

#[test]
fn manifests_that_cannot_be_used_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, report) = prepared(temp.path(), "shards", &corpus());
    let path = folder.join("manifest.json");
    let refused = |text: &str| {
        let error = DocumentStore::open(&folder, StoreOptions::default()).unwrap_err();
        assert_eq!(error.exit_code(), 65, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    };
    let rewrite = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::to_value(&report.manifest).unwrap();
        change(&mut value);
        fs_err::write(&path, value.to_string()).unwrap();
    };
    rewrite(&|value| *value = serde_json::json!({ "format_version": 5, "something": "new" }));
    refused("format version 5 is newer than the 4");
    rewrite(&|value| value["format_version"] = 2.into());
    refused("format version 2 is older than the 4");
    rewrite(&|value| value["shards"][0]["file"] = "../shards/x".into());
    refused("`../shards/x`");
    rewrite(&|value| value["documents"] = 9.into());
    refused("add up");
    rewrite(&|value| value["shards"][0]["rows"] = u64::MAX.into());
    refused("add up");
    rewrite(&|value| value["relations"] = serde_json::json!([]));
    refused("field `facts[0]`: relation class 0 of 0");
    fs_err::write(&path, "{").unwrap();
    refused("not a manifest");
    fs_err::remove_file(&path).unwrap();
    refused("no manifest");
}

/// A folder of forty documents in ten blocks.
fn ten_blocks() -> (tempfile::TempDir, std::path::PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let documents: Vec<_> = (0..40)
        .map(|row| document(&format!("{row}"), &[&["Paris"], &["France"]], &[(0, 1, "P17")]))
        .collect();
    let options = WriteOptions { rows_per_shard: 12, row_group_rows: 4 };
    let folder = prepared_with(temp.path(), "shards", &documents, options).0;
    (temp, folder)
}

#[test]
fn a_store_that_holds_some_blocks_gives_the_same_documents_as_one_that_holds_all() {
    let (_temp, folder) = ten_blocks();
    let whole = DocumentStore::open(&folder, StoreOptions::default()).unwrap();
    assert!(whole.is_held());
    assert_eq!(whole.window_blocks(), whole.block_starts().len() - 1);
    for blocks in [2, 3, 5] {
        let store = streamed(&folder, blocks);
        let memory = blocks * largest_block(&folder);
        assert_eq!(store.window_blocks() as u64, blocks / 2);
        assert_eq!(store.block_starts(), whole.block_starts());
        for row in (0..40).chain((0..40).map(|row| row * 7 % 40)) {
            assert_eq!(store.get(row), whole.get(row));
            assert_eq!(store.title(row), whole.title(row));
        }
        assert_eq!((store.find_title("17"), store.find_title("40")), (Some(17), None));
        let (peak, reads) = store.peak_and_reads().unwrap();
        assert!(peak <= memory && reads > 10, "{peak} of {memory} bytes, {reads} reads");
        assert_eq!(store.memory_bytes() as u64, peak);
    }
}

#[test]
fn rows_that_lie_together_are_read_once() {
    let (_temp, folder) = ten_blocks();
    let store = streamed(&folder, 2);
    (0..40).for_each(|row| drop(store.get(row)));
    let blocks = store.block_starts().len() as u64 - 1;
    assert_eq!(store.peak_and_reads().unwrap().1, blocks);
}

#[test]
fn blocks_are_read_ahead_once_for_a_list() {
    let (_temp, folder) = ten_blocks();
    let store = streamed(&folder, 4);
    let reads = || store.peak_and_reads().unwrap().1;
    store.read_ahead(1, || vec![8, 3]);
    while reads() < 2 {
        std::thread::yield_now();
    }
    store.read_ahead(1, || panic!("the same list"));
    assert_eq!(store.get(store.block_starts()[3]).title, store.block_starts()[3].to_string());
    assert_eq!(reads(), 2);
    store.read_ahead(2, || vec![0]);
    while reads() < 3 {
        std::thread::yield_now();
    }
}

#[test]
fn several_threads_that_need_a_block_read_it_once() {
    let (_temp, folder) = ten_blocks();
    let store = streamed(&folder, 9);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || (0..8).for_each(|row| drop(store.get((row + thread) % 8))));
        }
    });
    assert_eq!(store.peak_and_reads().unwrap().1, 2);
}

#[test]
fn memory_for_less_than_two_blocks_is_refused() {
    let (_temp, folder) = ten_blocks();
    let options = StoreOptions { memory: 1_000, ..StoreOptions::default() };
    let error = DocumentStore::open(&folder, options).unwrap_err();
    assert_eq!(error.exit_code(), 64);
    assert!(error.to_string().contains("do not hold two row groups"), "{error}");
    assert!(error.hint().unwrap().contains("data.memory"), "{error}");
}

#[test]
fn a_file_that_changes_while_the_store_is_open_is_an_error_that_names_it() {
    let (_temp, folder) = ten_blocks();
    let store = streamed(&folder, 2);
    let path = folder.join(&store.manifest().shards[2].file);
    let whole = fs_err::read(&path).unwrap();
    fs_err::write(&path, &whole[..whole.len() - 1]).unwrap();
    let error = caught(|| Ok(store.get(30))).unwrap_err();
    assert_eq!(error.exit_code(), 65);
    assert!(error.to_string().contains("train-00002"), "{error}");
    fs_err::remove_file(&path).unwrap();
    assert_eq!(caught(|| Ok(store.title(30))).unwrap_err().exit_code(), 65);
    fs_err::write(&path, &whole).unwrap();
    assert_eq!(caught(|| Ok(store.title(30))).unwrap(), "30");
}
