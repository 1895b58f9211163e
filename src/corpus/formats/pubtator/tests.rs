//! Parsing, refusals, and the same pairs as EoG's files of the same corpus.

use std::collections::BTreeMap;

use super::*;
use crate::corpus::formats::read_eog;
use crate::corpus::{Candidate, Fact};

const GOOD: &str = "7|t|Aspirin and ulcers.\n\
    7|a|Ulcers, e.g. bleeding ones, follow aspirin. Pain too.\n\
    7\t0\t7\tAspirin\tChemical\tD1\n7\t12\t18\tulcers\tDisease\tD2\n\
    7\t20\t26\tUlcers\tDisease\tD2|D3\tulcers|bleeding\n\
    7\t55\t62\taspirin\tChemical\tD1\n7\t64\t68\tPain\tDisease\tD4\n\
    7\t64\t68\tPain\tDisease\t-1\n7\tCID\tD1\tD3\n";

fn read_with(text: &str, options: &ReadOptions) -> Result<Vec<Document>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.txt");
    fs_err::write(&path, text).unwrap();
    let mut documents = Vec::new();
    Pubtator.read(&path, options, &mut |document| {
        documents.push(document);
        Ok(())
    })?;
    Ok(documents)
}

fn read(text: &str) -> Result<Vec<Document>> {
    read_with(text, &ReadOptions::default())
}

#[test]
fn a_paragraph_becomes_a_document() {
    let documents = read(&format!(
        "\n{GOOD}\n\n{}",
        GOOD.replace("\n7", "\n8").replacen('7', "8", 1).replace('\n', "\r\n")
    ))
    .unwrap();
    assert_eq!(
        documents[1],
        Document {
            title: "8".into(),
            provenance: documents[1].provenance.clone(),
            ..documents[0].clone()
        }
    );
    let document = &documents[0];
    let sentences: Vec<String> = document.sentences.iter().map(|words| words.join(" ")).collect();
    assert_eq!(
        sentences,
        ["Aspirin and ulcers .", "Ulcers , e . g . bleeding ones , follow aspirin .", "Pain too ."]
    );
    let ids: Vec<_> = document
        .entities
        .iter()
        .map(|entity| (entity.knowledge_base_id.as_deref().unwrap(), entity.mentions.len()))
        .collect();
    assert_eq!(ids, [("D1", 2), ("D2", 2), ("D3", 1), ("D4", 1)]);
    let mention = &document.entities[0].mentions[1];
    assert_eq!(
        (mention.name.as_str(), mention.sentence, mention.start, mention.end),
        ("aspirin", 1, 10, 11)
    );
    let candidate = |tail| Candidate { head: 0, tail, excluded: false };
    assert_eq!(document.candidates, Some(vec![candidate(1), candidate(2), candidate(3)]));
    assert_eq!(
        document.facts(),
        [Fact { head: 0, tail: 2, relation: "CID".into(), evidence: vec![] }]
    );
    assert!(document.share_sentence(0, 2) && !document.share_sentence(0, 3));
}

#[test]
fn pair_types_are_the_users() {
    let options = ReadOptions {
        pair_types: Some(PairTypes::listed(&[("Disease", "Disease")])),
        ..ReadOptions::default()
    };
    let text = GOOD.replace("CID\tD1\tD3", "R\tD4\tD2");
    let document = &read_with(&text, &options).unwrap()[0];
    assert_eq!(document.entities.len(), 3, "chemicals are no argument of any pair");
    assert_eq!(
        (document.asked_pairs().len(), document.facts()[0].head, document.facts()[0].tail),
        (6, 2, 0)
    );
}

#[test]
fn relations_of_types_that_are_not_asked_about_are_left_out_and_counted() {
    let summary = |text: &str, options: &ReadOptions| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.txt");
        fs_err::write(&path, text).unwrap();
        Pubtator.read(&path, options, &mut |_| Ok(()))
    };
    let text = format!("{GOOD}7\tR\tD2\tD4\n7\tNA\tD1\tD4\n7\tR\tD4\tD2\n");
    let found = summary(&text, &ReadOptions::default()).unwrap();
    assert_eq!((found.facts, found.unasked_facts, found.no_relation), (1, 2, 1));
    let all = ReadOptions { pair_types: Some(PairTypes::All), ..ReadOptions::default() };
    let found = summary(&text, &all).unwrap();
    assert_eq!((found.facts, found.unasked_facts, found.no_relation), (3, 0, 1));
    // A row between what is not mentioned is an error, or left out and listed where that is asked.
    let text = format!("{GOOD}7\tR\tD1\tD9\n");
    assert!(summary(&text, &all).unwrap_err().to_string().contains("`D9`"));
    let skip = ReadOptions { on_error: OnError::Skip, ..ReadOptions::default() };
    let found = summary(&text, &skip).unwrap();
    assert_eq!((found.documents, found.facts, found.left_out.len()), (1, 1, 1));
    let left_out = &found.left_out[0];
    assert_eq!((left_out.what, left_out.error.title.as_deref()), ("relation", Some("7")));
}

/// A variant is one entity; several genes of one mention stand between commas; a fifth column of a
/// relation is passed over.
#[test]
fn bioreds_own_files_are_read() {
    let text = "3|t|R12K of GENA and GENB1/2 in pain.\n\
        3\t0\t4\tR12K\tSequenceVariant\tp|SUB|R|12|K\n\
        3\t8\t12\tGENA\tGeneOrGeneProduct\t901\n\
        3\t17\t24\tGENB1/2\tGeneOrGeneProduct\t901,902\n\
        3\t28\t32\tpain\tDiseaseOrPhenotypicFeature\tD910\n\
        3\tAssociation\tp|SUB|R|12|K\tD910\tNovel\n\
        3\tAssociation\t902\tD910\tNo\n";
    let all = ReadOptions { pair_types: Some(PairTypes::All), ..ReadOptions::default() };
    let document = &read_with(text, &all).unwrap()[0];
    let ids: Vec<_> = document
        .entities
        .iter()
        .map(|entity| (entity.knowledge_base_id.as_deref().unwrap(), entity.mentions.len()))
        .collect();
    assert_eq!(ids, [("p|SUB|R|12|K", 1), ("901", 2), ("902", 1), ("D910", 1)]);
    let pairs: Vec<_> = document.facts().iter().map(|fact| (fact.head, fact.tail)).collect();
    assert_eq!(pairs, [(0, 3), (2, 3)]);
    let other = text.replace("\tNovel\n", "\tnovel?\n");
    assert!(read_with(&other, &all).unwrap_err().to_string().contains("line 6"));
}

#[test]
fn what_breaks_the_format_is_named() {
    for (from, to, place, problem) in [
        ("7|t|", "7|x|", "row 0", "line 1 is not a title"),
        ("7|a|", "9|a|", "line 2", "abstract of `9`"),
        ("7\t0\t7", "8\t0\t7", "line 3", "belongs to `8`"),
        ("0\t7\tAsp", "x\t7\tAsp", "line 3", "`x` is not a number"),
        ("0\t7\tAsp", "-1\t7\tAsp", "line 3", "-1..7"),
        ("64\t68", "64\t699", "line 7", "64..699"),
        ("12\t18", "13\t18", "line 4", "`lcers`, not `ulcers`"),
        ("\tCID\tD1\tD3", "\tCID\tD1\tD9", "line 9", "between `D1` and `D9`"),
        ("\tCID\tD1\tD3", "\tCID", "line 9", "2 columns"),
        ("7\t0\t7\tAspirin\tChemical\tD1", "7\t7\t8\t \tChemical\tD1", "line 3", "covers no word"),
    ] {
        let error = read(&GOOD.replace(from, to)).unwrap_err();
        assert!(error.exit_code() == 65 && error.hint().is_some(), "{error}");
        assert!(
            error.to_string().contains(place) && error.to_string().contains(problem),
            "{error}"
        );
    }
    let twice = read(&format!("{GOOD}\n{GOOD}")).unwrap_err();
    assert!(
        twice.to_string().contains("row 1") && twice.to_string().contains("used by row 0"),
        "{twice}"
    );
    let relations = Some(crate::corpus::RelationSet::from(vec![]));
    let unknown =
        read_with(GOOD, &ReadOptions { relations, ..ReadOptions::default() }).unwrap_err();
    assert!(unknown.to_string().contains("unknown relation `CID`"), "{unknown}");
}

/// Pairs by identifiers: label, and whether they share a sentence.
fn pairs(document: &Document) -> BTreeMap<(String, String), (Option<String>, bool)> {
    let id = |entity: usize| document.entities[entity].knowledge_base_id.clone().unwrap();
    let label = |head, tail| {
        document
            .facts()
            .iter()
            .find(|fact| (fact.head, fact.tail) == (head, tail))
            .map(|fact| fact.relation.clone())
    };
    let pair = |pair: &Candidate| {
        let Candidate { head, tail, .. } = *pair;
        ((id(head), id(tail)), (label(head, tail), document.share_sentence(head, tail)))
    };
    document.candidates.iter().flatten().map(pair).collect()
}

/// The counts of docs/formats.md, "CDR and GDA", from both formats: relations within and across
/// sentences, other pairs, most words; and the same pairs, spans and words.
#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn cdr_is_the_same_from_both_formats() {
    let shared = crate::reference_data();
    for (name, split, intra, inter, others, words) in [
        ("CDR_TrainingSet", "train", 754, 284, 4202 + 192, 653),
        ("CDR_DevelopmentSet", "dev", 766, 246, 4075 + 174, 641),
    ] {
        let text =
            fs_err::read_to_string(shared.join(format!("data/cdr/pubtator/{name}.PubTator.txt")))
                .unwrap();
        let documents = read(&text).unwrap();
        let counts = documents.iter().flat_map(|document| pairs(document).into_values()).fold(
            [0; 3],
            |mut counts, (label, shares)| {
                counts[if label.is_none() { 2 } else { usize::from(!shares) }] += 1;
                counts
            },
        );
        assert_eq!((documents.len(), counts), (500, [intra, inter, others]), "{split}");
        assert_eq!(documents.iter().map(Document::num_words).max(), Some(words));
        let eog = read_eog(&shared.join(format!("data/cdr/{split}_filter.data"))).unwrap();
        let eog: BTreeMap<&str, &Document> =
            eog.iter().map(|read| (read.document.title.as_str(), &read.document)).collect();
        let same_words = documents.iter().filter(|document| {
            eog[document.title.as_str()].sentences.concat() == document.sentences.concat()
        });
        assert_eq!(same_words.count(), 500, "{split}: documents of the same words");
        for document in &documents {
            assert_eq!(pairs(document), pairs(eog[document.title.as_str()]), "{}", document.title);
        }
    }
}
