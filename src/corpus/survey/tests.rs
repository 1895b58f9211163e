use super::*;
use crate::corpus::formats::ReadOptions;
use crate::corpus::{Fact, Format, Mention};

/// Two entities with these names, and one fact between them.
fn document(title: &str, head: &str, tail: &str, relation: &str) -> Document {
    let words: Vec<String> = format!("{head} {tail}").split(' ').map(str::to_owned).collect();
    let (middle, end) = (head.split(' ').count(), words.len());
    let entity = |name: &str, start, end| Entity {
        mentions: vec![Mention {
            name: name.into(),
            sentence: 0,
            start,
            end,
            entity_type: "LOC".into(),
        }],
        knowledge_base_id: None,
    };
    Document {
        title: title.into(),
        sentences: vec![words],
        entities: vec![entity(head, 0, middle), entity(tail, middle, end)],
        facts: Some(vec![Fact { head: 0, tail: 1, relation: relation.into(), evidence: vec![] }]),
        ..Document::default()
    }
}

fn survey(files: &[(&str, &[Document])]) -> Vec<FileSurvey> {
    let mut survey = Survey::default();
    for (name, documents) in files {
        survey.file(name.as_ref());
        documents.iter().for_each(|document| survey.document(document, document.num_words()));
    }
    survey.finish()
}

#[test]
fn titles_and_facts_that_files_share_are_counted() {
    let train = [
        document("A", "Paris", "France", "P17"),
        document("B", "Bonn", "Germany", "P17"),
        document("C", "Rome", "Italy", "P17"),
    ];
    let dev = [
        document("A", "Paris", "France", "P17"),
        document("B", "Bonn", "Germany", "P36"),
        document("D", "Rome", "Italy", "P17"),
    ];
    let files = survey(&[("train.json", &train), ("dev.json", &dev)]);
    assert_eq!(files[0].shared, []);
    let shared =
        Shared { titles: 2, relabelled: 1, facts: 2, examples: vec!["A".into(), "B".into()] };
    assert_eq!(files[1].shared, [shared]);
    let text = SurveyReport(files).to_string();
    assert!(
        text.contains("in common with train.json: 2 titles (1 with other labels), 2 of 3 facts"),
        "{text}"
    );
    assert!(
        text.contains("DocRED dev as published: 1000 documents, 12323 facts — this file differs"),
        "{text}"
    );
}

#[test]
fn names_are_compared_with_words() {
    let mut odd = document("A", "New York", "USA", "P17");
    odd.entities[0].mentions[0].name = "new  york".into();
    odd.entities[1].mentions[0].name = "America".into();
    let files = survey(&[("a.json", &[odd])]);
    assert_eq!((files[0].mentions, files[0].renamed), (2, 1));
    assert_eq!(files[0].examples, [["A", "America", "USA"]]);
    let warning = "a.json: 1 of 2 mentions bear a name that is not the words of their span; the \
        first is `America` for `USA` in `A`";
    assert_eq!(files[0].warnings(), [warning]);
    assert_eq!(survey(&[("b.json", &[document("A", "x", "y", "P1")])])[0].warnings(), [""; 0]);
}

#[test]
fn a_file_without_documents_is_one_warning() {
    assert_eq!(
        survey(&[("dev.json", &[])])[0].warnings(),
        ["dev.json: the file holds no document"]
    );
}

#[test]
fn lengths_and_empty_documents_are_counted() {
    let mut survey = Survey::default();
    survey.file("a.json".as_ref());
    survey.document(&Document::default(), 0);
    survey.document(&Document { facts: Some(vec![]), ..Document::default() }, 127);
    survey.document(&document("A", "x", "y", "P1"), 512);
    survey.document(&document("B", "x", "y", "P1"), 513);
    let file = &survey.finish()[0];
    assert_eq!((file.without_entities, file.without_facts, file.unlabelled), (2, 1, 1));
    assert_eq!((file.lengths.as_slice(), file.long), (&[2, 0, 0, 0, 2][..], 1));
}

/// DocRED's `Lark Force` is an annotated training document that Re-DocRED's dev split has too.
#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn lark_force_is_found() {
    let shared = crate::reference_data();
    let mut survey = Survey::default();
    for name in ["docred/train_annotated_t5aug_447.json", "redocred/dev_revised.json"] {
        let path = shared.join("data").join(name);
        survey.file(&path);
        let mut add = |document: Document| {
            survey.document(&document, document.num_words());
            Ok(())
        };
        Format::DOCRED.read(&path, &ReadOptions::default(), &mut add).unwrap();
    }
    let files = survey.finish();
    assert_eq!(files[1].shared[0].examples, ["Lark Force"]);
    assert_eq!(
        (files[0].documents, files[0].facts, files[1].documents, files[1].facts),
        (447, 5_254, 500, 17_284)
    );
    assert!(files[1].shared[0].facts > 0);
}

/// A file of `count` documents, of which the first alone has entities and a fact.
fn cdr_dev(count: usize) -> FileSurvey {
    let bare = Document { facts: Some(vec![]), ..Document::default() };
    let mut documents = vec![bare; count];
    documents[0] = document("A", "x", "y", "P1");
    survey(&[("dev_filter.data", &documents)]).remove(0)
}

#[test]
fn published_sizes_are_compared() {
    let file = cdr_dev(250);
    assert_eq!((file.facts, file.intra, file.negatives, file.excluded), (1, 1, 1, 0));
    let said = file.warnings();
    let sizes = "250 documents, 1 facts (1 within a sentence), 1 pairs without one, 0 taken out, \
        but CDR dev as published: 500 documents, 1012 facts";
    assert!(said[0].contains(sizes), "{said:?}");
    assert_eq!(
        said[1..],
        [
            "dev_filter.data: 249 of 250 documents have no entities",
            "dev_filter.data: 249 of 250 documents have labels but no fact"
        ]
    );
}

/// Half of the published documents is the bound: a smaller file is another data set, as a generated
/// `dev.json` is. The report names the difference in both cases.
#[test]
fn a_small_file_of_a_well_known_name_is_reported_without_a_warning() {
    for (count, warned) in [(2, false), (249, false), (250, true), (500, true), (501, true)] {
        let file = cdr_dev(count);
        let warnings = file.warnings();
        assert_eq!(warnings.iter().any(|text| text.contains("published")), warned, "{count}");
        let report = SurveyReport(vec![file]).to_string();
        assert!(report.contains("this file differs"), "{count}");
    }
}

/// docs/formats.md, "CDR and GDA": the real files have their published sizes.
#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn real_files_agree_with_what_is_published() {
    let shared = crate::reference_data();
    for name in ["train_filter", "dev_filter"] {
        let mut survey = Survey::default();
        let path = shared.join(format!("data/cdr/{name}.data"));
        survey.file(&path);
        let mut add = |document: Document| {
            survey.document(&document, document.num_words());
            Ok(())
        };
        "cdr".parse::<Format>().unwrap().read(&path, &ReadOptions::default(), &mut add).unwrap();
        let file = &survey.finish()[0];
        assert!(
            file.warnings().iter().all(|warning| !warning.contains("published")),
            "{:?}",
            file.warnings()
        );
        assert_eq!(
            (file.most_words, file.most_entities),
            if name == "train_filter" { (653, 21) } else { (641, 20) }
        );
    }
}

#[test]
fn entities_in_several_sentences_are_counted() {
    let mut document = document("A", "Paris", "France", "P17");
    document.sentences.push(vec!["Paris".into(), "Paris".into()]);
    let again = |start| Mention { sentence: 1, start, end: start + 1, ..paris(&document) };
    let (first, second) = (again(0), again(1));
    document.entities[0].mentions.extend([first, second.clone()]);
    document.entities.push(Entity { mentions: vec![second], knowledge_base_id: None });
    let file = &survey(&[("a.json", &[document])])[0];
    assert_eq!((file.entities_across, file.entities), (1, 3));
    let text = SurveyReport(vec![file.clone()]).to_string();
    assert!(text.contains("1 of 3 entities are mentioned in several sentences (33.3 %)"), "{text}");
}

fn paris(document: &Document) -> Mention {
    document.entities[0].mentions[0].clone()
}
