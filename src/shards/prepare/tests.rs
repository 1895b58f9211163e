use super::*;
use crate::corpus::Candidate;
use crate::shards::testing::{corpus, document, prepared, relations, tokenizer};
use crate::shards::{DocumentStore, StoreOptions};

#[test]
fn a_corpus_becomes_a_folder() {
    let temp = tempfile::tempdir().unwrap();
    let mut documents = corpus();
    documents.insert(3, document("nothing", &[], &[]));
    documents.push(document("self", &[&["a"], &["b", "c", "d"]], &[(0, 0, "P17"), (0, 1, "P19")]));
    let (folder, report) = prepared(temp.path(), "shards", &documents);
    assert_eq!(
        (report.dropped, report.self_facts, report.index),
        (1, 1, FactCounts { keys: 1, instances: 8, largest_key: 8 })
    );
    let manifest = ShardManifest::read(&folder).unwrap();
    assert_eq!(manifest, report.manifest);
    assert_eq!((manifest.documents, manifest.labelled, manifest.facts), (9, 9, 9));
    assert_eq!((manifest.max_pieces, manifest.max_entities, manifest.max_mentions), (4, 2, 3));
    assert_eq!((manifest.entity_types, manifest.shards.len()), (vec!["LOC".to_owned()], 3));
    let mut left: Vec<_> =
        fs_err::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["shards", "vocab.txt"], "no temporary folder is left");
}

/// Options that write `folder/shards`.
fn options(folder: &std::path::Path) -> PrepareOptions {
    PrepareOptions {
        output: folder.join("shards"),
        tokenizer: tokenizer(folder),
        relations: relations(),
        write: WriteOptions::default(),
    }
}

/// More documents than a group, so that order and counts are seen to survive the queue and the
/// threads.
#[test]
fn order_survives_the_threads() {
    let temp = tempfile::tempdir().unwrap();
    let output = temp.path().join("shards");
    let options = options(temp.path());
    let group = options.write.row_group_rows;
    let total = 2 * group + 100;
    let mut told = Vec::new();
    let mut source = |take: &mut dyn FnMut(Document) -> Result<()>| {
        (0..total).try_for_each(|number| {
            take(document(
                &number.to_string(),
                &[&["Paris"], &[["France", "Berlin"][number % 2]]],
                &[(0, 1, "P17")],
            ))
        })
    };
    let report = prepare(&options, &mut source, &mut |count| told.push(count)).unwrap();
    assert_eq!((told, report.index.keys), (vec![group, 2 * group, total], 2));
    let store = DocumentStore::open(&output, StoreOptions::default()).unwrap();
    for row in 0..total {
        let document = store.get(row);
        assert_eq!(
            (document.title.as_str(), &document.pieces),
            (row.to_string().as_str(), &vec![4, 5 + (row % 2) as u32])
        );
    }
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let output = temp.path().join("shards");
    let options = options(temp.path());
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
    let error = prepare(&options, &mut |_| Err(Error::recipe("the source broke")), &mut |_| ())
        .unwrap_err();
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

const ENTITIES: usize = 100;

/// A document with so many words, and some of everything that has a column.
fn long_document(number: usize, words: usize) -> Document {
    let sentences: Vec<Vec<String>> =
        (0..words.div_ceil(30)).map(|_| vec!["Berlin".to_owned(); 30]).collect();
    let pairs = (0..ENTITIES).flat_map(|head| {
        (0..ENTITIES).filter(move |&tail| tail != head).map(move |tail| (head, tail))
    });
    let candidates = pairs
        .map(|(head, tail)| Candidate { head, tail, excluded: false })
        .take(words / 25 + 1)
        .collect();
    let mut document = document(&number.to_string(), &[&["Paris"]], &[(0, 1, "P17")]);
    let mentions = vec![document.entities[0].mentions[0].clone(); words / (10 * ENTITIES) + 1];
    document.entities = vec![Entity { mentions, knowledge_base_id: None }; ENTITIES];
    Document {
        sentences: [document.sentences.clone(), sentences].concat(),
        candidates: Some(candidates),
        ..document
    }
}

/// What bounds the memory: chunks and row groups end by size as well as by number, whatever the
/// documents are.
#[test]
fn chunks_and_groups_end_by_size() {
    let temp = tempfile::tempdir().unwrap();
    let options = options(temp.path());
    for (words, documents, largest_group) in
        [(0, 2_500, 1_024), (3_000, 700, 300), (200_000, 12, 5)]
    {
        let largest = column_bytes(&long_document(0, words));
        let chunks: Vec<DocumentChunk> = thread::scope(|scope| {
            let (input, chunks) =
                ordered::start(scope, vec![|chunk: DocumentChunk| chunk], MOST_CHUNK_BYTES);
            scope.spawn(|| {
                let mut feed = Feed {
                    options: &options,
                    input,
                    documents: Vec::new(),
                    bytes: 0,
                    group: (0, 0),
                    sent: 0,
                    dropped: 0,
                    progress: Box::leak(Box::new(|_| ())),
                };
                (0..documents).for_each(|number| feed.push(long_document(number, words)).unwrap());
                feed.finish().unwrap()
            });
            chunks.collect()
        });
        let mut rows = 0;
        for group in chunks.split_inclusive(|chunk| chunk.ends_group) {
            let start = rows;
            for chunk in group {
                assert_eq!(chunk.first_row, rows);
                assert_eq!(chunk.bytes, chunk.documents.iter().map(column_bytes).sum::<usize>());
                assert!(chunk.bytes < CHUNK_BYTES + largest, "{} bytes in a chunk", chunk.bytes);
                rows += chunk.documents.len();
            }
            assert!(
                rows - start <= largest_group,
                "{} rows of {words} words in a group",
                rows - start
            );
            assert!(group.iter().map(|chunk| chunk.bytes).sum::<usize>() < GROUP_BYTES + largest);
        }
        assert_eq!(rows, documents);
    }
}

/// The sizes that bounds are made of are those of the columns.
#[test]
fn the_size_of_a_document_is_that_of_its_columns() {
    let temp = tempfile::tempdir().unwrap();
    for words in [0, 300, 20_000] {
        let document = long_document(1, words);
        let tokenized = tokenize(&document, &mut tokenizer(temp.path()), &relations()).unwrap();
        let real = DocumentColumns::of(&[tokenized]).unwrap().num_bytes();
        let taken = column_bytes(&document);
        // A document has some forty offsets and lengths that are not counted.
        assert!(
            taken <= real + real / 4 && real <= taken + taken / 4 + 200,
            "{words} words: {real} bytes, taken for {taken}"
        );
    }
}

#[test]
fn large_documents_come_in_small_row_groups() {
    let temp = tempfile::tempdir().unwrap();
    let documents: Vec<Document> = (0..9).map(|number| long_document(number, 200_000)).collect();
    let options = options(temp.path());
    let report = prepare(
        &options,
        &mut |take| documents.iter().cloned().try_for_each(&mut *take),
        &mut |_| (),
    )
    .unwrap();
    assert_eq!((report.manifest.documents, report.manifest.shards[0].row_groups), (9, 3));
    let store = DocumentStore::open(
        &options.output,
        StoreOptions { with_words: true, ..StoreOptions::default() },
    )
    .unwrap();
    for (row, document) in documents.iter().enumerate() {
        assert_eq!(
            (&store.get(row).title, store.get(row).num_words()),
            (&document.title, document.num_words())
        );
    }
}
