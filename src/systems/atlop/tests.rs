use std::sync::Arc;

use tch::Tensor;

use super::settings::{Classifier, LossKind, ThresholdKind};
use super::*;
use crate::systems::positive_unlabelled::RiskTotals;
use crate::systems::reading::testing::{
    EVALUATION, RELATIONS, batch, document, documents, foundation, loss, overfit, untouched,
};
use crate::systems::reading::{MarkerScheme, Pooling, labelled_first};
use crate::systems::testing::assert_batch_invariant;
use crate::systems::{Extractor, Profile, RelationBatch, SystemSettings};
use crate::torch::Precision;
use crate::train::Forward;

fn small() -> AtlopSettings {
    AtlopSettings { emb_size: 12, block_size: 4, ..AtlopSettings::of(Profile::Fixed) }
}

fn system(settings: AtlopSettings) -> Atlop {
    Atlop::new(foundation(32), settings).unwrap()
}

/// Every switch once away from its default.
fn variants() -> Vec<AtlopSettings> {
    vec![
        small(),
        AtlopSettings { pooling: Pooling::Mean, markers: MarkerScheme::StarPerMention, ..small() },
        AtlopSettings { pooling: Pooling::Max, markers: MarkerScheme::Entity, ..small() },
        AtlopSettings { markers: MarkerScheme::None, context: false, ..small() },
        AtlopSettings {
            classifier: Classifier::Linear,
            loss: LossKind::Bce,
            threshold: ThresholdKind::Global,
            ..small()
        },
        AtlopSettings { block_size: 12, window_stride: 5, ..small() },
    ]
}

fn spread(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn gradients_reach_every_parameter_under_every_switch() {
    for settings in variants() {
        let system = system(settings.clone());
        let batch = batch(&system, &documents(), true);
        loss(&system, &batch, EVALUATION).backward();
        let ignored = ["embeddings.token_type_embeddings.weight"];
        let still: Vec<_> = untouched(&system)
            .into_iter()
            .filter(|name| !ignored.contains(&name.as_str()))
            .collect();
        // A key's bias shifts all scores of a row alike, so that softmax does not see it.
        let still: Vec<_> = still.into_iter().filter(|name| !name.ends_with("key.bias")).collect();
        assert!(still.is_empty(), "{settings:?}: {still:?}");
    }
}

#[test]
fn a_document_has_the_same_logits_alone_and_in_any_batch() {
    for settings in variants() {
        let (system, documents) = (system(settings), documents());
        for train in [false, true] {
            assert_batch_invariant(documents.len(), |numbers| {
                let chosen: Vec<_> =
                    numbers.iter().map(|&number| documents[number].clone()).collect();
                system
                    .logits(&batch(&system, &chosen, train), Forward { train, ..EVALUATION })
                    .unwrap()
            });
        }
    }
}

#[test]
fn dropout_depends_on_the_visit_alone() {
    let train = Forward { train: true, precision: Precision::Fp32 };
    let system = system(small());
    let documents = documents();
    let all = system.logits(&batch(&system, &documents, true), train).unwrap();
    let own = system.logits(&batch(&system, &documents[1..2], true), train).unwrap();
    assert_eq!(own, all.narrow(0, 6, 6));
    let quiet = system.logits(&batch(&system, &documents[1..2], true), EVALUATION).unwrap();
    assert!(spread(&own, &quiet) > 1e-3);
}

#[test]
fn documents_without_pairs_are_no_trouble() {
    let system = system(small());
    let none = [document(5, &[], &[]), document(7, &[&[(1, 2)]], &[])];
    let batch_of_none = batch(&system, &none, true);
    assert_eq!(system.logits(&batch_of_none, EVALUATION).unwrap().size(), [0, 6]);
    system.losses(&batch_of_none, EVALUATION).unwrap()[0].backward();
    let mixed = [none[0].clone(), documents()[0].clone(), none[1].clone()];
    let logits = system.logits(&batch(&system, &mixed, true), EVALUATION).unwrap();
    let alone = system.logits(&batch(&system, &mixed[1..2], true), EVALUATION).unwrap();
    assert_eq!(logits, alone);
    // Without pairs anywhere in a batch of nothing.
    assert_eq!(system.logits(&batch(&system, &[], false), EVALUATION).unwrap().size(), [0, 6]);
}

#[test]
fn a_document_beyond_the_positions_is_read_in_windows_cut_or_refused() {
    let long = document(200, &[&[(0, 1), (150, 152)], &[(199, 200)]], &[(0, 1, 0)]);
    let windows = system(small());
    assert!(
        windows
            .logits(&batch(&windows, std::slice::from_ref(&long), true), EVALUATION)
            .unwrap()
            .isfinite()
            .all()
            .int64_value(&[])
            == 1
    );
    // The release reads two windows of at most 1024 pieces; what lies between them is seen by none.
    let code =
        system(AtlopSettings { emb_size: 12, block_size: 4, ..AtlopSettings::of(Profile::Code) });
    assert!(
        code.logits(&batch(&code, std::slice::from_ref(&long), true), EVALUATION)
            .unwrap()
            .isfinite()
            .all()
            .int64_value(&[])
            == 1
    );
    let cut = AtlopSettings { long_documents: crate::systems::LongDocuments::Cut, ..small() };
    let refused = system(cut.clone()).view(&long).unwrap_err();
    assert_eq!(refused.exit_code(), 65);
    let cut = system(AtlopSettings { cut_silently: true, ..cut });
    let logits = cut.logits(&batch(&cut, &[long], true), EVALUATION).unwrap();
    assert!(logits.isfinite().all().int64_value(&[]) == 1);
}

#[test]
fn settings_that_cannot_be_built_are_named() {
    let error = AtlopSettings { block_size: 5, ..small() }.check().unwrap_err();
    assert!(error.to_string().contains("block_size") && error.exit_code() == 64);
    assert!(AtlopSettings { markers: MarkerScheme::Typed, ..small() }.check().is_err());
    let refused = |settings: AtlopSettings, key: &str| {
        let error = settings.check().unwrap_err();
        assert!(error.to_string().contains(key) && error.exit_code() == 64, "{error}");
    };
    let unlabelled = AtlopSettings { loss: LossKind::SPu, ..small() };
    unlabelled.check().unwrap();
    refused(AtlopSettings { ranking: false, ..small() }, "ranking");
    refused(AtlopSettings { prior_factor: 0.9, ..unlabelled.clone() }, "prior_factor");
    refused(AtlopSettings { threshold: ThresholdKind::Global, ..unlabelled }, "threshold");
}

/// The documents as a whole batch under a loss for unlabelled pairs.
fn risk_batch(system: &Atlop) -> RelationBatch {
    let documents = documents();
    let mut totals = RiskTotals::new(Arc::new(vec![0.05; RELATIONS]));
    documents.iter().for_each(|document| totals.add(document, &labelled_first(document)));
    batch(system, &documents, true).with_risk(Arc::new(totals))
}

#[test]
fn the_losses_for_unlabelled_pairs_reach_every_parameter_and_are_learnt() {
    for (loss_kind, ranking) in [(LossKind::Pn, true), (LossKind::Pu, false), (LossKind::SPu, true)]
    {
        let settings = AtlopSettings { loss: loss_kind, ranking, num_labels: 0, ..small() };
        let system = system(settings);
        let batch = risk_batch(&system);
        let (before, after) = overfit(&system, &batch, 60, 1e-2);
        assert!(after < 0.3 * before, "{loss_kind:?}: {before} → {after}");
        loss(&system, &batch, EVALUATION).backward();
        let mut still = untouched(&system);
        still.retain(|name| !name.contains("token_type") && !name.ends_with("key.bias"));
        assert!(still.is_empty(), "{loss_kind:?}: {still:?}");
    }
}

#[test]
fn without_ranking_relations_are_compared_with_0() {
    let own = AtlopSettings { loss: LossKind::SPu, ..small() };
    let (ranked, plain) = (system(own.clone()), system(AtlopSettings { ranking: false, ..own }));
    let logits =
        |system: &Atlop| system.logits(&batch(system, &documents(), false), EVALUATION).unwrap();
    let scored = plain.scored(&batch(&plain, &documents(), false), EVALUATION).unwrap().logits;
    let (ranked, plain) = (logits(&ranked), logits(&plain));
    assert_eq!(plain.select(1, 0).abs().max().double_value(&[]), 0.0);
    assert_eq!(scored, plain);
    let relations = |logits: &Tensor| logits.narrow(1, 1, RELATIONS as i64);
    assert_eq!(relations(&ranked), relations(&plain));
}

#[test]
fn a_loss_for_unlabelled_pairs_needs_the_totals_of_its_batch() {
    let system = system(AtlopSettings { loss: LossKind::SPu, ..small() });
    assert!(system.losses(&batch(&system, &documents(), true), EVALUATION).is_err());
    assert!(system.losses(&risk_batch(&system), EVALUATION).is_ok());
}

#[test]
fn it_learns_four_documents_by_heart() {
    let system = system(small());
    let batch = batch(&system, &documents(), true);
    let (before, after) = overfit(&system, &batch, 200, 1e-2);
    assert!(after < 0.1 * before, "{before} → {after}");
}
