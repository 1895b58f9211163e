//! Word tables of hand-made documents, against values worked out by hand.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::distance::signed_bin;
use super::reading::WordLimits;
use super::*;
use crate::encoders::{EncoderSpec, build};
use crate::systems::testing::foundation_of;
use crate::systems::{Example, Foundation};
use crate::text::{
    SpecialPieces, TokenizedDocument, TokenizedEntity, TokenizedFact, TokenizedMention, WindowRule,
};
use crate::torch::{Parameters, Precision};
use crate::train::Forward;

pub(crate) const EVALUATION: Forward = Forward { train: false, precision: Precision::Fp32 };
pub(crate) const TYPES: [&str; 2] = ["ORG", "PER"];

pub(crate) fn special() -> SpecialPieces {
    SpecialPieces {
        cls: 2,
        sep: 3,
        pad: 0,
        unk: 1,
        prefix: vec![2],
        suffix: vec![3],
        window_end: vec![3],
        star: 4,
        unused: (5..310).collect(),
    }
}

pub(crate) fn options(reading: Reading) -> WordOptions {
    WordOptions {
        reading,
        limits: WordLimits::default(),
        windows: None,
        pad_documents: false,
        weights: MentionWeights::Mean,
        first_mention: FirstMention::Listed,
        coref_rows: 512,
        entity_types: TYPES.map(str::to_owned).to_vec(),
        mention_types: false,
        pieces: special(),
        seed: 3,
    }
}

/// Entities are (type, mentions as word spans); word *w* has `pieces[w]` pieces, numbered on from
/// 310.
pub(crate) fn document(
    pieces: &[u32],
    sentences: &[u32],
    entities: &[(&str, &[(u32, u32)])],
) -> TokenizedDocument {
    let mut word_starts = vec![0];
    for count in pieces {
        word_starts.push(word_starts[word_starts.len() - 1] + count);
    }
    let total = word_starts[word_starts.len() - 1];
    let mention = |&(start, end): &(u32, u32)| TokenizedMention {
        name: "m".into(),
        sentence: 0,
        start,
        end,
        ..TokenizedMention::default()
    };
    let entity = |&(kind, mentions): &(&str, &[(u32, u32)])| TokenizedEntity {
        entity_type: kind.into(),
        mentions: mentions.iter().map(mention).collect(),
    };
    TokenizedDocument {
        title: format!("document of {} words", pieces.len()),
        pieces: (310..310 + total).collect(),
        word_starts,
        sentence_starts: sentences.to_vec(),
        entities: entities.iter().map(entity).collect(),
        labelled: true,
        ..TokenizedDocument::default()
    }
}

pub(crate) fn with_facts(
    mut document: TokenizedDocument,
    facts: &[(u32, u32, u32)],
) -> TokenizedDocument {
    document.facts = facts
        .iter()
        .map(|&(head, tail, relation)| TokenizedFact { head, tail, relation, evidence: vec![0] })
        .collect();
    document
}

pub(crate) fn example(document: TokenizedDocument, visit: u64) -> Example {
    let pairs = crate::sampling::ordered_pairs(document.entities.len()).collect();
    Example { document: Arc::new(document), pairs, visit, train: true }
}

/// Overlapping mentions, a word of no piece (3) and one of two (1).
fn overlapping() -> TokenizedDocument {
    document(
        &[1, 2, 1, 0, 1, 1],
        &[0, 4, 6],
        &[("PER", &[(4, 6), (0, 2), (1, 3)]), ("ORG", &[(2, 3)])],
    )
}

#[test]
fn bins_are_those_of_the_paper() {
    let magnitudes = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 600];
    let bins: Vec<i64> = magnitudes.iter().map(|&delta| signed_bin(delta)).collect();
    assert_eq!(bins, [0, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]);
    assert!(magnitudes.iter().all(|&delta| signed_bin(-delta) == -signed_bin(delta)));
}

#[test]
fn a_table_reads_words_and_bert_reads_pieces() {
    let examples = [example(document(&[1], &[0, 1], &[]), 0), example(overlapping(), 1)];
    let words = WordTables::new(&options(Reading::Words), &examples).unwrap();
    // The word without pieces is unknown; the word of two is its first piece.
    assert_eq!(words.ids, [310, 310, 311, 313, 1, 314, 315]);
    assert_eq!((&words.offsets[..], &words.word_rows), (&[0, 1, 7][..], &None));
    let pieces = WordTables::new(&options(Reading::Pieces), &examples).unwrap();
    assert_eq!(pieces.ids, [2, 310, 3, 2, 310, 311, 312, 313, 314, 315, 3]);
    assert_eq!((pieces.offsets, pieces.word_offsets), (vec![0, 3, 11], vec![0, 1, 7]));
    assert_eq!(pieces.word_rows, Some(vec![1, 4, 5, 7, 11, 8, 9]));
    // In the release, words 3 and 4 share a start, so that word 3 takes the state of word 4 and so
    // on; the last word has none.
    let collapsed = WordTables::new(&options(Reading::CollapsedPieces), &examples).unwrap();
    assert_eq!(collapsed.word_rows, Some(vec![1, 4, 5, 7, 8, 9, 11]));
}

#[test]
fn documents_over_the_limit_are_cut_or_refused() {
    let mut options = options(Reading::Pieces);
    options.limits.max_pieces = Some(6);
    let error = WordTables::new(&options, &[example(overlapping(), 0)]).unwrap_err();
    assert!(
        error.to_string().contains("8 word pieces")
            && error.to_string().contains("document of 6 words"),
        "{error}"
    );
    options.limits.truncate = true;
    let cut = WordTables::new(&options, &[example(overlapping(), 0)]).unwrap();
    assert_eq!((cut.ids.len(), &cut.word_rows), (6, &Some(vec![1, 2, 4])));
    // Two of the first entity's mentions remain; the second sentence is empty.
    assert_eq!(cut.averages.weights, [0.25, 0.25 + 0.25, 0.25, 1.0]);
    assert_eq!(cut.sentence_offsets, [0, 3, 3]);
    options.reading = Reading::CollapsedPieces;
    let cut = WordTables::new(&options, &[example(overlapping(), 0)]).unwrap();
    assert_eq!(cut.word_rows, Some(vec![1, 2, 4, 6, 6, 6]));
    options.limits = WordLimits { max_words: Some(5), truncate: false, ..WordLimits::default() };
    assert!(
        WordTables::new(&options, &[example(overlapping(), 0)])
            .unwrap_err()
            .to_string()
            .contains("6 words are more")
    );
}

#[test]
fn later_entities_win_words_and_types() {
    let tables = WordTables::new(&options(Reading::Words), &[example(overlapping(), 0)]).unwrap();
    assert_eq!(tables.coref, [1, 1, 2, 0, 1, 1]);
    assert_eq!(tables.types, [2, 2, 1, 0, 2, 2]);
    let mut mixed = overlapping();
    let last = mixed.entities[0].mentions.len() - 1;
    mixed.entities[0].mentions[last].own_type = Some(TYPES[0].into());
    let types = |mention_types| {
        let options = WordOptions { mention_types, ..options(Reading::Words) };
        WordTables::new(&options, &[example(mixed.clone(), 0)]).unwrap().types
    };
    assert_eq!(types(false), [2, 2, 1, 0, 2, 2]);
    assert_eq!(types(true), [2, 1, 1, 0, 2, 2], "the last mention has a type of its own");
    assert_eq!((tables.sentence_offsets, tables.document_sentences), (vec![0, 4, 6], vec![0, 2]));
}

#[test]
fn documents_over_the_positions_are_read_in_windows() {
    let foundation = table();
    let mut options = options(Reading::Pieces);
    let examples = [example(document(&[1], &[0, 1], &[]), 0), example(overlapping(), 1)];
    let whole = WordTables::new(&options, &examples).unwrap();
    options.windows = Some(WindowRule {
        capacity: 6,
        prefix: vec![2],
        suffix: vec![3],
        stride: None,
        most: None,
    });
    assert!(WordTables::new(&options, &examples[..1]).unwrap().windows.is_none());
    let cut = WordTables::new(&options, &examples).unwrap();
    assert_eq!((&cut.ids, &cut.word_rows), (&whole.ids, &whole.word_rows));
    let packed = &cut.windows.as_ref().unwrap().packed;
    assert_eq!(packed.ids, [2, 310, 3, 2, 310, 311, 312, 313, 3, 2, 312, 313, 314, 315, 3]);
    assert_eq!(
        (packed.offsets.as_slice(), packed.positions[9..].to_vec()),
        (&[0, 3, 9, 15][..], vec![0, 1, 2, 3, 4, 5])
    );
    // Vectors of a table do not depend on the window, so the mean over windows is the vector
    // itself.
    let states = |tables: &WordTables| tables.word_states(&foundation, EVALUATION).unwrap();
    assert_eq!(states(&cut), states(&whole));
}

#[test]
fn averages_follow_the_rule() {
    let mut options = options(Reading::Words);
    let third = 1.0 / 6.0;
    let tables = WordTables::new(&options, &[example(overlapping(), 0)]).unwrap();
    assert_eq!(tables.averages.offsets, [0, 5, 6]);
    assert_eq!(tables.averages.rows, [0, 1, 2, 4, 5, 2]);
    assert_eq!(
        tables.averages.weights,
        [third, third + third, third, third, third, 1.0].map(|weight| weight as f32)
    );
    options.weights = MentionWeights::Release;
    options.limits = WordLimits { max_words: Some(5), truncate: true, ..WordLimits::default() };
    let tables = WordTables::new(&options, &[example(overlapping(), 0)]).unwrap();
    assert_eq!(tables.averages.rows, [0, 1, 2, 4, 2]);
    assert_eq!(
        tables.averages.weights,
        [third, third, third, third, 1.0].map(|weight| weight as f32)
    );
}

#[test]
fn distances_are_measured_from_the_mention_asked_for() {
    let mut options = options(Reading::Words);
    let tables = WordTables::new(
        &options,
        &[example(document(&[1], &[0, 1], &[]), 0), example(overlapping(), 0)],
    )
    .unwrap();
    assert_eq!(
        (&tables.heads[..], &tables.tails[..], &tables.bins[..]),
        (&[0, 1][..], &[1, 0][..], &[2, -2][..])
    );
    assert_eq!((tables.entity_offsets, tables.pair_offsets), (vec![0, 0, 2], vec![0, 0, 2]));
    options.first_mention = FirstMention::Smallest;
    assert_eq!(WordTables::new(&options, &[example(overlapping(), 0)]).unwrap().bins, [-2, 2]);
}

#[test]
fn padding_fills_up_to_the_longest_document() {
    let mut options = options(Reading::Words);
    options.pad_documents = true;
    let tables = WordTables::new(
        &options,
        &[example(document(&[1], &[0, 1], &[]), 0), example(overlapping(), 1)],
    )
    .unwrap();
    assert_eq!(tables.ids[..6], [310, 0, 0, 0, 0, 0]);
    assert_eq!(
        (tables.word_offsets, tables.sentence_offsets),
        (vec![0, 6, 12], vec![0, 6, 10, 12])
    );
}

#[test]
fn what_cannot_be_laid_out_is_named() {
    let mut options = options(Reading::Words);
    options.coref_rows = 2;
    let error = WordTables::new(&options, &[example(overlapping(), 0)]).unwrap_err().to_string();
    assert!(error.contains("2 entities are more than the 1 coreference rows"), "{error}");
    options.entity_types.pop();
    let error = WordTables::new(&options, &[example(overlapping(), 0)]).unwrap_err();
    assert!(
        error.to_string().contains("entity type `PER`")
            && error.to_string().contains("vertexSet[0]"),
        "{error}"
    );
    assert!(error.hint().is_some());
}

fn table() -> Foundation {
    let mut parameters = Parameters::new(1, Device::Cpu);
    let spec = EncoderSpec::preset("words", serde_json::json!({ "embedding_size": 4 }));
    let encoder = build(&spec, 400, &mut parameters).unwrap();
    foundation_of(encoder, parameters, &[])
}

#[test]
fn entity_vectors_are_means_of_means_and_words_without_state_are_zero() {
    let foundation = table();
    let tables = WordTables::new(&options(Reading::Words), &[example(overlapping(), 0)]).unwrap();
    let words = tables.word_states(&foundation, EVALUATION).unwrap();
    let span =
        |start: i64, end: i64| words.narrow(0, start, end - start).mean_dim(0, false, Kind::Float);
    let expected = Tensor::stack(&[(span(4, 6) + span(0, 2) + span(1, 3)) / 3.0, span(2, 3)], 0);
    let difference =
        (tables.averages.sum(&words).unwrap() - expected).abs().max().double_value(&[]);
    assert!(difference < 1e-6, "{difference}");
    let tables = WordTables::new(&options(Reading::Pieces), &[example(overlapping(), 0)]).unwrap();
    let words = tables.word_states(&foundation, EVALUATION).unwrap();
    assert_eq!(words.get(3).abs().sum(Kind::Float).double_value(&[]), 0.0);
    assert_eq!(words.get(4), tables.piece_states(&foundation, EVALUATION).unwrap().get(5));
}

#[test]
fn padding_rows_are_zero_and_stay_without_gradient() {
    let mut foundation = table();
    let parameters = &mut foundation.parameters;
    let (coref, types) = (("heads.c", 512, 3), ("heads.t", 3, 2));
    let features =
        WordFeatures::declare(parameters, coref, types, FeatureOrder::TypeCoref).unwrap();
    let distances = DistanceTable::declare(parameters, "heads.d", 2).unwrap();
    let tables = WordTables::new(&options(Reading::Words), &[example(overlapping(), 0)]).unwrap();
    let x =
        features.beside(&tables.word_states(&foundation, EVALUATION).unwrap(), &tables).unwrap();
    assert_eq!((x.size(), features.width()), (vec![6, 9], 5));
    let bins = Tensor::from_slice(&[0i64, 2, -2]);
    let rows = distances.of_heads(&bins).unwrap();
    assert_eq!(rows.get(1), distances.of_tails(&bins).unwrap().get(2));
    assert_eq!(rows.get(0).abs().sum(Kind::Float).double_value(&[]), 0.0);
    (x.narrow(1, 4, 5).sum(Kind::Float) + rows.sum(Kind::Float)).backward();
    for (name, padding) in [("heads.c.weight", 0), ("heads.t.weight", 0), ("heads.d.weight", 10)] {
        let parameter = foundation.parameters.get(name).unwrap();
        assert_eq!(parameter.get(padding).abs().sum(Kind::Float).double_value(&[]), 0.0, "{name}");
        assert_eq!(
            parameter.grad().get(padding).abs().sum(Kind::Float).double_value(&[]),
            0.0,
            "{name}"
        );
        assert!(parameter.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0, "{name}");
    }
}

#[test]
fn entity_vectors_pass_the_gradient_on() {
    let tables = WordTables::new(&options(Reading::Words), &[example(overlapping(), 0)]).unwrap();
    let words = Tensor::zeros([6, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    tables.averages.sum(&words).unwrap().sum(Kind::Float).backward();
    let sums: Vec<f64> =
        Vec::try_from(words.grad().sum_dim_intlist(1, false, Kind::Double)).unwrap();
    let expected = [1.0 / 3.0, 2.0 / 3.0, 1.0 / 3.0 + 2.0, 0.0, 1.0 / 3.0, 1.0 / 3.0];
    assert!(
        sums.iter().zip(expected).all(|(ours, expected)| (ours - expected).abs() < 1e-6),
        "{sums:?}"
    );
}

#[test]
fn dropout_keys_belong_to_the_visit_and_the_place() {
    let long = || example(overlapping(), 9);
    let both = WordTables::new(
        &options(Reading::Words),
        &[example(document(&[1], &[0, 1], &[]), 4), long()],
    )
    .unwrap();
    let alone = WordTables::new(&options(Reading::Words), &[long()]).unwrap();
    let keys = |tables: &WordTables, domain| tables.keys(domain, &tables.word_offsets);
    assert_eq!(keys(&both, 1)[1..], keys(&alone, 1));
    assert_ne!(keys(&alone, 1), keys(&alone, 2));
}
