//! The `paper` profile beside its equations (Zhang et al. 2022), computed pair by pair in 64 bits.
//!
//! The reference starts from entity vectors and contexts, which are ATLOP's and are pinned there.

use tch::Tensor;

use super::noise::RelationSource;
use super::settings::ExchangedSlots;
use super::*;
use crate::systems::reading::testing::{batch, documents, foundation};
use crate::systems::testing::plain::{Plain, Row, assert_close, attend, dot, numbers, rows};
use crate::systems::{Extractor, Profile, RelationBatch, tables};
use crate::torch::Precision;
use crate::train::Forward;

const TRAINING: Forward = Forward { train: true, precision: Precision::Fp32 };
const EVALUATION: Forward = Forward { train: false, precision: Precision::Fp32 };
/// Single precision through a few dozen operations.
const TOLERANCE: f64 = 1e-4;
const NORM: f64 = 1e-12;

fn paper() -> DocreIiSettings {
    DocreIiSettings {
        emb_size: 12,
        block_size: 4,
        inference_width: 16,
        ffn_width: 24,
        dropout: 0.0,
        ..DocreIiSettings::of(Profile::Paper)
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn largest(logits: &[f64]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

/// The pairs of a batch: the document of each, its head and its tail, as entities of the batch.
struct Reference {
    weights: Plain,
    pairs: Vec<(i64, i64, i64)>,
    layers: usize,
    self_key_everywhere: bool,
    self_key_bias: f64,
}

impl Reference {
    fn new(system: &DocreIi, laid: &DocreIiTables) -> Self {
        let reading = &laid.reading;
        let ends = reading.heads.iter().zip(&reading.tails);
        Self {
            weights: Plain::of(system.parameters()),
            pairs: laid.documents.iter().zip(ends).map(|(&d, (&s, &o))| (d, s, o)).collect(),
            layers: system.settings().inference_layers,
            self_key_everywhere: system.settings().self_key_everywhere,
            self_key_bias: system.settings().self_key_bias,
        }
    }

    /// Equations 1 to 4: features and logits.
    fn base(&self, base: &BasePairs) -> (Vec<Row>, Vec<Row>) {
        let (entities, contexts) = (rows(&base.read.entities), rows(&base.context));
        let features = self.pairs.iter().zip(&contexts).map(|(&(_, s, o), context)| {
            let vector = |layer: &str, entity: i64| -> Row {
                let input = [&entities[entity as usize][..], context].concat();
                self.weights.linear(layer, &input).iter().map(|x| x.tanh()).collect()
            };
            let both = [vector("heads.head_pair.0", s), vector("heads.tail_pair.0", o)].concat();
            let inner = self.weights.linear("heads.entity_pair_extractor.0", &both);
            inner.iter().map(|x| x.max(0.0)).collect::<Row>()
        });
        let features: Vec<Row> = features.collect();
        let logits = features.iter().map(|f| self.weights.linear("heads.Relation_classifier.2", f));
        let logits = logits.collect();
        (features, logits)
    }

    fn reduced(&self, features: &[Row]) -> Vec<Row> {
        let reduce = "heads.CCA.Reduce_dense.0.weight";
        features.iter().map(|f| self.weights.product(reduce, f)).collect()
    }

    fn embedding(&self, class: usize) -> Row {
        let table = &self.weights.0["heads.CCA.relation_rep1"];
        table.chunks(16).nth(class).unwrap().to_vec()
    }

    /// Equations 5 to 7.
    fn crossed(&self, unit: &str, x: &[Row], m: &[Row]) -> Vec<Row> {
        let all = |part: &str, input: &[Row]| -> Vec<Row> {
            input.iter().map(|row| self.weights.linear(&format!("{unit}.{part}"), row)).collect()
        };
        let (queries, keys, values) = (all("query", x), all("key", m), all("value", m));
        let one = |pair: usize| {
            let (document, s, o) = self.pairs[pair];
            let heads = (0..4usize).flat_map(|head| {
                let set = (0..self.pairs.len()).filter(|&other| {
                    let (elsewhere, from, to) = self.pairs[other];
                    let held = [from == s, to == o, to == s, from == o][head];
                    elsewhere == document && held && other != pair
                });
                let itself = head < 2 || self.self_key_everywhere;
                let keyed: Vec<usize> = set.chain(itself.then_some(pair)).collect();
                let own = 4 * head..4 * head + 4;
                let score = |&other: &usize| {
                    let extra = if other == pair { self.self_key_bias } else { 0.0 };
                    dot(&queries[pair][own.clone()], &keys[other][own.clone()]) / 2.0 + extra
                };
                let scores: Row = keyed.iter().map(score).collect();
                let taken: Vec<&[f64]> =
                    keyed.iter().map(|&other| &values[other][own.clone()]).collect();
                attend(&scores, &taken, 4)
            });
            self.weights.linear(&format!("{unit}.mid_output.0"), &heads.collect::<Row>())
        };
        (0..self.pairs.len()).map(one).collect()
    }

    /// Equations 8 to 11, N_I times: [F; R] of the last layer.
    fn module(&self, f: &[Row], r: &[Row]) -> Vec<Row> {
        let (mut f, mut r) = (f.to_vec(), r.to_vec());
        for layer in 0..self.layers {
            let name = |part: &str| format!("heads.CCA.Online_inference.Layers.{layer}.{part}");
            let m: Vec<Row> = f.iter().zip(&r).map(|(f, r)| [&f[..], r].concat()).collect();
            let inferred_f = self.crossed(&name("Self_Attention"), &f, &m);
            let inferred_r = self.crossed(&name("Cross_Attention"), &r, &m);
            for pair in 0..self.pairs.len() {
                let (of_f, of_r) = (&inferred_f[pair], &inferred_r[pair]);
                let gate = self.weights.linear(&name("gate.0"), &[&of_f[..], of_r].concat());
                let mixed = |i: usize| {
                    let share = sigmoid(gate[i]);
                    share * of_f[i] + (1.0 - share) * of_r[i]
                };
                let fused: Row = (0..gate.len()).map(mixed).collect();
                let next = |part: &str, x: &[f64]| {
                    let inner = self.weights.linear(&name(&format!("{part}.dense1")), &fused);
                    let inner: Row = inner.iter().map(|x| x.max(0.0)).collect();
                    let outer = self.weights.linear(&name(&format!("{part}.dense2")), &inner);
                    let sum: Row = x.iter().zip(&outer).map(|(x, y)| x + y).collect();
                    self.weights.layer_norm(&name(&format!("{part}.LayerNorm2")), &sum, NORM)
                };
                (f[pair], r[pair]) = (next("mid_output", &f[pair]), next("mid_output1", &r[pair]));
            }
        }
        f.iter().zip(&r).map(|(f, r)| [&f[..], r].concat()).collect()
    }

    /// Equation 12.
    fn classified(&self, output: &[Row]) -> Vec<Row> {
        output.iter().map(|o| self.weights.linear("heads.CCA.relation_layer", o)).collect()
    }

    /// The predictor: linear, batch norm over all pairs, ReLU, linear.
    fn predicted(&self, output: &[Row]) -> Vec<Row> {
        let name = |part: &str| format!("heads.CCA.MLP.{part}");
        let inner: Vec<Row> =
            output.iter().map(|row| self.weights.linear(&name("0"), row)).collect();
        let count = inner.len() as f64;
        let (scale, shift) = (&self.weights.0[&name("1.weight")], &self.weights.0[&name("1.bias")]);
        let statistics = (0..scale.len()).map(|i| {
            let mean = inner.iter().map(|row| row[i]).sum::<f64>() / count;
            (mean, inner.iter().map(|row| (row[i] - mean).powi(2)).sum::<f64>() / count)
        });
        let statistics: Vec<(f64, f64)> = statistics.collect();
        let normal = |row: &Row| -> Row {
            let one = |i: usize| {
                let (mean, variance) = statistics[i];
                ((row[i] - mean) / (variance + 1e-5).sqrt() * scale[i] + shift[i]).max(0.0)
            };
            (0..row.len()).map(one).collect()
        };
        inner.iter().map(|row| self.weights.linear(&name("3"), &normal(row))).collect()
    }

    /// Both views' inputs to equation 14: M̄ of (F, R̄) and M̂ of (R̂, F).
    fn views(&self, features: &[Row], classes: &[Vec<usize>; 2]) -> [Vec<Row>; 2] {
        let embedded = |classes: &[usize]| -> Vec<Row> {
            classes.iter().map(|&class| self.embedding(class)).collect()
        };
        [
            self.module(features, &embedded(&classes[0])),
            self.module(&embedded(&classes[1]), features),
        ]
    }

    /// Equation 14, summed over pairs; targets are given, so that they do not move.
    fn contrast(
        &self,
        features: &[Row],
        classes: &[Vec<usize>; 2],
        targets: &[Vec<Row>; 2],
    ) -> f64 {
        let [plain, exchanged] = self.views(features, classes);
        let cosine = |a: &[f64], b: &[f64]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        let (from_plain, from_exchanged) = (self.predicted(&plain), self.predicted(&exchanged));
        let of_pair = |pair: usize| {
            2.0 - cosine(&from_exchanged[pair], &targets[0][pair])
                - cosine(&from_plain[pair], &targets[1][pair])
        };
        (0..self.pairs.len()).map(of_pair).sum()
    }
}

/// Four documents, one of which has pairs from a single entity alone, so that some heads have no
/// keys there.
fn visits(system: &DocreIi) -> RelationBatch {
    let layout = system.layout();
    let mut examples = crate::systems::reading::testing::visits(system, &documents(), true);
    examples[0].pairs.retain(|pair| pair.0 == 0);
    RelationBatch::new(&*layout, &examples, system.classes(), system.loss()).unwrap()
}

#[test]
fn the_papers_profile_is_what_its_equations_say() {
    let everywhere = DocreIiSettings { self_key_everywhere: true, self_key_bias: 0.7, ..paper() };
    for settings in [paper(), everywhere] {
        let system = DocreIi::new(foundation(32), settings.clone()).unwrap();
        let batch = visits(&system);
        let laid: &DocreIiTables = tables(&batch.tables).unwrap();
        let base = system.base_pairs(laid, EVALUATION).unwrap();
        let reference = Reference::new(&system, laid);
        let (features, mut logits) = reference.base(&base);
        assert_close("F", &numbers(&base.features), &features.concat(), TOLERANCE);
        assert_close("base logits", &numbers(&base.logits), &logits.concat(), TOLERANCE);
        let f0 = reference.reduced(&features);
        let ours = system.iterations(laid, &base.logits, &system.feature_matrix(&base).unwrap());
        let ours = ours.unwrap();
        assert_eq!((settings.inference_layers, ours.len()), (2, 3));
        for (number, ours) in ours.iter().enumerate() {
            let r0: Vec<Row> =
                logits.iter().map(|logits| reference.embedding(largest(logits))).collect();
            let output = reference.module(&f0, &r0);
            logits = reference.classified(&output);
            let what = format!("iteration {number}");
            assert_close(&what, &numbers(&ours.output), &output.concat(), TOLERANCE);
            assert_close(&what, &numbers(&ours.logits), &logits.concat(), TOLERANCE);
        }
    }
}

/// The classes of a view's relation input: predictions, some of which are replaced.
fn noisy(view: &NoisyRelations, base: &[Row]) -> Vec<usize> {
    let RelationSource::Predictions { draws, rates, classes } = &view.relations else {
        panic!("the paper starts from predictions")
    };
    let one = |pair: usize| {
        let predicted = largest(&base[pair]);
        if predicted == 0 || draws[pair] >= rates[pair] {
            return predicted;
        }
        let count = base[pair].len();
        (classes[pair]..).map(|class| class % count).find(|&class| class != predicted).unwrap()
    };
    (0..base.len()).map(one).collect()
}

#[test]
fn the_contrastive_loss_is_equation_14_and_so_is_its_gradient() {
    assert_eq!(paper().exchanged_slots, ExchangedSlots::ViewB);
    let settings = DocreIiSettings { noise_rate: [0.5, 0.9], ..paper() };
    let system = DocreIi::new(foundation(32), settings).unwrap();
    // "No relation" is never replaced, so it must not be predicted everywhere.
    let bias = Tensor::from_slice(&[-9f32, 0.0, 0.0, 0.0, 0.0, 0.0]);
    system.parameters().assign("heads.Relation_classifier.2.bias", &bias).unwrap();
    let batch = batch(&system, &documents(), true);
    let laid: &DocreIiTables = tables(&batch.tables).unwrap();
    let base = tch::no_grad(|| system.base_pairs(laid, TRAINING)).unwrap();
    let mut reference = Reference::new(&system, laid);
    let (features, logits) = reference.base(&base);
    let f0 = reference.reduced(&features);
    let noise = laid.noise.as_ref().unwrap();
    let classes = [noisy(&noise.views[0], &logits), noisy(&noise.views[1], &logits)];
    assert_ne!(classes[0], classes[1], "the views must differ");
    let targets = reference.views(&f0, &classes);
    let expected = reference.contrast(&f0, &classes, &targets);

    let targets_of_batch = Tensor::from_slice(&batch.targets).view([batch.pairs as i64, -1]);
    let step = system.stage2(laid, &targets_of_batch, TRAINING).unwrap();
    assert_close("contrast", &numbers(&step.sums[3]), &[expected], TOLERANCE);
    step.sums[3].backward();
    let names = [
        "heads.CCA.MLP.3.weight",
        "heads.CCA.MLP.0.weight",
        "heads.CCA.relation_rep1",
        "heads.CCA.Online_inference.Layers.0.Cross_Attention.query.weight",
        "heads.CCA.Online_inference.Layers.1.mid_output1.dense2.bias",
    ];
    for name in names {
        let ours = numbers(&system.parameters().get(name).unwrap().grad());
        let places: Vec<usize> = (0..ours.len()).step_by(ours.len() / 5).collect();
        let slope = |&place: &usize| {
            let mut at = |shift: f64| {
                let weight = reference.weights.0.get_mut(name).unwrap();
                let before = weight[place];
                weight[place] = before + shift;
                let value = reference.contrast(&f0, &classes, &targets);
                reference.weights.0.get_mut(name).unwrap()[place] = before;
                value
            };
            (at(1e-5) - at(-1e-5)) / 2e-5
        };
        let slopes: Vec<f64> = places.iter().map(slope).collect();
        let ours: Vec<f64> = places.iter().map(|&place| ours[place]).collect();
        assert_close(name, &ours, &slopes, 2e-3);
        assert!(slopes.iter().any(|slope| slope.abs() > 1e-4), "{name}: {slopes:?}");
    }
}

#[test]
fn both_views_are_predicted_and_the_release_predicts_plain_order_alone() {
    let passes = |exchanged_slots| {
        let settings = DocreIiSettings { exchanged_slots, ..paper() };
        let system = DocreIi::new(foundation(32), settings).unwrap();
        let batch = batch(&system, &documents(), true);
        let targets = Tensor::from_slice(&batch.targets).view([batch.pairs as i64, -1]);
        let [a, b] =
            system.stage2(tables(&batch.tables).unwrap(), &targets, TRAINING).unwrap().views;
        [a, b].map(|view| view.target.unwrap().requires_grad())
    };
    assert_eq!(passes(ExchangedSlots::Targets), [false, false]);
    assert_eq!(passes(ExchangedSlots::ViewB), [true, true]);
}
