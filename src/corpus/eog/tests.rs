//! Parsing, refusals, and the published counts.

use std::path::PathBuf;

use super::*;

const TEXT: &str = "Aspirin and ulcers .|Ulcers follow aspirin .";
const ASPIRIN: [&str; 6] = ["D001241", "Aspirin|aspirin", "Chemical", "0:6", "1:7", "0:1"];
const ULCER: [&str; 6] = ["D014456", "ulcers|Ulcers", "Disease", "2:4", "3:5", "0:1"];
const PAIN: [&str; 6] = ["D010146", "follow", "Disease", "5", "6", "1"];

fn pair(label: &str, cross: &str, first: [&str; 6], second: [&str; 6]) -> String {
    [&[label, "L2R", cross, "0-1", "2-3"][..], &first, &second].concat().join("\t")
}

fn read(lines: &[String]) -> Result<(Vec<EogDocument>, EogSummary)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.data");
    fs_err::write(&path, lines.join("\n")).unwrap();
    read_all_eog(&path)
}

#[test]
fn a_line_becomes_a_document_with_labelled_pairs() {
    let lines = [[
        "77",
        TEXT,
        &pair("1:CID:2", "NON-CROSS", ASPIRIN, ULCER),
        &pair("not_include", "NON-CROSS", ASPIRIN, PAIN),
        &pair("2:NR:1", "CROSS", PAIN, ULCER),
    ]
    .join("\t")];
    let (documents, summary) = read(&lines).unwrap();
    let EogDocument { document, pairs } = &documents[0];
    assert_eq!((document.title.as_str(), document.sentences.len(), document.num_words()), ("77", 2, 8));
    let ids: Vec<_> = document.entities.iter().map(|entity| entity.knowledge_base_id.as_deref().unwrap()).collect();
    assert_eq!(ids, ["D001241", "D014456", "D010146"]);
    let mention = &document.entities[0].mentions[1];
    assert_eq!((mention.name.as_str(), mention.sentence, mention.start, mention.end), ("aspirin", 1, 2, 3));
    assert_eq!(document.entities[1].entity_type(), "Disease");
    assert_eq!(document.facts(), [Fact { head: 0, tail: 1, relation: "CID".into(), evidence: vec![] }]);
    let labels: Vec<_> = pairs.iter().map(|pair| (pair.head, pair.tail, &pair.label)).collect();
    let cid = PairLabel::Relation("CID".into());
    assert_eq!(labels, [(0, 1, &cid), (0, 2, &PairLabel::NotIncluded), (1, 2, &PairLabel::NoRelation)]);
    assert_eq!((summary.documents, summary.no_relation, summary.not_included, summary.intra, summary.inter), (1, 1, 1, 1, 0));
}

use crate::corpus::Fact;

#[test]
fn what_breaks_the_format_is_named() {
    let good = pair("1:CID:2", "CROSS", ASPIRIN, ULCER);
    let line = |pairs: &[&str]| [&["77", TEXT][..], pairs].concat().join("\t");
    let with = |column: usize, text: &'static str| {
        let mut argument = ULCER;
        argument[column] = text;
        line(&[&pair("1:CID:2", "CROSS", ASPIRIN, argument)])
    };
    for (text, place, problem) in [
        ("77".to_owned(), "column 2", "single column"),
        (line(&[&good, "x"]), "column 3", "18 columns"),
        (line(&[&good.replace("1:CID:2", "CID")]), "column 3", "`CID` is no label"),
        (line(&[&good.replace("CROSS", "NEAR")]), "column 5", "NEAR"),
        (line(&[&pair("1:NR:2", "CROSS", ULCER, ULCER)]), "column 3", "both arguments"),
        (line(&[&good, &good]), "column 20", "twice"),
        (
            line(&[&good, &pair("1:NR:2", "CROSS", PAIN, [ULCER[0], ULCER[1], "Gene", ULCER[3], ULCER[4], ULCER[5]])]),
            "column 33",
            "was `Disease` before",
        ),
        (with(3, "2:x"), "column 17", "`x` is no word"),
        (with(3, "2"), "column 15", "differ in number"),
        (with(5, "0:9"), "column 19", "sentence 9 does not exist"),
        (with(4, "3:99"), "column 17", "not inside sentence 1"),
    ] {
        let error = read(&[text]).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains(place) && error.to_string().contains(problem), "{error}");
    }
    let twice = read(&[line(&[&good]), line(&[&good])]).unwrap_err();
    assert!(twice.to_string().contains("row 1") && twice.to_string().contains("row 0"), "{twice}");
}

/// The table of SPEC §1.6.
#[test]
fn published_counts_are_found_again() {
    let Some(shared) = std::env::var_os("DOCRE_SHARED").map(PathBuf::from) else {
        println!("skipped: DOCRE_SHARED is not set");
        return;
    };
    for (file, expected) in
        [("train_filter.data", (500, 1038, 4202, 192, 754, 284, 21, 653)), ("dev_filter.data", (500, 1012, 4075, 174, 766, 246, 20, 641))]
    {
        let (_, summary) = read_all_eog(&shared.join("data/cdr").join(file)).unwrap();
        let EogSummary { documents, no_relation, not_included, intra, inter, most_entities, most_words, ref relations } = summary;
        assert_eq!((documents, relations["CID"], no_relation, not_included, intra, inter, most_entities, most_words), expected, "{file}");
    }
}
