use std::path::PathBuf;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use super::*;
use crate::Error;
use crate::corpus::formats::{OnError, ReadOptions, ReadSummary};
use crate::corpus::{Candidate, Format, RelationSet};

fn good() -> Value {
    json!({
        "title": "A",
        "sents": [["Ada", "Byron", "lived", "in", "London", "."], ["She", "died", "."]],
        "vertexSet": [
            [{"name": "Ada Byron", "sent_id": 0, "pos": [0, 2], "type": "PER",
              "global_pos": [0, 0]},
             {"name": "She", "sent_id": 1, "pos": [0, 1], "type": "PER"}],
            [{"name": "London", "sent_id": 0, "pos": [4, 5], "type": "LOC"}],
        ],
        "labels": [{"h": 0, "t": 1, "r": "P20", "evidence": [0, 1]}],
    })
}

struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(name: &str, bytes: &[u8]) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs_err::write(&path, bytes).unwrap();
    File { _folder: folder, path }
}

fn read(text: &str) -> crate::Result<(Vec<crate::corpus::Document>, ReadSummary)> {
    let file = file("corpus.json", text.as_bytes());
    Format::DOCRED.read_all(&file.path, &ReadOptions::default())
}

/// The message and hint of reading [good, broken].
fn complaint(break_it: impl FnOnce(&mut Value)) -> String {
    let mut broken = good();
    broken["title"] = json!("B");
    break_it(&mut broken);
    explain(&read(&json!([good(), broken]).to_string()).unwrap_err())
}

fn explain(error: &Error) -> String {
    assert_eq!(error.exit_code(), 65, "{error}");
    format!("{error} / {}", error.hint().expect("every data error has a hint"))
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn a_good_document_is_read_as_it_stands() {
    let (documents, summary) = read(&json!([good()]).to_string()).unwrap();
    let document = &documents[0];
    assert_eq!(document.sentences[1], ["She", "died", "."]);
    assert_eq!(
        (document.entities[0].mentions[1].sentence, document.entities[1].mentions[0].start),
        (1, 4)
    );
    assert_eq!(document.facts()[0].evidence, [0, 1]);
    let expected = ReadSummary {
        documents: 1,
        sentences: 2,
        words: 9,
        entities: 2,
        mentions: 3,
        facts: 1,
        ..ReadSummary::default()
    };
    assert_eq!(summary, expected);
}

#[test]
fn documents_without_labels_entities_or_sentences_are_kept_and_counted() {
    let mut unlabelled = good();
    unlabelled.as_object_mut().unwrap().remove("labels");
    let empty = json!({"title": "E", "sents": [], "vertexSet": [], "labels": []});
    let (documents, summary) = read(&json!([unlabelled, empty]).to_string()).unwrap();
    assert_eq!(documents[0].facts, None);
    assert_eq!(documents[1].facts, Some(vec![]));
    assert_eq!((summary.unlabelled, summary.without_entities, summary.without_facts), (1, 1, 1));
    assert_eq!(read("[]").unwrap().1, ReadSummary::default());
}

#[test]
fn repeated_facts_are_kept_once_with_all_evidence() {
    let mut document = good();
    document["labels"] = json!([
        {"h": 0, "t": 1, "r": "P20", "evidence": [1]},
        {"h": 1, "t": 0, "r": "P20"},
        {"h": 0, "t": 1, "r": "P20", "evidence": [0, 1]},
    ]);
    let (documents, summary) = read(&json!([document]).to_string()).unwrap();
    assert_eq!((summary.facts, summary.duplicate_facts), (2, 1));
    assert_eq!(documents[0].facts()[0].evidence, [1, 0]);
}

#[test]
fn nested_and_repeated_mentions_and_many_entities_are_kept() {
    let mention = json!({"name": "Ada", "sent_id": 0, "pos": [0, 1], "type": "PER"});
    let mut document = good();
    document["vertexSet"] = (0..200).map(|_| json!([mention, mention])).collect();
    let (documents, summary) = read(&json!([document]).to_string()).unwrap();
    assert_eq!((documents[0].entities.len(), summary.mentions), (200, 400));
}

#[test]
fn indices_out_of_range_are_named() {
    let message = complaint(|d| d["vertexSet"][1][0]["sent_id"] = json!(2));
    assert_says(
        &message,
        &[
            "corpus.json, row 1, document `B`, field `vertexSet[1][0].sent_id`",
            "2 is out of range",
            "2 sentences",
        ],
    );
    let message = complaint(|d| d["vertexSet"][0][1]["sent_id"] = json!(-1));
    assert_says(&message, &["`vertexSet[0][1].sent_id`", "-1 is out of range"]);
    let message = complaint(|d| d["labels"][0]["h"] = json!(2));
    assert_says(&message, &["row 1", "`labels[0].h`", "2 is out of range", "2 entities"]);
    let message = complaint(|d| d["labels"][0]["t"] = json!(-3));
    assert_says(&message, &["`labels[0].t`", "-3 is out of range"]);
    let message = complaint(|d| d["labels"][0]["evidence"] = json!([0, 7]));
    assert_says(&message, &["`labels[0].evidence[1]`", "7 is out of range"]);
}

#[test]
fn bad_spans_are_named() {
    for pos in [json!([4, 4]), json!([5, 4]), json!([4, 7]), json!([-1, 2])] {
        let message = complaint(|d| d["vertexSet"][1][0]["pos"] = pos.clone());
        assert_says(&message, &["document `B`", "`vertexSet[1][0].pos`", "sentence 0 of 6 words"]);
    }
    assert_says(
        &complaint(|d| d["vertexSet"][1][0]["pos"] = json!([4])),
        &["`vertexSet[1][0].pos`", "found 1 numbers"],
    );
}

#[test]
fn other_broken_promises_are_named() {
    assert_says(
        &complaint(|d| d["labels"][0]["t"] = json!(0)),
        &["`labels[0].t`", "the same entity 0"],
    );
    assert_says(
        &complaint(|d| d["labels"][0]["r"] = json!("")),
        &["`labels[0].r`", "relation is empty"],
    );
    assert_says(&complaint(|d| d["vertexSet"][0] = json!([])), &["`vertexSet[0]`", "no mentions"]);
    assert_says(
        &complaint(|d| d["vertexSet"][0][0]["type"] = json!("")),
        &["`vertexSet[0][0].type`", "type is empty"],
    );
    assert_says(
        &complaint(|d| d["title"] = json!("A")),
        &["row 1", "document `A`", "`title`", "used by row 0", "rename"],
    );
}

#[test]
fn unknown_relations_are_refused_where_the_set_is_given() {
    let file = file("corpus.json", json!([good()]).to_string().as_bytes());
    let mut relations = RelationSet::default();
    relations.insert("P17", "country");
    let error = Format::DOCRED
        .read_all(
            &file.path,
            &ReadOptions { relations: Some(relations.clone()), ..ReadOptions::default() },
        )
        .unwrap_err();
    assert_says(
        &explain(&error),
        &["`labels[0].r`", "unknown relation `P20`", "1 relations", "relation file"],
    );
    relations.insert("P20", "place of death");
    assert_eq!(
        Format::DOCRED
            .read_all(
                &file.path,
                &ReadOptions { relations: Some(relations), ..ReadOptions::default() }
            )
            .unwrap()
            .1
            .facts,
        1
    );
}

#[test]
fn broken_json_is_named_by_row_line_and_column() {
    let text = json!([good(), good()]).to_string();
    let cut = explain(&read(&text[..text.len() - 30]).unwrap_err());
    assert_says(&cut, &["corpus.json, row 1", "ends too early", "line 1 column", "cut off"]);
    let wrong_type = explain(&read("[{\"title\": \"A\",\n \"sents\": 3}]").unwrap_err());
    assert_says(&wrong_type, &["row 0", "invalid type: integer `3`", "line 2 column"]);
    assert_says(
        &explain(&read("{\"title\": \"A\"}").unwrap_err()),
        &["row 0, document `A`", "missing field `sents`", "line 1 column"],
    );
    assert_says(&explain(&read("\"A\"").unwrap_err()), &["neither a JSON array nor an object"]);
    assert_says(&explain(&read("[NaN]").unwrap_err()), &["row 0", "not valid JSON", "NaN"]);
    assert_says(&explain(&read("").unwrap_err()), &["the file is empty"]);
    assert_says(&explain(&read(" \n").unwrap_err()), &["the file is empty"]);
    assert_says(&explain(&read("[] []").unwrap_err()), &["trailing characters"]);
}

#[test]
fn a_missing_file_is_an_io_error_with_its_path() {
    let error = Format::DOCRED
        .read_all("/nowhere/corpus.json".as_ref(), &ReadOptions::default())
        .unwrap_err();
    assert_eq!(error.exit_code(), 74);
    assert!(error.to_string().contains("/nowhere/corpus.json"));
}

#[test]
fn an_error_of_the_caller_ends_the_reading_unchanged() {
    let file = file("corpus.json", json!([good()]).to_string().as_bytes());
    let error = Format::DOCRED
        .read(&file.path, &ReadOptions::default(), &mut |_| Err(Error::recipe("enough")))
        .unwrap_err();
    assert_eq!((error.exit_code(), error.to_string().as_str()), (64, "enough"));
}

#[test]
fn gzip_files_are_read_and_damaged_ones_named() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    std::io::Write::write_all(&mut encoder, json!([good()]).to_string().as_bytes()).unwrap();
    let bytes = encoder.finish().unwrap();
    let whole = file("corpus.json.gz", &bytes);
    assert_eq!(Format::DOCRED.read_all(&whole.path, &ReadOptions::default()).unwrap().1.facts, 1);
    let cut = file("corpus.json.gz", &bytes[..bytes.len() / 2]);
    assert_says(
        &explain(&Format::DOCRED.read_all(&cut.path, &ReadOptions::default()).unwrap_err()),
        &["corpus.json.gz", "damaged"],
    );
}

#[test]
fn what_was_written_is_read_again() {
    let mut second = good();
    second["title"] = json!("B \"quoted\" é");
    second.as_object_mut().unwrap().remove("labels");
    let (documents, _) = read(&json!([good(), second]).to_string()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["out.json", "out.json.gz"] {
        let path = folder.path().join(name);
        let mut writer = DocredWriter::create(&path).unwrap();
        documents.iter().for_each(|document| writer.write(document).unwrap());
        assert!(!path.exists());
        assert_eq!(writer.finish().unwrap(), 2);
        let (mut again, _) = Format::DOCRED.read_all(&path, &ReadOptions::default()).unwrap();
        for (document, original) in again.iter_mut().zip(&documents) {
            document.provenance = original.provenance.clone();
        }
        assert_eq!(again, documents);
    }
    let empty = folder.path().join("empty.json");
    DocredWriter::create(&empty).unwrap().finish().unwrap();
    assert!(Format::DOCRED.read_all(&empty, &ReadOptions::default()).unwrap().0.is_empty());
}

#[test]
fn candidates_and_identifiers_survive() {
    let mut document = good();
    document["vertexSet"][0][0]["kb_id"] = json!("Q7259");
    document["candidates"] = json!([{"h": 0, "t": 1}, {"h": 1, "t": 0, "excluded": true}]);
    let (documents, _) = read(&json!([document]).to_string()).unwrap();
    let pairs = [
        Candidate { head: 0, tail: 1, excluded: false },
        Candidate { head: 1, tail: 0, excluded: true },
    ];
    assert_eq!(documents[0].candidates.as_deref(), Some(&pairs[..]));
    assert_eq!(documents[0].asked_pairs(), [(0, 1)]);
    assert_eq!(documents[0].entities[0].knowledge_base_id.as_deref(), Some("Q7259"));
    let line = String::from_utf8(to_json(&documents[0]).unwrap()).unwrap();
    let (again, _) = read(&format!("[{line}]")).unwrap();
    assert_eq!(
        (&again[0].candidates, &again[0].entities),
        (&documents[0].candidates, &documents[0].entities)
    );
    let wrong = |pairs: Value| complaint(|d| d["candidates"] = pairs);
    assert_says(&wrong(json!([{"h": 0, "t": 2}])), &["`candidates[0].t`", "2 is out of range"]);
    assert_says(&wrong(json!([{"h": 0, "t": 0}])), &["`candidates[0].t`", "the same entity"]);
    assert_says(
        &wrong(json!([{"h": 0, "t": 1}, {"h": 0, "t": 1}])),
        &["`candidates[1]`", "candidates[0] already"],
    );
    assert_says(
        &wrong(json!([{"h": 0, "t": 1, "excluded": true}])),
        &["`labels[0]`", "not among the candidates"],
    );
}

#[test]
fn relation_files_of_all_forms_are_read() {
    let ids = |text: &str| {
        let file = file("rel.json", text.as_bytes());
        load_relations(&file.path)
            .map(|set| set.iter().map(|r| format!("{}={}", r.id, r.name)).collect::<Vec<_>>())
    };
    assert_eq!(ids(r#"{"P6": "head", "P1": "x"}"#).unwrap(), ["P6=head", "P1=x"]);
    assert_eq!(ids(r#"{"P6": 2, "Na": 0, "P1": 1}"#).unwrap(), ["P1=P1", "P6=P6"]);
    assert_eq!(ids(r#"[{"id": "B", "name": "b"}, {"id": "A"}]"#).unwrap(), ["B=b", "A=A"]);
    assert_says(
        &explain(&ids(r#"{"P6": 1, "P1": 1}"#).unwrap_err()),
        &["`P1` and `P6` share the number 1"],
    );
    assert_says(&explain(&ids(r#"{"P6": 1.5}"#).unwrap_err()), &["`P6` is 1.5"]);
    assert_says(&explain(&ids("{}").unwrap_err()), &["lists no relations"]);
    assert_says(&explain(&ids("[3]").unwrap_err()), &["entry 0"]);
    assert_says(&explain(&ids("3").unwrap_err()), &["neither an object nor a list"]);
    assert_says(&explain(&ids(r#"{"P6": "#).unwrap_err()), &["not valid JSON"]);
    assert_eq!(ids("\u{feff}[{\"id\": \"A\"}]").unwrap(), ["A=A"]);
}

/// A JSON library's map keeps the last of two entries and says nothing.
#[test]
fn a_relation_that_stands_twice_in_its_file_is_refused_in_every_form() {
    let twice = [
        r#"{"P1": 1, "P1": 2}"#,
        r#"{"P1": 1, "P1": 1}"#,
        r#"{"P1": 1, "P2": 2, "P1": 3}"#,
        r#"{"P1": "one", "P2": "two", "P1": "one"}"#,
        r#"[{"id": "P1"}, {"id": "P1"}]"#,
    ];
    for text in twice {
        let file = file("rel.json", text.as_bytes());
        assert_says(
            &explain(&load_relations(&file.path).unwrap_err()),
            &["rel.json", "the relation `P1` is listed twice"],
        );
    }
}

/// The sizes of docs/formats.md, "Data sets", and numbers that an independent script counted.
#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn real_files_are_read_whole() {
    let shared = crate::reference_data();
    let data = shared.join("data");
    let docred = load_relations(&data.join("docred/rel_info.json")).unwrap();
    assert_eq!(docred.len(), 96);
    assert_eq!(load_relations(&data.join("docred/rel2id.json")).unwrap().index_of("P17"), Some(0));
    let summary = |path: &str, relations: Option<RelationSet>| {
        let s = Format::DOCRED
            .read(
                &data.join(path),
                &ReadOptions { relations, ..ReadOptions::default() },
                &mut |_| Ok(()),
            )
            .unwrap();
        (s.documents, s.facts, s.duplicate_facts, s.unlabelled)
    };
    assert_eq!(summary("redocred/dev_revised.json", Some(docred.clone())), (500, 17_284, 0, 0));
    assert_eq!(summary("docred/test.json", Some(docred.clone())), (1_000, 0, 0, 1_000));
    assert_eq!(summary("docred/train_annotated_t5aug_447.json", Some(docred)), (447, 5_254, 0, 0));
    let dwie = load_relations(&data.join("dwie/rel2id.json")).unwrap();
    assert_eq!(summary("dwie/dev.json", Some(dwie)), (98, 2_620, 4, 0));
}

/// Gold documents are read without their words, and checked as if they had been.
#[test]
fn gold_leaves_words_unread_but_not_unchecked() {
    let whole = file("gold.json", json!([good()]).to_string().as_bytes());
    let mut expected = Format::DOCRED.read_all(&whole.path, &ReadOptions::default()).unwrap().0;
    for word in expected[0].sentences.iter_mut().flatten() {
        word.clear();
    }
    assert_eq!(Format::DOCRED.read_gold(&whole.path).unwrap().documents, expected);

    let mut broken = good();
    broken["sents"][0][1] = json!(7);
    let file = file("gold.json", json!([broken]).to_string().as_bytes());
    assert_says(
        &explain(&Format::DOCRED.read_gold(&file.path).unwrap_err()),
        &["row 0", "`sents[0][1]`", "expected a string"],
    );
}

fn titled(title: &str) -> Value {
    let mut document = good();
    document["title"] = json!(title);
    document
}

/// A document whose first mention is empty.
fn broken(title: &str) -> Value {
    let mut document = titled(title);
    document["vertexSet"][0][0]["pos"] = json!([1, 1]);
    document
}

#[test]
fn documents_one_a_line_are_those_of_the_array() {
    let (expected, _) = read(&json!([titled("A"), titled("B")]).to_string()).unwrap();
    let (lines, summary) = read(&format!("{}\n{}\n", titled("A"), titled("B"))).unwrap();
    let without_place = |documents: Vec<crate::corpus::Document>| {
        let plain = documents
            .into_iter()
            .map(|document| crate::corpus::Document { provenance: Default::default(), ..document });
        plain.collect::<Vec<_>>()
    };
    assert_eq!(without_place(lines), without_place(expected));
    assert!(summary.notes.is_empty());
    let (one, summary) = read(&format!("{:#}", titled("A"))).unwrap();
    assert_eq!((one.len(), summary.notes.len()), (1, 1));
    assert!(summary.notes[0].contains("single document"), "{:?}", summary.notes);
}

/// As Hugging Face's `datasets` writes a sequence of labels.
#[test]
fn labels_may_be_an_object_of_lists() {
    let (rows, _) = read(&json!([good()]).to_string()).unwrap();
    let facts = rows[0].facts();
    let columns = json!({
        "head": facts.iter().map(|fact| fact.head).collect::<Vec<_>>(),
        "tail": facts.iter().map(|fact| fact.tail).collect::<Vec<_>>(),
        "relation_id": facts.iter().map(|fact| &fact.relation).collect::<Vec<_>>(),
        "relation_text": facts.iter().map(|_| "name").collect::<Vec<_>>(),
        "evidence": facts.iter().map(|fact| &fact.evidence).collect::<Vec<_>>(),
    });
    let mut document = good();
    document["labels"] = columns.clone();
    assert_eq!(read(&json!([document]).to_string()).unwrap().0[0].facts(), facts);
    for column in ["tail", "relation_id", "relation_text", "evidence"] {
        let message = complaint(|document| {
            document["labels"] = columns.clone();
            document["labels"][column] = json!([]);
        });
        assert_says(&message, &["`labels`", "`head` lists 1 labels", column]);
    }
    let message = complaint(|document| document["labels"] = json!({"head": [], "tail": []}));
    assert_says(&message, &["missing field `relation_id`"]);
    let empty = json!({"head": [], "tail": [], "relation_id": []});
    document["labels"] = empty;
    assert_eq!(read(&json!([document]).to_string()).unwrap().0[0].facts, Some(vec![]));
}

#[test]
fn labels_of_no_relation_are_left_out_and_counted() {
    let mut document = good();
    for label in ["NA", "Na", "n/a", "no_relation"] {
        let row = json!({"h": 1, "t": 0, "r": label, "evidence": []});
        document["labels"].as_array_mut().unwrap().push(row);
    }
    let file = file("corpus.json", json!([document]).to_string().as_bytes());
    let relations = read(&json!([good()]).to_string()).unwrap().0[0].facts()[0].relation.clone();
    let relations = Some(RelationSet::from(vec![crate::corpus::Relation {
        name: relations.clone(),
        id: relations,
    }]));
    for relations in [None, relations] {
        let options = ReadOptions { relations, ..ReadOptions::default() };
        let (documents, summary) = Format::DOCRED.read_all(&file.path, &options).unwrap();
        assert_eq!((documents[0].facts().len(), summary.no_relation), (1, 4));
        assert!(summary.warnings(&file.path)[0].contains("4 labels"));
    }
    let gold = Format::DOCRED.read_gold(&file.path).unwrap();
    assert_eq!((gold.documents[0].facts().len(), gold.warnings.len()), (1, 1));
}

#[test]
fn an_error_lists_all_documents_that_cannot_be_read() {
    let mut without_title = good();
    without_title.as_object_mut().unwrap().remove("title");
    let corpus = [broken("A"), titled("B"), without_title, broken("C"), titled("B")];
    let message = explain(&read(&json!(corpus).to_string()).unwrap_err());
    assert_says(
        &message,
        &[
            "corpus.json, row 0, document `A`, field `vertexSet[0][0].pos`",
            "also: ",
            "row 2",
            "missing field `title`",
            "row 3, document `C`",
            "row 4, document `B`",
            "4 faults in all",
        ],
    );
    let many: Vec<Value> = (0..100).map(|row| broken(&format!("T{row}"))).collect();
    let message = explain(&read(&json!(many).to_string()).unwrap_err());
    assert_says(&message, &["document `T0`", "document `T20`", "100 faults in all"]);
    assert!(!message.contains("`T21`"), "{message}");
}

#[test]
fn documents_that_cannot_be_read_are_skipped_where_that_is_asked_for() {
    let corpus = json!([broken("A"), titled("B"), {"title": "C"}, titled("B"), titled("D")]);
    let file = file("corpus.json", corpus.to_string().as_bytes());
    let options = ReadOptions { on_error: OnError::Skip, ..ReadOptions::default() };
    let (documents, summary) = Format::DOCRED.read_all(&file.path, &options).unwrap();
    let titles: Vec<_> = documents.iter().map(|document| document.title.as_str()).collect();
    assert_eq!(titles, ["B", "D"]);
    let rows: Vec<_> = summary.left_out.iter().map(|left_out| left_out.error.row).collect();
    assert_eq!(rows, [Some(0), Some(2), Some(3)]);
    let line = serde_json::to_value(&summary.left_out[0]).unwrap();
    assert_eq!(
        (&line["row"], &line["title"], &line["what"], &line["field"]),
        (&json!(0), &json!("A"), &json!("document"), &json!("vertexSet[0][0].pos"))
    );
    assert!(line["reason"].as_str().unwrap().contains("does not lie inside"), "{line}");
    // If nothing is left, the file is not what it was taken for.
    let nothing =
        self::file("nothing.json", json!([broken("A"), {"title": "C"}]).to_string().as_bytes());
    let error = Format::DOCRED.read_all(&nothing.path, &options).unwrap_err();
    assert_says(&explain(&error), &["document `A`", "document `C`", "2 faults in all"]);
    // A file that breaks off is none that can be read to its end.
    let text = corpus.to_string();
    let cut = self::file("cut.json", &text.as_bytes()[..text.len() - 40]);
    let error = Format::DOCRED.read_all(&cut.path, &options).unwrap_err();
    assert_says(&explain(&error), &["ends too early"]);
}

#[test]
fn titles_that_are_excluded_may_be_of_faulty_documents() {
    let corpus = json!([broken("A"), titled("B"), {"title": "C"}]);
    let file = file("corpus.json", corpus.to_string().as_bytes());
    let excluded = |titles: &[&str]| {
        let titles = titles.iter().map(|title| (*title).to_owned()).collect();
        let options =
            ReadOptions { excluded: Some(std::sync::Arc::new(titles)), ..ReadOptions::default() };
        Format::DOCRED.read_all(&file.path, &options)
    };
    let (documents, summary) = excluded(&["A", "C"]).unwrap();
    assert_eq!((documents.len(), summary.excluded), (1, 2));
    let error = explain(&excluded(&["A"]).unwrap_err());
    assert!(error.contains("document `C`") && !error.contains("document `A`"), "{error}");
}
