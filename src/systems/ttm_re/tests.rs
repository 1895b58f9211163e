use std::sync::Arc;

use tch::{Kind, Tensor};

use super::*;
use crate::systems::positive_unlabelled::RiskTotals;
use crate::systems::reading::testing::{
    EVALUATION, RELATIONS, batch, document, documents, foundation, loss, overfit, untouched,
};
use crate::systems::reading::{ReadingTables, labelled_first};
use crate::systems::testing::assert_batch_invariant;
use crate::systems::{Extractor, Profile, RelationBatch, SystemSettings, tables};
use crate::train::Forward;

fn sized(settings: &TtmReSettings) -> TtmReSettings {
    let (memory_size, memory_layers, memory_heads) = (5, 2, 4);
    TtmReSettings {
        emb_size: 12,
        block_size: 4,
        memory_size,
        memory_layers,
        memory_heads,
        ..settings.clone()
    }
}

fn small() -> TtmReSettings {
    sized(&TtmReSettings::of(Profile::Fixed))
}

fn released() -> TtmReSettings {
    TtmReSettings { pair_chunk: 7, ..sized(&TtmReSettings::of(Profile::Code)) }
}

fn system(settings: TtmReSettings) -> TtmRe {
    TtmRe::new(foundation(32), settings).unwrap()
}

/// All documents as a whole batch.
fn risk_batch(system: &TtmRe) -> RelationBatch {
    let documents = documents();
    let mut totals = RiskTotals::new(Arc::new(vec![0.05; RELATIONS]));
    documents.iter().for_each(|document| totals.add(document, &labelled_first(document)));
    batch(system, &documents, true).with_risk(Arc::new(totals))
}

#[test]
fn gradients_reach_every_parameter() {
    for settings in [small(), released()] {
        let system = system(settings);
        loss(&system, &risk_batch(&system), EVALUATION).backward();
        // What shifts all scores of a softmax alike changes nothing.
        let ignored = ["token_type_embeddings.weight", "key.bias", "mlp1.linear_2.bias"];
        let mut still = untouched(&system);
        still.retain(|name| !ignored.iter().any(|end| name.ends_with(end)));
        assert!(still.is_empty(), "{still:?}");
    }
}

#[test]
fn a_document_has_the_same_logits_alone_and_in_any_batch() {
    let (system, documents) = (system(small()), documents());
    for train in [false, true] {
        assert_batch_invariant(documents.len(), |numbers| {
            let chosen: Vec<_> = numbers.iter().map(|&number| documents[number].clone()).collect();
            system.logits(&batch(&system, &chosen, train), Forward { train, ..EVALUATION }).unwrap()
        });
    }
}

#[test]
fn in_the_release_pairs_of_other_documents_change_logits() {
    let (system, documents) = (system(released()), documents());
    let logits =
        |documents: &[_]| system.logits(&batch(&system, documents, false), EVALUATION).unwrap();
    // Seven pairs of a chunk: six of the first document and one of the second.
    let all = logits(&documents).narrow(0, 6, 6);
    let alone = logits(&documents[1..2]);
    assert!((all - alone).abs().max().double_value(&[]) > 1e-4);
}

#[test]
fn documents_without_pairs_are_no_trouble() {
    for settings in [small(), released()] {
        let system = system(settings);
        let none = [document(5, &[], &[]), document(7, &[&[(1, 2)]], &[])];
        let logits =
            |documents: &[_]| system.logits(&batch(&system, documents, true), EVALUATION).unwrap();
        let empty = logits(&none);
        assert_eq!(empty.size(), [0, 6]);
        empty.sum(Kind::Float).backward();
        let mixed = [none[0].clone(), documents()[0].clone(), none[1].clone()];
        assert_eq!(logits(&mixed), logits(&mixed[1..2]));
        assert_eq!(logits(&[]).size(), [0, 6]);
    }
}

/// One softmax over memory and both vectors, token by token.
#[test]
fn a_pair_reads_from_all_tokens_by_one_softmax() {
    let system = system(small());
    let batch = batch(&system, &documents(), false);
    let laid: &ReadingTables = tables(&batch.tables).unwrap();
    let pairs = system.pairs(laid, EVALUATION).unwrap();
    let parameter =
        |name: &str| system.parameters().get(&format!("heads.mu_encoder.{name}")).unwrap().detach();
    let learner = "token_turing_machine_unit.token_learner_model";
    let of = |name: &str| parameter(&format!("{learner}.{name}"));
    let memory = parameter("memory_tokens");
    for pair in [0, 3, pairs.heads.size()[0] - 1] {
        let own = |x: &Tensor| x.narrow(0, pair, 1);
        let tokens = Tensor::cat(&[&memory, &own(&pairs.heads), &own(&pairs.tails)], 0);
        let normed = tokens.layer_norm(
            [12],
            Some(&of("layernorm.weight")),
            Some(&of("layernorm.bias")),
            1e-5,
            false,
        );
        let inner = normed.linear(&of("mlp1.linear_1.weight"), Some(&of("mlp1.linear_1.bias")));
        let scores =
            inner.gelu("none").linear(&of("mlp1.linear_2.weight"), Some(&of("mlp1.linear_2.bias")));
        let read = scores.softmax(0, Kind::Float).tr().matmul(&tokens);
        assert!((read - pairs.learned.get(pair)).abs().max().double_value(&[]) < 1e-5);
    }
}

#[test]
fn settings_that_cannot_be_built_are_named() {
    let refused = |settings: TtmReSettings, key: &str| {
        let error = settings.check().unwrap_err();
        assert!(error.to_string().contains(key) && error.exit_code() == 64, "{error}");
    };
    refused(TtmReSettings { block_size: 5, ..small() }, "block_size");
    refused(TtmReSettings { memory_heads: 5, ..small() }, "memory_heads");
    refused(TtmReSettings { memory_size: 0, ..small() }, "memory_size");
    refused(TtmReSettings { pair_chunk: 0, ..small() }, "pair_chunk");
    refused(TtmReSettings { memory_rate: -1.0, ..small() }, "memory_rate");
    refused(TtmReSettings { prior_factor: 0.0, ..small() }, "prior_factor");
}

#[test]
fn the_memory_learns_as_fast_as_the_encoder() {
    let settings = TtmReSettings::of(Profile::Fixed);
    let schedule = settings.schedule(&TTM_RE.info(), Profile::Fixed);
    let system = system(small());
    let rate = schedule.head_rate * system.rate("heads.mu_encoder.memory_tokens");
    assert!((rate - 1.0).abs() < 1e-9);
    assert_eq!(system.rate("heads.bilinear.weight"), 1.0);
}

#[test]
fn it_learns_four_documents_by_heart() {
    let system = system(small());
    let (before, after) = overfit(&system, &risk_batch(&system), 200, 1e-2);
    assert!(after < 0.1 * before, "{before} → {after}");
}
