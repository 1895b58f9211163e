use proptest::prelude::*;

use super::*;
use crate::shards::reader::{ShardPlace, ShardReader};
use crate::shards::testing::{any_document, manifest};
use crate::shards::{DocumentStore, StoreOptions};

fn write(
    folder: &Path,
    documents: &[TokenizedDocument],
    rows_per_shard: usize,
    row_group_rows: usize,
) -> WrittenShards {
    write_documents(
        folder,
        WriteOptions { rows_per_shard, row_group_rows },
        documents.iter().cloned().map(Ok),
    )
    .unwrap()
}

fn without_words(document: &TokenizedDocument) -> TokenizedDocument {
    TokenizedDocument { words: Vec::new(), ..document.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_was_written_is_read(
        documents in prop::collection::vec(any_document(), 0..12),
        rows in 1usize..6,
        group in 1usize..6,
    ) {
        let temp = tempfile::tempdir().unwrap();
        let manifest = manifest(write(temp.path(), &documents, rows, group));
        let store = DocumentStore::load(
            temp.path(),
            manifest.clone(),
            StoreOptions { with_words: true, ..StoreOptions::default() },
        )
        .unwrap();
        prop_assert_eq!(store.len(), documents.len());
        for (row, document) in documents.iter().enumerate() {
            prop_assert_eq!(&*store.get(row), document);
            prop_assert_eq!(&store.title(row), &document.title);
        }
        let options = StoreOptions { verify: false, ..StoreOptions::default() };
        let mut streamed = Vec::new();
        for shard in &manifest.shards {
            let place = ShardPlace { folder: temp.path(), remote: None };
            let reader = ShardReader::open(place, &manifest, shard, options).unwrap();
            for number in 0..reader.num_row_groups() {
                streamed.extend(reader.read_group(number).unwrap());
            }
        }
        prop_assert_eq!(streamed, documents.iter().map(without_words).collect::<Vec<_>>());
    }
}

#[test]
fn rows_are_cut_into_shards_and_groups() {
    let temp = tempfile::tempdir().unwrap();
    let document = TokenizedDocument {
        word_starts: vec![0],
        sentence_starts: vec![0],
        ..TokenizedDocument::default()
    };
    let written = write(temp.path(), &vec![document; 11], 5, 2);
    let shapes: Vec<_> = written
        .shards
        .iter()
        .map(|shard| (shard.file.as_str(), shard.rows, shard.row_groups))
        .collect();
    let expected = [
        ("train-00000-of-00003.parquet", 5, 3),
        ("train-00001-of-00003.parquet", 5, 3),
        ("train-00002-of-00003.parquet", 1, 1),
    ];
    assert_eq!(shapes, expected);
    for shard in &written.shards {
        let bytes = fs_err::read(temp.path().join(&shard.file)).unwrap();
        assert_eq!(
            (bytes.len() as u64, blake3::hash(&bytes).to_hex().to_string()),
            (shard.bytes, shard.blake3.clone())
        );
    }
    assert_eq!(fs_err::read_dir(temp.path()).unwrap().count(), 3, "no temporary name is left");
    assert_eq!(
        ShardWriter::new(temp.path(), WriteOptions { rows_per_shard: 0, row_group_rows: 1 })
            .unwrap_err()
            .exit_code(),
        64
    );
}
