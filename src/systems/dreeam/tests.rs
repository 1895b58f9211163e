use tch::Tensor;

use super::layout::{DreeamTables, SecondTables};
use super::*;
use crate::parity::verify_case;
use crate::systems::reading::testing::{
    EVALUATION, batch, document, foundation, loss, overfit, untouched, visits,
};
use crate::systems::testing::assert_batch_invariant;
use crate::systems::{
    AttentionTargets, Extractor, PairTarget, Profile, RelationBatch, SystemSettings, parity_cases,
    tables,
};
use crate::text::TokenizedDocument;
use crate::train::MicroBatch;

fn small() -> DreeamSettings {
    DreeamSettings { emb_size: 12, block_size: 4, ..DreeamSettings::of(Profile::Fixed) }
}

fn system(settings: DreeamSettings) -> Dreeam {
    Dreeam::new(foundation(64), settings).unwrap()
}

/// Two documents of several sentences. Of the four related pairs of the first, (0, 1) has two
/// labels with evidence 0 and 0, 2; (1, 2) has evidence 1; (2, 0) has none.
fn documents() -> Vec<TokenizedDocument> {
    let mut first = document(
        14,
        &[&[(0, 2), (9, 10)], &[(3, 4)], &[(6, 7), (12, 13)]],
        &[(0, 1, 0), (0, 1, 3), (1, 2, 4), (2, 0, 1)],
    );
    first.sentence_starts = vec![0, 5, 8, 14];
    for (fact, evidence) in first.facts.iter_mut().zip([vec![0], vec![0, 2], vec![1], vec![]]) {
        fact.evidence = evidence;
    }
    let mut second = document(9, &[&[(0, 1)], &[(5, 6)]], &[(1, 0, 2)]);
    second.sentence_starts = vec![0, 4, 9];
    second.facts[0].evidence = vec![1];
    vec![first, second]
}

fn evidence_of(batch: &RelationBatch) -> &super::labels::EvidenceLabels {
    match &tables::<DreeamTables>(&batch.tables).unwrap().second {
        SecondTables::Evidence(labels) => labels,
        SecondTables::Attention(_) => panic!("laid out for self-training"),
    }
}

fn verified(name: &str) {
    let shared = crate::reference_data();
    let case = shared.join("parity-distant").join(name);
    let outcome = verify_case(&case, &parity_cases(), tch::Device::Cpu).unwrap();
    assert!(!outcome.failed(), "{outcome}");
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn the_teacher_is_the_release() {
    verified("dreeam");
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn the_student_is_the_release() {
    verified("dreeam-student");
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn the_fusion_is_the_release() {
    verified("dreeam-fusion");
}

#[test]
fn evidence_becomes_targets_that_count_labels_and_add_up_to_one() {
    let system = system(small());
    let batch = batch(&system, &documents(), true);
    let labels = evidence_of(&batch);
    // Pairs with evidence: (0, 1) with sentences 0 and 2, (1, 2) with 1; then (1, 0) with 1.
    assert_eq!(labels.targets, [2.0 / 3.0, 1.0 / 3.0, 1.0, 1.0]);
    assert_eq!(labels.places, [0, 2, 4, 7]);
    assert_eq!((labels.positive, labels.with_evidence), (4, 3));
    // 6 pairs of three entities and 2 of two.
    assert_eq!(batch.counts(), [8.0, 3.0]);
    let released = self::system(DreeamSettings { evidence_norm: EvidenceNorm::Pairs, ..small() });
    assert_eq!(self::batch(&released, &documents(), true).counts(), [8.0, 4.0]);
    assert_eq!(self::batch(&system, &documents(), false).counts()[1], 0.0);
}

#[test]
fn evidence_behind_a_cut_is_no_target() {
    let cut = DreeamSettings { max_pieces: 12, ..small() };
    let mut foundation = foundation(64);
    foundation.truncate = true;
    let system = Dreeam::new(foundation, cut).unwrap();
    let batch = batch(&system, &documents()[..1], true);
    // The last sentence is gone, and (0, 1) keeps sentence 0 alone.
    assert_eq!(evidence_of(&batch).targets, [1.0, 1.0]);
    loss(&system, &batch, EVALUATION).backward();
}

#[test]
fn evidence_adds_up_to_the_attention_on_the_sentences_and_has_no_direction() {
    let system = system(small());
    let batch = batch(&system, &documents(), false);
    let scored = system.scored(&batch, EVALUATION).unwrap();
    assert_eq!(scored.logits, system.logits(&batch, EVALUATION).unwrap());
    let rows = scored.evidence.unwrap().to_rows().unwrap();
    assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3, 3, 3, 3, 2, 2]);
    for row in &rows {
        let sum: f32 = row.iter().sum();
        assert!(sum > 0.1 && sum < 1.0, "what [CLS] and [SEP] hold is missing: {row:?}");
    }
    // Pairs are labelled first: (0,1), (1,2), (2,0), then (0,2), (1,0), (2,1).
    assert_eq!([&rows[0], &rows[1], &rows[2]], [&rows[4], &rows[5], &rows[3]]);
}

#[test]
fn gradients_reach_every_parameter_in_every_stage() {
    for stage in [DreeamStage::Teacher, DreeamStage::SelfTraining] {
        let system = system(DreeamSettings { stage, ..small() });
        let mut batch = batch(&system, &documents(), true);
        batch.attention = Some(uniform(&batch));
        loss(&system, &batch, EVALUATION).backward();
        let still: Vec<_> = untouched(&system)
            .into_iter()
            .filter(|name| {
                !name.ends_with("key.bias") && name != "embeddings.token_type_embeddings.weight"
            })
            .collect();
        assert!(still.is_empty(), "{stage:?}: {still:?}");
    }
}

/// A teacher that looks at the first four tokens of a document alike, and a little elsewhere.
fn uniform(batch: &RelationBatch) -> AttentionTargets {
    let pair = || PairTarget { tokens: vec![3, 0, 2, 1], weights: vec![0.24; 4], rest: 0.04 };
    (0..batch.pairs).map(|_| pair()).collect()
}

#[test]
fn documents_and_visits_have_the_same_bits_alone_and_in_any_batch() {
    let system = system(small());
    let documents = documents();
    assert_batch_invariant(documents.len(), |numbers| {
        let chosen: Vec<_> = numbers.iter().map(|&number| documents[number].clone()).collect();
        let batch = batch(&system, &chosen, false);
        let scored = system.scored(&batch, EVALUATION).unwrap();
        // [P, C + 3]: logits, and the evidence of at most three sentences.
        let rows = scored.evidence.unwrap().to_rows().unwrap();
        let wide = rows.iter().flat_map(|row| row.iter().copied().chain([0.0; 3]).take(3));
        let evidence = Tensor::from_slice(&wide.collect::<Vec<f32>>()).view([-1, 3]);
        Tensor::cat(&[scored.logits, evidence], 1)
    });
}

#[test]
fn documents_without_pairs_or_labels_are_no_trouble() {
    for stage in [DreeamStage::Teacher, DreeamStage::SelfTraining] {
        let system = system(DreeamSettings { stage, ..small() });
        let none = [document(5, &[], &[]), document(7, &[&[(1, 2)]], &[])];
        let mut batch = batch(&system, &none, true);
        batch.attention = Some(AttentionTargets::default());
        assert_eq!(batch.counts(), [0.0, 0.0]);
        let sums = system.losses(&batch, EVALUATION).unwrap();
        assert_eq!(sums.iter().map(|sum| sum.double_value(&[])).sum::<f64>(), 0.0);
        (&sums[0] + &sums[1]).backward();
        let scored = system.scored(&self::batch(&system, &none, false), EVALUATION).unwrap();
        assert!(scored.evidence.unwrap().to_rows().unwrap().is_empty());
        assert_eq!(scored.logits.size(), [0, 6]);
    }
}

#[test]
fn it_learns_relations_and_their_evidence_by_heart() {
    let system = system(DreeamSettings { evidence_weight: 1.0, ..small() });
    let batch = batch(&system, &documents(), true);
    // The targets of (0, 1) are spread, so its divergence can reach 0 but the loss not much below.
    let (before, after) = overfit(&system, &batch, 200, 1e-2);
    assert!(after < 0.1 * before, "{before} → {after}");
    let examples = visits(&system, &documents(), false);
    let batch =
        RelationBatch::new(&*system.layout(), &examples, system.classes(), system.loss()).unwrap();
    let rows = system.scored(&batch, EVALUATION).unwrap().evidence.unwrap().to_rows().unwrap();
    let rule = system.evidence().unwrap();
    let found: Vec<_> = rows.iter().map(|row| rule.sentences(row)).collect();
    assert_eq!([&found[0], &found[1], &found[6]], [&vec![0, 2], &vec![1], &vec![1]]);
}

#[test]
fn a_student_learns_what_its_teacher_attends_to() {
    let stage = DreeamStage::SelfTraining;
    let system = system(DreeamSettings { stage, attention_weight: 10.0, ..small() });
    let mut batch = batch(&system, &documents(), true);
    batch.attention = Some(uniform(&batch));
    let attention = || system.losses(&batch, EVALUATION).unwrap()[1].double_value(&[]);
    let before = attention();
    overfit(&system, &batch, 100, 1e-2);
    let after = attention();
    assert!(before > 0.0 && after >= -1e-3 && after < 0.2 * before, "{before} → {after}");
}

#[test]
fn a_student_without_its_teacher_or_with_another_documents_is_refused() {
    let stage = DreeamStage::SelfTraining;
    let system = system(DreeamSettings { stage, ..small() });
    let mut batch = batch(&system, &documents(), true);
    let error = system.losses(&batch, EVALUATION).unwrap_err();
    assert!(error.to_string().contains("without a teacher's attention"), "{error}");
    assert!(error.exit_code() == 64 && error.hint().is_some());
    let far = PairTarget { tokens: vec![500], weights: vec![1.0], rest: 0.0 };
    batch.attention = Some((0..batch.pairs).map(|_| far.clone()).collect());
    let error = system.losses(&batch, EVALUATION).unwrap_err();
    assert!(error.exit_code() == 65 && error.to_string().contains("token 500"), "{error}");
}

#[test]
fn settings_that_cannot_be_built_are_named() {
    let wrong = |settings: DreeamSettings| settings.check().unwrap_err().to_string();
    assert!(wrong(DreeamSettings { block_size: 5, ..small() }).contains("block_size"));
    let threshold = DreeamSettings { evidence_threshold: 1.0, ..small() };
    assert!(wrong(threshold).contains("dreeam.evidence_threshold = 1"));
    let weight = DreeamSettings { evidence_weight: -0.1, ..small() };
    assert!(wrong(weight).contains("dreeam.evidence_weight = -0.1"));
    let none = DreeamSettings { averaged_layers: 0, ..small() };
    assert!(wrong(none).contains("dreeam.averaged_layers = 0"));
    let many = DreeamSettings { averaged_layers: 4, ..small() };
    let error = Dreeam::new(foundation(64), many.clone()).err().unwrap();
    assert!(error.to_string().contains("the encoder has 3 layers"), "{error}");
    let fitted = many.fit(3).unwrap();
    assert_eq!(fitted.value().unwrap()["averaged_layers"], 3);
}

#[test]
fn each_stage_has_its_schedule() {
    let schedule = |stage, profile| {
        let settings = DreeamSettings { stage, ..small() };
        let schedule = settings.schedule(&DREEAM.info(), profile);
        let heads = schedule.learning_rate * schedule.head_rate;
        (schedule.batch, schedule.epochs, schedule.clip, schedule.learning_rate, heads)
    };
    let near = |a: (usize, f64, f64, f64, f64), b: (usize, f64, f64, f64, f64)| {
        assert_eq!((a.0, a.1, a.2, a.3), (b.0, b.1, b.2, b.3));
        assert!((a.4 / b.4 - 1.0).abs() < 1e-5, "{} {}", a.4, b.4);
    };
    near(schedule(DreeamStage::Teacher, Profile::Fixed), (4, 30.0, 1.0, 5e-5, 1e-4));
    near(schedule(DreeamStage::FineTuning, Profile::Paper), (4, 10.0, 2.0, 1e-6, 3e-6));
    near(schedule(DreeamStage::SelfTraining, Profile::Paper), (8, 2.0, 5.0, 3e-5, 1e-4));
    near(schedule(DreeamStage::SelfTraining, Profile::Code), (4, 1.0, 5.0, 3e-5, 1e-4));
}
