//! What the tests of this room share: random documents and small prepared folders.

use std::path::{Path, PathBuf};

use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;

use super::blocks::Blocks;
use super::writer::{WrittenShards, write_documents};
use super::{
    DocumentStore, PrepareOptions, PrepareReport, ShardManifest, StoreOptions, TokenizerEntry,
    WriteOptions, prepare,
};
use crate::corpus::{Document, Entity, Fact, Mention, RelationSet};
use crate::text::{
    ScoredPair, TaughtPair, TaughtRelation, TokenizedCandidate, TokenizedDocument, TokenizedEntity,
    TokenizedFact, TokenizedMention, Tokenizer,
};

/// Size of the vocabulary of random documents.
const VOCAB: u32 = 1_000;
/// Relations of the random and the hand-made documents.
const RELATIONS: [&str; 3] = ["P17", "P19", "P27"];

/// The relation set of all test documents.
pub(super) fn relations() -> RelationSet {
    let mut set = RelationSet::default();
    for id in RELATIONS {
        set.insert(id, id);
    }
    set
}

/// A manifest for shards written without `prepare`.
pub(super) fn manifest(written: WrittenShards) -> ShardManifest {
    ShardManifest {
        format_version: super::FORMAT_VERSION,
        documents: written.shards.iter().map(|shard| shard.rows).sum(),
        labelled: written.totals.labelled,
        facts: written.totals.facts,
        relations: relations(),
        entity_types: written.totals.entity_types.into_iter().collect(),
        tokenizer: TokenizerEntry {
            identity: String::new(),
            kind: "wordpiece".into(),
            vocab_size: VOCAB as usize,
        },
        shards: written.shards,
        fact_index: None,
        max_pieces: written.totals.max_pieces,
        max_entities: written.totals.max_entities,
        max_mentions: written.totals.max_mentions,
        scored: None,
        taught: None,
    }
}

/// Lengths → starts closed by the total.
fn starts(lengths: &[u32]) -> Vec<u32> {
    std::iter::once(0)
        .chain(lengths.iter().scan(0, |sum, length| {
            *sum += length;
            Some(*sum)
        }))
        .collect()
}

/// Random documents that obey all rules, some without words, entities, labels or kept pairs.
pub(super) fn any_document() -> impl Strategy<Value = TokenizedDocument> {
    let sentences = prop::collection::vec(prop::collection::vec((0u32..4, ".{0,6}"), 0..6), 0..4);
    let mentions = prop::collection::vec(
        prop::collection::vec((any::<u32>(), any::<u32>(), ".{0,8}"), 1..4),
        0..5,
    );
    let facts = prop::collection::vec(
        (
            any::<u32>(),
            any::<u32>(),
            0..RELATIONS.len() as u32,
            prop::collection::vec(any::<u32>(), 0..3),
        ),
        0..5,
    );
    let kept =
        prop::option::of(prop::collection::vec((any::<u32>(), any::<u32>(), -9f32..9.0), 0..4));
    let asked =
        prop::option::of(prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>()), 0..5));
    (".{0,12}", sentences, mentions, facts, asked, kept, any::<bool>()).prop_map(
        |(title, sentences, mentions, facts, asked, kept, labelled)| {
            let mut document =
                TokenizedDocument { title, labelled, ..TokenizedDocument::default() };
            let words: Vec<(u32, String)> = sentences.concat();
            document.sentence_starts =
                starts(&sentences.iter().map(|sentence| sentence.len() as u32).collect::<Vec<_>>());
            document.word_starts = starts(&words.iter().map(|word| word.0).collect::<Vec<_>>());
            document.pieces = (0..*document.word_starts.last().unwrap())
                .map(|piece| piece * 37 % VOCAB)
                .collect();
            document.words = words.into_iter().map(|word| word.1).collect();
            document.entities = entities(&document.sentence_starts, mentions);
            let count = document.entities.len() as u32;
            let pair = |a: u32, b: u32| {
                (count > 1).then(|| (a % count, (a % count + 1 + b % (count - 1)) % count))
            };
            let sentences = document.sentence_starts.len() as u32 - 1;
            let fact = |(a, b, relation, evidence): (u32, u32, u32, Vec<u32>)| {
                pair(a, b).map(|(head, tail)| TokenizedFact {
                    head,
                    tail,
                    relation,
                    evidence: evidence.iter().map(|e| e % sentences).collect(),
                })
            };
            document.facts = facts.into_iter().filter_map(fact).collect();
            document.candidates = asked.map(|pairs| {
                let mut seen = ahash::AHashSet::new();
                let pairs =
                    pairs.into_iter().filter_map(|(a, b, excluded)| Some((pair(a, b)?, excluded)));
                let new = pairs.filter(|(pair, _)| seen.insert(*pair));
                new.map(|((head, tail), excluded)| TokenizedCandidate { head, tail, excluded })
                    .collect()
            });
            document.kept = kept.map(|pairs| {
                let mut pairs: Vec<ScoredPair> = pairs
                    .into_iter()
                    .filter_map(|(a, b, score)| {
                        pair(a, b).map(|(head, tail)| ScoredPair { head, tail, score })
                    })
                    .collect();
                pairs.sort_by(|a, b| b.score.total_cmp(&a.score));
                pairs
            });
            document.taught = document.kept.as_ref().map(|pairs| taught(pairs, sentences));
            document
        },
    )
}

/// What a teacher might say of pairs.
fn taught(pairs: &[ScoredPair], sentences: u32) -> Vec<TaughtPair> {
    let pair = |pair: &ScoredPair| {
        let bits = pair.score.to_bits();
        let relation = |relation| TaughtRelation {
            relation,
            probability: bits as u16,
            predicted: bits.is_multiple_of(3),
            deviation: (bits >> 9) as u16,
        };
        let relations = (0..RELATIONS.len() as u16).filter(|&at| bits >> at & 1 == 1);
        let number = (bits % 4) as u16;
        TaughtPair {
            head: pair.head,
            tail: pair.tail,
            relations: relations.map(relation).collect(),
            evidence: vec![bits as u8; if bits & 2 == 0 { 0 } else { sentences as usize }],
            tokens: (0..number).collect(),
            weights: vec![bits as u16; number.into()],
        }
    };
    let mut all: Vec<TaughtPair> = pairs.iter().map(pair).collect();
    all.sort_by_key(|pair| (pair.head, pair.tail));
    all.dedup_by_key(|pair| (pair.head, pair.tail));
    all
}

fn entities(
    sentence_starts: &[u32],
    mentions: Vec<Vec<(u32, u32, String)>>,
) -> Vec<TokenizedEntity> {
    let filled: Vec<(u32, u32, u32)> = sentence_starts
        .windows(2)
        .zip(0..)
        .filter(|(pair, _)| pair[0] < pair[1])
        .map(|(pair, at)| (at, pair[0], pair[1]))
        .collect();
    if filled.is_empty() {
        return Vec::new();
    }
    let mention = |(a, b, name): (u32, u32, String)| {
        let (sentence, from, to) = filled[a as usize % filled.len()];
        let start = from + b % (to - from);
        let own_type = (b % 3 == 0).then(|| "ORG".to_owned());
        TokenizedMention { name, sentence, start, end: start + 1 + a % (to - start), own_type }
    };
    let entity = |list: Vec<_>| TokenizedEntity {
        entity_type: "PER".into(),
        mentions: list.into_iter().map(mention).collect(),
    };
    mentions.into_iter().map(entity).collect()
}

/// A document of one sentence a mention: every entity is a list of names, every fact (head, tail,
/// relation).
pub(crate) fn document(
    title: &str,
    entities: &[&[&str]],
    facts: &[(usize, usize, &str)],
) -> Document {
    let mut document =
        Document { title: title.into(), facts: Some(Vec::new()), ..Document::default() };
    for names in entities {
        let mut entity = Entity::default();
        for name in *names {
            let words: Vec<String> = name.split(' ').map(str::to_owned).collect();
            let sentence = document.sentences.len();
            let mention = Mention {
                name: (*name).into(),
                sentence,
                start: 0,
                end: words.len(),
                entity_type: "LOC".into(),
            };
            entity.mentions.push(mention);
            document.sentences.push(words);
        }
        document.entities.push(entity);
    }
    let fact = |&(head, tail, relation): &(usize, usize, &str)| Fact {
        head,
        tail,
        relation: relation.into(),
        evidence: vec![],
    };
    document.facts = Some(facts.iter().map(fact).collect());
    document
}

/// A folder with a small tokeniser.
pub(super) fn tokenizer(folder: &Path) -> Tokenizer {
    let path = folder.join("vocab.txt");
    fs_err::write(&path, "[PAD]\n[UNK]\n[CLS]\n[SEP]\nparis\nfrance\nberlin\n").unwrap();
    Tokenizer::load(&path, None).unwrap()
}

/// Prepares hand-made documents under `folder/name`, three rows a shard, two a row group.
pub(super) fn prepared(
    folder: &Path,
    name: &str,
    documents: &[Document],
) -> (PathBuf, PrepareReport) {
    prepared_with(folder, name, documents, WriteOptions { rows_per_shard: 3, row_group_rows: 2 })
}

/// As [`prepared`], cut as asked.
pub(crate) fn prepared_with(
    folder: &Path,
    name: &str,
    documents: &[Document],
    write: WriteOptions,
) -> (PathBuf, PrepareReport) {
    let output = folder.join(name);
    let options = PrepareOptions {
        output: output.clone(),
        tokenizer: tokenizer(folder),
        relations: relations(),
        write,
    };
    let report = prepare(
        &options,
        &mut |take| documents.iter().cloned().try_for_each(&mut *take),
        &mut |_| (),
    )
    .unwrap();
    (output, report)
}

/// A store over hand-made documents.
pub(super) fn store(documents: &[Document]) -> (tempfile::TempDir, DocumentStore) {
    let temp = tempfile::tempdir().unwrap();
    let (folder, _) = prepared(temp.path(), "shards", documents);
    let store = DocumentStore::open(&folder, StoreOptions::default()).unwrap();
    (temp, store)
}

/// A folder of shards of documents as they are, without a tokeniser and a fact index.
pub(crate) fn written(
    folder: &Path,
    write: WriteOptions,
    documents: impl Iterator<Item = TokenizedDocument>,
) -> PathBuf {
    let output = folder.join("written");
    fs_err::create_dir(&output).unwrap();
    let written = write_documents(&output, write, documents.map(Ok)).unwrap();
    manifest(written).write(&output).unwrap();
    output
}

/// Bytes of the largest block of a folder.
pub(crate) fn largest_block(folder: &Path) -> u64 {
    let manifest = ShardManifest::read(folder).unwrap();
    let blocks = Blocks::open(folder, manifest, StoreOptions::default()).unwrap();
    let bytes = |block| blocks.read(block).unwrap().memory_bytes() as u64;
    (0..blocks.len()).map(bytes).max().unwrap_or(0)
}

/// The store of a folder with memory for so many of its largest blocks.
pub(crate) fn streamed(folder: &Path, blocks: u64) -> DocumentStore {
    let memory = blocks * largest_block(folder);
    let options = StoreOptions { memory, ..StoreOptions::default() };
    let store = DocumentStore::open(folder, options).unwrap();
    assert!(!store.is_held(), "{blocks} blocks hold all of {} documents", store.len());
    store
}

/// Eight documents over three shards, some facts shared.
pub(super) fn corpus() -> Vec<Document> {
    let one = |number: usize| {
        let city = ["Paris", "Berlin"][number % 2];
        document(&format!("document {number}"), &[&[city, "it"], &["France"]], &[(0, 1, "P17")])
    };
    (0..8).map(one).collect()
}

/// A Parquet file, written again in each codec.
pub(crate) fn in_every_codec(path: &Path) -> Vec<(Compression, Vec<u8>)> {
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::LZ4_RAW,
        Compression::BROTLI(BrotliLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ];
    let again = |codec| {
        let file = fs_err::File::open(path).unwrap().into_file();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let properties = WriterProperties::builder().set_compression(codec).build();
        let (mut bytes, schema) = (Vec::new(), reader.schema().clone());
        let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties)).unwrap();
        reader.build().unwrap().for_each(|batch| writer.write(&batch.unwrap()).unwrap());
        writer.close().unwrap();
        (codec, bytes)
    };
    codecs.map(again).into()
}
