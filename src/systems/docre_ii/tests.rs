use super::settings::{Contrast, KEYS_OF_SECOND_STAGE, NoiseScope, Reasoning};
use super::*;
use crate::systems::SystemSettings;
use crate::systems::reading::testing::{
    EVALUATION, batch, document, documents, foundation, loss, overfit, untouched,
};
use crate::systems::testing::assert_batch_invariant;
use crate::systems::{Extractor, Profile, tables};
use crate::torch::Precision;
use crate::train::{Forward, MicroBatch};

const TRAINING: Forward = Forward { train: true, precision: Precision::Fp32 };

fn small(profile: Profile, stage: Stage) -> DocreIiSettings {
    DocreIiSettings {
        stage,
        emb_size: 12,
        block_size: 4,
        inference_width: 16,
        ffn_width: 24,
        ..DocreIiSettings::of(profile)
    }
}

fn system(settings: DocreIiSettings) -> DocreIi {
    DocreIi::new(foundation(32), settings).unwrap()
}

/// Every profile, and every ablation of the paper's table.
fn variants() -> Vec<DocreIiSettings> {
    let code =
        || DocreIiSettings { train_base_heads: true, ..small(Profile::Code, Stage::Inference) };
    vec![
        code(),
        small(Profile::Fixed, Stage::Inference),
        small(Profile::Paper, Stage::Inference),
        DocreIiSettings { fusion: false, inference_layers: 2, ..code() },
        DocreIiSettings { reasoning: Reasoning::Full, ..code() },
        DocreIiSettings { contrast: Contrast::None, ..code() },
        DocreIiSettings { contrast: Contrast::Negative, ..code() },
        DocreIiSettings { freeze_base: true, ..code() },
        small(Profile::Code, Stage::Base),
        small(Profile::Paper, Stage::Base),
    ]
}

#[test]
fn gradients_reach_every_parameter_under_every_switch() {
    for settings in variants() {
        let system = system(settings.clone());
        let batch = batch(&system, &documents(), true);
        loss(&system, &batch, TRAINING).backward();
        // A bias before a normalisation over rows, and one that shifts all scores of a softmax
        // alike, make no difference to the loss.
        let idle = ["key.bias", "token_type_embeddings.weight", "CCA.MLP.0.bias"];
        let still: Vec<_> = untouched(&system)
            .into_iter()
            .filter(|name| !idle.iter().any(|end| name.ends_with(end)))
            .collect();
        assert!(still.is_empty(), "{settings:?}: {still:?}");
    }
}

#[test]
fn predictions_do_not_depend_on_batch_mates() {
    for settings in variants() {
        let (system, documents) = (system(settings), documents());
        assert_batch_invariant(documents.len(), |numbers| {
            let chosen: Vec<_> = numbers.iter().map(|&number| documents[number].clone()).collect();
            system.predict(&batch(&system, &chosen, false), EVALUATION).unwrap()
        });
    }
}

#[test]
fn iterations_stop_when_labels_repeat_and_zero_iterations_are_the_base() {
    let plain = DocreIiSettings {
        accumulate: false,
        iterations: 6,
        ..small(Profile::Code, Stage::Inference)
    };
    let system = system(plain.clone());
    let batch_of = batch(&system, &documents(), false);
    let laid: &DocreIiTables = tables(&batch_of.tables).unwrap();
    let base = system.base_pairs(laid, EVALUATION).unwrap();
    let features = system.feature_matrix(&base).unwrap();
    let iterations = system.iterations(laid, &base.logits, &features).unwrap();
    assert_eq!(iterations.len(), 6);
    for two in iterations.windows(2) {
        assert!(two[0].labels.size() == two[1].labels.size());
    }
    let none = DocreIi::new(foundation(32), DocreIiSettings { iterations: 0, ..plain }).unwrap();
    let batch = batch(&none, &documents(), false);
    assert_eq!(none.predict(&batch, EVALUATION).unwrap(), none.logits(&batch, EVALUATION).unwrap());
}

#[test]
fn noise_is_a_function_of_the_visit_and_keeps_its_promises() {
    let system = system(small(Profile::Fixed, Stage::Inference));
    let noise = |documents: &[crate::text::TokenizedDocument]| {
        let batch = batch(&system, documents, true);
        let laid: &DocreIiTables = tables(&batch.tables).unwrap();
        (laid.noise.clone().unwrap(), batch)
    };
    let (all, batch) = noise(&documents());
    assert_eq!(noise(&documents()).0, all);
    let classes = system.classes().count();
    let positive = |row: usize| batch.targets[row * classes] == 0.0;
    let positives = (0..batch.pairs).filter(|&row| positive(row)).count();
    assert_eq!(all.base_rows.iter().filter(|&&row| positive(row as usize)).count(), positives);
    assert!(all.base_rows.len() <= 6 * positives);
    assert_eq!(
        batch.counts(),
        [all.base_rows.len(), all.views[0].rows.len(), all.views[1].rows.len(), batch.pairs]
            .map(|n| n as f64)
    );
    for view in &all.views {
        let RelationSource::Labels(labels) = &view.relations else {
            panic!("gold labels were asked for")
        };
        for (row, (given, gold)) in
            labels.chunks(classes).zip(batch.targets.chunks(classes)).enumerate()
        {
            if given != gold {
                let wrong: Vec<usize> = (0..classes).filter(|&class| given[class] == 1.0).collect();
                assert!(
                    wrong.len() == 1 && gold[wrong[0]] == 0.0 && view.rows.contains(&(row as i64)),
                    "{row}"
                );
            }
        }
        assert_ne!(labels, &batch.targets);
    }
    // A document's noise is its own.
    let (own, _) = noise(&documents()[1..2]);
    let shifted: Vec<i64> = own.base_rows.iter().map(|row| row + 6).collect();
    assert!(shifted.iter().all(|row| all.base_rows.contains(row)));
}

#[test]
fn documents_without_pairs_or_facts_are_no_trouble() {
    let none = [
        document(5, &[], &[]),
        document(7, &[&[(1, 2)]], &[]),
        document(9, &[&[(1, 2)], &[(3, 5)]], &[]),
    ];
    for settings in variants() {
        let system = system(settings);
        let batch_of_none = batch(&system, &none[..2], true);
        let sums = system.losses(&batch_of_none, TRAINING).unwrap();
        assert!(sums.iter().all(|sum| sum.double_value(&[]) == 0.0));
        let factless = batch(&system, &none, true);
        assert!(
            system
                .losses(&factless, TRAINING)
                .unwrap()
                .iter()
                .all(|sum| sum.double_value(&[]).is_finite())
        );
        assert_eq!(
            system.predict(&batch(&system, &none, false), EVALUATION).unwrap().size(),
            [2, 6]
        );
    }
}

#[test]
fn stage_two_freezes_what_it_was_told_to() {
    let frozen = |settings: DocreIiSettings| {
        let system = system(settings);
        let trainable: Vec<String> =
            system.parameters().trainable().map(|p| p.name.clone()).collect();
        let any = |part: &str| trainable.iter().any(|name| name.contains(part));
        (any("encoder.layer.0"), any("head_pair"), any("CCA.Reduce_dense"))
    };
    let code = small(Profile::Code, Stage::Inference);
    assert_eq!(frozen(code.clone()), (true, false, true));
    assert_eq!(
        frozen(DocreIiSettings { train_base_heads: true, ..code.clone() }),
        (true, true, true)
    );
    assert_eq!(frozen(DocreIiSettings { freeze_base: true, ..code }), (false, false, true));
}

#[test]
fn without_pre_training_one_stage_trains_all_parts_by_the_second_schedule_in_every_profile() {
    for profile in [Profile::Fixed, Profile::Paper, Profile::Code] {
        let two = small(profile, Stage::Inference);
        assert!(two.second_stage() && two.first_stage().is_some(), "{profile:?}");
        let all = DocreIiSettings { train_base_heads: true, ..two.clone() };
        let one = DocreIiSettings { pretrained_base: false, ..two };
        assert!(one.second_stage() && one.first_stage().is_none(), "{profile:?}");
        let trained = |settings| -> Vec<String> {
            system(settings).parameters().trainable().map(|p| p.name.clone()).collect()
        };
        let [joint, all] = [one.clone(), all].map(trained);
        assert_eq!(joint, all, "{profile:?}");
        let frozen = DocreIiSettings { freeze_base: true, ..one };
        let error = frozen.check().unwrap_err();
        assert_eq!(error.exit_code(), 64, "{error}");
    }
}

/// Tables let rows that differ in these keys alone share their first stage.
#[test]
fn the_first_stage_does_not_read_the_keys_of_the_second() {
    let sum = |settings: &DocreIiSettings| {
        let system = system(settings.clone());
        let batch = batch(&system, &documents(), true);
        loss(&system, &batch, TRAINING).double_value(&[]).to_bits()
    };
    let code = small(Profile::Code, Stage::Base);
    let text = serde_json::to_value(&code).unwrap();
    // Other values of all these keys, most of them from another profile.
    let other = DocreIiSettings {
        inference_width: 32,
        inference_heads: 8,
        ffn_width: 8,
        iterations: 1,
        fusion: false,
        reasoning: Reasoning::Full,
        base_head_rate: 0.5,
        freeze_base: true,
        noise_scope: NoiseScope::Document,
        noise_rate: [0.1, 0.2],
        positive_noise: [0.3, 0.4],
        negative_noise: [0.1, 0.2],
        base_loss: false,
        contrast: Contrast::Negative,
        temperature: 0.1,
        ..small(Profile::Paper, Stage::Base)
    };
    let mut changed = text.clone();
    let other = serde_json::to_value(&other).unwrap();
    for key in KEYS_OF_SECOND_STAGE {
        assert_ne!(text[key], other[key], "{key}");
        changed[key] = other[key].clone();
    }
    // Four heads are all that there are.
    changed["inference_heads"] = text["inference_heads"].clone();
    assert_eq!(sum(&serde_json::from_value(changed).unwrap()), sum(&code));
}

#[test]
fn settings_that_cannot_be_built_are_named() {
    let small = || small(Profile::Fixed, Stage::Inference);
    for (wrong, name) in [
        (DocreIiSettings { inference_heads: 8, ..small() }, "inference_heads"),
        (DocreIiSettings { inference_width: 18, ..small() }, "inference_width"),
        (DocreIiSettings { dropout: 1.0, ..small() }, "dropout"),
        (DocreIiSettings { positive_noise: [0.5, 0.2], ..small() }, "positive_noise"),
    ] {
        let error = wrong.check().unwrap_err();
        assert!(error.to_string().contains(name) && error.exit_code() == 64, "{error}");
    }
    let error = DocreIi::new(foundation(32), DocreIiSettings { averaged_layers: 9, ..small() })
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("`averaged_layers` is 9") && error.hint().is_some(),
        "{error}"
    );
}

#[test]
fn both_stages_learn_four_documents_by_heart() {
    for stage in [Stage::Base, Stage::Inference] {
        let settings = DocreIiSettings {
            contrast: Contrast::None,
            train_base_heads: true,
            ..small(Profile::Fixed, stage)
        };
        let system = system(settings);
        let batch = batch(&system, &documents(), true);
        let (before, after) = overfit(&system, &batch, 200, 1e-2);
        assert!(after < 0.1 * before, "{stage:?}: {before} → {after}");
    }
}
