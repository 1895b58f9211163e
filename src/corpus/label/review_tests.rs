use serde_json::{Value, json};

use super::*;
use crate::corpus::Format;
use crate::corpus::formats::ReadOptions;

fn mention(name: &str, sentence: usize, start: usize, end: usize) -> Value {
    json!({"name": name, "sent_id": sentence, "pos": [start, end], "type": "X"})
}

/// Entities: Ada (sentences 0 and 2), Rome (0), Zoë Byron (1).
fn source(title: &str) -> Value {
    json!({
        "title": title,
        "sents": [["Ada", "saw", "Rome"], ["Zoë", "Byron", "left"], ["Ada", "stayed"]],
        "vertexSet": [
            [mention("Ada", 0, 0, 1), mention("Ada", 2, 0, 1)],
            [mention("Rome", 0, 2, 3)],
            [mention("Zoë Byron", 1, 0, 2)],
        ],
        "labels": [
            {"h": 0, "t": 1, "r": "P1", "evidence": [0]},
            {"h": 0, "t": 1, "r": "P2", "evidence": []},
            {"h": 2, "t": 1, "r": "P1", "evidence": []},
        ],
    })
}

fn documents(values: &[Value]) -> Vec<Document> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.json");
    fs_err::write(&path, json!(values).to_string()).unwrap();
    Format::DOCRED.read_all(&path, &ReadOptions::default()).unwrap().0
}

#[test]
fn a_pair_shows_its_sentences_with_both_entities_marked() {
    let document = &documents(&[source("one")])[0];
    let pair = ReviewPair::of(document, 0, 2);
    assert_eq!(pair.text, ["Ada saw Rome", "Zoë Byron left", "Ada stayed"]);
    assert_eq!(
        pair.excerpt,
        "[0] <head>Ada</head> saw Rome [1] <tail>Zoë Byron</tail> left [2] <head>Ada</head> stayed"
    );
    let span = |sentence, start, end| ReviewSpan { sentence, start, end };
    assert_eq!(pair.head.mentions, [span(0, 0, 3), span(2, 0, 3)]);
    // Characters, not bytes.
    assert_eq!(pair.tail.mentions, [span(1, 0, 9)]);
    assert_eq!((pair.tail.entity, pair.tail.name.as_str()), (2, "Zoë Byron"));
    assert_eq!(pair.tail.entity_type, "X");
    assert_eq!(ReviewPair::of(document, 2, 1).excerpt, {
        "[0] Ada saw <tail>Rome</tail> [1] <head>Zoë Byron</head> left"
    });
    // A span that the document names twice is one.
    let mut twice = document.clone();
    let again = twice.entities[0].mentions[0].clone();
    twice.entities[0].mentions.push(again);
    assert_eq!(ReviewPair::of(&twice, 0, 2), pair);
    let apart = ReviewPair::of(&documents(&[source("one")])[0], 0, 0);
    assert!(apart.excerpt.contains("saw Rome … [2]"), "{}", apart.excerpt);
}

#[test]
fn mentions_that_touch_or_hold_each_other_are_marked_in_order() {
    let span = |start, end| ReviewSpan { sentence: 0, start, end };
    let shown = |head: &[ReviewSpan], tail: &[ReviewSpan]| marked("ab cd", 0, head, tail);
    assert_eq!(
        shown(&[span(0, 2)], &[span(2, 5)]),
        "<head>ab</head><tail> cd</tail>",
        "one ends where the other begins"
    );
    assert_eq!(shown(&[span(0, 5)], &[span(3, 5)]), "<head>ab <tail>cd</tail></head>");
    assert_eq!(shown(&[], &[]), "ab cd");
}

/// A line of a review file.
fn line(title: &str, pair: (usize, usize), names: [&str; 2], relations: &Value) -> Value {
    json!({
        "title": title,
        "head": {"entity": pair.0, "name": names[0]},
        "tail": {"entity": pair.1, "name": names[1]},
        "candidates": [{"relation": "P7", "name": "seven"}],
        "evidence": [1],
        "relations": relations,
    })
}

/// Head, tail, relation and evidence of a label.
type Label = (usize, usize, String, Vec<usize>);

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new(documents: &[Value]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("in.json"), json!(documents).to_string()).unwrap();
        Self { folder }
    }

    fn label(&self, lines: &[Value], known: Option<&RelationSet>) -> Result<ReviewReport> {
        let path = |name: &str| self.folder.path().join(name);
        let text: Vec<String> = lines.iter().map(Value::to_string).collect();
        fs_err::write(path("review.jsonl"), text.join("\n")).unwrap();
        let reviewed = ReviewedPairs::load(&path("review.jsonl"), known)?;
        label_reviewed(&reviewed, &path("in.json"), &path("out.json"), &LabelOptions::default())
    }

    fn labels(&self) -> Vec<Vec<Label>> {
        let path = self.folder.path().join("out.json");
        let (documents, _) = Format::DOCRED.read_all(&path, &ReadOptions::default()).unwrap();
        let fact =
            |fact: &Fact| (fact.head, fact.tail, fact.relation.clone(), fact.evidence.clone());
        documents.iter().map(|document| document.facts().iter().map(fact).collect()).collect()
    }
}

#[test]
fn answers_replace_the_labels_of_their_pairs() {
    let case = Case::new(&[source("one"), source("two")]);
    let report = case
        .label(
            &[
                line("one", (0, 1), ["Ada", "Rome"], &json!(["P7", "P1"])),
                line("one", (2, 1), ["Zoë Byron", "Rome"], &json!([])),
                line("one", (1, 0), ["Rome", "Ada"], &Value::Null),
                // The same answer twice, and an answer beside none.
                line("one", (0, 1), ["Ada", "Rome"], &json!(["P1", "P7"])),
                line("one", (1, 2), ["Rome", "Zoë Byron"], &Value::Null),
                line("one", (1, 2), ["Rome", "Zoë Byron"], &json!([])),
            ],
            None,
        )
        .unwrap();
    let expected = ReviewReport {
        documents: 2,
        reviewed_documents: 1,
        reviewed: 3,
        without_relation: 2,
        not_reviewed: 1,
        added: 1,
        removed: 2,
        confirmed: 1,
        newly_labelled: 0,
    };
    assert_eq!(report, expected);
    let fact = |head, tail, relation: &str, evidence: &[usize]| {
        (head, tail, relation.to_owned(), evidence.to_vec())
    };
    let [one, two] = &case.labels()[..] else { panic!("two documents") };
    // A confirmed label keeps its evidence, a new one has that of the model.
    assert_eq!(one, &[fact(0, 1, "P1", &[0]), fact(0, 1, "P7", &[1])]);
    assert_eq!(two.len(), 3, "nobody reviewed this document");
    assert!(report.to_string().starts_with("1 labels added, 2 removed and 1 confirmed"));
}

#[test]
fn documents_without_labels_are_labelled_and_counted() {
    let mut bare = source("one");
    bare.as_object_mut().unwrap().remove("labels");
    let case = Case::new(&[bare.clone(), source("two")]);
    let none = case.label(&[line("one", (0, 1), ["Ada", "Rome"], &Value::Null)], None).unwrap();
    assert_eq!((none.newly_labelled, none.not_reviewed, none.reviewed_documents), (0, 1, 0));
    let text = fs_err::read_to_string(case.folder.path().join("out.json")).unwrap();
    assert_eq!(text.matches("labels").count(), 1, "no answer leaves the document unlabelled");
    let empty = case.label(&[line("one", (0, 1), ["Ada", "Rome"], &json!([]))], None).unwrap();
    assert_eq!((empty.newly_labelled, empty.added), (1, 0));
}

#[test]
fn relations_of_the_input_and_of_a_file_are_known() {
    let case = Case::new(&[source("one")]);
    let answer = |id: &str| [line("one", (0, 2), ["Ada", "Zoë Byron"], &json!([id]))];
    assert_eq!(case.label(&answer("P2"), None).unwrap().added, 1);
    let error = case.label(&answer("P99"), None).unwrap_err();
    assert!(
        error.to_string().contains("review.jsonl, row 0, document `one`, field `relations`: `P99`")
            && error.hint().unwrap().contains("--relations"),
        "{error}"
    );
    let mut known = RelationSet::default();
    known.insert("P99", "ninety-nine");
    assert_eq!(case.label(&answer("P99"), Some(&known)).unwrap().added, 1);
}

#[test]
fn lines_that_do_not_fit_are_named() {
    let mut asked = source("asked");
    asked["candidates"] = json!([{"h": 0, "t": 1}, {"h": 2, "t": 1}]);
    let case = Case::new(&[source("one"), asked]);
    let refused = |lines: &[Value], told: &str| {
        let error = case.label(lines, None).unwrap_err();
        assert!(
            error.exit_code() == 65 && error.to_string().contains(told) && error.hint().is_some(),
            "{error}\nhint: {:?}",
            error.hint()
        );
        assert!(!case.folder.path().join("out.json").exists(), "{told}");
    };
    let (yes, names) = (json!(["P1"]), ["Ada", "Rome"]);
    let good = line("one", (0, 1), names, &yes);
    refused(
        &[good.clone(), line("on", (0, 1), names, &yes)],
        "row 1, document `on`, field `title`",
    );
    refused(&[line("one", (0, 9), names, &yes)], "field `tail.entity`: there is no entity 9");
    refused(&[line("one", (0, 0), ["Ada", "Ada"], &yes)], "head and tail are both entity 0");
    refused(
        &[line("one", (0, 1), ["Ada", "Paris"], &Value::Null)],
        "field `tail.name`: entity 1 is `Paris` here and `Rome` in the document",
    );
    refused(
        &[line("one", (0, 1), names, &json!(["NA"]))],
        "field `relations`: `NA` is no relation",
    );
    refused(&[line("asked", (1, 0), ["Rome", "Ada"], &yes)], "does not ask about (1, 0)");
    refused(
        &[good.clone(), line("one", (0, 1), names, &json!([]))],
        "row 1, document `one`, field `relations`: the pair (0, 1) has another answer in row 0",
    );
    let mut missing = good.clone();
    missing.as_object_mut().unwrap().remove("relations");
    refused(&[missing], "missing field `relations`");
    let mut text = good.clone();
    text["relations"] = json!("P1");
    refused(&[text], "field `relations`");
    let mut evidence = good;
    evidence["evidence"] = json!([0, 3]);
    refused(&[evidence], "field `evidence`: there is no sentence 3: the document has 3");
}
