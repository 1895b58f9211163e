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

/// What spaCy's `Doc.to_json()` prints, with the fields of its other components.
fn of_spacy() -> Value {
    json!({
        "text": "Ada Byron's mill was in New-York.  She left Leeds.",
        "ents": [
            {"start": 0, "end": 9, "label": "PERSON", "kb_id": "Q1", "id": ""},
            {"start": 24, "end": 32, "label": "GPE"},
            {"start": 44, "end": 49, "label": "GPE", "kb_id": "NIL"},
        ],
        "sents": [{"start": 0, "end": 33}, {"start": 35, "end": 50}],
        "cats": {}, "_": {"x": 1},
        "tokens": [
            {"id": 0, "start": 0, "end": 3, "tag": "NNP", "head": 1},
            {"id": 1, "start": 4, "end": 9},
            {"id": 2, "start": 9, "end": 11}, {"id": 3, "start": 12, "end": 16},
            {"id": 4, "start": 17, "end": 20}, {"id": 5, "start": 21, "end": 23},
            {"id": 6, "start": 24, "end": 32}, {"id": 7, "start": 32, "end": 33},
            {"id": 8, "start": 34, "end": 35}, {"id": 9, "start": 35, "end": 38},
            {"id": 10, "start": 39, "end": 43}, {"id": 11, "start": 44, "end": 49},
            {"id": 12, "start": 49, "end": 50},
        ],
    })
}

/// Entities as identifier, type, names and sentences.
fn shown(document: &Document) -> Vec<String> {
    let entity = |entity: &crate::corpus::Entity| {
        let mentions = entity.mentions.iter();
        let names: Vec<String> = mentions
            .map(|it| format!("{}@{}:{}-{}", it.name, it.sentence, it.start, it.end))
            .collect();
        let id = entity.knowledge_base_id.as_deref().unwrap_or("-");
        format!("{id} {} {}", entity.entity_type(), names.join(" "))
    };
    document.entities.iter().map(entity).collect()
}

#[test]
fn spacys_tokens_and_sentences_are_taken() {
    let (documents, summary) = read(&[of_spacy()]).unwrap();
    let document = &documents[0];
    let sentences: Vec<String> = document.sentences.iter().map(|it| it.join(" ")).collect();
    assert_eq!(sentences, ["Ada Byron 's mill was in New-York .", "She left Leeds ."]);
    assert_eq!(
        shown(document),
        ["Q1 PERSON Ada Byron@0:0-2", "- GPE New-York@0:6-7", "- GPE Leeds@1:2-3"]
    );
    assert_eq!((document.title.as_str(), &document.facts), ("x.jsonl:0", &None));
    assert_eq!(summary.omissions(), Vec::<String>::new());
    // Evidence counts the given sentences; head and tail count the spans.
    let mut line = of_spacy();
    line["facts"] = json!([{"head": 0, "tail": 2, "relation": "P1", "evidence": [1]}]);
    let (documents, _) = read(&[line.clone()]).unwrap();
    assert_eq!(documents[0].facts()[0].evidence, [1]);
    line["facts"][0]["tail"] = json!(3);
    let error = read(&[line]).unwrap_err().to_string();
    assert!(error.contains("field `facts[0].tail`: 3 is out of range"), "{error}");
    // Either alone.
    let mut line = of_spacy();
    line.as_object_mut().unwrap().remove("tokens");
    assert_eq!(read(&[line.clone()]).unwrap().0[0].sentences[0][6..9], ["New", "-", "York"]);
    line = of_spacy();
    line.as_object_mut().unwrap().remove("sents");
    assert_eq!(read(&[line]).unwrap().0[0].sentences.len(), 2);
    // An entity that spaCy's parser has parted.
    let mut line = of_spacy();
    line["sents"] = json!([{"start": 0, "end": 4}, {"start": 4, "end": 50}]);
    assert_eq!(read(&[line.clone()]).unwrap().0[0].sentences.len(), 1);
    line["facts"] = json!([{"head": 0, "tail": 2, "relation": "P1", "evidence": [1]}]);
    let error = read(&[line]).unwrap_err().to_string();
    assert!(error.contains("a mention lies in two of them"), "{error}");
}

#[test]
fn groups_of_spans_are_read_where_there_are_no_ents() {
    let mut line = of_spacy();
    line["spans"] = json!({"sc": line["ents"].take(), "empty": []});
    for ents in [json!([]), Value::Null] {
        line["ents"] = ents;
        assert_eq!(shown(&read(&[line.clone()]).unwrap().0[0]).len(), 3);
    }
    line["ents"] = json!([{"start": 0, "end": 9, "label": "PERSON"}]);
    let (documents, summary) = read(&[line.clone()]).unwrap();
    assert_eq!((documents[0].entities.len(), summary.omissions().len()), (1, 1));
    line["ents"] = Value::Null;
    line["spans"]["empty"] = json!([{"start": 0, "end": 9, "label": "PERSON"}]);
    let error = read(&[line]).unwrap_err().to_string();
    assert!(
        error.contains("field `spans`: there are several groups of spans: sc, empty"),
        "{error}"
    );
}

#[test]
fn spans_of_gliner_and_of_pipelines_are_read_and_one_name_is_one_entity() {
    let text = "Ada saw Leeds. Leeds saw\nAda Byron, ada  byron and Ada.";
    let line = |entities: Value| json!({"id": 7, "text": text, "entities": entities});
    let gliner = json!([
        {"start": 0, "end": 3, "text": "Ada", "label": "person", "score": 0.99},
        {"start": 8, "end": 13, "text": "Leeds", "label": "city", "score": 0.9},
        {"start": 15, "end": 20, "text": "Leeds", "label": "city", "score": 0.9},
        {"start": 15, "end": 20, "text": "Leeds", "label": "city", "score": 0.8},
        {"start": 15, "end": 20, "text": "Leeds", "label": "team", "score": 0.5},
        {"start": 25, "end": 34, "text": "Ada Byron", "label": "person"},
    ]);
    let (documents, summary) = read(&[line(gliner)]).unwrap();
    assert_eq!(
        shown(&documents[0]),
        [
            "- person Ada@0:0-1",
            "- city Leeds@0:2-3 Leeds@1:0-1",
            "- team Leeds@1:0-1",
            "- person Ada Byron@1:2-4",
        ]
    );
    assert_eq!(documents[0].title, "7");
    assert_eq!(summary.omissions().len(), 1, "{:?}", summary.omissions());
    let pipeline = json!([
        {"entity_group": "PER", "score": 0.99, "word": "ada", "start": 0, "end": 3},
        {"entity_group": "LOC", "score": 0.99, "word": "Lee ##ds", "start": 8, "end": 13},
    ]);
    let (documents, _) = read(&[line(pipeline)]).unwrap();
    assert_eq!(shown(&documents[0]), ["- PER Ada@0:0-1", "- LOC Leeds@0:2-3"]);
    let by_type = json!({
        "person": [{"text": "Ada", "confidence": 0.9, "start": 0, "end": 3}],
        "city": [{"text": "Leeds", "confidence": 0.9, "start": 8, "end": 13}], "team": [],
    });
    let (documents, _) = read(&[line(by_type)]).unwrap();
    assert_eq!(shown(&documents[0]), ["- person Ada@0:0-1", "- city Leeds@0:2-3"]);
}

#[test]
fn clusters_and_identifiers_say_what_is_one_entity() {
    let line = |ents: [&str; 4], clusters: Value| {
        let spans = [(3, 6), (8, 11), (13, 16), (18, 21)];
        let span = |((from, to), id): (&(i32, i32), &&str)| {
            let (start, end) = (from, to);
            json!({"start": start, "end": end, "label": "PER", "id": id})
        };
        let ents: Vec<Value> = spans.iter().zip(&ents).map(span).collect();
        let text = "So Ada. Bea. Ada. Ada. She";
        json!({"title": "a", "text": text, "ents": ents, "clusters": clusters})
    };
    let entities = |ents: [&str; 4], clusters: Value| -> Vec<String> {
        let (documents, _) = read(&[line(ents, clusters)]).unwrap();
        let entities = documents[0].entities.iter();
        entities
            .map(|it| {
                let sentences: Vec<String> =
                    it.mentions.iter().map(|it| it.sentence.to_string()).collect();
                format!("{}:{}", it.knowledge_base_id.as_deref().unwrap_or("-"), sentences.join(""))
            })
            .collect()
    };
    assert_eq!(entities(["", "", "", ""], Value::Null), ["-:023", "-:1"]);
    assert_eq!(entities(["Q1", "", "", "Q2"], Value::Null), ["Q1:0", "-:1", "-:2", "Q2:3"]);
    assert_eq!(entities(["Q1", "", "", ""], Value::Null), ["Q1:023", "-:1"]);
    assert_eq!(entities(["Q1", "Q1", "", ""], Value::Null), ["Q1:0123"]);
    assert_eq!(entities(["", "", "", ""], json!([[0, 1], [2, 3]])), ["-:01", "-:23"]);
    assert_eq!(entities(["", "", "", ""], json!([[[3, 6], [23, 26]]])), ["-:04", "-:1", "-:23"]);
    let (documents, summary) = read(&[line(["", "", "", ""], json!([[[23, 26]]]))]).unwrap();
    assert_eq!(documents[0].entities.len(), 2);
    assert!(summary.omissions()[0].starts_with("1 mentions of clusters"), "{summary:?}");
    for (clusters, problem) in [
        (json!([[0, 4]]), "field `clusters[0][1]`: 4 is out of range"),
        (json!([[[0, 99]]]), "field `clusters[0][0]`: the characters 0..99"),
        (json!([[0, 1]]), "field `ents[1].start`: one cluster has mentions of `Q1` and of `Q2`"),
        (json!([["x"]]), "the number of a span, or [start, end]"),
    ] {
        let error = read(&[line(["Q1", "Q2", "", ""], clusters)]).unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains("document `a`"), "{error}");
    }
}

#[test]
fn what_is_wrong_with_spans_is_named() {
    let refused = |line: Value, problem: &str, hint: &str| {
        let error = read(&[line]).unwrap_err();
        let (text, said) = (error.to_string(), error.hint().unwrap_or_default().to_owned());
        assert!(error.exit_code() == 65 && text.contains("x.jsonl, row 0"), "{text}");
        assert!(text.contains(problem) && said.contains(hint), "{text}: {said}");
    };
    let ents = |text: &str, span: Value| json!({"title": "a", "text": text, "ents": [span]});
    let span = |start: usize, end: usize, name: &str| {
        let label = "PER";
        json!({"start": start, "end": end, "text": name, "label": label})
    };
    let field = "document `a`, field `ents[0].start`: the text at";
    refused(ents("Äda Bo", span(5, 7, "Bo")), "5..7 are not a span", "bytes of UTF-8");
    refused(ents("Äda Bo.", span(5, 7, "Bo")), field, "bytes of UTF-8");
    refused(ents("𝔸da Bo.", span(5, 7, "Bo")), field, "units of UTF-16");
    refused(ents("a\r\nBo c.", span(2, 4, "Bo")), field, "line break");
    refused(ents("Ada Bo.", span(1, 3, "Bo")), "`da`, not `Bo`", "from 0");
    let word = json!({"start": 5, "end": 7, "word": "Bo", "entity_group": "PER"});
    refused(ents("Äda Bo.", word), "`o.`, not `Bo`", "bytes of UTF-8");
    let token = json!({"start": 0, "end": 3, "word": "Ada", "entity": "B-PER", "index": 1});
    refused(ents("Ada.", token), "`ents[0].entity`: the span is a single token", "aggregation");
    refused(
        ents("Ada.", json!({"start": 0, "end": 3})),
        "`ents[0].label`: the span has no type",
        "",
    );
    refused(
        ents("Ada.", json!({"start": 0, "label": "x"})),
        "field `ents[0]`: `start` or `end`",
        "",
    );
    refused(ents("Ada.", json!({"label": "x"})), "field `ents[0]`: neither", "mentions");
    refused(ents("Ada.", json!({"start": 0, "end": 3, "kbid": "Q1"})), "unknown field `kbid`", "");
    let gliner = json!({"title": "a", "text": "Ada.", "entities": {"person": ["Ada"]}});
    refused(gliner, "`mentions`, or with `start`", "");
    let both = json!({"title": "a", "text": "Ada.", "entities": [], "ents": []});
    refused(both, "both `entities` and `ents`", "");
    refused(json!({"title": "a", "text": "Ada."}), "the line has no mentions", "annotate");
    let words = json!({"title": "a", "sentences": [["Ada"]], "ents": [span(0, 3, "Ada")]});
    refused(words, "field `ents`: spans of characters need `text`", "");
    let spacy = |change: fn(&mut Value)| {
        let mut line = of_spacy();
        line["title"] = json!("a");
        change(&mut line);
        line
    };
    refused(
        spacy(|line| line["ents"][1]["end"] = json!(27)),
        "field `ents[1].start`: the mention `New` begins or ends inside a token",
        "leave `tokens` out",
    );
    refused(
        spacy(|line| line["tokens"][1]["start"] = json!(2)),
        "`tokens[1].start`: 2 is before",
        "",
    );
    refused(
        spacy(|line| line["sents"][1]["start"] = json!(36)),
        "`sents[1].start`: the sentence",
        "",
    );
    refused(spacy(|line| line["sents"][1]["end"] = json!(99)), "`sents[1].start`: the char", "");
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
