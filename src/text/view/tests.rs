use std::path::Path;

use super::*;
use crate::text::testing::{FixtureTensor, Vocabulary, case, json};
use crate::text::{TokenizedEntity, TokenizedMention};

const MENTIONS: usize = 3;
const LIMIT: usize = 512;

/// A view as the fixtures hold it: all pieces, padding included, and three positions for each
/// entity.
fn fixture_options(markers: Markers) -> ViewOptions {
    let max_mentions = Some(MENTIONS);
    ViewOptions {
        max_pieces: Some(LIMIT),
        truncate: true,
        pad_to: Some(LIMIT),
        max_mentions,
        markers,
        repeat_masked: false,
        in_turn: false,
    }
}

fn three(positions: &[u32]) -> Vec<i64> {
    positions
        .iter()
        .chain(std::iter::repeat(&positions[0]))
        .take(MENTIONS)
        .map(|&at| i64::from(at))
        .collect()
}

fn ids(view: &View) -> Vec<i64> {
    view.ids.iter().map(|&id| i64::from(id)).collect()
}

fn documents(folder: &Path, vocabulary: &Vocabulary) -> Vec<TokenizedDocument> {
    json(folder, "docs.json")
        .as_array()
        .unwrap()
        .iter()
        .map(|document| vocabulary.tokenize(document))
        .collect()
}

fn assert_positions(view: &View, expected: &[i64]) {
    let rows: Vec<_> = view.mention_positions.iter().flat_map(|row| three(row)).collect();
    assert_eq!(rows, expected[..rows.len()]);
    assert!(
        expected[rows.len()..].iter().all(|&at| at == 0),
        "the table goes on after the last entity"
    );
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn ranker_views_match_the_reference() {
    let folder = case("dsdocre-ranker");
    let vocabulary = Vocabulary::beside(&folder);
    let (pieces, positions) =
        (FixtureTensor::read(&folder, "doc"), FixtureTensor::read(&folder, "entPos"));
    let mut cut = 0;
    for (i, document) in documents(&folder, &vocabulary).iter().enumerate() {
        let view = view(
            document,
            &vocabulary.special,
            &fixture_options(Markers::PerEntity),
            &ViewChoices::default(),
        )
        .unwrap();
        assert_eq!(ids(&view), pieces.ints(&[i]), "{}", document.title);
        assert_positions(&view, &positions.ints(&[i]));
        cut += usize::from(view.pieces_before_truncation > LIMIT);
    }
    assert_eq!(cut, 1);
}

fn fixture_choices(details: &serde_json::Value, document: usize, entities: usize) -> ViewChoices {
    let number = |value: &serde_json::Value| value.as_u64().unwrap() as u32;
    let mut blanked = vec![false; entities];
    for entity in details["blanked_entities"][document].as_array().unwrap() {
        blanked[number(entity) as usize] = true;
    }
    let masked = details["masked_mentions"][document].as_array().unwrap();
    ViewChoices { blanked, masked: masked.iter().map(|m| (number(&m[0]), number(&m[1]))).collect() }
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn pretraining_views_match_the_reference() {
    let folder = case("dsdocre-pretrain");
    let vocabulary = Vocabulary::beside(&folder);
    let details = &json(&folder, "case.json")["details"];
    for (i, document) in documents(&folder, &vocabulary).iter().enumerate() {
        let (item, side) = (i / 2, i % 2 + 1);
        let table =
            |name: &str| FixtureTensor::read(&folder, &format!("{name}{side}")).ints(&[item]);
        let choices = fixture_choices(details, i, document.entities.len());
        let view =
            view(document, &vocabulary.special, &fixture_options(Markers::PerEntity), &choices)
                .unwrap();
        assert_eq!(ids(&view), table("doc"), "{}", document.title);
        assert_positions(&view, &table("entPos"));
        let queries: Vec<_> =
            view.masked_positions.iter().map(|at| i64::from(at.unwrap())).collect();
        assert_eq!(queries, table("MenMat_Query")[..queries.len()]);
    }
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn finetuning_views_match_the_reference_in_both_profiles() {
    let folder = case("dsdocre-finetune");
    let vocabulary = Vocabulary::beside(&folder);
    let read = |name: &str| FixtureTensor::read(&folder, name);
    let (heads, tails, kept) = (read("pair_head"), read("pair_tail"), read("label_mask"));
    for (i, document) in documents(&folder, &vocabulary).iter().enumerate() {
        let plain = view(
            document,
            &vocabulary.special,
            &fixture_options(Markers::PerEntity),
            &ViewChoices::default(),
        )
        .unwrap();
        assert_eq!(ids(&plain), read("docs").ints(&[i]), "{}", document.title);
        assert_positions(&plain, &read("entPos").ints(&[i]));

        let count = kept.ints(&[i]).iter().sum::<i64>() as usize;
        let (heads, tails) = (heads.ints(&[i]), tails.ints(&[i]));
        let pairs: Vec<_> = (0..count).map(|k| (heads[k] as u32, tails[k] as u32)).collect();
        let markers = Markers::Kept(first_appearance(&pairs));
        let code =
            view(document, &vocabulary.special, &fixture_options(markers), &ViewChoices::default())
                .unwrap();
        assert_eq!(ids(&code), read("code/docs").ints(&[i]), "code profile of {}", document.title);
        for (k, &(head, tail)) in pairs.iter().enumerate() {
            assert_eq!(
                three(&code.mention_positions[head as usize]),
                read("code/head").ints(&[i, k]),
                "head {k}"
            );
            assert_eq!(
                three(&code.mention_positions[tail as usize]),
                read("code/tail").ints(&[i, k]),
                "tail {k}"
            );
        }
    }
}

/// Written out by hand, so that the expected numbering does not come from the code.
fn first_appearance(pairs: &[(u32, u32)]) -> Vec<u32> {
    let mut order = Vec::new();
    for &(head, tail) in pairs {
        if !order.contains(&head) {
            order.push(head);
        }
        if !order.contains(&tail) {
            order.push(tail);
        }
    }
    order
}

/// Numbers that can be told apart from words at a glance: `[unusedk]` is 2000 + k, so that the
/// blank is 2000, the masked mention 2200, and the markers of entity e 2001 + 2e and 2002 + 2e.
fn special() -> SpecialPieces {
    SpecialPieces {
        cls: 901,
        sep: 902,
        pad: 900,
        prefix: vec![901],
        suffix: vec![902],
        window_end: vec![902],
        star: 42,
        unused: (2000..2401).collect(),
        ..SpecialPieces::default()
    }
}

/// Words 0..n of one piece each, whose id is the word's number.
fn plain(words: u32, entities: &[&[(u32, u32)]]) -> TokenizedDocument {
    let mention =
        |&(start, end): &(u32, u32)| TokenizedMention { start, end, ..Default::default() };
    let entity = |spans: &&[(u32, u32)]| TokenizedEntity {
        mentions: spans.iter().map(mention).collect(),
        ..Default::default()
    };
    TokenizedDocument {
        title: "plain".into(),
        pieces: (0..words).collect(),
        word_starts: (0..=words).collect(),
        sentence_starts: vec![0, words],
        entities: entities.iter().map(entity).collect(),
        ..Default::default()
    }
}

fn masked(rows: &[(u32, u32)]) -> ViewChoices {
    ViewChoices { blanked: vec![], masked: rows.to_vec() }
}

#[test]
fn markers_on_one_word_stack_and_mentions_share_the_outermost() {
    let document = plain(3, &[&[(1, 2)], &[(1, 3)]]);
    let view =
        view(&document, &special(), &ViewOptions::default(), &ViewChoices::default()).unwrap();
    assert_eq!(view.ids, [901, 0, 2003, 2001, 1, 2002, 2, 2004, 902]);
    assert_eq!(view.mention_positions, [[2], [2]]);
}

#[test]
fn without_markers_a_mention_is_at_its_first_piece() {
    let document = plain(3, &[&[(1, 2)], &[(2, 3)]]);
    let bare = ViewOptions { markers: Markers::None, ..Default::default() };
    let view_bare = view(&document, &special(), &bare, &ViewChoices::default()).unwrap();
    assert_eq!(
        (view_bare.ids, view_bare.mention_positions),
        (vec![901, 0, 1, 2, 902], vec![vec![2], vec![3]])
    );
    let kept = ViewOptions { markers: Markers::Kept(vec![1]), ..Default::default() };
    let view_kept = view(&document, &special(), &kept, &ViewChoices::default()).unwrap();
    assert_eq!(
        (view_kept.ids, view_kept.mention_positions),
        (vec![901, 0, 1, 2000, 2, 2001, 902], vec![vec![2], vec![3]])
    );
    let listed = ViewOptions { markers: Markers::PerListed(vec![1]), ..Default::default() };
    let view = view(&document, &special(), &listed, &ViewChoices::default()).unwrap();
    assert_eq!(
        (view.ids, view.mention_positions),
        (vec![901, 0, 1, 2003, 2, 2004, 902], vec![vec![2], vec![3]])
    );
}

#[test]
fn stars_stand_once_a_word_or_once_a_mention() {
    // Two entities on word 1, one of them reaching word 2; the second entity names the same span
    // twice.
    let document = plain(3, &[&[(1, 3)], &[(1, 2), (1, 2)]]);
    let laid = |markers| {
        view(
            &document,
            &special(),
            &ViewOptions { markers, ..Default::default() },
            &ViewChoices::default(),
        )
        .unwrap()
    };
    let once = laid(Markers::StarPerWord);
    assert_eq!(once.ids, [901, 0, 42, 1, 42, 2, 42, 902]);
    assert_eq!(once.mention_spans, [vec![(2, 6)], vec![(2, 4), (2, 4)]]);
    assert_eq!(laid(Markers::StarPerMention).ids, [901, 0, 42, 42, 1, 42, 2, 42, 902]);
}

#[test]
fn of_typed_markers_on_one_word_the_last_entity_keeps_its_own() {
    let mut document = plain(3, &[&[(1, 3)], &[(1, 2)], &[(2, 3)]]);
    for (entity, kind) in document.entities.iter_mut().zip(["PER", "ORG", "PER"]) {
        entity.entity_type = kind.into();
    }
    let markers = Markers::Typed(vec!["ORG".into(), "PER".into()]);
    let options = ViewOptions { markers, ..Default::default() };
    let laid = view(&document, &special(), &options, &ViewChoices::default()).unwrap();
    assert_eq!(laid.ids, [901, 0, 2008, 1, 2001, 2009, 2, 2002, 902]);
    assert_eq!(laid.mention_spans, [[(2, 7)], [(2, 4)], [(5, 7)]]);
    document.entities[2].mentions[0].own_type = Some("ORG".into());
    assert_eq!(
        view(&document, &special(), &options, &ViewChoices::default()).unwrap().ids,
        [901, 0, 2008, 1, 2001, 2009, 2, 2001, 902]
    );
    // So many types leave pieces 398, 399 and 400: a fourth entity has none.
    let most = ["ORG".to_owned()].into_iter().chain((1..397).map(|number| number.to_string()));
    let options = ViewOptions { markers: Markers::Typed(most.collect()), ..Default::default() };
    let mut crowded = plain(4, &[&[(0, 1)], &[(1, 2)], &[(2, 3)], &[(3, 4)]]);
    crowded.entities.iter_mut().for_each(|entity| entity.entity_type = "ORG".into());
    let error = view(&crowded, &special(), &options, &ViewChoices::default()).unwrap_err();
    assert!(error.to_string().contains("entities[3]") && error.hint().is_some(), "{error}");
    crowded.entities[0].entity_type = "GENE".into();
    assert!(
        view(&crowded, &special(), &options, &ViewChoices::default())
            .unwrap_err()
            .to_string()
            .contains("GENE")
    );
}

#[test]
fn spans_of_a_cut_document_end_with_it() {
    let document = plain(6, &[&[(1, 4), (5, 6)], &[(5, 6)]]);
    let options = ViewOptions {
        max_pieces: Some(4),
        truncate: true,
        markers: Markers::None,
        ..Default::default()
    };
    let laid = view(&document, &special(), &options, &ViewChoices::default()).unwrap();
    assert_eq!((laid.ids, laid.mention_spans), (vec![901, 0, 1, 902], vec![vec![(2, 3)], vec![]]));
    assert_eq!(laid.mention_positions, [[2], [0]]);
}

#[test]
fn overlapping_blanks_and_masks_all_keep_their_symbols() {
    // Entity 0: words 0..3; entity 1: word 1, inside it, and word 4.
    let document = plain(5, &[&[(0, 3)], &[(1, 2), (4, 5)]]);
    let blank_both = ViewChoices { blanked: vec![true, true], masked: vec![] };
    let options = ViewOptions::default();
    let blanked = view(&document, &special(), &options, &blank_both).unwrap();
    assert_eq!(blanked.ids, [901, 2001, 2000, 2003, 2000, 2004, 2002, 3, 2003, 2000, 2004, 902]);

    let mask_inner = ViewChoices { blanked: vec![true, true], masked: vec![(1, 0)] };
    let view = view(&document, &special(), &options, &mask_inner).unwrap();
    assert_eq!(view.ids, [901, 2001, 2000, 2200, 2002, 3, 2003, 2000, 2004, 902]);
    assert_eq!(
        (view.masked_positions, view.mention_positions),
        (vec![Some(3)], vec![vec![1], vec![6]])
    );
}

#[test]
fn in_turn_what_comes_later_wipes_out_what_was_written() {
    // Entity 1 is blanked after entity 0 has been marked, whose last word is its first.
    let document = plain(4, &[&[(1, 3)], &[(2, 4)]]);
    let choices = ViewChoices { blanked: vec![false, true], masked: vec![] };
    let (free, in_turn) =
        (ViewOptions::default(), ViewOptions { in_turn: true, ..Default::default() });
    assert_eq!(
        view(&document, &special(), &free, &choices).unwrap().ids,
        [901, 0, 2001, 1, 2003, 2000, 2002, 2004, 902]
    );
    assert_eq!(
        view(&document, &special(), &in_turn, &choices).unwrap().ids,
        [901, 0, 2001, 1, 2003, 2000, 2004, 902]
    );

    // A masked mention on whose word another one begins.
    let (document, choices) = (plain(3, &[&[(1, 2), (0, 1)], &[(1, 3)]]), masked(&[(0, 0)]));
    let (free, in_turn) = [&free, &in_turn]
        .map(|options| view(&document, &special(), options, &choices).unwrap())
        .into();
    assert_eq!(free.ids, [901, 2001, 0, 2002, 2003, 2200, 2, 2004, 902]);
    assert_eq!(
        (in_turn.ids, in_turn.masked_positions, free.masked_positions),
        (free.ids, vec![Some(4)], vec![Some(5)])
    );
}

#[test]
fn kept_markers_stack_in_the_order_of_their_list() {
    let document = plain(3, &[&[(1, 2)], &[(1, 3)]]);
    let laid = |order: &[u32]| {
        let options = ViewOptions { markers: Markers::Kept(order.to_vec()), ..Default::default() };
        view(&document, &special(), &options, &ViewChoices::default()).unwrap().ids
    };
    assert_eq!(laid(&[0, 1]), [901, 0, 2002, 2000, 1, 2001, 2, 2003, 902]);
    assert_eq!(laid(&[1, 0]), [901, 0, 2002, 2000, 1, 2003, 2, 2001, 902]);
}

#[test]
fn a_repeated_mask_is_written_once_unless_asked() {
    let document = plain(4, &[&[(1, 3), (3, 4)]]);
    let rows = masked(&[(0, 0), (0, 0), (0, 0)]);
    let once = view(&document, &special(), &ViewOptions::default(), &rows).unwrap();
    assert_eq!(
        (once.ids, once.masked_positions),
        (vec![901, 0, 2200, 2001, 3, 2002, 902], vec![Some(2); 3])
    );
    let release = ViewOptions { repeat_masked: true, ..Default::default() };
    let view = view(&document, &special(), &release, &rows).unwrap();
    assert_eq!(view.ids, [901, 0, 2200, 2200, 2200, 2001, 3, 2002, 902]);
}

#[test]
fn a_cut_document_ends_with_sep_and_loses_what_lies_beyond() {
    let document = plain(6, &[&[(0, 1), (1, 2), (5, 6)], &[(4, 5), (5, 6)]]);
    let options = ViewOptions {
        max_pieces: Some(7),
        truncate: true,
        max_mentions: Some(1),
        ..Default::default()
    };
    let rows = masked(&[(1, 0), (0, 0)]);
    let view = view(&document, &special(), &options, &rows).unwrap();
    // Whole: CLS 2200 2001 1 2002 2 3 2200 2003 2001 5 2002 2004 SEP.
    assert_eq!(
        (view.ids, view.pieces_before_truncation),
        (vec![901, 2200, 2001, 1, 2002, 2, 902], 14)
    );
    assert_eq!(
        (view.masked_positions, view.mention_positions),
        (vec![None, Some(1)], vec![vec![2], vec![0]])
    );
}

#[test]
fn the_limit_counts_sep_and_padding_follows_it() {
    let document = plain(3, &[]);
    let options = |limit, pad_to| ViewOptions {
        max_pieces: Some(limit),
        truncate: true,
        pad_to,
        ..Default::default()
    };
    let whole = view(&document, &special(), &options(5, Some(7)), &ViewChoices::default()).unwrap();
    assert_eq!(whole.ids, [901, 0, 1, 2, 902, 900, 900]);
    let cut = view(&document, &special(), &options(4, None), &ViewChoices::default()).unwrap();
    assert_eq!(cut.ids, [901, 0, 1, 902]);
}

#[test]
fn a_frame_may_leave_the_front_open_and_close_with_two_pieces() {
    let symbols = SpecialPieces { prefix: vec![], suffix: vec![902, 901], ..special() };
    let document = plain(4, &[&[(0, 1), (2, 3)], &[(3, 4)]]);
    let bare = ViewOptions { markers: Markers::None, ..Default::default() };
    let laid = |max_pieces| {
        let options = ViewOptions { max_pieces, truncate: true, ..bare.clone() };
        view(&document, &symbols, &options, &ViewChoices::default()).unwrap()
    };
    let whole = laid(Some(6));
    assert_eq!((whole.ids, whole.pieces_before_truncation), (vec![0, 1, 2, 3, 902, 901], 6));
    assert_eq!(whole.mention_positions, [vec![0, 2], vec![3]]);
    // The second mention has lost its word to the first piece behind the text.
    let cut = laid(Some(4));
    assert_eq!((cut.ids, cut.pieces_before_truncation), (vec![0, 1, 902, 901], 6));
    assert_eq!(cut.mention_positions, [vec![0, 2], vec![0]]);
}

#[test]
fn a_long_document_is_an_error_unless_truncation_is_allowed() {
    let options = ViewOptions { max_pieces: Some(4), ..Default::default() };
    let error = view(&plain(3, &[]), &special(), &options, &ViewChoices::default()).unwrap_err();
    assert_eq!(error.exit_code(), 65);
    assert!(
        error.to_string().contains("`plain`") && error.to_string().contains("5 word pieces"),
        "{error}"
    );
    assert!(error.hint().is_some());
}

#[test]
fn spans_and_choices_that_do_not_exist_are_errors() {
    let nothing = ViewChoices::default();
    assert_eq!(
        view(&plain(3, &[&[(2, 4)]]), &special(), &ViewOptions::default(), &nothing)
            .unwrap_err()
            .exit_code(),
        65
    );
    assert_eq!(
        view(&plain(3, &[&[(2, 2)]]), &special(), &ViewOptions::default(), &nothing)
            .unwrap_err()
            .exit_code(),
        65
    );
    assert_eq!(
        view(&plain(3, &[&[(0, 1)]]), &special(), &ViewOptions::default(), &masked(&[(0, 1)]))
            .unwrap_err()
            .exit_code(),
        70
    );
}
