//! Graphs of small hand-made corpora.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::make::{GraphTask, make_graph};
use super::nodes::MergeBy;
use super::whole::FactGraph;
use super::why::{EdgeQuery, why_edges};
use crate::corpus::Format;
use crate::{Error, Result};

/// A folder with documents and predictions.
struct Corpus(TempDir);

impl Corpus {
    fn new() -> Self {
        let corpus = Self(tempfile::tempdir().unwrap());
        let entity = |name: &str, kind: &str, sentence: usize, at: usize, id: Option<&str>| {
            let mut mention = json!({
                "name": name, "sent_id": sentence, "pos": [at, at + 1], "type": kind
            });
            if let Some(id) = id {
                mention["kb_id"] = id.into();
            }
            json!([mention])
        };
        let documents = json!([
            {
                "title": "one",
                "sents": [["Ada", "met", "Bob", "."], ["Bob", "lives", "in", "Rome", "."]],
                "vertexSet": [
                    entity("Ada", "PER", 0, 0, Some("Q1")),
                    [
                        { "name": "Bob", "sent_id": 0, "pos": [2, 3], "type": "PER" },
                        { "name": "Bob", "sent_id": 1, "pos": [0, 1], "type": "PER" }
                    ],
                    entity("Rome", "LOC", 1, 3, Some("Q220")),
                ]
            },
            {
                "title": "two, \"quoted\"",
                "sents": [["Bob", "was", "born", "in", "Roma", "or", "Oslo", "."]],
                "vertexSet": [
                    entity("Bob", "PER", 0, 0, None),
                    entity("Roma", "LOC", 0, 4, Some("Q220")),
                    entity("Oslo", "LOC", 0, 6, None),
                ]
            }
        ]);
        corpus.write("documents.json", &documents);
        corpus
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, value: &Value) {
        fs_err::write(self.path(name), value.to_string()).unwrap();
    }

    fn task(&self, predictions: &Value) -> GraphTask {
        self.write("predictions.json", predictions);
        GraphTask {
            predictions: vec![self.path("predictions.json")],
            documents: vec![self.path("documents.json")],
            format: Format::DOCRED,
            relations: None,
            constraints: None,
            merge: MergeBy::IdOrName,
            min_confidence: None,
            entity_iri: None,
            relation_iri: None,
            output: self.path("graph"),
        }
    }

    fn edges(&self, query: &EdgeQuery) -> Vec<String> {
        let told = why_edges(&self.path("graph"), query).unwrap();
        let kept = told.edges.iter().map(|edge| {
            let derived = if edge.derived { " derived" } else { "" };
            format!(
                "{} {} {} from {}{derived}",
                edge.head,
                edge.relation,
                edge.tail,
                edge.statements.len()
            )
        });
        let dropped = told.dropped.iter().map(|edge| {
            format!("{} {} {} dropped: {}", edge.head, edge.relation, edge.tail, edge.reason)
        });
        kept.chain(dropped).collect()
    }

    fn all(&self) -> Vec<String> {
        self.edges(&EdgeQuery::default())
    }
}

fn fact(title: &str, head: usize, relation: &str, tail: usize, score: f64) -> Value {
    json!({ "title": title, "h_idx": head, "t_idx": tail, "r": relation, "score": score })
}

const TWO: &str = "two, \"quoted\"";

#[test]
fn entities_and_facts_of_documents_are_merged() {
    let corpus = Corpus::new();
    let predictions = json!([
        fact("one", 1, "lives", 2, 0.5),
        fact("one", 1, "lives", 2, 0.75),
        fact(TWO, 0, "lives", 1, 0.25),
        fact("one", 0, "knows", 1, 0.9),
    ]);
    let report = make_graph(&corpus.task(&predictions)).unwrap();
    assert_eq!((report.facts, report.documents), (3, 2));
    assert_eq!((report.nodes, report.edges), (3, 2), "Rome and Roma have one identifier");
    assert_eq!(report.warnings, Vec::<String>::new());
    assert_eq!(corpus.all(), ["Q1 knows name:PER:Bob from 1", "name:PER:Bob lives Q220 from 2"]);
    // By one of its names, with where it stands.
    let query = EdgeQuery { tail: Some("Roma".into()), ..EdgeQuery::default() };
    let told = why_edges(&corpus.path("graph"), &query).unwrap();
    assert_eq!(told.edges[0].score, Some(0.75));
    let stated = &told.edges[0].statements;
    assert_eq!(
        (stated[0].sentences.as_slice(), stated[1].sentences.as_slice()),
        (&[1][..], &[0][..])
    );
    assert_eq!(stated[0].text, "Bob lives in Rome .");
    assert!(told.to_string().contains("two, \"quoted\": Bob → lives → Roma (0.250)"), "{told}");
    // Every file is there, and the triples can be told apart.
    let triples = fs_err::read_to_string(corpus.path("graph/graph.nt")).unwrap();
    let edge =
        "<urn:docre:entity:name:PER:Bob> <urn:docre:relation:lives> <urn:docre:entity:Q220> .";
    assert_eq!(triples.lines().filter(|line| *line == edge).count(), 1);
    assert_eq!(triples.matches("rdf-syntax-ns#Statement>").count(), 3);
    let rows = |name: &str| {
        let mut table = csv::Reader::from_path(corpus.path(name)).unwrap();
        table.records().map(|row| row.unwrap().len()).collect::<Vec<_>>()
    };
    assert_eq!(rows("graph/neo4j-nodes.csv"), [7; 3]);
    assert_eq!(rows("graph/neo4j-relationships.csv"), [9; 2]);
}

#[test]
fn what_is_merged_can_be_chosen() {
    let corpus = Corpus::new();
    let predictions = json!([fact("one", 1, "lives", 2, 0.5), fact(TWO, 0, "lives", 1, 0.25)]);
    let nodes =
        |merge| make_graph(&GraphTask { merge, ..corpus.task(&predictions) }).unwrap().nodes;
    assert_eq!(nodes(MergeBy::IdOrName), 2);
    assert_eq!(nodes(MergeBy::Id), 3);
    assert_eq!(nodes(MergeBy::Nothing), 4);
    let unnamed = GraphTask { documents: Vec::new(), ..corpus.task(&predictions) };
    let report = make_graph(&unnamed).unwrap();
    assert_eq!(report.nodes, 4);
    assert!(report.warnings[0].contains("--documents"), "{:?}", report.warnings);
}

#[test]
fn constraints_decide_between_predictions() {
    let corpus = Corpus::new();
    let with = |constraints: &str, predictions: &Value| {
        fs_err::write(corpus.path("c.toml"), constraints).unwrap();
        let constraints = Some(corpus.path("c.toml"));
        let report = make_graph(&GraphTask { constraints, ..corpus.task(predictions) }).unwrap();
        (report, corpus.all())
    };
    // Bob is born once; two documents weigh more than one good score.
    let born = json!([
        fact(TWO, 0, "born", 2, 0.9),
        fact("one", 1, "born", 2, 0.5),
        fact(TWO, 0, "born", 1, 0.5),
    ]);
    let functional = "[[relation]]\nid = \"born\"\nfunctional = true\n";
    let (report, all) = with(functional, &born);
    assert_eq!(
        all,
        ["name:PER:Bob born Q220 from 2", "name:PER:Bob born name:LOC:Oslo dropped: functional"]
    );
    assert_eq!(report.dropped["functional"], 1);
    let types = "[[relation]]\nid = \"born\"\nhead_types = [\"PER\"]\ntail_types = [\"ORG\"]\n";
    assert_eq!(with(types, &born).0.dropped["tail-type"], 2);
    // An inverse that nothing states is added; both stand or fall together.
    let inverse = "[[relation]]\nid = \"born\"\ninverse = \"birthplace_of\"\n";
    let (report, all) = with(inverse, &json!([fact("one", 1, "born", 2, 0.5)]));
    assert_eq!(report.derived, 1);
    assert!(all.contains(&"Q220 birthplace_of name:PER:Bob from 1 derived".to_owned()), "{all:?}");
    let both = format!("{functional}inverse = \"birthplace_of\"\n");
    let (report, _) = with(&both, &born);
    assert_eq!((report.dropped["functional"], report.dropped["inverse"]), (1, 1));
    // A symmetric relation, stated both ways.
    let symmetric = "[[relation]]\nid = \"knows\"\ninverse = \"knows\"\n";
    let (report, all) = with(symmetric, &json!([fact("one", 0, "knows", 1, 0.5)]));
    assert_eq!((report.edges, report.derived), (2, 1), "{all:?}");
    let (report, all) = with(
        symmetric,
        &json!([fact("one", 0, "knows", 1, 0.5), fact("one", 1, "knows", 0, 0.25)]),
    );
    assert_eq!((report.edges, report.derived), (2, 0));
    assert!(all.iter().all(|edge| edge.ends_with("from 2")), "{all:?}");
    // Nothing is related to itself, unless documents are kept apart.
    let itself = json!([fact(TWO, 1, "near", 1, 0.5)]);
    assert_eq!(with("relation = []", &itself).0.dropped["itself"], 1);
}

#[test]
fn what_does_not_fit_is_an_error_that_names_the_place() {
    let corpus = Corpus::new();
    let refused = |outcome: Result<_>, parts: &[&str]| {
        let error: Error = outcome.err().unwrap();
        let told = format!("{error} {}", error.hint().unwrap_or_default());
        for part in parts {
            assert!(told.contains(part), "{part}: {told}");
        }
    };
    let make = |predictions: &Value| make_graph(&corpus.task(predictions));
    let outside = json!([fact("one", 0, "knows", 3, 0.5)]);
    refused(make(&outside), &["t_idx", "3", "3 entities", "`one`"]);
    refused(make(&json!([fact("three", 0, "r", 1, 0.5)])), &["three", "--documents"]);
    let mut evidence = fact("one", 0, "knows", 1, 0.5);
    evidence["evidence"] = json!([2]);
    refused(make(&json!([evidence])), &["evidence", "2 sentences"]);
    let uncertain = GraphTask {
        min_confidence: Some(0.5),
        ..corpus.task(&json!([fact("one", 0, "knows", 1, 0.5)]))
    };
    refused(make_graph(&uncertain), &["confidence", "--min-confidence"]);
    let of = |constraints: &str| {
        fs_err::write(corpus.path("c.toml"), constraints).unwrap();
        let constraints = Some(corpus.path("c.toml"));
        make_graph(&GraphTask { constraints, ..corpus.task(&json!([])) })
    };
    refused(of("[[relation]]\nid = \"a\"\nfunctionl = true\n"), &["functionl", "c.toml"]);
    refused(of("[[relation]]\nid = \"a\"\n[[relation]]\nid = \"a\"\n"), &["`a` stands twice"]);
    let other = "[[relation]]\nid = \"a\"\ninverse = \"b\"\n\
                 [[relation]]\nid = \"b\"\ninverse = \"c\"\n";
    refused(of(other), &["inverse", "`c`"]);
    let twice = GraphTask {
        documents: vec![corpus.path("documents.json"), corpus.path("documents.json")],
        ..corpus.task(&json!([fact("one", 0, "knows", 1, 0.5)]))
    };
    refused(make_graph(&twice), &["another document has this title"]);
}

#[test]
fn nothing_predicted_is_an_empty_graph() {
    let corpus = Corpus::new();
    let report = make_graph(&corpus.task(&json!([]))).unwrap();
    assert_eq!((report.nodes, report.edges, report.facts), (0, 0, 0));
    assert_eq!(corpus.all(), Vec::<String>::new());
    assert!(FactGraph::default().shown_nodes().is_empty());
    assert!(Path::new(&corpus.path("graph/graph.nt")).exists());
}
