use tch::Tensor;

use super::settings::{Classifier, LossKind, ThresholdKind};
use super::*;
use crate::systems::SystemSettings;
use crate::systems::reading::testing::{
    EVALUATION, batch, document, documents, foundation, loss, overfit, untouched,
};
use crate::systems::reading::{MarkerScheme, Pooling};
use crate::systems::testing::assert_batch_invariant;
use crate::systems::{Extractor, Profile};
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
}

#[test]
fn it_learns_four_documents_by_heart() {
    let system = system(small());
    let batch = batch(&system, &documents(), true);
    let (before, after) = overfit(&system, &batch, 200, 1e-2);
    assert!(after < 0.1 * before, "{before} → {after}");
}
