use serde_json::json;

use std::collections::BTreeMap;

use super::report::Agreement;
use super::*;
use crate::corpus::Fact;
use crate::corpus::formats::ReadOptions;
use crate::corpus::{Format, RelationSet};

fn document(title: &str) -> serde_json::Value {
    let mention = |name: &str, sentence: usize, word: usize| {
        json!({
            "name": name, "sent_id": sentence, "pos": [word, word + 1], "type": "X",
        })
    };
    json!({
        "title": title,
        "sents": [["Ada", "saw", "Rome"], ["Byron", "left"], ["Lovelace", "loved", "Roma"]],
        "vertexSet": [
            [mention("Ada", 0, 0), mention("Lovelace", 2, 0)],
            [mention("Rome", 0, 2), mention("Roma", 2, 2)],
            [mention("Byron", 1, 0)],
        ],
        "labels": [{"h": 2, "t": 1, "r": "OLD", "evidence": []}],
    })
}

fn fact(head: usize, tail: usize, relation: &str, evidence: &[usize]) -> Fact {
    Fact { head, tail, relation: relation.to_owned(), evidence: evidence.to_owned() }
}

#[test]
fn any_name_of_the_head_meets_any_name_of_the_tail() {
    let folder = tempfile::tempdir().unwrap();
    let facts = [
        ["Lovelace", "Rome", "P2"],
        ["Ada", "Roma", "P1"],
        ["Lovelace", "Rome", "P2"],
        ["Ada", "Rome", "P2"],
        ["Byron", "Ada", "P3"],
        ["Ada", "Lovelace", "P4"],
        ["ada", "Rome", "P5"],
        ["Rome", "Milan", "P6"],
    ];
    let (list, table) = (folder.path().join("f.json"), folder.path().join("f.tsv"));
    fs_err::write(&list, json!(facts).to_string()).unwrap();
    fs_err::write(&table, facts.map(|fact| fact.join("\t")).join("\n")).unwrap();
    let input = folder.path().join("in.json");
    fs_err::write(&input, json!([document("one")]).to_string()).unwrap();
    let (documents, _) = Format::DOCRED.read_all(&input, &ReadOptions::default()).unwrap();
    for path in [&list, &table] {
        let base = FactBase::load(path).unwrap();
        assert_eq!(base.len(), 7);
        let expected =
            [fact(0, 1, "P1", &[0, 2]), fact(0, 1, "P2", &[0, 2]), fact(2, 0, "P3", &[])];
        assert_eq!(base.label(&documents[0]), expected);
    }
}

#[test]
fn a_file_is_labelled_in_order_without_the_excluded() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.json"), folder.path().join("out.json"));
    let bare = json!({"title": "bare", "sents": [], "vertexSet": []});
    fs_err::write(
        &input,
        json!([document("one"), bare, document("dev"), document("two")]).to_string(),
    )
    .unwrap();
    let mut base = FactBase::default();
    base.insert("Ada", "Rome", "P1");
    base.insert("Rome", "Byron", "P0");
    let options =
        LabelOptions { exclude_titles: ["dev".to_owned()].into(), ..LabelOptions::default() };
    let report = label_file(&base, &input, &output, &options).unwrap();
    let by_relation = BTreeMap::from([("P0".to_owned(), 2), ("P1".to_owned(), 2)]);
    // Both documents came with the label (2, 1, OLD); "Ada" and "Rome" and "Byron" are known,
    // "bare" has no labels of its own.
    let found = |relation: &str| (relation.to_owned(), Agreement { distant: 2, human: 0, both: 0 });
    let old = ("OLD".to_owned(), Agreement { distant: 0, human: 2, both: 0 });
    let agreement = [found("P0"), found("P1"), old].into();
    let counts = LabelReport {
        documents: 4,
        excluded: 1,
        written: 3,
        labelled: 2,
        facts: 4,
        entities: 6,
        matched: 6,
        ..LabelReport::default()
    };
    assert_eq!(
        report,
        LabelReport { by_relation, agreement, known_facts: 2, used_facts: 2, ..counts }
    );
    let (documents, _) = Format::DOCRED.read_all(&output, &ReadOptions::default()).unwrap();
    assert_eq!(
        documents.iter().map(|document| document.title.as_str()).collect::<Vec<_>>(),
        ["one", "bare", "two"]
    );
    assert_eq!(documents[2].facts(), [fact(0, 1, "P1", &[0, 2]), fact(1, 2, "P0", &[])]);
}

#[test]
fn items_match_by_label_identifier_and_alias() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("items.jsonl");
    let items = [
        json!({"id": "Q1", "label": "ada", "aliases": ["Lovelace"],
               "claims": {"P1": ["Q2"], "P9": "Q3"}}),
        json!({"id": "Q2", "label": "Rome"}),
        json!({"id": "Q4", "label": "ROME", "claims": {"P3": ["Q3"]}}),
    ];
    fs_err::write(&path, items.map(|item| item.to_string()).join("\n")).unwrap();
    let input = folder.path().join("in.json");
    let mut with_id = document("one");
    with_id["vertexSet"][2][0]["kb_id"] = json!("Q3");
    fs_err::write(&input, json!([with_id]).to_string()).unwrap();
    let (documents, _) = Format::DOCRED.read_all(&input, &ReadOptions::default()).unwrap();
    let labels = |matching| FactBase::load_with(&path, matching).unwrap().label(&documents[0]);
    // Letter by letter, `Ada` is nothing and `Rome` only Q2; without case, `Rome` is Q2 and Q4.
    assert_eq!(labels(Matching::Exact), []);
    let folded = [fact(0, 1, "P1", &[0, 2]), fact(0, 2, "P9", &[]), fact(1, 2, "P3", &[])];
    assert_eq!(labels(Matching::Folded), folded);
    let mut renamed = documents[0].clone();
    renamed.entities[0].mentions.remove(0);
    let alone = |matching| FactBase::load_with(&path, matching).unwrap().label(&renamed).len();
    assert_eq!((alone(Matching::Folded), alone(Matching::Alias)), (1, 3));
    fs_err::write(&path, r#"{"id": "Q1", "claims": {"P1": [3]}}"#).unwrap();
    let error = FactBase::load(&path).unwrap_err().to_string();
    assert!(error.contains("items.jsonl, row 0, field `claims.P1`"), "{error}");
}

#[test]
fn agreement_with_people_is_reported_by_relation() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.json"), folder.path().join("out.json"));
    let mut labelled = document("one");
    labelled["labels"] = json!([{"h": 0, "t": 1, "r": "P1"}, {"h": 2, "t": 1, "r": "P1"}]);
    labelled["candidates"] = json!([{"h": 0, "t": 1}, {"h": 2, "t": 1}, {"h": 1, "t": 0}]);
    fs_err::write(&input, json!([labelled]).to_string()).unwrap();
    let mut base = FactBase::default();
    for (head, tail, relation) in [
        ("Ada", "Rome", "P1"),
        ("Rome", "Ada", "P1"),
        ("Rome", "Ada", "P2"),
        ("Ada", "Byron", "P1"),
        ("X", "Y", "P1"),
    ] {
        base.insert(head, tail, relation);
    }
    let report = label_file(&base, &input, &output, &LabelOptions::default()).unwrap();
    assert_eq!(report.agreement["P1"], Agreement { distant: 2, human: 2, both: 1 });
    assert_eq!((report.multiple, report.used_facts, report.known_facts), (1, 3, 5));
    assert_eq!(report.overall().map(|all| (all.precision(), all.recall())), Some((1.0 / 3.0, 0.5)));
    assert!(
        report.table().contains("P1              2    0.5000  0.5000       2"),
        "{}",
        report.table()
    );
    assert_eq!(
        Format::DOCRED.read_all(&output, &ReadOptions::default()).unwrap().0[0].facts().len(),
        3,
        "the pair (Ada, Byron) is not asked about"
    );
}

#[test]
fn malformed_facts_are_named_by_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.tsv");
    fs_err::write(&path, "a\tb\tP1\na\tb\n").unwrap();
    let error = FactBase::load(&path).unwrap_err().to_string();
    assert!(error.contains("f.tsv, row 1") && error.contains("[\"a\", \"b\"]"), "{error}");
    fs_err::write(&path, "[[\"a\", \"b\", \"P1\"], [\"a\", \"b\", 3]]").unwrap();
    let error = FactBase::load(&path).unwrap_err().to_string();
    assert!(error.contains("row 1") && error.contains("invalid type"), "{error}");
}

#[test]
fn facts_in_another_form_are_told_the_form() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    for (text, hint) in [
        ("<x:Ada> <x:P1> <x:Rome> .\n", "N-Triples"),
        ("[\n{\"id\": \"Q1\", \"labels\": {}},\n]", "one a line"),
        ("Ada\tRome\n", "tabs"),
    ] {
        fs_err::write(&path, text).unwrap();
        let error = FactBase::load(&path).unwrap_err();
        assert!(error.hint().unwrap().contains(hint), "{error}: {:?}", error.hint());
    }
}

#[test]
fn facts_of_other_relations_are_left_out_and_a_file_of_none_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = (folder.path().join("f.tsv"), Path::new("rel_info.json"));
    let mut relations = RelationSet::default();
    relations.insert("P1", "knows");
    fs_err::write(&path, "Ada\tRome\tP1\nAda\tRome\tP2\nRome\tAda\tP2\n").unwrap();
    let mut base = FactBase::load(&path).unwrap();
    base.keep_relations(&relations, file).unwrap();
    let mut left = FactBase::default();
    left.insert("Ada", "Rome", "P1");
    let input = folder.path().join("in.json");
    fs_err::write(&input, json!([document("one")]).to_string()).unwrap();
    let (documents, _) = Format::DOCRED.read_all(&input, &ReadOptions::default()).unwrap();
    assert_eq!((base.len(), base.label(&documents[0])), (1, left.label(&documents[0])));
    // The columns of another order: head, relation, tail.
    fs_err::write(&path, "Ada\tP1\tRome\n").unwrap();
    let error = FactBase::load(&path).unwrap().keep_relations(&relations, file).unwrap_err();
    let told = error.to_string().contains("none of its 1 facts") && error.hint().is_some();
    assert!(told && error.exit_code() == 65, "{error}");
}

#[test]
fn a_marked_file_has_all_its_facts_and_a_damaged_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.tsv");
    fs_err::write(&path, "\u{feff}Ada\tRome\tP1\n").unwrap();
    let mut known = FactBase::load(&path).unwrap();
    known.insert("Ada", "Rome", "P1");
    assert_eq!(known.len(), 1);
    fs_err::write(&path, "\u{feff}[[\"Ada\", \"Rome\", \"P1\"]]").unwrap();
    assert_eq!(FactBase::load(&path).unwrap().len(), 1);
    let path = folder.path().join("f.tsv.gz");
    fs_err::write(&path, b"\x1f\x8b\x08\x00").unwrap();
    let error = FactBase::load(&path).unwrap_err();
    assert!(
        error.exit_code() == 65 && error.to_string().contains("f.tsv.gz") && error.hint().is_some(),
        "{error}"
    );
}

/// DocRED's own training facts, looked up in its own training documents, must find every label
/// there is.
#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn the_facts_of_real_documents_are_found_again() {
    let shared = crate::reference_data();
    let base = FactBase::load(&shared.join("data/docred/train_annotated.fact")).unwrap();
    let (documents, _) = Format::DOCRED
        .read_all(
            &shared.join("data/docred/train_annotated_t5aug_447.json"),
            &ReadOptions::default(),
        )
        .unwrap();
    let (mut found, mut all) = (0, 0);
    for document in &documents {
        let labels: HashSet<_> = base
            .label(document)
            .into_iter()
            .map(|fact| (fact.head, fact.tail, fact.relation))
            .collect();
        all += document.facts().len();
        found += document
            .facts()
            .iter()
            .filter(|fact| labels.contains(&(fact.head, fact.tail, fact.relation.clone())))
            .count();
    }
    println!("{} facts; {found} of {all} labels found by name", base.len());
    assert!(found as f64 > 0.95 * all as f64);
}
