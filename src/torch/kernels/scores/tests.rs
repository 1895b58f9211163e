use super::*;
use crate::text::{PackedWindows, View, WindowRule, pack};
use crate::torch::device::LocalThreads;
use crate::torch::dropout::Dropout;
use crate::torch::kernels::attention::varlen_attention;
use crate::torch::kernels::context::{
    AttentionTable, EntityRow, entity_attention, padded_entities,
};
use crate::torch::kernels::{Segments, padded};
use crate::torch::plain::attention::{attention, probabilities};
use crate::torch::plain::far;
use crate::torch::rng::Generator;

const HEADS: i64 = 2;
const WIDTH: i64 = 20;
const ROWS: i64 = 11;
/// Lengths around the lane width and the block of 64 rows, and an empty document.
const OFFSETS: [i64; 7] = [0, 1, 18, 18, 82, 147, 347];

/// Far distances share rows, near ones have their own, as in DeBERTa.
fn bucket(distance: i64) -> i64 {
    (distance.signum() * (distance.abs().min(3) + (distance.abs() - 3).max(0) / 40).min(5)) + 5
}

/// Names of the kinds of terms that families use.
const KINDS: [&str; 8] =
    ["plain", "bias", "keys", "both", "every distance", "window", "rotary", "window, rotary, bias"];

/// The terms of a kind, with tables that have gradients.
fn terms(kind: &str, longest: i64) -> ScoreTerms {
    let mut generator = Generator::of_test(9);
    let mut table = |shape: &[i64]| Some((generator.randn(shape) * 0.5).set_requires_grad(true));
    let mut terms = ScoreTerms { scale: 0.3, ..ScoreTerms::plain(WIDTH) };
    let all = 2 * longest - 1;
    if kind.contains("bias") {
        terms.bias = table(&[ROWS, HEADS]);
    }
    if kind.contains("keys") || kind.contains("both") {
        terms.key_table = table(&[ROWS, HEADS, WIDTH]);
    }
    if kind.contains("both") {
        terms.query_table = table(&[ROWS, HEADS, WIDTH]);
    }
    if kind.contains("every") {
        terms.key_table = table(&[all, HEADS, WIDTH]);
        terms.bias = table(&[all, HEADS]);
        terms.index = Some(DistanceIndex::new(longest, |distance| distance + longest - 1).unwrap());
    } else if terms.key_table.is_some() || terms.bias.is_some() {
        terms.index = Some(DistanceIndex::new(longest, bucket).unwrap());
    }
    if kind.contains("window") {
        terms.window = Some(10);
    }
    if kind.contains("rotary") {
        terms.rotary = Some(rotary_angles(100.0, longest, WIDTH, Device::Cpu).unwrap());
    }
    terms
}

fn tables(terms: &ScoreTerms) -> Vec<&Tensor> {
    [&terms.key_table, &terms.query_table, &terms.bias].into_iter().flatten().collect()
}

/// A fixed function of the place of each number.
fn weights(out: &Tensor) -> Tensor {
    let count = out.numel() as i64;
    Tensor::arange(count, (Kind::Double, Device::Cpu)).sin().view_as(out)
}

/// A result with its gradients of the stream and of the tables.
fn with_gradients(out: &Tensor, leaf: &Tensor, terms: &ScoreTerms) -> Vec<Tensor> {
    let loss = (out.to_kind(Kind::Double) * weights(out)).sum(Kind::Double);
    let leaves: Vec<&Tensor> = [leaf].into_iter().chain(tables(terms)).collect();
    let mut all = vec![out.detach()];
    all.extend(Tensor::run_backward(&[loss], &leaves, true, false));
    all
}

#[test]
fn attention_and_its_gradients_are_those_of_the_formula() {
    let segments = Segments::new(&OFFSETS, Device::Cpu).unwrap();
    let leaf = Generator::of_test(1).randn([347, 3, HEADS, WIDTH]).set_requires_grad(true);
    for kind in KINDS {
        let terms = terms(kind, segments.longest);
        let expected = attention(&leaf, &OFFSETS, &terms, None);
        let expected = with_gradients(&expected, &leaf, &terms);
        let ours = varlen_attention(&leaf, &segments, &terms, None, 3).unwrap();
        let padded = padded::attention(&leaf, &segments, &terms, 0.0).unwrap();
        for (name, out) in [("kernel", ours), ("padded", padded)] {
            let found = with_gradients(&out, &leaf, &terms);
            assert_eq!(found.len(), expected.len());
            for (part, (a, b)) in found.iter().zip(&expected).enumerate() {
                assert!(far(a, b) < 1e-5, "{kind}, {name}, part {part}: {}", far(a, b));
            }
        }
    }
}

/// A table of rows over documents of these lengths, one window each.
fn plan(lengths: &[u32], rows: &[Vec<EntityRow>], entities: usize) -> AttentionTable {
    let views: Vec<View> =
        lengths.iter().map(|&n| View { ids: (0..n).collect(), ..View::default() }).collect();
    let rule =
        WindowRule { capacity: 500, prefix: vec![], suffix: vec![], stride: None, most: None };
    let packed = pack(&views);
    let packed = PackedWindows::new(&packed.ids, &packed.offsets, &rule);
    let mut table = AttentionTable::default();
    for (rows, length) in rows.iter().zip(lengths) {
        table.push(&packed, *length as usize, entities, rows);
    }
    table
}

#[test]
fn rows_of_entities_are_those_of_the_layer() {
    let segments = Segments::new(&[0, 90, 93], Device::Cpu).unwrap();
    let leaf = Generator::of_test(2).randn([93, 3, HEADS, WIDTH]).set_requires_grad(true);
    let places: [&[u32]; 2] = [&[0, 40, 89], &[2, 1]];
    let rows = places.map(|places| {
        (0..).zip(places).map(|(entity, &position)| EntityRow { entity, position, weight: 1.0 })
    });
    let table = plan(&[90, 3], &rows.map(Iterator::collect), 3);
    for kind in KINDS {
        let terms = terms(kind, segments.longest);
        let mut parts = Vec::new();
        for (range, places) in [(0, 90), (90, 3)].into_iter().zip(places) {
            let own = probabilities(&leaf.narrow(0, range.0, range.1), &terms);
            for entity in 0..3 {
                parts.push(match places.get(entity) {
                    Some(&place) => own.select(1, i64::from(place)).flatten(0, 1),
                    None => Tensor::zeros([HEADS * range.1], (Kind::Double, Device::Cpu)),
                });
            }
        }
        let expected = with_gradients(&Tensor::cat(&parts, 0), &leaf, &terms);
        let ours = entity_attention(&leaf, &segments, &table, &terms, None, 3).unwrap();
        let padded = padded_entities(&leaf, &segments, &table, &terms, 0.0).unwrap();
        for (name, out) in [("kernel", ours), ("padded", padded)] {
            let found = with_gradients(&out, &leaf, &terms);
            for (part, (a, b)) in found.iter().zip(&expected).enumerate() {
                assert!(far(a, b) < 1e-5, "{kind}, {name}, part {part}: {}", far(a, b));
            }
        }
        if terms.window.is_some() {
            let first = expected[0].narrow(0, 11, 79).to_kind(Kind::Float);
            let entity = entity_attention(&leaf, &segments, &table, &terms, None, 3).unwrap();
            assert_eq!(first, entity.detach().narrow(0, 11, 79), "{kind}: not exactly 0");
        }
    }
}

#[test]
fn bits_depend_on_neither_neighbours_nor_threads() {
    let keys: Vec<i64> = (0..347).map(|t| Dropout::token_key(1, 2, 3, t)).collect();
    let keys = Tensor::from_slice(&keys);
    let qkv = Generator::of_test(3).randn([347, 3, HEADS, WIDTH]);
    for kind in KINDS {
        let terms = terms(kind, 200);
        let run = |first: i64, count: i64, offsets: &[i64]| {
            let segments = Segments::new(offsets, Device::Cpu).unwrap();
            let leaf = qkv.narrow(0, first, count).copy().set_requires_grad(true);
            let active = Dropout::new(0.2, keys.narrow(0, first, count)).unwrap();
            let out = varlen_attention(&leaf, &segments, &terms, Some(&active), 7).unwrap();
            let weight = Tensor::arange(out.size()[1], (Kind::Float, Device::Cpu)).sin();
            let leaves: Vec<&Tensor> = [&leaf].into_iter().chain(tables(&terms)).collect();
            let loss = (&out * weight).sum(Kind::Float);
            let mut all = vec![out.detach()];
            all.extend(Tensor::run_backward(&[loss], &leaves, false, false));
            all
        };
        let all = run(0, 347, &OFFSETS);
        for threads in [1, 2, 3] {
            let _threads = LocalThreads::new(threads);
            assert_eq!(run(0, 347, &OFFSETS), all, "{kind}");
            let alone = run(147, 200, &[0, 200]);
            assert_eq!(alone[0], all[0].narrow(0, 147, 200), "{kind}");
            assert_eq!(alone[1], all[1].narrow(0, 147, 200), "{kind}");
        }
    }
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let segments = Segments::new(&[0, 30], Device::Cpu).unwrap();
    let qkv = Generator::of_test(4).randn([30, 3, HEADS, WIDTH]);
    let wrong = [
        (
            "a short index",
            ScoreTerms {
                index: Some(DistanceIndex::new(29, bucket).unwrap()),
                ..terms("bias", 30)
            },
        ),
        (
            "rows that are not there",
            ScoreTerms {
                index: Some(DistanceIndex::new(30, |_| ROWS).unwrap()),
                ..terms("bias", 30)
            },
        ),
        ("no index", ScoreTerms { index: None, ..terms("both", 30) }),
        (
            "another width",
            ScoreTerms {
                key_table: Some(Generator::of_test(1).randn([ROWS, HEADS, 8])),
                ..terms("bias", 30)
            },
        ),
        ("few positions", terms("rotary", 29)),
    ];
    for (name, terms) in wrong {
        assert!(varlen_attention(&qkv, &segments, &terms, None, 0).is_err(), "{name}");
    }
}
