use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::annotator::Additions;
use super::*;
use crate::Result;
use crate::corpus::Document;

fn dictionary(lines: &str, ignore_case: bool) -> Result<Dictionary> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("names.tsv");
    fs_err::write(&path, lines).unwrap();
    Dictionary::load(&[path], ignore_case)
}

fn annotator(lines: &str, ignore_case: bool) -> Annotator {
    let names = dictionary(lines, ignore_case).unwrap();
    Annotator::new(Some(names), &[Findable::Dates], &[Language::En], HashMap::new()).unwrap()
}

fn annotate(annotator: &Annotator, text: &str, given: &[GivenEntity]) -> Additions {
    annotator.annotate(Units::Characters(&text.chars().collect::<Vec<_>>()), given)
}

/// The names that are found, with their entities and identifiers.
fn found(annotator: &Annotator, text: &str) -> Vec<(String, usize, Option<String>)> {
    let additions = annotate(annotator, text, &[]);
    let mentions = additions.mentions.into_iter();
    mentions.map(|it| (it.name, it.entity, additions.entities[it.entity].clone())).collect()
}

fn names(annotator: &Annotator, text: &str) -> Vec<String> {
    found(annotator, text).into_iter().map(|(name, ..)| name).collect()
}

const NAMES: &str = "id\ttype\tname\taliases\n\
    Q1\tPER\tAda Byron\tLady Lovelace\tAda\n\
    Q2\tLOC\tYork\n\
    Q3\tLOC\tNew York\tNY\n\
    Q4\tPER\tPeter York\tYork\n\
    Q5\tGENE\tIL-2\n\
    Q6\tLOC\t北京\n\
    Q7\tLOC\t서울\n\
    Q8\tORG\tAlzheimer's Society\t\n\
    \tORG\tÜnit 7\n";

#[test]
fn names_are_found_whole_the_longest_first_and_on_either_kind_of_blank() {
    let annotator = annotator(NAMES, false);
    for (text, expected) in [
        ("In New York, Ada\nByron.", vec!["New York", "Ada Byron"]),
        ("NewYork, Yorkshire, Adam, ny", vec![]),
        ("New Yorkers", vec![]),
        ("NY (IL-2) and IL-21", vec!["NY", "IL-2"]),
        ("他在北京大学", vec!["北京"]),
        ("그는 서울에서", vec!["서울"]),
        ("the Alzheimer\u{2019}s Society", vec!["Alzheimer\u{2019}s Society"]),
        ("U\u{308}nit 7 𝔸 Ünit 7", vec!["U\u{308}nit 7", "Ünit 7"]),
        ("Ada\n\nByron", vec!["Ada"]),
        ("Ada in 1843", vec!["Ada", "1843"]),
    ] {
        assert_eq!(names(&annotator, text), expected, "{text}");
    }
    // Mentions of one thing are one entity, whatever the name; a thing may have no identifier.
    let all = found(&annotator, "Ada, Lady Lovelace and Ünit 7. Ünit 7!");
    let entities: Vec<_> = all.iter().map(|(_, entity, id)| (*entity, id.as_deref())).collect();
    assert_eq!(entities, [(0, Some("Q1")), (0, Some("Q1")), (1, None), (1, None)]);
}

#[test]
fn case_matters_unless_it_is_to_be_ignored_and_always_for_short_names() {
    let annotator = annotator(NAMES, true);
    for (text, expected) in [
        ("ADA BYRON in new york", vec!["ADA BYRON", "new york"]),
        ("NY, ny, il-2, ünit 7, ÜNIT 7", vec!["NY", "il-2", "ünit 7", "ÜNIT 7"]),
    ] {
        assert_eq!(names(&annotator, text), expected, "{text}");
    }
}

#[test]
fn an_ambiguous_name_means_what_the_document_names_otherwise() {
    let annotator = annotator(NAMES, false);
    let ids = |text: &str| -> Vec<_> {
        found(&annotator, text).into_iter().map(|(_, entity, id)| (entity, id)).collect()
    };
    let q = |id: &str| Some(id.to_owned());
    assert_eq!(ids("York spoke. Peter York left."), [(0, q("Q4")), (0, q("Q4"))]);
    assert_eq!(ids("York spoke to York."), [(0, None), (0, None)]);
    let additions = annotate(&annotator, "York spoke to York. Ada", &[]);
    let york = &additions.found.ambiguous["York"];
    assert_eq!((york.mentions, york.resolved, york.candidates.len()), (2, 0, 2));
    assert_eq!(additions.found.ambiguous_mentions(), (2, 0));
    assert_eq!(additions.found.dictionary, 3);
    // What the document has counts, too.
    let given = given("Q2", "Eboracum", 0..8);
    let additions = annotate(&annotator, "Eboracum is York", &[given]);
    assert_eq!(additions.mentions[0].entity, 0);
    assert_eq!(additions.found.ambiguous_mentions(), (1, 1));
}

fn given(id: &str, name: &str, units: std::ops::Range<usize>) -> GivenEntity {
    let (name, entity_type) = (name.to_owned(), "LOC".to_owned());
    let id = (!id.is_empty()).then(|| id.to_owned());
    GivenEntity { id, mentions: vec![GivenMention { units, name, entity_type }] }
}

#[test]
fn given_mentions_win_and_get_identifiers_of_their_type() {
    let annotator = annotator(NAMES, false);
    // Inside a longer name.
    let additions = annotate(&annotator, "New York and York in 1843", &[given("", "York", 4..8)]);
    let names: Vec<&str> = additions.mentions.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["York", "1843"]);
    let link = |name: &str, id: &str, text: &str| {
        let additions = annotate(&annotator, text, &[given(id, name, 0..name.len())]);
        (additions.links, additions.found.linked, additions.found.other_type)
    };
    assert_eq!(link("New York", "", "New York"), (vec![(0, "Q3".to_owned())], 1, 0));
    // `York` of this type is one thing alone.
    assert_eq!(link("York", "", "York"), (vec![(0, "Q2".to_owned())], 1, 0));
    assert_eq!(link("York", "Q9", "York"), (vec![], 0, 0));
    assert_eq!(link("IL-2", "", "IL-2"), (vec![], 0, 1));
    // A link counts as what the document names.
    let additions = annotate(&annotator, "York. York", &[given("", "York", 0..4)]);
    assert_eq!((additions.mentions[0].entity, additions.entities.len()), (0, 0));
    // Mentions of one unknown name and type are one entity, with those that are there.
    let additions = annotate(&annotator, "1843 or 1843", &[]);
    assert_eq!(additions.mentions.iter().map(|it| it.entity).collect::<Vec<_>>(), [0, 0]);
}

#[test]
fn words_are_annotated_as_text_is() {
    let annotator = annotator(NAMES, false);
    let line = json!({"title": "a", "entities": [], "sentences": [
        ["IL", "-", "2", "in", "New", "York"], [],
        ["York", "in", "March", "12", ",", "1998", "北京市"],
    ]});
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs_err::write(&path, line.to_string()).unwrap();
    let (mut documents, _) = crate::corpus::Format::all()
        .iter()
        .find(|format| format.name() == "jsonl")
        .unwrap()
        .read_all(&path, &Default::default())
        .unwrap();
    let document: &mut Document = &mut documents[0];
    let found = annotator.annotate_words(document);
    let mentions: Vec<_> = document.entities.iter().flat_map(|it| &it.mentions).collect();
    let spans: Vec<_> =
        mentions.iter().map(|it| (it.name.as_str(), it.sentence, it.start, it.end)).collect();
    // A name is no part of a word.
    let expected = [
        ("IL - 2", 0, 0, 3),
        ("New York", 0, 4, 6),
        ("York", 2, 0, 1),
        ("March 12 , 1998", 2, 2, 6),
    ];
    assert_eq!(spans, expected);
    assert_eq!((found.dictionary, found.dates), (3, 1));
}

#[test]
fn what_is_wrong_with_a_dictionary_is_named() {
    for (lines, problem) in [
        ("", "the file holds no name"),
        ("id\ttype\tname\n", "the file holds no name"),
        ("Q1\tPER\n", "row 0: a line of 2 columns"),
        ("Q1\tPER\tAda\nQ1\tLOC\tYork\n", "row 1, field `type`: `Q1` is `PER`"),
        ("Q1\t\tAda\n", "row 0, field `type`: the type is empty"),
        ("Q1\tPER\t\tAda\n", "row 0, field `name`: a name is empty"),
        ("{\"id\": \"Q1\", \"type\": \"PER\"}\n", "missing field `name`"),
        ("{\"type\": \"PER\", \"name\": \"a\", \"alias\": []}\n", "unknown field `alias`"),
    ] {
        let error = dictionary(lines, false).unwrap_err();
        let text = error.to_string();
        assert!(error.exit_code() == 65 && error.hint().is_some(), "{text}");
        assert!(text.contains("names.tsv") && text.contains(problem), "{text}");
    }
    let lines = "Q1\tPER\tAda\t…\nQ1\tPER\tAda\tByron\n";
    assert_eq!(dictionary(lines, false).unwrap().names(), 2);
    let json = "{\"type\": \"PER\", \"name\": \"Ada\", \"aliases\": [\"Byron\"]}\n";
    assert_eq!(dictionary(json, false).unwrap().names(), 2);
}

#[test]
fn counts_of_documents_add_up() {
    let annotator = annotator(NAMES, false);
    let mut sum = annotate(&annotator, "York, 1843", &[]).found;
    sum.add(annotate(&annotator, "York and Peter York", &[given("", "x", 15..19)]).found);
    let json: Value = serde_json::to_value(&sum).unwrap();
    assert_eq!((sum.given, sum.dictionary, sum.dates), (1, 2, 1));
    assert_eq!(
        json["ambiguous"]["York"],
        json!({
            "mentions": 2, "resolved": 0, "candidates": ["Q2", "Q4"],
        })
    );
}

/// The names in a text of blanks, `-`, letters and characters of Han, looked for one by one.
fn slow_search(text: &[char], names: &[String]) -> Vec<String> {
    let letter = |at: usize| text.get(at).is_some_and(char::is_ascii_alphabetic);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let fits = |name: &&String| {
            let name: Vec<char> = name.chars().collect();
            let end = at + name.len();
            text[at..].starts_with(&name)
                && !(at > 0 && letter(at - 1) && letter(at))
                && !(letter(end - 1) && letter(end))
        };
        match names.iter().filter(fits).max_by_key(|name| name.chars().count()) {
            Some(name) => {
                found.push(name.clone());
                at += name.chars().count();
            }
            None => at += 1,
        }
    }
    found
}

proptest! {
    #[test]
    fn the_automaton_finds_what_a_slow_search_finds(
        names in prop::collection::vec("[ab京市](-?[ab京市]){0,3}", 1..8), text in "([ab京市-] ?){0,24}"
    ) {
        let lines: String =
            names.iter().enumerate().map(|(at, name)| format!("{at}\tT\t{name}\n")).collect();
        let annotator = annotator(&lines, false);
        // A blank beside a sign is no difference: leave those out, which the search does not know.
        let text = text.replace("- ", "-").replace(" -", "-").replace("京 ", "京").replace(" 京", "京");
        let text: Vec<char> = text.replace("市 ", "市").replace(" 市", "市").chars().collect();
        let additions = annotator.annotate(Units::Characters(&text), &[]);
        let found: Vec<String> = additions.mentions.into_iter().map(|it| it.name).collect();
        prop_assert_eq!(found, slow_search(&text, &names));
    }
}
