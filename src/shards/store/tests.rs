use super::*;
use crate::shards::testing::{corpus, prepared, store};

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
