//! Every reader with a good file of its own.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use docre::{
    Annotator, Dictionary, Document, DocumentForm, DocumentFormat, DocumentStore, EncoderSpec,
    FactBase, FactSet, Findable, Format, InputFile, Language, Matching, MeshTree, Parameters,
    PlainText, Prediction, PrepareJob, ReadOptions, Recipe, Result, ScoreRow, ScoreWriter,
    ShardManifest, StoreOptions, Tokenizer, WordVectors, build_encoder, convert, load_relations,
    read_folder, read_one, read_predictions, read_scores, write_folder, write_predictions,
    write_zip,
};
use serde_json::json;
use tch::Device;

use super::handmade::{archive, old_file, state_dict, tensor};

/// A reader under test.
pub struct Target {
    /// Name of its file.
    pub name: &'static str,
    /// A good file.
    pub good: Vec<u8>,
    /// How it is read.
    pub read: fn(&Path) -> Result<()>,
    /// Exit codes that a bad file may end with.
    pub codes: &'static [u8],
}

const DOCRED: &str = r#"[{"title": "a",
 "sents": [["Ada", "ran", "a", "mill", "."], ["She", "left", "Leeds", "."]],
 "vertexSet": [[{"name": "Ada", "sent_id": 0, "pos": [0, 1], "type": "PER", "kb_id": "Q1"},
   {"name": "She", "sent_id": 1, "pos": [0, 1], "type": "PER"}],
  [{"name": "Leeds", "sent_id": 1, "pos": [2, 3], "type": "LOC"}]],
 "labels": [{"h": 0, "t": 1, "r": "P1", "evidence": [1]}],
 "candidates": [{"h": 0, "t": 1}, {"h": 1, "t": 0, "excluded": true}]},
 {"title": "b \u00e9\n", "sents": [], "vertexSet": []}]"#;
/// One document on a line, without a title.
const DOCRED_LINE: &str = concat!(
    r#"{"sents": [["Ada", "left", "Leeds", "."]], "#,
    r#""vertexSet": [[{"name": "Ada", "sent_id": 0, "pos": [0, 1], "type": "PER"}], "#,
    r#"[{"name": "Leeds", "sent_id": 0, "pos": [2, 3], "type": "LOC"}]], "#,
    r#""labels": [{"h": 0, "t": 9, "r": "P1", "evidence": [7]}]}"#
);
const JSONL: &str = concat!(
    r#"{"title": "a", "text": "Ada ran Ünit 7. She left it.", "#,
    r#""entities": [{"id": "Q1", "type": "PER", "mentions": [{"start": 0, "end": 3}]}, "#,
    r#"{"type": "ORG", "mentions": [{"start": 8, "end": 14}]}], "#,
    r#""facts": [{"head": 0, "tail": 1, "relation": "runs"}]}"#,
    "\n",
    r#"{"title": "b", "sentences": [["Ada", "ran"], ["it"]], "#,
    r#""entities": [{"mentions": [{"sentence": 0, "start": 0, "end": 2, "type": "X"}]}], "#,
    r#""candidates": []}"#,
    "\n"
);
const BRAT_TEXT: &str = "Ada Byron ran a mill. She left Leeds.\n";
const BRAT: &str = "T1\tPER 0 9\tAda Byron\nT2\tPER 22 25\tShe\nT3\tLOC 31 36\tLeeds\n\
    *\tEquiv T1 T2\nR1\tleft Arg1:T1 Arg2:T3\nA1\tOld T1\n";
/// Spans as other programs print them.
const SPANS: &str = concat!(
    r#"{"text": "Ada ran Ünit 7. She left.", "ents": [{"start": 0, "end": 3, "label": "PER", "#,
    r#""kb_id": "Q1"}, {"start": 8, "end": 14, "label": "ORG"}], "#,
    r#""sents": [{"start": 0, "end": 15}, {"start": 16, "end": 25}], "#,
    r#""tokens": [{"id": 0, "start": 0, "end": 3}, {"start": 4, "end": 7}, "#,
    r#"{"start": 8, "end": 12}, {"start": 13, "end": 14}, {"start": 16, "end": 19}], "cats": {}, "#,
    r#""clusters": [[[0, 3], [16, 19]]], "facts": [{"head": 0, "tail": 1, "relation": "runs"}]}"#,
    "\n",
    r#"{"id": 7, "text": "Ada saw Rome, Ada.", "entities": [{"start": 0, "end": 3, "#,
    r#""text": "Ada", "label": "PER", "score": 0.5}, "#,
    r#"{"start": 8, "end": 12, "word": "rome", "entity_group": "LOC"}, "#,
    r#"{"start": 14, "end": 17, "label": "PER"}], "coref": [[0, 2]]}"#,
    "\n",
    r#"{"title": "c", "text": "Ada.", "spans": {"sc": [{"start": 0, "end": 3, "label": "PER"}]}}"#,
    "\n"
);
const NAMES: &str = "id\ttype\tname\nQ1\tPER\tAda\tAda Byron\nQ2\tORG\tÜnit 7\n\tLOC\t北京\tRome\n";
const PLAIN: &str =
    "A title\n\nAda Byron ran Ünit 7 on 12 March 1998. 北京 and two Romes: 12.5 %.\n";
const PUBTATOR: &str = "7|t|Aspirin and ulcers.\n7|a|Ulcers follow ünder aspirin. Pain too.\n\
    7\t0\t7\tAspirin\tChemical\tD1\n7\t12\t18\tulcers\tDisease\tD2|D3\n\
    7\t49\t53\tPain\tDisease\tD4\n7\tCID\tD1\tD3\n\n8|t|Bare.\n";
const CHEMDISGENE: &str = r#"[{"docid": "1", "title": "ABC1 eases pain.", "abstract": "Aspirin X.",
    "entity": [
 {"start": 0, "end": 4, "mention": "ABC1", "type": "Gene", "id": "7;8"},
  {"start": 11, "end": 15, "mention": "pain", "type": "Disease", "id": "D1"}],
 "relation": [{"type": "gd", "subj": "D1", "obj": "8"}]}]"#;
const EOG: &str = "77\tAspirin and ulcers .|Ulcers follow it .\t\
    1:CID:2\tL2R\tNON-CROSS\t0-1\t2-3\tD1\tAspirin|it\tChemical\t0:6\t1:7\t0:1\t\
    D2\tulcers\tDisease\t2\t3\t0\t\
    not_include\tL2R\tCROSS\t0-1\t5-6\tD1\tAspirin|it\tChemical\t0:6\t1:7\t0:1\t\
    D3\tfollow\tDisease\t5\t6\t1\n";
const ITEMS: &str = concat!(
    r#"{"id": "Q1", "label": "ada", "aliases": ["Lovelace"], "claims": {"P1": ["Q2"]}}"#,
    "\n",
    r#"{"id": "Q2", "label": "Rome"}"#,
    "\n"
);
const TREE: &str = "Tree\tUi\tName\nC10.5\tD1\tbroad\nC10.5.2\tD2\tnarrow\n";

const RELATIONSHIPS: &str = "7\tcd\tD1\tD3\n7\tcd\tD1\tD2\n";
/// Two documents that state the same fact, so that the fact index is not empty.
const TWINS: &str = concat!(
    r#"{"title": "a", "sentences": [["Ada", "ran"], ["it"]], "#,
    r#""entities": [{"mentions": [{"sentence": 0, "start": 0, "end": 1, "type": "X"}]}, "#,
    r#"{"mentions": [{"sentence": 1, "start": 0, "end": 1, "type": "Y"}]}], "#,
    r#""facts": [{"head": 0, "tail": 1, "relation": "P1", "evidence": [0, 1]}]}"#,
    "\n",
    r#"{"title": "b", "sentences": [["Ada", "left", "it"]], "#,
    r#""entities": [{"mentions": [{"sentence": 0, "start": 0, "end": 1, "type": "X"}]}, "#,
    r#"{"mentions": [{"sentence": 0, "start": 2, "end": 3, "type": "Y"}]}], "#,
    r#""facts": [{"head": 0, "tail": 1, "relation": "P1"}]}"#,
    "\n"
);
const PREDICTIONS: &str = concat!(
    r#"[{"title": "a", "h_idx": 0, "t_idx": 1, "r": "P1", "evidence": [0, 1], "score": 0.5}, "#,
    r#"{"title": "b", "h_idx": 1, "t_idx": 0, "r": "P2"}]"#
);
const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nada\nran\n##n\nit\n";
const VOCABULARY_SIZE: i64 = 9;
const RECIPE: &str = "system = \"atlop\"\nvariants = [\"baseline\"]\n[data]\nhuman = [\"a.json\"]\n\
    [data.split]\nfiles = [\"b\"]\ndev_share = 0.1\n\
    [finetune]\nlearning_rate = 2e-3\nbatch = 8\n[atlop]\nmax_windows = 2\n";
const VECTORS: &str = "ada 0.1 -2 3e-1\nran 1 2 3\nit -0.5 0 .5\n";

fn read(format: &str, path: &Path) -> Result<()> {
    format
        .parse::<Format>()?
        .read(path, &ReadOptions::default(), &mut |document| check(&document))
        .map(drop)
}

/// Reads a text with the names of a dictionary, dates and numbers.
fn annotated(names: &Path, text: &Path) -> Result<()> {
    let names = Dictionary::load(&[names.to_owned()], false)?;
    let find = [Findable::Dates, Findable::Numbers];
    let languages = [Language::En, Language::De, Language::Fr];
    let annotator = Annotator::new(Some(names), &find, &languages, HashMap::new())?;
    let options = ReadOptions { annotator: Some(Arc::new(annotator)), ..ReadOptions::default() };
    PlainText.read(text, &options, &mut |document| check(&document)).map(drop)
}

/// Whatever a reader gives out holds together.
fn check(document: &Document) -> Result<()> {
    for mention in document.entities.iter().flat_map(|entity| &entity.mentions) {
        assert!(
            mention.start < mention.end
                && mention.end <= document.sentences[mention.sentence].len()
        );
    }
    let count = document.entities.len();
    assert!(document.entities.iter().all(|entity| !entity.mentions.is_empty()));
    let asked: std::collections::HashSet<_> = document.asked_pairs().into_iter().collect();
    assert!(asked.iter().all(|&(head, tail)| head != tail && head < count && tail < count));
    assert!(document.facts().iter().all(|fact| asked.contains(&(fact.head, fact.tail))));
    Ok(())
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn table(folder: &Path) -> Vec<u8> {
    let (source, table) = (folder.join("source.jsonl"), folder.join("source.parquet"));
    fs_err::write(&source, JSONL).unwrap();
    let [from, to] = ["jsonl", "parquet"].map(|name| DocumentForm::from_str(name, false).unwrap());
    convert(from, &source, to, &table, &ReadOptions::default()).unwrap();
    fs_err::read(table).unwrap()
}

fn zip(folder: &Path) -> Vec<u8> {
    let (list, zip) = (folder.join("source.json"), folder.join("source.zip"));
    fs_err::write(&list, PREDICTIONS).unwrap();
    let predictions: Vec<Prediction> = read_predictions(&list).unwrap();
    write_zip(&zip, &predictions).unwrap();
    fs_err::read(zip).unwrap()
}

fn prediction_table(folder: &Path) -> Vec<u8> {
    let (list, table) = (folder.join("source.json"), folder.join("source-result.parquet"));
    fs_err::write(&list, PREDICTIONS).unwrap();
    write_predictions(&table, &read_predictions(&list).unwrap()).unwrap();
    fs_err::read(table).unwrap()
}

/// Reads each line of a file as a document of its own, as a stream does.
fn read_lines(path: &Path) -> Result<()> {
    let text = fs_err::read(path)?;
    for (row, line) in text.split(|byte| *byte == b'\n').enumerate() {
        // A line that is not UTF-8 is refused before it is parsed.
        let Ok(line) = std::str::from_utf8(line) else { continue };
        check(&read_one(path, line, row)?.document)?;
    }
    Ok(())
}

fn scores(folder: &Path) -> Vec<u8> {
    let path = folder.join("source-scores.parquet");
    let mut writer = ScoreWriter::create(&path, true).unwrap();
    for number in 0..40 {
        let row = ScoreRow {
            title: "a",
            head: number % 4,
            tail: number % 3 + 4,
            relation: "P1",
            score: 0.1 * number as f32,
            calibrated: Some(0.02 * number as f32),
        };
        writer.push(row).unwrap();
    }
    writer.finish().unwrap();
    fs_err::read(path).unwrap()
}

/// Folders of shards, one for each target that breaks a file in it.
fn shards(folder: &Path) {
    let (source, vocabulary, relations) =
        (folder.join("twins.jsonl"), folder.join("twins-vocab.txt"), folder.join("twins-rel.json"));
    fs_err::write(&source, TWINS).unwrap();
    fs_err::write(&vocabulary, VOCABULARY).unwrap();
    fs_err::write(&relations, r#"{"P1": "one"}"#).unwrap();
    for name in ["shard", "index", "manifest"] {
        let job = PrepareJob {
            inputs: &[InputFile { path: source.clone(), format: "jsonl".parse().unwrap() }],
            read: &ReadOptions::default(),
            output: &folder.join(name),
            tokenizer: &vocabulary,
            lowercase: None,
            relations: &load_relations(&relations).unwrap(),
            exclude: None,
            elsewhere: None,
            only: None,
            shard_rows: None,
        };
        job.run().unwrap();
    }
}

/// Opens the folder of a broken file as if its manifest were that of this very file, so that the
/// reader sees it at all.
fn open_as_if_whole(path: &Path) -> Result<()> {
    let (folder, manifest) = (path.parent().unwrap(), path.with_file_name("manifest.json"));
    let mut value: serde_json::Value =
        serde_json::from_slice(&fs_err::read(&manifest).unwrap()).unwrap();
    let bytes = fs_err::read(path).unwrap();
    let entry = if value["shards"][0]["file"] == path.file_name().unwrap().to_str().unwrap() {
        &mut value["shards"][0]
    } else {
        &mut value["fact_index"]
    };
    entry["bytes"] = bytes.len().into();
    entry["blake3"] = blake3::hash(&bytes).to_hex().as_str().into();
    fs_err::write(&manifest, value.to_string()).unwrap();
    open_store(folder)
}

fn open_store(folder: &Path) -> Result<()> {
    let store =
        DocumentStore::open(folder, StoreOptions { with_words: true, ..StoreOptions::default() })?;
    for row in 0..store.len() {
        let document = store.get(row);
        assert!(
            document
                .facts
                .iter()
                .all(|fact| (fact.head.max(fact.tail) as usize) < document.entities.len())
        );
    }
    let index = store.fact_index()?;
    for instance in (0..index.num_keys()).flat_map(|key| index.instances(key)) {
        assert!((instance.row as usize) < store.len());
    }
    Ok(())
}

/// Folders of encoders, each with a file that is to be broken: a small BERT twice, and two files
/// of `torch.save` that are not quite one.
fn encoders(folder: &Path) {
    let tiny = json!({
        "hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 4,
        "max_position_embeddings": 8,
    });
    let spec = EncoderSpec::preset("tiny", tiny);
    let mut parameters = Parameters::new(1, Device::Cpu);
    let encoder = build_encoder(&spec, VOCABULARY_SIZE, &mut parameters).unwrap();
    for name in ["weights", "settings", "archive", "old-archive"] {
        fs_err::create_dir(folder.join(name)).unwrap();
        let tensors = parameters.iter().map(|entry| (entry.name.as_str(), &entry.tensor));
        write_folder(&folder.join(name), &encoder.config(), tensors).unwrap();
    }
    fs_err::create_dir(folder.join("split")).unwrap();
    fs_err::create_dir(folder.join("pieces")).unwrap();
    fs_err::write(folder.join("pieces/spm.model"), piece_model()).unwrap();
    let unigram = Tokenizer::load(&folder.join("pieces"), None).unwrap();
    unigram.save(&folder.join("unigram")).unwrap();
    fs_err::write(folder.join("split/config.json"), "{}").unwrap();
    fs_err::copy(folder.join("weights/model.safetensors"), folder.join("split/a.safetensors"))
        .unwrap();
    for name in ["archive", "old-archive"] {
        fs_err::remove_file(folder.join(name).join("model.safetensors")).unwrap();
    }
}

/// An index of weights, all in one file.
const INDEX: &str = r#"{"metadata": {"total_size": 8},
 "weight_map": {"embeddings.LayerNorm.weight": "a.safetensors",
  "embeddings.LayerNorm.bias": "a.safetensors"}}"#;

/// A file of `torch.save`, of today and from before PyTorch 1.6.
fn pytorch() -> [Vec<u8>; 2] {
    let pickle = state_dict(&[
        ("bert.embeddings.LayerNorm.gamma", tensor("FloatStorage", "0", 6, 1, &[2, 2], &[1, 3])),
        ("bert.half", tensor("HalfStorage", "1", 2, 0, &[2], &[1])),
    ]);
    let storage: Vec<u8> = (0..6).flat_map(|number| (number as f32).to_le_bytes()).collect();
    let halves = [0, 60, 0, 64];
    let today = archive(&[
        ("data.pkl", &pickle),
        ("byteorder", b"little"),
        ("data/0", &storage),
        ("data/1", &halves),
    ]);
    [today, old_file(&pickle, &[("0", 6, storage), ("1", 2, halves.to_vec())])]
}

/// A unigram model of sentencepiece whose character map writes `x` for `ab`.
fn piece_model() -> Vec<u8> {
    let field = |number: u8, content: &[u8]| {
        let length = content.len();
        let head = [number << 3 | 2, length as u8 & 0x7f | 0x80, (length >> 7) as u8];
        [&head, content].concat()
    };
    let mut units = vec![0_u32; 1024];
    for (at, next, letter) in [(0, 256, 0), (256 ^ 97, 512, b'a'), (512 ^ 98, 768, b'b')] {
        units[at] = ((at ^ next) as u32) << 10 | u32::from(letter);
    }
    units[512 ^ 98] |= 1 << 8;
    units[768] = 1 << 31;
    let mut map = 4096_u32.to_le_bytes().to_vec();
    map.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    map.extend(b"x\0");
    let pieces = [("[PAD]", 3), ("[CLS]", 3), ("[SEP]", 3), ("[UNK]", 2), ("▁", 1), ("x", 1)];
    let pieces = pieces.iter().zip(1..).flat_map(|((text, kind), score)| {
        let score = [&[21], &(-score as f32).to_le_bytes()[..], &[24, *kind]].concat();
        field(1, &[field(1, text.as_bytes()), score].concat())
    });
    let pieces: Vec<u8> = pieces.collect();
    [pieces, field(2, &[24, 1, 0xc0, 2, 3]), field(3, &field(2, &map))].concat()
}

/// Opens a tokenizer and uses it.
fn tokenize(path: &Path) -> Result<()> {
    let mut tokenizer = Tokenizer::load(path, None)?;
    for word in ["abc", "xé", "👩‍👩‍👧", "", "Å"] {
        tokenizer.tokenize_word(word)?;
    }
    Ok(())
}

fn load_weights(path: &Path) -> Result<()> {
    read_folder(path.parent().unwrap()).map(drop)
}

fn load_encoder(path: &Path) -> Result<()> {
    let folder = EncoderSpec::Folder(path.parent().unwrap().to_owned());
    build_encoder(&folder, VOCABULARY_SIZE, &mut Parameters::new(1, Device::Cpu)).map(drop)
}

/// All readers; what they need beside their file is written into `folder`.
pub fn targets(folder: &Path) -> Vec<Target> {
    const DATA: &[u8] = &[65];
    // A manifest can name files that do not exist, and a tokenizer can be of a kind that is not
    // read.
    const FILES: &[u8] = &[65, 74];
    const KINDS: &[u8] = &[65, 64];
    fs_err::write(folder.join("distant_relationships.tsv"), RELATIONSHIPS).unwrap();
    fs_err::write(folder.join("texts.pubtator"), PUBTATOR).unwrap();
    fs_err::write(folder.join("brat.txt"), BRAT_TEXT).unwrap();
    fs_err::create_dir_all(folder.join("annotated")).unwrap();
    fs_err::write(folder.join("annotated/names"), NAMES).unwrap();
    fs_err::write(folder.join("annotated/text"), PLAIN).unwrap();
    let [today, earlier] = pytorch();
    shards(folder);
    encoders(folder);
    let bytes = |name, good: Vec<u8>, read| Target { name, good, read, codes: DATA };
    let text = |name, good: &str, read| bytes(name, good.as_bytes().to_vec(), read);
    let made = |name: &str| fs_err::read(folder.join(name)).unwrap();
    let tokenizer = |path: &Path| Tokenizer::load(path, None).map(drop);
    vec![
        text("docred.json", DOCRED, |path| read("docred", path)),
        bytes("docred.json.gz", gzip(DOCRED), |path| read("docred", path)),
        text("lines.jsonl", JSONL, |path| read("jsonl", path)),
        text("stream-of-text.jsonl", JSONL.trim_end(), read_lines),
        text("stream.jsonl", DOCRED_LINE, read_lines),
        text("spans.jsonl", SPANS, |path| read("jsonl", path)),
        text("annotated/plain.txt", PLAIN, |path| annotated(&path.with_file_name("names"), path)),
        text("annotated/names.tsv", NAMES, |path| annotated(path, &path.with_file_name("text"))),
        text("abstracts.txt", PUBTATOR, |path| read("pubtator", path)),
        text("human.json", CHEMDISGENE, |path| read("chemdisgene", path)),
        text("distant.pubtator", PUBTATOR, |path| read("chemdisgene", path)),
        text("texts_relationships.tsv", RELATIONSHIPS, |path| {
            read("chemdisgene", &path.with_file_name("texts.pubtator"))
        }),
        text("brat.ann", BRAT, |path| read("brat", path)),
        text("pairs.data", EOG, |path| read("cdr", path)),
        bytes("table.parquet", table(folder), |path| {
            let form = DocumentForm::from_str("parquet", false).unwrap();
            form.0.read(path, &ReadOptions::default(), &mut |document| check(&document)).map(drop)
        }),
        text("items.jsonl", ITEMS, |path| FactBase::load_with(path, Matching::Alias).map(drop)),
        text("facts.json", r#"[["Ada", "Rome", "P1"], ["Rome", "Ada", "P2"]]"#, |path| {
            FactBase::load(path).map(drop)
        }),
        text("facts.tsv", "Ada\tRome\tP1\nRome\tAda\tP2\n", |path| {
            FactBase::load_with(path, Matching::Folded).map(drop)
        }),
        text("train.fact", r#"[["Ada", "Rome", "P1"], ["Rome", "Ada", "P2"]]"#, |path| {
            FactSet::load(path).map(drop)
        }),
        text("train-documents.fact", DOCRED, |path| FactSet::load(path).map(drop)),
        text("rel_info.json", r#"{"P1": "one", "P2": "two"}"#, |path| {
            load_relations(path).map(drop)
        }),
        text("rel2id.json", r#"{"Na": 0, "P1": 2, "P2": 1}"#, |path| {
            load_relations(path).map(drop)
        }),
        text("tree.txt", TREE, |path| MeshTree::load(path).map(drop)),
        text("result.json", PREDICTIONS, |path| read_predictions(path).map(drop)),
        bytes("result.zip", zip(folder), |path| read_predictions(path).map(drop)),
        bytes("result.parquet", prediction_table(folder), |path| read_predictions(path).map(drop)),
        bytes("scores.parquet", scores(folder), |path| {
            read_scores(path, &mut |_, _| Ok(())).map(drop)
        }),
        bytes(
            "shard/train-00000-of-00001.parquet",
            made("shard/train-00000-of-00001.parquet"),
            open_as_if_whole,
        ),
        bytes("index/facts.parquet", made("index/facts.parquet"), open_as_if_whole),
        Target {
            codes: FILES,
            ..bytes("manifest/manifest.json", made("manifest/manifest.json"), |path| {
                ShardManifest::read(path.parent().unwrap())?;
                open_store(path.parent().unwrap())
            })
        },
        Target { codes: KINDS, ..text("vocab.txt", VOCABULARY, tokenizer) },
        Target {
            codes: KINDS,
            ..bytes("tokenizer.json", made("shard/tokenizer/tokenizer.json"), tokenizer)
        },
        Target { codes: KINDS, ..text("vectors.txt", VECTORS, tokenizer) },
        bytes("pieces/spm.model", piece_model(), tokenize),
        Target {
            codes: KINDS,
            ..bytes("unigram/tokenizer.json", made("unigram/tokenizer.json"), tokenize)
        },
        text("split/model.safetensors.index.json", INDEX, load_weights),
        bytes("archive/pytorch_model.bin", today, load_weights),
        bytes("old-archive/pytorch_model.bin", earlier, load_weights),
        bytes("weights/model.safetensors", made("weights/model.safetensors"), load_encoder),
        Target {
            codes: KINDS,
            ..bytes("settings/config.json", made("settings/config.json"), load_encoder)
        },
        Target {
            codes: &[64],
            ..text("recipe.toml", RECIPE, |path| Recipe::load(path, &[]).map(drop))
        },
        text("table-of-vectors.txt", VECTORS, |path| {
            WordVectors::load(path, &["ada".to_owned(), "it".to_owned(), "x".to_owned()]).map(drop)
        }),
    ]
}
