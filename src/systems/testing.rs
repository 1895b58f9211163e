//! What tests of a system over words need: small documents with sentences, foundations, and the
//! questions that every system must answer.

pub(crate) mod plain;

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::words::tests::{document, special};
use super::{
    Example, Extraction, Extractor, Foundation, Profile, Reads, RelationBatch, Settings, systems,
};
use crate::encoders::{Encoder, EncoderSpec, build};
use crate::text::{TokenizedDocument, TokenizedFact};
use crate::torch::device::LocalThreads;
use crate::torch::{Parameters, Precision};
use crate::train::{Forward, MicroBatch, Objective};

pub(crate) const EVALUATION: Forward = Forward { train: false, precision: Precision::Fp32 };
pub(crate) const TRAINING: Forward = Forward { train: true, precision: Precision::Fp32 };
pub(crate) const RELATIONS: usize = 3;
const VOCABULARY: i64 = 400;

/// On trained word vectors, or on a small BERT.
pub(crate) fn foundation(bert: bool) -> Foundation {
    with_layers(bert, 1)
}

fn with_layers(bert: bool, layers: i64) -> Foundation {
    let config = serde_json::json!({ "embedding_size": 8, "frozen_vectors": false });
    let small = serde_json::json!({
        "hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 64,
    });
    let spec = if bert {
        EncoderSpec::preset("tiny", small)
    } else {
        EncoderSpec::preset("words", config)
    };
    let mut parameters = Parameters::new(11, Device::Cpu);
    let encoder = build(&spec, VOCABULARY, &mut parameters).unwrap();
    Foundation {
        dropout: Some(0.1),
        seed: 5,
        ..foundation_of(encoder, parameters, &["ORG", "PER"])
    }
}

/// On any encoder, with nothing out of the ordinary.
pub(crate) fn foundation_of(
    encoder: Box<dyn Encoder>,
    parameters: Parameters,
    types: &[&str],
) -> Foundation {
    Foundation {
        encoder,
        parameters,
        relations: RELATIONS,
        entity_types: types.iter().map(|&name| name.to_owned()).collect(),
        pieces: special(),
        max_pieces: None,
        truncate: false,
        dropout: None,
        seed: 1,
        twin: None,
    }
}

/// Mentions know the sentence they stand in.
fn settle(mut document: TokenizedDocument, facts: &[(u32, u32, u32)]) -> TokenizedDocument {
    let starts = document.sentence_starts.clone();
    for mention in document.entities.iter_mut().flat_map(|entity| &mut entity.mentions) {
        mention.sentence =
            starts.iter().filter(|&&start| start <= mention.start).count() as u32 - 1;
    }
    document.facts = facts
        .iter()
        .map(|&(head, tail, relation)| TokenizedFact { head, tail, relation, evidence: vec![] })
        .collect();
    document
}

/// Documents of several sentences and of one, with overlapping mentions, without a pair, without an
/// entity, with a word of no piece.
pub(crate) fn documents() -> Vec<TokenizedDocument> {
    let mut others = document(
        &[1, 1, 1, 2, 1, 1, 1],
        &[0, 3, 7],
        &[("ORG", &[(1, 2)]), ("PER", &[(4, 5), (5, 7)]), ("PER", &[(0, 1)])],
    );
    others.pieces.iter_mut().for_each(|piece| *piece += 20);
    vec![
        settle(
            document(
                &[1, 2, 1, 0, 1, 1, 1, 3, 1, 1],
                &[0, 4, 6, 10],
                &[
                    ("PER", &[(4, 6), (0, 2), (1, 3)]),
                    ("ORG", &[(2, 3)]),
                    ("ORG", &[(7, 9), (9, 10)]),
                    ("PER", &[(6, 7)]),
                ],
            ),
            &[(0, 1, 0), (2, 0, 1), (2, 0, 2), (3, 1, 2)],
        ),
        settle(document(&[1, 1, 2], &[0, 3], &[("PER", &[(0, 1)])]), &[]),
        settle(
            document(&[1, 1, 1, 1], &[0, 4], &[("ORG", &[(0, 2)]), ("PER", &[(3, 4), (2, 3)])]),
            &[(1, 0, 1)],
        ),
        settle(document(&[1, 1], &[0, 2], &[]), &[]),
        settle(others, &[(0, 1, 2), (1, 0, 0)]),
    ]
}

/// Visits of documents, with the pairs that the system asks about.
pub(crate) fn examples(
    extractor: &dyn Extractor,
    documents: &[TokenizedDocument],
    train: bool,
) -> Vec<Example> {
    let layout = extractor.layout();
    let visit = |(index, document): (usize, &TokenizedDocument)| {
        let pairs = if train {
            layout.training_pairs(document, 3, 1, index as u64)
        } else {
            layout.evaluation_pairs(document)
        };
        Example {
            document: Arc::new(document.clone()),
            pairs: pairs.unwrap(),
            visit: 40 + index as u64,
            train,
        }
    };
    documents.iter().enumerate().map(visit).collect()
}

pub(crate) fn batch(extractor: &dyn Extractor, examples: &[Example]) -> RelationBatch {
    RelationBatch::new(&*extractor.layout(), examples, extractor.classes(), extractor.loss())
        .unwrap()
}

/// Asserts that a document's rows have the same bits alone, in a batch of all `count` in either
/// order, and with any number of threads. `rows`: what a system makes of a batch of the documents
/// of these numbers.
pub(crate) fn assert_batch_invariant(count: usize, rows: impl Fn(&[usize]) -> Tensor) {
    let rows = |numbers: &[usize]| tch::no_grad(|| rows(numbers));
    let alone: Vec<Tensor> = (0..count).map(|number| rows(&[number])).collect();
    let forward: Vec<usize> = (0..count).collect();
    let backward: Vec<usize> = (0..count).rev().collect();
    for threads in [1, 2, 3] {
        let _threads = LocalThreads::new(threads);
        for order in [&forward, &backward] {
            let (together, apart) = (
                rows(order),
                Tensor::cat(&order.iter().map(|&number| &alone[number]).collect::<Vec<_>>(), 0),
            );
            assert_eq!(together.size(), apart.size());
            assert!(together.size()[0] > 0 && bool::try_from(together.isfinite().all()).unwrap());
            let difference = (&together - &apart).abs().max().double_value(&[]);
            assert!(
                together == apart,
                "rows change by {difference:e} in a batch, with {threads} threads, in order \
                 {order:?}"
            );
        }
    }
}

/// The same for the logits of the documents here, dropout included where `forward` trains.
pub(crate) fn assert_logits_batch_invariant(extractor: &dyn Extractor, forward: Forward) {
    let examples = examples(extractor, &documents(), forward.train);
    assert_batch_invariant(examples.len(), |numbers| {
        let chosen: Vec<Example> = numbers.iter().map(|&number| examples[number].clone()).collect();
        extractor.logits(&batch(extractor, &chosen), forward).unwrap()
    });
}

/// The mean loss of a batch.
pub(crate) fn loss(extractor: &dyn Extractor, batch: &RelationBatch, forward: Forward) -> Tensor {
    let sums = Extraction(extractor).forward(batch, forward).unwrap();
    let terms = sums.iter().zip(batch.counts()).map(|(sum, &count)| sum / count.max(1.0));
    Tensor::stack(&terms.collect::<Vec<_>>(), 0).sum(Kind::Float)
}

/// Trainable parameters that a step in training leaves without a gradient.
pub(crate) fn untouched(extractor: &dyn Extractor) -> Vec<String> {
    let examples = examples(extractor, &documents(), true);
    loss(extractor, &batch(extractor, &examples), TRAINING).backward();
    let has_none = |tensor: &Tensor| {
        !tensor.grad().defined() || tensor.grad().abs().max().double_value(&[]) == 0.0
    };
    extractor
        .parameters()
        .trainable()
        .filter(|parameter| has_none(&parameter.tensor))
        .map(|parameter| parameter.name.clone())
        .collect()
}

/// How much of its first loss remains after some steps of Adam without dropout.
pub(crate) fn remaining_loss(extractor: &dyn Extractor, steps: usize, rate: f64) -> f64 {
    let batch = batch(extractor, &examples(extractor, &documents(), true));
    let tensors: Vec<Tensor> = extractor
        .parameters()
        .trainable()
        .map(|parameter| parameter.tensor.shallow_clone())
        .collect();
    let mut moments: Vec<(Tensor, Tensor)> =
        tensors.iter().map(|tensor| (tensor.zeros_like(), tensor.zeros_like())).collect();
    let mut values = Vec::new();
    for step in 1..=steps as i32 {
        let loss = loss(extractor, &batch, EVALUATION);
        values.push(loss.double_value(&[]));
        tensors.iter().for_each(|tensor| tensor.shallow_clone().zero_grad());
        loss.backward();
        for (tensor, (mean, square)) in
            tensors.iter().zip(&mut moments).filter(|(tensor, _)| tensor.grad().defined())
        {
            let gradient = tensor.grad();
            *mean = &*mean * 0.9 + &gradient * 0.1;
            *square = &*square * 0.99 + gradient.square() * 0.01;
            let size = (&*square / (1.0 - 0.99f64.powi(step))).sqrt() + 1e-8;
            let change = &*mean / (1.0 - 0.9f64.powi(step)) / size * rate;
            let _ = tch::no_grad(|| tensor.shallow_clone().f_sub_(&change)).unwrap();
        }
    }
    values[values.len() - 1] / values[0]
}

/// Entities of one to three mentions spread over sentences of ten words.
fn long(words: u32, entities: u32) -> TokenizedDocument {
    let sentences: Vec<u32> = (0..=words / 10).map(|sentence| sentence * 10).collect();
    let step = words / entities - 1;
    let spans: Vec<Vec<(u32, u32)>> = (0..entities)
        .map(|e| {
            (0..=e % 3)
                .map(|m| ((e * step + m * 7) % (words - 1), (e * step + m * 7) % (words - 1) + 1))
                .collect()
        })
        .collect();
    let entities: Vec<(&str, &[(u32, u32)])> =
        spans.iter().map(|spans| ("PER", spans.as_slice())).collect();
    let mut document =
        settle(document(&vec![1; words as usize], &sentences, &entities), &[(0, 1, 0), (2, 3, 1)]);
    document.pieces.iter_mut().for_each(|piece| *piece %= VOCABULARY as u32);
    document
}

/// The default settings of all systems but these.
fn all_but(names: &[&str]) -> Vec<Settings> {
    let defaults =
        systems().into_iter().map(|system| system.defaults(Profile::Fixed, &toml::Table::new()));
    defaults.filter(|settings| !names.contains(&settings.system())).collect()
}

/// On 64 positions, a document of 130 words: in windows, or on extended positions.
#[test]
fn documents_over_the_positions_are_read_whole_by_every_system_but_dsdocre() {
    for settings in all_but(&["dsdocre", "lstm-sp"]) {
        let info = settings.info();
        let twin = info.twin.then(|| Box::new(with_layers(true, 3)));
        let extractor = settings.build(Foundation { twin, ..with_layers(true, 3) }, false).unwrap();
        let documents = [long(130, 6), long(40, 4)];
        for forward in [EVALUATION, TRAINING] {
            println!("{}, training {}", info.name, forward.train);
            let examples = examples(&*extractor, &documents, forward.train);
            let logits = |examples: &[Example]| {
                tch::no_grad(|| extractor.logits(&batch(&*extractor, examples), forward).unwrap())
            };
            let (together, apart) = (
                logits(&examples),
                Tensor::cat(&[logits(&examples[..1]), logits(&examples[1..])], 0),
            );
            assert!(
                bool::try_from(together.isfinite().all()).unwrap() && together == apart,
                "{}",
                info.name
            );
        }
    }
}

/// With the sizes that the papers have, where a BLAS takes other kernels for other batches.
#[test]
fn no_system_notices_batch_mates() {
    // `lstm-sp` gives sentences, not relations; its own tests hold it to the same.
    for settings in all_but(&["lstm-sp"]) {
        let info = settings.info();
        let words = info.reads == Reads::Words || info.name == "glre";
        let twin = info.twin.then(|| Box::new(with_layers(true, 3)));
        let extractor =
            settings.build(Foundation { twin, ..with_layers(!words, 3) }, false).unwrap();
        extractor.begin_prediction().unwrap();
        let documents = if words {
            [long(130, 12), long(40, 5), long(80, 9)]
        } else {
            [long(30, 7), long(20, 4), long(30, 6)]
        };
        let examples = examples(&*extractor, &documents, false);
        for predict in [false, true] {
            println!("{}, {}", info.name, if predict { "prediction" } else { "logits" });
            assert_batch_invariant(examples.len(), |numbers| {
                let chosen: Vec<Example> =
                    numbers.iter().map(|&number| examples[number].clone()).collect();
                let batch = batch(&*extractor, &chosen);
                if predict {
                    extractor.predict(&batch, EVALUATION)
                } else {
                    extractor.logits(&batch, EVALUATION)
                }
                .unwrap()
            });
        }
    }
}
