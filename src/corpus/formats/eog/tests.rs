//! Parsing, refusals, and the published counts.

use super::*;
use crate::corpus::{Fact, PairLabel};

const TEXT: &str = "Aspirin and ulcers .|Ulcers follow aspirin .";
const ASPIRIN: [&str; 6] = ["D001241", "Aspirin|aspirin", "Chemical", "0:6", "1:7", "0:1"];
const ULCER: [&str; 6] = ["D014456", "ulcers|Ulcers", "Disease", "2:4", "3:5", "0:1"];
const PAIN: [&str; 6] = ["D010146", "follow", "Disease", "5", "6", "1"];

fn pair(label: &str, cross: &str, first: [&str; 6], second: [&str; 6]) -> String {
    [&[label, "L2R", cross, "0-1", "2-3"][..], &first, &second].concat().join("\t")
}

fn read(lines: &[String]) -> Result<Vec<EogDocument>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.data");
    fs_err::write(&path, lines.join("\n")).unwrap();
    read_eog(&path)
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
    let documents = read(&lines).unwrap();
    let EogDocument { document, pairs } = &documents[0];
    assert_eq!(
        (document.title.as_str(), document.sentences.len(), document.num_words()),
        ("77", 2, 8)
    );
    let ids: Vec<_> = document
        .entities
        .iter()
        .map(|entity| entity.knowledge_base_id.as_deref().unwrap())
        .collect();
    assert_eq!(ids, ["D001241", "D014456", "D010146"]);
    let mention = &document.entities[0].mentions[1];
    assert_eq!(
        (mention.name.as_str(), mention.sentence, mention.start, mention.end),
        ("aspirin", 1, 2, 3)
    );
    assert_eq!(document.entities[1].entity_type(), "Disease");
    assert_eq!(
        document.facts(),
        [Fact { head: 0, tail: 1, relation: "CID".into(), evidence: vec![] }]
    );
    let labels: Vec<_> = pairs.iter().map(|pair| (pair.head, pair.tail, &pair.label)).collect();
    let cid = PairLabel::Relation("CID".into());
    assert_eq!(
        labels,
        [(0, 1, &cid), (0, 2, &PairLabel::NotIncluded), (1, 2, &PairLabel::NoRelation)]
    );
    let candidates: Vec<_> = document
        .candidates
        .iter()
        .flatten()
        .map(|pair| (pair.head, pair.tail, pair.excluded))
        .collect();
    assert_eq!(candidates, [(0, 1, false), (0, 2, true), (1, 2, false)]);
}

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
        (line(&[&good.replace("1:CID:2", "CID")]), "column 3", "`CID` is not a label"),
        (line(&[&good.replace("CROSS", "NEAR")]), "column 5", "NEAR"),
        (line(&[&pair("1:NR:2", "CROSS", ULCER, ULCER)]), "column 3", "both arguments"),
        (line(&[&good, &good]), "column 20", "twice"),
        (
            line(&[
                &good,
                &pair(
                    "1:NR:2",
                    "CROSS",
                    PAIN,
                    [ULCER[0], ULCER[1], "Gene", ULCER[3], ULCER[4], ULCER[5]],
                ),
            ]),
            "column 33",
            "was `Disease` before",
        ),
        (with(3, "2:x"), "column 17", "`x` is not a number"),
        (with(3, "2"), "column 15", "differ in number"),
        (with(5, "0:9"), "column 19", "sentence 9 does not exist"),
        (with(4, "3:99"), "column 17", "not inside sentence 1"),
    ] {
        let error = read(&[text]).unwrap_err();
        assert!(error.exit_code() == 65 && error.hint().is_some(), "{error}");
        assert!(
            error.to_string().contains(place) && error.to_string().contains(problem),
            "{error}"
        );
    }
    let twice = read(&[line(&[&good]), line(&[&good])]).unwrap_err();
    assert!(twice.to_string().contains("row 1") && twice.to_string().contains("row 0"), "{twice}");
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_id() {
    let line = ["\u{feff}77", TEXT, &pair("1:CID:2", "NON-CROSS", ASPIRIN, ULCER)].join("\t");
    assert_eq!(read(&[line]).unwrap()[0].document.title, "77");
}

/// The table of docs/formats.md, "CDR and GDA".
#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn published_counts_are_found_again() {
    let shared = crate::reference_data();
    // Documents, pairs: related, unrelated, filtered out; related pairs within and across
    // sentences; most entities and words.
    for (file, expected) in [
        ("train_filter.data", [500, 1038, 4202, 192, 754, 284, 21, 653]),
        ("dev_filter.data", [500, 1012, 4075, 174, 766, 246, 20, 641]),
    ] {
        let read = read_eog(&shared.join("data/cdr").join(file)).unwrap();
        let count = |wanted: &dyn Fn(&LabelledPair) -> bool| {
            read.iter().flat_map(|read| &read.pairs).filter(|pair| wanted(pair)).count()
        };
        let cid = PairLabel::Relation("CID".into());
        let most = |of: &dyn Fn(&Document) -> usize| {
            read.iter().map(|read| of(&read.document)).max().unwrap()
        };
        let found = [
            read.len(),
            count(&|pair| pair.label == cid),
            count(&|pair| pair.label == PairLabel::NoRelation),
            count(&|pair| pair.label == PairLabel::NotIncluded),
            count(&|pair| pair.label == cid && !pair.crosses_sentences),
            count(&|pair| pair.label == cid && pair.crosses_sentences),
            most(&|document| document.entities.len()),
            most(&Document::num_words),
        ];
        assert_eq!(found, expected, "{file}");
    }
}

fn again(documents: &[Document]) -> (Vec<Document>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.data");
    let mut writer = Eog.create(&path).unwrap().unwrap();
    documents.iter().for_each(|document| writer.write(document.clone()).unwrap());
    let written = writer.finish().unwrap();
    assert_eq!(written.documents, documents.len());
    let read = read_eog(&path).unwrap().into_iter().map(|read| read.document);
    let read = read
        .zip(documents)
        .map(|(document, old)| Document { provenance: old.provenance.clone(), ..document });
    (read.collect(), written.losses)
}

#[test]
fn what_is_written_is_read_again() {
    let lines = [[
        "77",
        TEXT,
        &pair("1:CID:2", "NON-CROSS", ASPIRIN, ULCER),
        &pair("not_include", "CROSS", ASPIRIN, PAIN),
    ]
    .join("\t")];
    let documents: Vec<Document> =
        read(&lines).unwrap().into_iter().map(|read| read.document).collect();
    let (same, losses) = again(&documents);
    assert_eq!((same.as_slice(), losses.as_str()), (documents.as_slice(), ""));
    let mut odd = documents[0].clone();
    odd.sentences[0][1] = "a|b c".into();
    odd.candidates = None;
    odd.entities[2].knowledge_base_id = None;
    odd.facts.as_mut().unwrap()[0].evidence = vec![0];
    let (changed, losses) = again(&[odd.clone()]);
    assert_eq!(
        losses,
        "1 documents that asked about every pair now list them; 1 entities without identifier were \
         given one; 1 facts lost their evidence; 1 words or names with white space or `|` were \
         changed"
    );
    assert_eq!(
        (changed[0].sentences[0][1].as_str(), changed[0].candidates.as_ref().map(Vec::len)),
        ("a_b_c", Some(6))
    );
    odd.entities[1].knowledge_base_id = Some("D001241".into());
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Eog.create(&folder.path().join("x")).unwrap().unwrap();
    let error = writer.write(odd).unwrap_err();
    assert!(error.to_string().contains("`D001241` is that of entities[0] too"), "{error}");
}

/// Every real file of the format is written as it was read.
#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn real_files_survive() {
    let shared = crate::reference_data();
    for file in ["cdr/dev_filter.data", "gda/part_a.data", "biored/biored_dev.data"] {
        let documents: Vec<Document> = read_eog(&shared.join("data").join(file))
            .unwrap()
            .into_iter()
            .map(|read| read.document)
            .collect();
        let (same, losses) = again(&documents);
        assert!(same == documents && losses.is_empty(), "{file}: {losses}");
    }
}
