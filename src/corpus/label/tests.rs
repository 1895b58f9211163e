use serde_json::json;

use super::*;
use crate::corpus::docred::read_all;

fn document(title: &str) -> serde_json::Value {
    let mention =
        |name: &str, sentence: usize, word: usize| json!({"name": name, "sent_id": sentence, "pos": [word, word + 1], "type": "X"});
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
    let (documents, _) = read_all(&input, &ReadOptions::default()).unwrap();
    for path in [&list, &table] {
        let base = FactBase::load(path).unwrap();
        assert_eq!(base.len(), 7);
        let expected = [fact(0, 1, "P1", &[0, 2]), fact(0, 1, "P2", &[0, 2]), fact(2, 0, "P3", &[])];
        assert_eq!(base.label(&documents[0]), expected);
    }
}

#[test]
fn a_file_is_labelled_in_order_without_the_excluded() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.json"), folder.path().join("out.json"));
    let bare = json!({"title": "bare", "sents": [], "vertexSet": []});
    fs_err::write(&input, json!([document("one"), bare, document("dev"), document("two")]).to_string()).unwrap();
    let mut base = FactBase::default();
    base.insert("Ada", "Rome", "P1");
    base.insert("Rome", "Byron", "P0");
    let options = LabelOptions { exclude_titles: ["dev".to_owned()].into() };
    let report = label_file(&base, &input, &output, &options).unwrap();
    let by_relation = BTreeMap::from([("P0".to_owned(), 2), ("P1".to_owned(), 2)]);
    assert_eq!(report, LabelReport { documents: 4, excluded: 1, written: 3, labelled: 2, facts: 4, by_relation });
    let (documents, _) = read_all(&output, &ReadOptions::default()).unwrap();
    assert_eq!(documents.iter().map(|document| document.title.as_str()).collect::<Vec<_>>(), ["one", "bare", "two"]);
    assert_eq!(documents[2].facts(), [fact(0, 1, "P1", &[0, 2]), fact(1, 2, "P0", &[])]);
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

/// DocRED's own training facts, looked up in its own training documents, must find every label there is.
#[test]
fn the_facts_of_real_documents_are_found_again() {
    let Some(shared) = std::env::var_os("DOCRE_SHARED").map(std::path::PathBuf::from) else {
        println!("skipped: DOCRE_SHARED is not set");
        return;
    };
    let base = FactBase::load(&shared.join("data/docred/train_annotated.fact")).unwrap();
    let (documents, _) = read_all(&shared.join("data/docred/train_annotated_t5aug_447.json"), &ReadOptions::default()).unwrap();
    let (mut found, mut all) = (0, 0);
    for document in &documents {
        let labels: HashSet<_> = base.label(document).into_iter().map(|fact| (fact.head, fact.tail, fact.relation)).collect();
        all += document.facts().len();
        found += document.facts().iter().filter(|fact| labels.contains(&(fact.head, fact.tail, fact.relation.clone()))).count();
    }
    println!("{} facts; {found} of {all} labels found by name", base.len());
    assert!(found as f64 > 0.95 * all as f64);
}
