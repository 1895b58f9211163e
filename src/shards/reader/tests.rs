use super::*;
use crate::shards::testing::{corpus, manifest, prepared, relations};
use crate::shards::writer::write_documents;
use crate::shards::{DocumentStore, StoreOptions, WriteOptions};
use crate::text::{
    ScoredPair, TaughtPair, TaughtRelation, TokenizedCandidate, TokenizedEntity, TokenizedFact,
    TokenizedMention,
};

const UNVERIFIED: StoreOptions =
    StoreOptions { with_words: true, verify: false, memory: StoreOptions::MEMORY, disk: 0 };

fn refused(folder: &Path, options: StoreOptions, text: &str) {
    let error = DocumentStore::open(folder, options).unwrap_err();
    assert_eq!(error.exit_code(), 65, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn a_changed_file_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, report) = prepared(temp.path(), "shards", &corpus());
    let path = folder.join(&report.manifest.shards[1].file);
    let good = fs_err::read(&path).unwrap();
    for at in [4, good.len() / 3, good.len() / 2, good.len() - 9] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs_err::write(&path, bad).unwrap();
        refused(&folder, StoreOptions::default(), "train-00001-of-00003.parquet");
    }
    fs_err::write(&path, &good[..good.len() - 1]).unwrap();
    refused(&folder, UNVERIFIED, "bytes");
    fs_err::remove_file(&path).unwrap();
    refused(&folder, UNVERIFIED, "does not exist");
    fs_err::copy(folder.join(&report.manifest.shards[0].file), &path).unwrap();
    refused(&folder, StoreOptions::default(), "train-00001-of-00003.parquet");
}

/// Without hashes every flipped byte gives either a data error or rows that obey the rules, and
/// never a panic.
#[test]
fn flipped_bytes_never_panic() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, report) = prepared(temp.path(), "shards", &corpus());
    let path = folder.join(&report.manifest.shards[0].file);
    let good = fs_err::read(&path).unwrap();
    let mut refused = 0;
    for at in (0..good.len()).step_by(3) {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        fs_err::write(&path, bad).unwrap();
        match DocumentStore::open(&folder, UNVERIFIED) {
            Ok(store) => {
                assert_eq!(store.len(), 8);
                (0..store.len()).for_each(|row| drop(store.get(row)));
            }
            Err(error) => {
                assert_eq!(error.exit_code(), 65, "byte {at}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

/// Without hashes the pages' own checksums still find damage in any column.
#[test]
fn page_checksums_are_verified() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, report) = prepared(temp.path(), "shards", &corpus());
    let path = folder.join(&report.manifest.shards[0].file);
    let good = fs_err::read(&path).unwrap();
    let metadata =
        ArrowReaderMetadata::load(&bytes::Bytes::from(good.clone()), ArrowReaderOptions::new())
            .unwrap();
    let columns: Vec<_> =
        metadata.metadata().row_groups().iter().flat_map(|group| group.columns()).collect();
    assert_eq!(columns.len(), 2 * 32);
    for column in columns {
        let (start, length) = column.byte_range();
        let mut bad = good.clone();
        bad[(start + length - 1) as usize] ^= 0x20;
        fs_err::write(&path, bad).unwrap();
        refused(&folder, UNVERIFIED, "CRC checksum mismatch");
        refused(&folder, UNVERIFIED, "train-00000-of-00003.parquet: row group");
    }
}

/// Files that are whole but hold rows that break the rules.
#[test]
fn hostile_rows_are_named() {
    let mention = TokenizedMention {
        name: "x".into(),
        sentence: 0,
        start: 0,
        end: 1,
        ..TokenizedMention::default()
    };
    let entity = TokenizedEntity { entity_type: "PER".into(), mentions: vec![mention] };
    let good = TokenizedDocument {
        title: "hostile".into(),
        words: vec!["a".into(), "b".into()],
        pieces: vec![4, 5, 6],
        word_starts: vec![0, 1, 3],
        sentence_starts: vec![0, 2],
        entities: vec![entity.clone(), entity],
        facts: vec![TokenizedFact { head: 0, tail: 1, relation: 2, evidence: vec![0] }],
        labelled: true,
        candidates: Some(vec![TokenizedCandidate { head: 0, tail: 1, excluded: false }]),
        kept: Some(vec![ScoredPair { head: 1, tail: 0, score: 1.0 }]),
        taught: Some(vec![TaughtPair {
            head: 1,
            tail: 0,
            relations: vec![TaughtRelation { relation: 1, ..TaughtRelation::default() }],
            evidence: vec![255],
            tokens: vec![3],
            weights: vec![9],
        }]),
        teacher_logits: Some(vec![0; 3]),
    };
    assert!(read_back(good.clone()).is_ok());
    let refused = |change: fn(&mut TokenizedDocument), field: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        let error = read_back(bad).unwrap_err().to_string();
        assert!(error.contains(&format!("row 1, document `hostile`, field `{field}`")), "{error}");
    };
    refused(|d| d.word_starts = vec![], "word_starts");
    refused(|d| d.word_starts = vec![0, 4, 3], "word_starts");
    refused(|d| d.word_starts = vec![0, 1, 4], "word_starts");
    refused(|d| d.word_starts = vec![1, 1, 3], "word_starts");
    refused(|d| d.sentence_starts = vec![0, 3], "sentence_starts");
    refused(|d| d.words.truncate(1), "words");
    refused(|d| d.pieces[0] = 1_000, "pieces");
    refused(|d| d.entities[1].mentions.clear(), "entities[1]");
    refused(|d| d.entities[1].mentions[0].end = 3, "entities[1].mentions[0]");
    refused(|d| d.entities[1].mentions[0].sentence = u32::MAX, "entities[1].mentions[0]");
    refused(|d| d.facts[0].tail = 2, "facts[0]");
    refused(|d| d.facts[0].tail = 0, "facts[0]");
    refused(|d| d.facts[0].relation = relations().len() as u32, "facts[0]");
    refused(|d| d.facts[0].evidence[0] = 1, "facts[0]");
    refused(|d| d.candidates.as_mut().unwrap()[0].head = 1, "candidates[0]");
    refused(|d| d.candidates.as_mut().unwrap()[0].tail = 2, "candidates[0]");
    refused(
        |d| {
            d.candidates.as_mut().unwrap().push(TokenizedCandidate {
                head: 0,
                tail: 1,
                excluded: true,
            });
        },
        "candidates[1]",
    );
    refused(|d| d.kept = Some(vec![ScoredPair { head: 0, tail: 1, score: f32::NAN }]), "kept[0]");
    refused(|d| d.kept.as_mut().unwrap().push(ScoredPair { head: 0, tail: 1, score: 2.0 }), "kept");
    let refused = |change: fn(&mut TaughtPair), field: &str| {
        let mut bad = good.clone();
        bad.taught.iter_mut().flatten().for_each(change);
        let error = read_back(bad).unwrap_err().to_string();
        assert!(error.contains(&format!("field `{field}`")), "{error}");
    };
    refused(|pair| pair.tail = 1, "taught[0]");
    refused(|pair| pair.head = 2, "taught[0]");
    refused(|pair| pair.relations[0].relation = relations().len() as u16, "taught[0]");
    refused(|pair| pair.relations.push(pair.relations[0]), "taught[0]");
    refused(|pair| pair.evidence.push(1), "taught[0]");
    refused(|pair| pair.weights.clear(), "taught[0]");
    let mut twice = good.clone();
    twice.taught.as_mut().unwrap().extend(good.taught.clone().unwrap());
    assert!(read_back(twice).unwrap_err().to_string().contains("field `taught`"));
}

/// Writes a plain row and the given one and opens the store over them.
fn read_back(document: TokenizedDocument) -> crate::Result<DocumentStore> {
    let temp = tempfile::tempdir().unwrap();
    let plain = TokenizedDocument {
        word_starts: vec![0],
        sentence_starts: vec![0],
        ..TokenizedDocument::default()
    };
    let written =
        write_documents(temp.path(), WriteOptions::default(), [Ok(plain), Ok(document)]).unwrap();
    DocumentStore::load(
        temp.path(),
        manifest(written),
        StoreOptions { with_words: true, ..StoreOptions::default() },
    )
}

#[test]
fn a_file_of_another_schema_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, report) = prepared(temp.path(), "shards", &corpus());
    let mut manifest = report.manifest.clone();
    manifest.shards = vec![report.manifest.fact_index.clone().unwrap()];
    manifest.documents = manifest.shards[0].rows;
    let error = DocumentStore::load(&folder, manifest, StoreOptions::default()).unwrap_err();
    assert!(error.to_string().contains("row group 0: no column"), "{error}");
}

#[test]
fn panics_become_errors() {
    assert_eq!(
        catch(|| -> Result<(), String> { panic!("at {}", 7) }),
        Err("the decoder failed: at 7".into())
    );
    assert_eq!(catch(|| Ok::<_, String>(3)), Ok(3));
}
