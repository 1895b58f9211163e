use super::*;

fn tokenizer() -> (tempfile::TempDir, Tokenizer) {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(
        folder.path().join("vocab.txt"),
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\nanna\nborn\nin\npa\n##ris\n.\nshe\nlives\n",
    )
    .unwrap();
    let tokenizer = Tokenizer::load(folder.path(), None).unwrap();
    (folder, tokenizer)
}

fn mention(name: &str, sentence: usize, start: usize, end: usize) -> Mention {
    Mention { name: name.into(), sentence, start, end, entity_type: "LOC".into() }
}

fn document() -> Document {
    let sentence = |text: &str| text.split('|').map(str::to_owned).collect();
    let fact = Fact { head: 0, tail: 1, relation: "P19".into(), evidence: vec![1] };
    Document {
        title: "Anna".into(),
        sentences: vec![sentence("Anna|\u{a0}|born|Paris|."), sentence("She|lives|in|Paris")],
        entities: vec![
            Entity {
                mentions: vec![mention("Anna", 0, 0, 1), mention("She", 1, 0, 1)],
                ..Entity::default()
            },
            Entity { mentions: vec![mention("Paris", 1, 3, 4)], ..Entity::default() },
        ],
        facts: Some(vec![fact.clone(), Fact { tail: 0, ..fact }]),
        ..Document::default()
    }
}

fn relations() -> RelationSet {
    let mut set = RelationSet::default();
    set.insert("P17", "country");
    set.insert("P19", "place of birth");
    set
}

#[test]
fn a_document_is_encoded_word_by_word() {
    let (_folder, mut tokenizer) = tokenizer();
    let tokenized = tokenize(&document(), &mut tokenizer, &relations()).unwrap();
    assert_eq!(tokenized.pieces, [4, 5, 7, 8, 9, 10, 11, 6, 7, 8]);
    assert_eq!(
        tokenized.word_starts,
        [0, 1, 1, 2, 4, 5, 6, 7, 8, 10],
        "the blank word has no piece"
    );
    assert_eq!(tokenized.sentence_starts, [0, 5, 9]);
    let paris = TokenizedMention {
        name: "Paris".into(),
        sentence: 1,
        start: 8,
        end: 9,
        ..TokenizedMention::default()
    };
    assert_eq!(
        tokenized.entities[1],
        TokenizedEntity { entity_type: "LOC".into(), mentions: vec![paris] }
    );
    let mut other = document();
    other.entities[0].mentions[1].entity_type = "PER".into();
    let anna = &tokenize(&other, &mut tokenizer, &relations()).unwrap().entities[0];
    assert_eq!([0, 1].map(|mention| anna.type_of(&anna.mentions[mention])), ["LOC", "PER"]);
    let fact = TokenizedFact { head: 0, tail: 1, relation: 1, evidence: vec![1] };
    assert_eq!(
        (tokenized.labelled, tokenized.facts),
        (true, vec![fact]),
        "the fact from Anna to herself is left out"
    );
    assert_eq!(
        (tokenized.words.len(), tokenized.words[8].as_str(), tokenized.kept),
        (9, "Paris", None)
    );
}

#[test]
fn unlabelled_is_not_the_same_as_no_facts() {
    let (_folder, mut tokenizer) = tokenizer();
    let labelled = |facts| {
        tokenize(&Document { facts, ..document() }, &mut tokenizer.clone(), &relations())
            .unwrap()
            .labelled
    };
    assert_eq!((labelled(None), labelled(Some(vec![]))), (false, true));
    assert!(
        tokenize(&Document::default(), &mut tokenizer, &relations()).unwrap().pieces.is_empty()
    );
}

#[test]
fn broken_references_are_named() {
    let (_folder, tokenizer) = tokenizer();
    let refused = |change: fn(&mut Document), text: &str| {
        let mut broken = document();
        change(&mut broken);
        let error = tokenize(&broken, &mut tokenizer.clone(), &relations()).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.to_string().contains("document `Anna`"), "{error}");
    };
    refused(|d| d.entities[0].mentions.clear(), "vertexSet[0]");
    refused(|d| d.entities[0].mentions[1].sentence = 2, "vertexSet[0][1]");
    refused(|d| d.entities[0].mentions[1].end = 5, "0..5");
    refused(|d| d.entities[0].mentions[1].end = 0, "0..0");
    refused(|d| d.facts.as_mut().unwrap()[0].tail = 2, "labels[0]");
    refused(|d| d.facts.as_mut().unwrap()[0].evidence[0] = 2, "evidence sentence 2");
    refused(|d| d.facts.as_mut().unwrap()[0].relation = "P18".into(), "`P18`");
    refused(
        |d| d.candidates = Some(vec![Candidate { head: 1, tail: 1, excluded: false }]),
        "candidates[0]",
    );
}
