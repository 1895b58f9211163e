use serde_json::{Value, json};

use super::*;
use crate::corpus::{Candidate, Fact};

fn read(lines: &[Value]) -> Result<(Vec<Document>, ReadSummary)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.jsonl");
    fs_err::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    read_path(&path)
}

fn read_path(path: &Path) -> Result<(Vec<Document>, ReadSummary)> {
    let mut documents = Vec::new();
    let summary = Jsonl.read(path, &ReadOptions::default(), &mut |document| {
        documents.push(document);
        Ok(())
    })?;
    Ok((documents, summary))
}

fn of_text() -> Value {
    json!({
        "title": "a",
        "text": "Ada ran Ünit 7. She liked it.",
        "entities": [
            {"id": "Q1", "type": "PER", "mentions": [
                {"start": 0, "end": 3},
                {"start": 16, "end": 19, "name": "Ada Byron"},
            ]},
            {"type": "ORG", "mentions": [{"start": 8, "end": 14, "type": "LOC"}]},
        ],
        "facts": [{"head": 0, "tail": 1, "relation": "runs"}],
        "candidates": [{"head": 0, "tail": 1}, {"head": 1, "tail": 0, "excluded": true}],
    })
}

fn of_words() -> Value {
    json!({
        "title": "a",
        "sentences": [["Ada", "ran", "Ünit", "7", "."], ["She", "liked", "it", "."]],
        "entities": [
            {"id": "Q1", "mentions": [
                {"sentence": 0, "start": 0, "end": 1, "type": "PER"},
                {"sentence": 1, "start": 0, "end": 1, "name": "Ada Byron", "type": "PER"},
            ]},
            {"mentions": [{"sentence": 0, "start": 2, "end": 4, "type": "LOC"}]},
        ],
        "facts": [{"head": 0, "tail": 1, "relation": "runs", "evidence": []}],
        "candidates": [
            {"head": 0, "tail": 1, "excluded": false},
            {"head": 1, "tail": 0, "excluded": true},
        ],
    })
}

#[test]
fn chinese_text_is_cut_into_characters_and_thai_asks_for_sentences() {
    let line = |text: &str| {
        json!({
            "title": "a",
            "text": text,
            "entities": [
                {"type": "PER", "mentions": [{"start": 0, "end": 2}, {"start": 6, "end": 7}]},
                {"type": "LOC", "mentions": [{"start": 3, "end": 5}]},
            ],
        })
    };
    let (documents, _) = read(&[line("李雷在北京。他来自上海！")]).unwrap();
    let document = &documents[0];
    assert_eq!(document.sentences.iter().map(Vec::len).collect::<Vec<_>>(), [6, 6]);
    let spans: Vec<_> = document
        .entities
        .iter()
        .flat_map(|entity| &entity.mentions)
        .map(|mention| (mention.name.as_str(), mention.sentence, mention.start, mention.end))
        .collect();
    assert_eq!(spans, [("李雷", 0, 0, 2), ("他", 1, 0, 1), ("北京", 0, 3, 5)]);
    for (text, script) in [
        ("สมชายอยู่ในกรุงเทพ", "Thai"),
        ("ຂ້ອຍຢູ່ວຽງຈັນ", "Lao"),
        ("ខ្ញុំនៅភ្នំពេញ", "Khmer"),
        ("သူသည်ရန်ကုန်", "Burmese"),
    ] {
        let error = read(&[line(text)]).unwrap_err();
        assert!(error.exit_code() == 65 && error.to_string().contains(script), "{error}");
        assert!(error.hint().unwrap().contains("`sentences`"), "{error}");
    }
}

#[test]
fn documents_of_docreds_form_are_named() {
    let document = json!({"title": "a", "sents": [], "vertexSet": []});
    for line in [document.clone(), json!([document])] {
        let error = read(&[line]).unwrap_err();
        assert!(error.hint().unwrap().contains("--format docred"), "{error}");
    }
    let error = read(&[json!(3)]).unwrap_err();
    assert!(error.to_string().contains("expected a document as a JSON object"), "{error}");
}

#[test]
fn text_and_words_give_the_same_document() {
    let (text, _) = read(&[of_text()]).unwrap();
    let (mut words, summary) = read(&[of_words()]).unwrap();
    words[0].provenance = text[0].provenance.clone();
    assert_eq!(text, words);
    assert_eq!((summary.documents, summary.facts, summary.mentions), (1, 1, 3));
    assert_eq!(
        text[0].facts(),
        [Fact { head: 0, tail: 1, relation: "runs".into(), evidence: vec![] }]
    );
    assert_eq!(
        text[0].candidates.as_ref().unwrap()[1],
        Candidate { head: 1, tail: 0, excluded: true }
    );
    assert_eq!(text[0].entities[1].mentions[0].name, "Ünit 7");
}

#[test]
fn what_is_written_is_read_again() {
    let (documents, _) =
        read(&[of_words(), json!({"title": "b", "sentences": [], "entities": []})]).unwrap();
    assert_eq!((&documents[1].facts, &documents[1].candidates), (&None, &None));
    let folder = tempfile::tempdir().unwrap();
    for name in ["o.jsonl", "o.jsonl.gz"] {
        let path = folder.path().join(name);
        let mut writer = Jsonl.create(&path).unwrap().unwrap();
        documents.iter().for_each(|document| writer.write(document.clone()).unwrap());
        assert_eq!(writer.finish().unwrap(), WriteSummary { documents: 2, losses: String::new() });
        let (mut again, _) = read_path(&path).unwrap();
        again
            .iter_mut()
            .zip(&documents)
            .for_each(|(document, old)| document.provenance = old.provenance.clone());
        assert_eq!(again, documents);
    }
}

#[test]
fn what_breaks_the_format_is_named() {
    let nested =
        format!("{{\"title\": \"a\", \"text\": \"b\", \"entities\": {}", "[".repeat(100_000));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep.jsonl");
    fs_err::write(&path, nested).unwrap();
    let error = read_path(&path).unwrap_err();
    assert!(error.exit_code() == 65 && error.to_string().contains("deep.jsonl, row 0"), "{error}");
    let refused = |line: Value, field: &str, problem: &str| {
        let error =
            read(&[json!({"title": "good", "text": "", "entities": []}), line]).unwrap_err();
        let text = error.to_string();
        assert!(error.exit_code() == 65 && error.hint().is_some(), "{text}");
        assert!(
            text.contains("row 1")
                && text.contains("document `a`")
                && text.contains(field)
                && text.contains(problem),
            "{text}"
        );
    };
    let text = |change: fn(&mut Value)| {
        let mut line = of_text();
        change(&mut line);
        line
    };
    refused(text(|line| line["sentences"] = json!([])), "`text`", "both");
    refused(text(|line| line["fact"] = json!([])), "`fact`", "unknown field");
    refused(text(|line| line["entities"] = json!(3)), "`entities`", "invalid type");
    refused(text(|line| line["text"] = Value::Null), "`text`", "neither");
    refused(
        text(|line| line["entities"][0]["mentions"][0]["end"] = json!(99)),
        "`entities[0].mentions[0].start`",
        "0..99",
    );
    refused(
        text(|line| line["entities"][0]["mentions"][0]["start"] = json!(-1)),
        "`entities[0].mentions[0].start`",
        "-1..3",
    );
    refused(
        text(|line| line["entities"][0]["mentions"][0] = json!({"start": 3, "end": 4})),
        "mentions[0].start`",
        "no word",
    );
    refused(
        text(|line| line["entities"][0]["type"] = Value::Null),
        "`entities[0].mentions[0].type`",
        "type is empty",
    );
    refused(
        text(|line| line["entities"][0]["mentions"][0]["sentence"] = json!(0)),
        "mentions[0].sentence`",
        "no sentences yet",
    );
    refused(
        text(|line| line["facts"][0]["evidence"] = json!([0])),
        "`facts[0].evidence`",
        "counts sentences",
    );
    refused(
        text(|line| line["facts"][0]["tail"] = json!(2)),
        "`facts[0].tail`",
        "2 is out of range",
    );
    refused(text(|line| line["candidates"] = json!([])), "`facts[0]`", "not among the candidates");
    let words = |change: fn(&mut Value)| {
        let mut line = of_words();
        change(&mut line);
        line
    };
    refused(
        words(|line| line["entities"][0]["mentions"][0]["sentence"] = Value::Null),
        "mentions[0].sentence`",
        "names no sentence",
    );
    refused(
        words(|line| line["entities"][0]["mentions"][0]["end"] = json!(6)),
        "`entities[0].mentions[0].start`",
        "[0, 6)",
    );
    refused(
        words(|line| line["entities"][0]["mentions"][0]["sentence"] = json!(2)),
        "mentions[0].sentence`",
        "2 is out of range",
    );
}
