//! Small documents, a small encoder and a few steps of descent. Only for tests.

use std::sync::Arc;

use tch::{Device, Kind};

use crate::encoders::{EncoderSpec, build};
use crate::systems::testing::foundation_of;
use crate::systems::{Example, Extractor, Foundation, RelationBatch};
use crate::text::{
    SpecialPieces, TokenizedDocument, TokenizedEntity, TokenizedFact, TokenizedMention,
};
use crate::torch::device::LocalThreads;
use crate::torch::{Parameters, Precision};
use crate::train::{Forward, MicroBatch};

pub(crate) const EVALUATION: Forward = Forward { train: false, precision: Precision::Fp32 };
pub(crate) const RELATIONS: usize = 5;

/// Word pieces 0..100 are words; then come special ones.
pub(crate) fn pieces() -> SpecialPieces {
    SpecialPieces {
        cls: 100,
        sep: 101,
        pad: 102,
        unk: 103,
        prefix: vec![100],
        suffix: vec![101],
        window_end: vec![101],
        star: 104,
        unused: (105..505).collect(),
    }
}

/// A BERT of width 16 and three layers with `positions` positions.
pub(crate) fn foundation(positions: i64) -> Foundation {
    let config = serde_json::json!({
        "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": positions, "initializer_range": 0.2,
    });
    let spec = EncoderSpec::preset("tiny", config);
    let mut parameters = Parameters::new(3, Device::Cpu);
    let encoder = build(&spec, 505, &mut parameters).unwrap();
    Foundation {
        relations: RELATIONS,
        pieces: pieces(),
        seed: 9,
        ..foundation_of(encoder, parameters, &["PER", "ORG"])
    }
}

/// A document of `words` words in one sentence; entities as lists of word spans, facts as (head,
/// tail, relation).
pub(crate) fn document(
    words: u32,
    entities: &[&[(u32, u32)]],
    facts: &[(u32, u32, u32)],
) -> TokenizedDocument {
    let mention =
        |&(start, end): &(u32, u32)| TokenizedMention { start, end, ..Default::default() };
    let entity = |(e, spans): (usize, &&[(u32, u32)])| TokenizedEntity {
        entity_type: ["PER", "ORG"][e % 2].into(),
        mentions: spans.iter().map(mention).collect(),
    };
    let fact = |&(head, tail, relation): &(u32, u32, u32)| TokenizedFact {
        head,
        tail,
        relation,
        evidence: vec![],
    };
    TokenizedDocument {
        title: format!("of {words} words"),
        pieces: (0..words).map(|word| (word * 7 + words) % 100).collect(),
        word_starts: (0..=words).collect(),
        sentence_starts: vec![0, words],
        entities: entities.iter().enumerate().map(entity).collect(),
        facts: facts.iter().map(fact).collect(),
        labelled: true,
        ..Default::default()
    }
}

/// Four documents: several mentions, overlapping ones, two entities, and one of 40 words.
pub(crate) fn documents() -> Vec<TokenizedDocument> {
    vec![
        document(
            13,
            &[&[(0, 2), (7, 8)], &[(3, 4)], &[(10, 12), (5, 6)]],
            &[(0, 1, 0), (0, 1, 3), (2, 0, 1)],
        ),
        document(11, &[&[(2, 5)], &[(2, 3), (3, 4)], &[(2, 5), (8, 9)]], &[(1, 2, 4)]),
        document(6, &[&[(0, 1)], &[(5, 6)]], &[(1, 0, 2)]),
        document(
            40,
            &[&[(0, 1), (33, 35)], &[(20, 21)], &[(39, 40)], &[(12, 14), (13, 14)]],
            &[(0, 3, 2), (3, 1, 0), (2, 3, 1)],
        ),
    ]
}

/// Visits of documents; the visit is the document's number of words.
pub(crate) fn visits(
    system: &dyn Extractor,
    documents: &[TokenizedDocument],
    train: bool,
) -> Vec<Example> {
    let layout = system.layout();
    let example = |document: &TokenizedDocument| {
        let pairs = layout.training_pairs(document, 0, 0, 0).unwrap();
        Example {
            document: Arc::new(document.clone()),
            pairs,
            visit: document.num_words() as u64,
            train,
        }
    };
    documents.iter().map(example).collect()
}

/// Those in one batch.
pub(crate) fn batch(
    system: &dyn Extractor,
    documents: &[TokenizedDocument],
    train: bool,
) -> RelationBatch {
    let examples = visits(system, documents, train);
    RelationBatch::new(&*system.layout(), &examples, system.classes(), system.loss()).unwrap()
}

/// Σ over slots of sum / count.
pub(crate) fn loss(system: &dyn Extractor, batch: &RelationBatch, forward: Forward) -> tch::Tensor {
    let sums = system.losses(batch, forward).unwrap();
    assert_eq!(sums.len(), system.slots().len());
    let terms = sums.iter().zip(batch.counts()).filter(|(_, count)| **count > 0.0);
    terms.map(|(sum, count)| sum / *count).reduce(|a, b| a + b).unwrap()
}

/// Loss before and after `steps` steps of Adam on one batch.
pub(crate) fn overfit(
    system: &dyn Extractor,
    batch: &RelationBatch,
    steps: usize,
    rate: f64,
) -> (f64, f64) {
    let mut moments: Vec<_> = system
        .parameters()
        .trainable()
        .map(|p| (p.tensor.zeros_like(), p.tensor.zeros_like()))
        .collect();
    // Operations this small take longer to share than to do.
    let _threads = LocalThreads::new(1);
    let mut values = Vec::new();
    for step in 1..=steps {
        let value = loss(system, batch, EVALUATION);
        values.push(value.double_value(&[]));
        value.backward();
        tch::no_grad(|| {
            for (parameter, (mean, square)) in system.parameters().trainable().zip(&mut moments) {
                let mut tensor = parameter.tensor.shallow_clone();
                let grad = tensor.grad();
                if !grad.defined() {
                    continue;
                }
                *mean = &*mean * 0.9 + &grad * 0.1;
                *square = &*square * 0.99 + grad.square() * 0.01;
                let correction =
                    ((1.0 - 0.99f64.powi(step as i32)).sqrt()) / (1.0 - 0.9f64.powi(step as i32));
                let _ = tensor.g_sub_(&(&*mean * (rate * correction) / (square.sqrt() + 1e-8)));
                tensor.zero_grad();
            }
        });
    }
    (values[0], *values.last().unwrap())
}

/// Names of trainable parameters without a gradient, or with a zero one.
pub(crate) fn untouched(system: &dyn Extractor) -> Vec<String> {
    let still = |tensor: &tch::Tensor| {
        !tensor.grad().defined() || tensor.grad().abs().sum(Kind::Float).double_value(&[]) == 0.0
    };
    system.parameters().trainable().filter(|p| still(&p.tensor)).map(|p| p.name.clone()).collect()
}
