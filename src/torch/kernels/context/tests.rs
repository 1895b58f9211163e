use tch::Device;

use super::*;
use crate::text::{View, WindowRule, pack};
use crate::torch::kernels::attention::varlen_attention;
use crate::torch::rng::Generator;

const WHOLE: Overlap = Overlap { heads: 2, scale: 1.0, epsilon: 1e-5 };
const HALVES: Overlap = Overlap { scale: 0.5, ..WHOLE };

/// Documents in windows of at most 20 pieces that start at most 8 apart.
fn laid(
    lengths: &[u32],
    rows: &[Vec<EntityRow>],
    entities: &[usize],
) -> (PackedParts, AttentionTable) {
    let views: Vec<View> =
        lengths.iter().map(|&n| View { ids: (0..n).collect(), ..View::default() }).collect();
    let rule = WindowRule {
        capacity: 20,
        prefix: vec![1],
        suffix: vec![2, 2],
        stride: Some(8),
        most: None,
    };
    let views = pack(&views);
    let packed = crate::text::PackedWindows::new(&views.ids, &views.offsets, &rule);
    let mut plan = AttentionTable::default();
    for (index, rows) in rows.iter().enumerate() {
        plan.push(&packed, lengths[index] as usize, entities[index], rows);
    }
    (PackedParts { tokens: packed.ids.len() as i64, offsets: packed.offsets }, plan)
}

struct PackedParts {
    tokens: i64,
    offsets: Vec<i64>,
}

fn row(entity: u32, position: u32, weight: f32) -> EntityRow {
    EntityRow { entity, position, weight }
}

/// Entity 1 of the first document has no mention; two rows of the last one meet on one token; the
/// second document asks for nothing.
fn example() -> (PackedParts, AttentionTable, ContextTable) {
    let rows = [
        vec![row(0, 3, 0.5), row(0, 17, 0.5), row(2, 3, 1.0)],
        vec![],
        vec![row(0, 0, 1.0), row(1, 14, 0.25), row(1, 29, 0.75)],
    ];
    let (packed, plan) = laid(&[20, 9, 30], &rows, &[3, 0, 2]);
    let mut contexts = ContextTable::default();
    contexts.push(20, 3, &[(0, 2), (2, 0), (1, 0)]);
    contexts.push(9, 0, &[]);
    contexts.push(30, 2, &[(0, 1), (1, 0)]);
    (packed, plan, contexts)
}

fn far(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn kernels_equal_padding_with_gradients() {
    let mut generator = Generator::of_test(3);
    let mut leaf = |shape: &[i64]| generator.randn(shape).set_requires_grad(true);
    let (packed, plan, pairs) = example();
    let segments = Segments::new(&packed.offsets, Device::Cpu).unwrap();
    let (qkv, states) = (leaf(&[packed.tokens, 3, 2, 24]), leaf(&[59, 7]));
    let terms = ScoreTerms::plain(24);
    let mut results = Vec::new();
    for padding in [false, true] {
        let attention = if padding {
            padded::entity_attention(&qkv, &segments, &plan, &terms, 0.0).unwrap()
        } else {
            entity_attention(&qkv, &segments, &plan, &terms, None, 5).unwrap()
        };
        let found = if padding {
            padded::contexts(&states, &attention, &pairs, &HALVES).unwrap()
        } else {
            contexts(&states, &attention, &pairs, &HALVES).unwrap()
        };
        let upstream = Tensor::arange(35, (Kind::Float, Device::Cpu)).sin().view([5, 7]);
        let grads = Tensor::run_backward(
            &[(&found * upstream).sum(Kind::Float)],
            &[&qkv, &states],
            false,
            false,
        );
        results.push([vec![attention, found], grads].into_iter().flatten().collect::<Vec<_>>());
    }
    for (a, b) in results[0].iter().zip(&results[1]) {
        assert_eq!(a.size(), b.size());
        assert!(far(a, b) < 2e-6 * b.abs().max().double_value(&[]).max(1.0), "{}", far(a, b));
    }
    // An entity without mentions attends to nothing, and its pairs have no context.
    assert_eq!(results[0][1].get(2).abs().max().double_value(&[]), 0.0);
    // Rows that were put together from windows sum to one again.
    let last = results[0][0].narrow(0, 20 * 3 * 2, 60 * 2).view([2, 2, 30]).sum_dim_intlist(
        2,
        false,
        Kind::Float,
    );
    assert!(far(&last, &last.ones_like()) < 1e-5);
}

/// Spans that leave tokens out, overlap, or are empty; a document without any.
fn spans_of_example() -> Vec<Vec<TokenRange>> {
    vec![vec![(1, 7), (8, 10), (4, 6), (19, 0)], vec![(0, 9)], vec![(0, 1), (1, 29)]]
}

#[test]
fn sums_over_spans_are_those_of_weights_made_with_tensors() {
    let (_, _, pairs) = example();
    let attention = Generator::of_test(8).randn([240]).abs();
    let overlap = Overlap { heads: 2, scale: 0.5, epsilon: 1e-3 };
    let table = SpanTable::new(&pairs, &spans_of_example());
    // Both directions of a pair share a row: 2 pairs of 4 spans, no pair, 1 pair of 2.
    assert_eq!(table.first_sums(), [0, 0, 4, 8, 8]);
    assert_eq!((table.widths(), table.sums()), (&[4, 4, 4, 2, 2][..], 10));
    // From the definition, pair by pair.
    let row = |first: i64, entity: i64, tokens: i64| {
        attention.narrow(0, first + entity * 2 * tokens, 2 * tokens).view([2, tokens])
    };
    let weights =
        |first: i64, pair: (i64, i64), tokens: i64| {
            let product = (row(first, pair.0, tokens) * row(first, pair.1, tokens))
                .sum_dim_intlist(0, false, Kind::Float)
                * 0.5;
            let sum = product.sum(Kind::Float) + 1e-3;
            product / sum
        };
    let spans = spans_of_example();
    let sums = |weights: &Tensor, spans: &[TokenRange]| {
        let sum = |&(first, count): &TokenRange| {
            weights.narrow(0, first.into(), count.into()).sum(Kind::Float)
        };
        spans.iter().map(sum).collect::<Vec<_>>()
    };
    let expected = [
        sums(&weights(0, (0, 2), 20), &spans[0]),
        sums(&weights(0, (1, 0), 20), &spans[0]),
        sums(&weights(120, (0, 1), 30), &spans[2]),
    ];
    let expected = Tensor::stack(&expected.into_iter().flatten().collect::<Vec<_>>(), 0);
    let ours = span_sums(&attention, &table, &overlap).unwrap();
    assert!(far(&ours, &expected) < 1e-6, "{ours:?} {expected:?}");
    // Single tokens give the weights themselves.
    let tokens = SpanTable::of_tokens(&pairs);
    let all = span_sums(&attention, &tokens, &overlap).unwrap();
    assert_eq!(tokens.sums(), 2 * 20 + 30);
    assert!(far(&all.narrow(0, 40, 30), &weights(120, (0, 1), 30)) < 1e-6);
}

#[test]
fn sums_over_spans_equal_padding_with_gradients_and_have_the_bits_of_their_document() {
    let (_, _, pairs) = example();
    let attention = Generator::of_test(9).randn([240]).abs().set_requires_grad(true);
    for (table, seed) in
        [(SpanTable::new(&pairs, &spans_of_example()), 0), (SpanTable::of_tokens(&pairs), 1)]
    {
        let upstream = Tensor::arange(table.sums(), (Kind::Float, Device::Cpu)).sin() + seed;
        let both = [false, true].map(|padding| {
            let sums = if padding {
                padded::span_sums(&attention, &table, &HALVES).unwrap()
            } else {
                span_sums(&attention, &table, &HALVES).unwrap()
            };
            let loss = (&sums * &upstream).sum(Kind::Float);
            let grad = Tensor::run_backward(&[loss], &[&attention], false, false).remove(0);
            (sums, grad)
        });
        assert!(far(&both[0].0, &both[1].0) < 1e-6);
        assert!(far(&both[0].1, &both[1].1) < 1e-5, "{}", far(&both[0].1, &both[1].1));
    }
    let mut alone = ContextTable::default();
    alone.push(30, 2, &[(1, 0)]);
    let own = SpanTable::new(&alone, &spans_of_example()[2..]);
    let all = SpanTable::new(&pairs, &spans_of_example());
    assert_eq!(
        span_sums(&attention.narrow(0, 120, 120).contiguous(), &own, &WHOLE).unwrap(),
        span_sums(&attention, &all, &WHOLE).unwrap().narrow(0, 8, 2)
    );
}

#[test]
fn rows_of_windows_are_joined_after_a_mean_over_layers() {
    let (packed, plan, _) = example();
    let segments = Segments::new(&packed.offsets, Device::Cpu).unwrap();
    let terms = ScoreTerms::plain(24);
    let layer = |seed| Generator::of_test(seed).randn([packed.tokens, 3, 2, 24]);
    let single = SingleRows::of(&plan).unwrap();
    let rows = |qkv: &Tensor, table| entity_attention(qkv, &segments, table, &terms, None, 0);
    // Of one layer nothing changes.
    let (first, second) = (layer(11), layer(12));
    let alone = single.joined(&rows(&first, &single.table).unwrap(), 2).unwrap();
    assert!(far(&alone, &rows(&first, &plan).unwrap()) < 1e-6);
    // Of the mean of two, each row sums to one, and the document in one window has the mean.
    let mean = (rows(&first, &single.table).unwrap() + rows(&second, &single.table).unwrap()) / 2.0;
    let joined = single.joined(&mean, 2).unwrap();
    let separate = (rows(&first, &plan).unwrap() + rows(&second, &plan).unwrap()) / 2.0;
    let (whole, windows) = (20 * 3 * 2, 30 * 2 * 2);
    assert!(far(&joined.narrow(0, 0, whole), &separate.narrow(0, 0, whole)) < 1e-6);
    let own = joined.narrow(0, whole, windows).view([2, 2, 30]);
    let sums = own.sum_dim_intlist(2, false, Kind::Float);
    assert!(far(&sums, &sums.ones_like()) < 1e-5);
    // Entity 0 has one row: its two layers are added, then divided by what windows show of them.
    let raw = mean.narrow(0, whole, 2 * 30).view([2, 30]);
    let expected = &raw / raw.sum_dim_intlist(1, true, Kind::Float);
    assert!(far(&own.get(0), &expected) < 1e-6);
    assert!(far(&own.get(0), &separate.narrow(0, whole, 60).view([2, 30])) > 1e-4);
    let (_, short) = laid(&[9], &[vec![row(0, 3, 1.0)]], &[1]);
    assert!(SingleRows::of(&short).is_none());
}

#[test]
fn dropout_is_that_of_the_layer() {
    let terms = ScoreTerms::plain(20);
    // With the identity as values, the layer's own attention shows its dropped probabilities.
    let keys: Vec<i64> = (0..20).map(|at| Dropout::token_key(7, 0, 3, at)).collect();
    let active = Dropout::new(0.3, Tensor::from_slice(&keys)).unwrap();
    let qkv = Generator::of_test(6).randn([20, 3, 1, 20]);
    qkv.select(1, 2).copy_(&Tensor::eye(20, (Kind::Float, Device::Cpu)).unsqueeze(1));
    let segments = Segments::new(&[0, 20], Device::Cpu).unwrap();
    let layer = varlen_attention(&qkv, &segments, &terms, Some(&active), 4).unwrap();
    let (_, plan) = laid(&[20], &[vec![row(0, 6, 1.0), row(1, 11, 1.0)]], &[2]);
    let ours =
        entity_attention(&qkv, &segments, &plan, &terms, Some(&active), 4).unwrap().view([2, 20]);
    assert!(far(&ours, &layer.index_select(0, &Tensor::from_slice(&[6i64, 11]))) < 1e-6);
    assert!(ours.eq(0.0).sum(Kind::Int64).int64_value(&[]) > 3);

    // The gradient is that of the layer's rows.
    let weight = Tensor::arange(40, (Kind::Float, Device::Cpu)).cos().view([2, 20]);
    let gradient = |rows: &dyn Fn(&Tensor) -> Tensor| {
        let leaf = qkv.copy().set_requires_grad(true);
        Tensor::run_backward(&[(rows(&leaf) * &weight).sum(Kind::Float)], &[&leaf], false, false)
            .remove(0)
            .narrow(1, 0, 2)
    };
    let of_rows = gradient(&|leaf| {
        entity_attention(leaf, &segments, &plan, &terms, Some(&active), 4).unwrap().view([2, 20])
    });
    let of_layer = gradient(&|leaf| {
        let all = varlen_attention(leaf, &segments, &terms, Some(&active), 4).unwrap();
        all.index_select(0, &Tensor::from_slice(&[6i64, 11]))
    });
    assert!(far(&of_rows, &of_layer) < 2e-6);
}

#[test]
fn bits_depend_on_neither_neighbours_nor_threads() {
    let mut generator = Generator::of_test(4);
    let rows = [
        vec![row(0, 2, 1.0), row(1, 9, 1.0)],
        vec![row(0, 5, 0.5), row(0, 19, 0.5), row(1, 1, 1.0)],
    ];
    let (packed, plan) = laid(&[13, 20], &rows, &[2, 2]);
    let qkv = generator.randn([packed.tokens, 3, 2, 16]);
    let states = generator.randn([33, 5]);
    let terms = ScoreTerms::plain(16);
    let mut pairs = ContextTable::default();
    pairs.push(13, 2, &[(0, 1)]);
    pairs.push(20, 2, &[(0, 1), (1, 0)]);
    let attention = entity_attention(
        &qkv,
        &Segments::new(&packed.offsets, Device::Cpu).unwrap(),
        &plan,
        &terms,
        None,
        0,
    )
    .unwrap();
    let all = contexts(&states, &attention, &pairs, &WHOLE).unwrap();

    let (alone, plan) = laid(&[20], &rows[1..], &[2]);
    let segments = Segments::new(&alone.offsets, Device::Cpu).unwrap();
    let own =
        entity_attention(&qkv.narrow(0, 13, 20).contiguous(), &segments, &plan, &terms, None, 0)
            .unwrap();
    assert_eq!(own, attention.narrow(0, 13 * 2 * 2, 20 * 2 * 2));
    let mut pairs = ContextTable::default();
    pairs.push(20, 2, &[(0, 1), (1, 0)]);
    assert_eq!(
        contexts(&states.narrow(0, 13, 20), &own, &pairs, &WHOLE).unwrap(),
        all.narrow(0, 1, 2)
    );
}

#[test]
fn a_plan_that_names_what_does_not_exist_is_refused() {
    let (packed, plan, pairs) = example();
    let segments = Segments::new(&packed.offsets, Device::Cpu).unwrap();
    let (qkv, states) = (
        Generator::of_test(1).randn([packed.tokens, 3, 2, 8]),
        Generator::of_test(2).randn([59, 7]),
    );
    let terms = ScoreTerms::plain(8);
    let attention = entity_attention(&qkv, &segments, &plan, &terms, None, 0).unwrap();
    type Damage<Plan> = (fn(&mut Plan), &'static str);
    let damages: [Damage<AttentionTable>; 14] = [
        (|plan| plan.documents[1].first_cell += 1, "the cells of document 1"),
        (|plan| plan.documents[0].entities = i64::MAX, "the cells of document 0"),
        (|plan| plan.documents[0].tokens = -20, "the cells of document 0"),
        (|plan| plan.documents[2].first_row = 0, "the rows of document 2"),
        (|plan| plan.documents[2].rows += 1, "are not in the table of 6 rows"),
        (|plan| plan.documents[2].windows += 1, "the windows of document 2"),
        (
            |plan| plan.rows[0].entity = 3,
            "a row of document 0 belongs to an entity outside of its 3",
        ),
        (|plan| plan.rows[2].entity = -1, "a row of document 0"),
        (|plan| plan.windows[0].length = 1000, "window 0"),
        (|plan| plan.windows[1].start -= 1, "window 1"),
        (|plan| plan.windows[1].place = 19, "window 1"),
        (|plan| plan.windows[0].slices += 1, "the slices of window 1"),
        (|plan| plan.slices[0].token = 20, "a slice of window 0"),
        (|plan| plan.slices[0].row = 3, "a slice of window 0"),
    ];
    for (damage, why) in damages {
        let mut plan = plan.clone();
        damage(&mut plan);
        let error =
            entity_attention(&qkv, &segments, &plan, &terms, None, 0).unwrap_err().to_string();
        assert!(error.contains("entity attention: ") && error.contains(why), "{why}: {error}");
    }
    let mut short = plan.clone();
    short.weights.pop();
    assert!(entity_attention(&qkv, &segments, &short, &terms, None, 0).is_err());
    let damages: [Damage<ContextTable>; 6] = [
        (|plan| plan.documents[2].first_cell = 0, "the cells of document 2"),
        (|plan| plan.documents[2].tokens += 1, "are not among the 59 states"),
        (|plan| plan.documents[1].first_token = 0, "the tokens of document 1"),
        (|plan| plan.documents[2].pairs = 3, "are not in the table of 5 pairs"),
        (|plan| plan.pairs[4].head = 2, "a pair of document 2 names an entity outside of its 2"),
        (|plan| plan.pairs[0].tail = -1, "a pair of document 0"),
    ];
    for (damage, why) in damages {
        let mut pairs = pairs.clone();
        damage(&mut pairs);
        let error = contexts(&states, &attention, &pairs, &WHOLE).unwrap_err().to_string();
        assert!(error.contains("contexts: ") && error.contains(why), "{why}: {error}");
    }
    let error = contexts(&states, &attention, &pairs, &Overlap { heads: 3, ..WHOLE })
        .unwrap_err()
        .to_string();
    assert!(error.contains("120 cells of 3 heads do not fit attention of 240 numbers"), "{error}");
    let damages: [Damage<SpanTable>; 6] = [
        (|table| table.documents[1].first_span = 0, "the spans of document 1"),
        (|table| table.documents[2].spans += 1, "are not in the table of 7 spans"),
        (|table| table.documents[2].first_sum = 0, "the sums of document 2"),
        (|table| table.spans[6].tokens = 30, "span 6"),
        (|table| table.spans[0].first = -1, "span 0"),
        (|table| table.documents.truncate(2), "2 documents with spans, but 3"),
    ];
    let whole = SpanTable::new(&pairs, &spans_of_example());
    for (damage, why) in damages {
        let mut table = whole.clone();
        damage(&mut table);
        let error = span_sums(&attention, &table, &WHOLE).unwrap_err().to_string();
        assert!(error.contains("spans: ") && error.contains(why), "{why}: {error}");
    }
}
