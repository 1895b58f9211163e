//! The baselines on hand-made documents.

use tch::{Device, Kind, Tensor};

use super::pairs::PairBilinear;
use super::settings::Labels;
use super::two_step::two_step_logits;
use super::*;
use crate::encoders::{EncoderSpec, build};
use crate::systems::testing::{assert_batch_invariant, foundation_of};
use crate::systems::words::tests::{EVALUATION, TYPES, document, example, with_facts};
use crate::systems::words::{Reading, WordTables};
use crate::systems::{
    Classes, Example, Extractor, Foundation, Layout, NaClass, Profile, RelationBatch, tables,
};
use crate::text::TokenizedDocument;
use crate::torch::rng::Generator;
use crate::torch::{Parameters, Precision};
use crate::train::{Forward, MicroBatch};

const NETWORKS: [Network; 5] =
    [Network::Cnn, Network::Lstm, Network::Bilstm, Network::ContextAware, Network::Linear];
const TRAINING: Forward = Forward { train: true, precision: Precision::Fp32 };

fn foundation(bert: bool) -> Foundation {
    let mut parameters = Parameters::new(5, Device::Cpu);
    let spec = if bert {
        let small = serde_json::json!({
            "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24,
        });
        EncoderSpec::preset("tiny", small)
    } else {
        EncoderSpec::preset("words", serde_json::json!({ "embedding_size": 12 }))
    };
    foundation_of(build(&spec, 400, &mut parameters).unwrap(), parameters, &TYPES)
}

fn small(network: Network) -> BaselineSettings {
    BaselineSettings {
        coref_width: 3,
        type_width: 4,
        distance_width: 5,
        hidden: 10,
        channels: 11,
        coref_rows: 20,
        ..BaselineSettings::of(network, Profile::Fixed)
    }
}

fn model(network: Network) -> Baseline {
    Baseline::new(foundation(network == Network::Linear), &small(network)).unwrap()
}

/// Overlapping and repeated mentions, a word without pieces, one entity of two types' words.
fn crowded() -> TokenizedDocument {
    let entities: [(&str, &[(u32, u32)]); 4] = [
        ("PER", &[(4, 6), (0, 2), (1, 3)]),
        ("ORG", &[(2, 3)]),
        ("PER", &[(7, 8), (9, 10)]),
        ("ORG", &[(11, 12)]),
    ];
    with_facts(
        document(&[1, 2, 1, 0, 1, 1, 1, 1, 1, 3, 1, 1], &[0, 4, 6, 12], &entities),
        &[(0, 1, 2), (2, 0, 0), (0, 1, 1), (3, 2, 1)],
    )
}

fn short() -> TokenizedDocument {
    with_facts(
        document(&[1, 1, 1], &[0, 3], &[("ORG", &[(0, 1)]), ("PER", &[(2, 3)])]),
        &[(1, 0, 0)],
    )
}

fn lonely() -> TokenizedDocument {
    document(&[1, 1], &[0, 2], &[("PER", &[(0, 1)])])
}

fn empty() -> TokenizedDocument {
    document(&[1, 1, 2], &[0, 3], &[])
}

fn batch(model: &Baseline, documents: Vec<TokenizedDocument>) -> RelationBatch {
    let examples: Vec<Example> =
        documents.into_iter().zip(7..).map(|(document, visit)| example(document, visit)).collect();
    RelationBatch::new(&*model.layout(), &examples, model.classes(), model.loss()).unwrap()
}

fn loss(model: &Baseline, batch: &RelationBatch, forward: Forward) -> Tensor {
    model.losses(batch, forward).unwrap().remove(0) / batch.counts()[0]
}

#[test]
fn gradients_reach_every_parameter() {
    for network in NETWORKS {
        let model = model(network);
        loss(&model, &batch(&model, vec![crowded(), short()]), TRAINING).backward();
        for parameter in model.parameters().trainable() {
            // BERT's pooler is saved but not used; one token type of two occurs.
            if parameter.name.starts_with("pooler") {
                continue;
            }
            let gradient = parameter.tensor.grad();
            assert!(
                gradient.defined() && gradient.abs().sum(Kind::Float).double_value(&[]) > 0.0,
                "{network:?}: {}",
                parameter.name
            );
        }
    }
}

#[test]
fn a_document_does_not_see_its_batch() {
    for network in NETWORKS {
        let model = model(network);
        let documents = [short(), crowded(), lonely(), empty()];
        assert_batch_invariant(documents.len(), |numbers| {
            let chosen = numbers.iter().map(|&number| documents[number].clone()).collect();
            model.logits(&batch(&model, chosen), EVALUATION).unwrap()
        });
    }
}

#[test]
fn dropout_belongs_to_the_visit() {
    for network in [Network::Cnn, Network::Bilstm] {
        let model = model(network);
        let layout = model.layout();
        let logits = |visits: &[u64]| {
            let examples: Vec<Example> =
                visits.iter().map(|&visit| example(crowded(), visit)).collect();
            let batch =
                RelationBatch::new(&*layout, &examples, model.classes(), model.loss()).unwrap();
            model.logits(&batch, TRAINING).unwrap()
        };
        let (both, alone) = (logits(&[3, 8]), logits(&[8]));
        assert_eq!(both.narrow(0, 12, 12), alone, "{network:?}");
        assert!(
            (both.narrow(0, 0, 12) - &alone).abs().max().double_value(&[]) > 1e-3,
            "{network:?}"
        );
    }
}

#[test]
fn documents_without_pairs_are_no_trouble() {
    for network in NETWORKS {
        let model = model(network);
        for documents in [vec![lonely()], vec![empty()], vec![]] {
            let batch = batch(&model, documents);
            let logits = model.logits(&batch, EVALUATION).unwrap();
            assert_eq!((logits.size(), batch.counts()), (vec![0, 4], &[0.0][..]), "{network:?}");
        }
    }
}

#[test]
fn the_bilinear_layer_is_that_of_the_formula() {
    let mut parameters = Parameters::new(2, Device::Cpu);
    let layer = PairBilinear::declare(&mut parameters, 6, 4, 5).unwrap();
    let model = model(Network::Bilstm);
    let batch = batch(&model, vec![crowded(), short()]);
    let laid: &WordTables = tables(&batch.tables).unwrap();
    let ours_in = Generator::of_test(4).randn([6, 6]).set_requires_grad(true);
    let plain_in = ours_in.detach().copy().set_requires_grad(true);
    let weigh = |values: &Tensor| {
        let factors =
            Tensor::arange(values.numel() as i64, (Kind::Float, Device::Cpu)).sin().view_as(values);
        (values * factors).sum(Kind::Float)
    };
    let gradients = |input: &Tensor| {
        let names = ["heads.bili.weight", "heads.bili.bias", "heads.dis_embed.weight"];
        let mut all: Vec<Tensor> =
            names.iter().map(|name| parameters.get(name).unwrap().grad().copy()).collect();
        for name in names {
            let _ = parameters.get(name).unwrap().grad().zero_();
        }
        all.push(input.grad());
        all
    };
    let ours = layer.forward(&ours_in, laid).unwrap();
    weigh(&ours).backward();
    let our_gradients = gradients(&ours_in);
    let (heads, tails) = layer.sides(&plain_in, laid).unwrap();
    let plain = Tensor::bilinear(
        &heads,
        &tails,
        parameters.get("heads.bili.weight").unwrap(),
        parameters.get("heads.bili.bias"),
    );
    weigh(&plain).backward();
    assert!((&ours - &plain).abs().max().double_value(&[]) < 1e-5);
    for (ours, plain) in our_gradients.iter().zip(gradients(&plain_in)) {
        assert!((ours - plain).abs().max().double_value(&[]) < 1e-4);
    }
}

#[test]
fn training_pairs_follow_the_settings() {
    let pairs = |settings: BaselineSettings, epoch| {
        Baseline::new(foundation(false), &settings)
            .unwrap()
            .layout()
            .training_pairs(&crowded(), 1, epoch, 0)
            .unwrap()
    };
    let all = pairs(small(Network::Bilstm), 0);
    assert_eq!((&all[..4], all.len()), (&[(0, 1), (2, 0), (3, 2), (0, 2)][..], 12));
    assert_eq!(pairs(BaselineSettings { pair_limit: 4, ..small(Network::Bilstm) }, 0), all[..4]);
    let two = BaselineSettings { na_per_positive: 2.0, ..small(Network::Linear) };
    assert_eq!((pairs(two.clone(), 0).len(), &pairs(two.clone(), 0)[..3]), (9, &all[..3]));
    assert_ne!(pairs(two.clone(), 0), pairs(two, 1));
    assert_eq!(
        pairs(small(Network::Linear), 0).len(),
        12,
        "three for each positive, but only nine are there"
    );
    assert_eq!(
        pairs(BaselineSettings { labels: Labels::Relations, ..small(Network::Linear) }, 0),
        all[..3]
    );
}

#[test]
fn the_first_step_asks_whether_there_is_a_relation() {
    let settings = BaselineSettings { labels: Labels::Existence, ..small(Network::Linear) };
    let model = Baseline::new(foundation(true), &settings).unwrap();
    assert_eq!(model.classes(), Classes { relations: 1, na: NaClass::First });
    let batch = batch(&model, vec![short()]);
    assert_eq!(batch.targets, [1.0, 0.0, 0.0, 1.0]);
    assert_eq!(model.logits(&batch, EVALUATION).unwrap().size(), [2, 2]);
}

#[test]
fn the_two_steps_become_one_list_of_scores() {
    let existence = Tensor::from_slice(&[0.5f32, 0.4, -2.0, 1.0, 0.0, 0.0]).view([3, 2]);
    let relations = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([3, 2]);
    let combined: Vec<f32> =
        Vec::try_from(two_step_logits(&existence, &relations).unwrap().view([-1])).unwrap();
    assert_eq!(combined, [-100.0, -100.0, 2.0, 3.0, -100.0, -100.0]);
}

#[test]
fn each_of_the_two_networks_has_its_own_loss() {
    // Parameters start from (seed, name), so that the same networks can be built one by one.
    let settings = small(Network::Linear);
    let both = TwoStep::new(
        Foundation { twin: Some(Box::new(foundation(true))), ..foundation(true) },
        &settings,
    )
    .unwrap();
    let of = |labels| {
        Baseline::new(foundation(true), &BaselineSettings { labels, ..settings.clone() }).unwrap()
    };
    let (first, second) = (of(Labels::Existence), of(Labels::Relations));
    let visit = |layout: &dyn Layout, pairs: &[(u32, u32)]| {
        let example = Example { pairs: pairs.to_vec(), ..example(crowded(), 7) };
        let classes = if layout.targets(both.classes(), &crowded(), pairs).len() == 2 * pairs.len()
        {
            first.classes()
        } else {
            both.classes()
        };
        RelationBatch::new(layout, &[example], classes, both.loss()).unwrap()
    };
    let all = [(0, 1), (2, 0), (3, 2), (0, 2), (1, 3)];
    let batch = visit(&*both.layout(), &all);
    let sums = both.losses(&batch, EVALUATION).unwrap();
    let mean = |slot: usize| sums[slot].double_value(&[]) / batch.counts()[slot];
    let existence = loss(&first, &visit(&*first.layout(), &all), EVALUATION).double_value(&[]);
    let relations =
        loss(&second, &visit(&*second.layout(), &all[..3]), EVALUATION).double_value(&[]);
    assert!(
        (mean(0) - existence).abs() < 1e-6 && (mean(1) - relations).abs() < 1e-6,
        "{} {existence} {} {relations}",
        mean(0),
        mean(1)
    );
    let expected = two_step_logits(
        &first.logits(&batch, EVALUATION).unwrap(),
        &second.logits(&batch, EVALUATION).unwrap(),
    )
    .unwrap();
    assert_eq!(both.logits(&batch, EVALUATION).unwrap(), expected);
    sums[0].backward();
    let touched = |own: bool| {
        let mine = both
            .parameters()
            .trainable()
            .filter(|parameter| parameter.name.starts_with("heads.existence.") == own);
        mine.filter(|parameter| parameter.tensor.grad().defined()).count()
    };
    assert!(touched(true) > 10 && touched(false) == 0);
}

#[test]
fn profiles_differ_where_the_table_says_so() {
    let code = BaselineSettings::of(Network::Cnn, Profile::Code);
    assert!(
        code.pad_documents
            && code.max_words == 512
            && code.pair_limit == 1800
            && code.na_per_positive < 0.0
    );
    let bert = BaselineSettings::of(Network::Linear, Profile::Code);
    assert!(
        bert.collapse_words
            && bert.max_pieces == 511
            && !bert.features
            && bert.na_per_positive == 3.0
    );
    let fixed = BaselineSettings::of(Network::Linear, Profile::Fixed);
    assert!(!fixed.collapse_words && fixed.max_pieces == 0 && fixed.max_words == 0);
    assert_eq!(WordTables::default().word_rows, None);
    assert_eq!(Reading::default(), Reading::Words);
}

#[test]
fn bad_settings_are_named() {
    let bad = |settings: BaselineSettings| {
        Baseline::new(foundation(false), &settings).err().unwrap().to_string()
    };
    assert!(bad(BaselineSettings { hidden: 0, ..small(Network::Lstm) }).contains("`hidden` is 0"));
    assert!(
        bad(BaselineSettings { cnn_dropout: 1.0, ..small(Network::Cnn) })
            .contains("`cnn_dropout` is 1")
    );
    assert!(
        bad(BaselineSettings { max_pieces: 2, ..small(Network::Linear) })
            .contains("`max_pieces` is 2")
    );
}

/// Plain Adam on one batch, without dropout.
fn overfit(model: &Baseline, documents: Vec<TokenizedDocument>, steps: usize) -> (f64, f64) {
    let batch = batch(model, documents);
    let parameters: Vec<&Tensor> =
        model.parameters().trainable().map(|parameter| &parameter.tensor).collect();
    let mut moments: Vec<(Tensor, Tensor)> =
        parameters.iter().map(|tensor| (tensor.zeros_like(), tensor.zeros_like())).collect();
    let first = loss(model, &batch, EVALUATION).double_value(&[]);
    for step in 1..=steps {
        loss(model, &batch, EVALUATION).backward();
        let _guard = tch::no_grad_guard();
        for (tensor, (mean, square)) in parameters.iter().zip(&mut moments) {
            let mut gradient = tensor.grad();
            if !gradient.defined() {
                continue;
            }
            *mean = &*mean * 0.9 + &gradient * 0.1;
            *square = &*square * 0.999 + gradient.square() * 0.001;
            let rate =
                0.01 * (1.0 - 0.999f64.powi(step as i32)).sqrt() / (1.0 - 0.9f64.powi(step as i32));
            let _ = tensor.shallow_clone().subtract_(&(&*mean / (square.sqrt() + 1e-8) * rate));
            let _ = gradient.zero_();
        }
    }
    (first, loss(model, &batch, EVALUATION).double_value(&[]))
}

#[test]
fn every_network_learns_four_documents_by_heart() {
    for network in NETWORKS {
        let model = model(network);
        let (first, last) = overfit(&model, vec![crowded(), short(), lonely(), crowded()], 120);
        assert!(last < 0.1 * first, "{network:?}: {first} → {last}");
    }
}
