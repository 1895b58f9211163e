use proptest::prelude::*;

use super::*;
use crate::sampling::BatchOrder;
use crate::shards::WriteOptions;
use crate::shards::testing::{corpus, document, prepared, prepared_with, store};
use crate::train::Share;

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
    rewrite(&|value| *value = serde_json::json!({ "format_version": 4, "something": "new" }));
    refused("format version 4 is newer than the 3");
    rewrite(&|value| value["format_version"] = 2.into());
    refused("format version 2 is older than the 3");
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the shards, the ranks and the batch are, every epoch reads every document once, and
    /// all ranks together read the steps of one.
    #[test]
    fn no_document_is_missing_or_repeated_in_an_epoch(
        count in 1_usize..40,
        rows_per_shard in 1_usize..9,
        row_group_rows in 1_usize..5,
        world in 1_usize..=64,
        batch in 1_usize..20,
        seed: u64,
    ) {
        let temp = tempfile::tempdir().unwrap();
        let titles: Vec<String> =
            (0..count).map(|number| format!("document {number:02}")).collect();
        let documents: Vec<_> = titles
            .iter()
            .map(|title| document(title, &[&["Paris"], &["France"]], &[(0, 1, "P17")]))
            .collect();
        let (folder, _) = prepared_with(
            temp.path(),
            "shards",
            &documents,
            WriteOptions { rows_per_shard, row_group_rows },
        );
        let store = DocumentStore::open(&folder, StoreOptions::default()).unwrap();
        let order = BatchOrder::new(store.len(), seed, batch).unwrap();
        for epoch in 0..2 {
            let mut read = Vec::new();
            for step in
                (0..order.steps_per_epoch()).map(|step| epoch * order.steps_per_epoch() + step)
            {
                let items = order.items(step);
                for rank in 0..world {
                    let share = Share { rank, world };
                    read.extend(
                        items
                            .iter()
                            .enumerate()
                            .filter(|(index, _)| share.holds(*index))
                            .map(|(_, item)| store.title(item.row).to_owned()),
                    );
                }
            }
            read.sort_unstable();
            prop_assert_eq!(&read, &titles, "epoch {}", epoch);
        }
    }
}
