//! HIN on small documents: independence of the batch, gradients, ablations, learning.

use super::*;
use crate::systems::testing::{
    EVALUATION, RELATIONS, TRAINING, assert_logits_batch_invariant, batch, documents, examples,
    foundation, remaining_loss, untouched,
};
use crate::systems::{BertMode, Extractor, Profile};

fn small() -> HinSettings {
    HinSettings {
        word_width: 6,
        type_width: 3,
        coreference_width: 2,
        coreference_rows: 8,
        distance_width: 4,
        lstm_hidden: 5,
        spaces: 2,
        ..HinSettings::of(Profile::Fixed)
    }
}

/// The full model and every row of the ablation table, and the settings that the paper leaves open.
fn variants() -> Vec<HinSettings> {
    vec![
        small(),
        HinSettings { translation: false, ..small() },
        HinSettings { bilinear: false, ..small() },
        HinSettings { multi_space: false, ..small() },
        HinSettings { sentence_inference: false, ..small() },
        HinSettings { hierarchy: false, ..small() },
        HinSettings {
            translation: false,
            bilinear: false,
            multi_space: false,
            hierarchy: false,
            ..small()
        },
        HinSettings { project: true, space_width: Some(3), na_class: false, ..small() },
    ]
}

#[test]
fn a_document_does_not_notice_its_batch() {
    for settings in variants() {
        for bert in [false, true] {
            let model = Hin::new(foundation(bert), settings.clone()).unwrap();
            for forward in [EVALUATION, TRAINING] {
                assert_logits_batch_invariant(&model, forward);
            }
        }
    }
}

#[test]
fn gradients_reach_every_parameter() {
    for settings in variants() {
        let model = Hin::new(foundation(false), settings.clone()).unwrap();
        assert_eq!(untouched(&model), Vec::<String>::new(), "{settings:?}");
    }
    let mut left = untouched(&Hin::new(foundation(true), small()).unwrap());
    // BERT's pooler is kept for its folder and never read.
    left.retain(|name| !name.starts_with("pooler."));
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn a_frozen_encoder_is_not_trained() {
    let model =
        Hin::new(foundation(true), HinSettings { bert_mode: BertMode::Frozen, ..small() }).unwrap();
    assert!(model.parameters().trainable().all(|parameter| parameter.name.starts_with("heads.")));
    assert_eq!(untouched(&model), Vec::<String>::new());
}

#[test]
fn classes_follow_the_switch() {
    for (na_class, count) in [(true, RELATIONS + 1), (false, RELATIONS)] {
        let model = Hin::new(foundation(false), HinSettings { na_class, ..small() }).unwrap();
        let examples = examples(&model, &documents(), false);
        let logits = model.logits(&batch(&model, &examples), EVALUATION).unwrap();
        let pairs: usize = examples.iter().map(|example| example.pairs.len()).sum();
        assert_eq!(logits.size(), [pairs as i64, count as i64]);
    }
}

#[test]
fn documents_without_pairs_give_no_rows() {
    let model = Hin::new(foundation(false), small()).unwrap();
    for document in [1, 3] {
        let batch = batch(&model, &examples(&model, &documents()[document..=document], false));
        assert_eq!(model.logits(&batch, EVALUATION).unwrap().size(), [0, RELATIONS as i64 + 1]);
    }
    assert_eq!(
        model.logits(&batch(&model, &[]), EVALUATION).unwrap().size(),
        [0, RELATIONS as i64 + 1]
    );
}

#[test]
fn rows_are_laid_out_by_pair_and_sentence() {
    let model = Hin::new(foundation(false), small()).unwrap();
    let laid = model.layout().tables(&examples(&model, &documents()[1..3], false)).unwrap();
    let laid: &HinTables = crate::systems::tables(&laid).unwrap();
    assert_eq!((&laid.rows.pairs[..], &laid.rows.sentences[..]), (&[0, 1][..], &[1, 1][..]));
    assert_eq!((&laid.rows.offsets[..], &laid.row_offsets[..]), (&[0, 1, 2][..], &[0, 0, 2][..]));
    assert_eq!((&laid.documents[..], &laid.sequence_offsets[..]), (&[1, 1][..], &[0, 0, 2][..]));
}

#[test]
fn it_learns_a_handful_of_documents() {
    let model = Hin::new(foundation(false), HinSettings { lstm_hidden: 12, ..small() }).unwrap();
    let remaining = remaining_loss(&model, 150, 0.02);
    assert!(remaining < 0.1, "{remaining}");
}
