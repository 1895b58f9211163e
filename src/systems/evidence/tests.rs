//! The evidence predictor on hand-made documents.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::*;
use crate::encoders::{EncoderSpec, build};
use crate::systems::Profile;
use crate::systems::SystemSettings;
use crate::systems::testing::foundation_of;
use crate::systems::words::tests::{EVALUATION, TYPES, document};
use crate::text::{TokenizedDocument, TokenizedFact};
use crate::torch::{Parameters, Precision};
use crate::train::{Forward, MicroBatch, Objective};

const TRAINING: Forward = Forward { train: true, precision: Precision::Fp32 };

fn predictor(max_words: usize) -> EvidencePredictor {
    let mut parameters = Parameters::new(5, Device::Cpu);
    let spec = EncoderSpec::preset("words", serde_json::json!({ "embedding_size": 12 }));
    let encoder = build(&spec, 400, &mut parameters).unwrap();
    let foundation = foundation_of(encoder, parameters, &TYPES);
    let settings = EvidenceSettings {
        position_width: 3,
        type_width: 4,
        hidden: 10,
        max_words,
        ..EvidenceSettings::of(Profile::Fixed)
    };
    EvidencePredictor::new(foundation, &settings).unwrap()
}

/// Three sentences; heads and tails overlap in word 2.
fn text() -> Arc<TokenizedDocument> {
    Arc::new(document(&[1; 9], &[0, 4, 6, 9], &[("PER", &[(1, 3), (7, 8)]), ("ORG", &[(2, 4)])]))
}

fn item(head: u32, tail: u32, relation: u32, evidence: &[u32], visit: u64) -> EvidenceItem {
    let fact = TokenizedFact { head, tail, relation, evidence: evidence.to_vec() };
    EvidenceItem { document: text(), fact, visit }
}

#[test]
fn heads_and_tails_are_marked_and_sentences_have_two_ends() {
    let batch =
        predictor(0).layout.batch(&[item(0, 1, 2, &[0, 2], 0), item(1, 0, 0, &[], 1)]).unwrap();
    assert_eq!(batch.tables.coref, [0, 1, 2, 2, 0, 0, 0, 1, 0, 0, 2, 2, 1, 0, 0, 0, 2, 0]);
    assert_eq!((&batch.relations[..], &batch.items[..]), (&[3, 1][..], &[0, 0, 0, 1, 1, 1][..]));
    assert_eq!(
        (&batch.firsts[..], &batch.lasts[..]),
        (&[0, 4, 6, 9, 13, 15][..], &[3, 5, 8, 12, 14, 17][..])
    );
    assert_eq!(
        (&batch.targets[..], batch.counts()),
        (&[1.0, 0.0, 1.0, 0.0, 0.0, 0.0][..], &[6.0][..])
    );
}

#[test]
fn sentences_behind_the_cut_have_no_score() {
    let predictor = predictor(5);
    let scores = predictor.scores(&[item(0, 1, 2, &[], 0)], EVALUATION, 100).unwrap();
    assert!(scores[0][0] > 0.0 && scores[0][1] > 0.0 && scores[0][2] == 0.0);
}

#[test]
fn an_item_does_not_see_its_batch() {
    let predictor = predictor(0);
    let items = [item(0, 1, 2, &[], 0), item(1, 0, 0, &[], 1), item(0, 1, 1, &[], 2)];
    let together = predictor.scores(&items, EVALUATION, 1000).unwrap();
    let alone = predictor.scores(&items, EVALUATION, 1).unwrap();
    assert_eq!(together, alone);
    assert_ne!(together[0], together[1]);
    assert!(predictor.scores(&[], EVALUATION, 10).unwrap().is_empty());
}

#[test]
fn gradients_reach_every_parameter_but_not_the_padding_rows() {
    let predictor = predictor(0);
    let batch = predictor.layout.batch(&[item(0, 1, 2, &[0, 2], 0)]).unwrap();
    predictor.forward(&batch, TRAINING).unwrap()[0].backward();
    for parameter in predictor.parameters().trainable() {
        assert!(
            parameter.tensor.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0,
            "{}",
            parameter.name
        );
    }
    for name in ["heads.coref_embed.weight", "heads.ner_emb.weight", "heads.relation_embed.weight"]
    {
        let gradient = predictor.parameters().get(name).unwrap().grad().get(0);
        assert_eq!(gradient.abs().sum(Kind::Float).double_value(&[]), 0.0, "{name}");
    }
}

#[test]
fn facts_that_are_not_there_are_errors() {
    let layout = predictor(0).layout.clone();
    for wrong in [item(2, 0, 0, &[], 0), item(0, 2, 0, &[], 0), item(0, 1, 3, &[], 0)] {
        let error = layout.batch(&[wrong]).err().unwrap().to_string();
        assert!(error.contains("document of 9 words"), "{error}");
    }
    assert!(EvidenceSettings { position_rows: 2, ..EvidenceSettings::default() }.check().is_err());
}

#[test]
fn it_learns_two_facts_by_heart() {
    let predictor = predictor(0);
    let batch =
        predictor.layout.batch(&[item(0, 1, 2, &[0, 2], 0), item(1, 0, 0, &[1], 1)]).unwrap();
    let loss = || predictor.forward(&batch, EVALUATION).unwrap().remove(0);
    let first = loss().double_value(&[]);
    for _ in 0..200 {
        loss().backward();
        let _guard = tch::no_grad_guard();
        for parameter in predictor.parameters().trainable() {
            let mut gradient: Tensor = parameter.tensor.grad();
            let _ = parameter.tensor.shallow_clone().subtract_(&(&gradient * 0.1));
            let _ = gradient.zero_();
        }
    }
    let last = loss().double_value(&[]);
    assert!(last < 0.1 * first, "{first} → {last}");
}
