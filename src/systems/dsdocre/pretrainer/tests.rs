mod gpu;

use serde_json::json;
use tch::Device;

use super::*;
use crate::encoders::{EncoderSpec, build};
use crate::systems::Foundation;
use crate::systems::dsdocre::ModelKind;
use crate::systems::dsdocre::instances::{
    AlignmentInstance, CrossPairInstance, EntityInstance, MentionInstance, PairInstance,
};
use crate::systems::testing::foundation_of;
use crate::text::pack;
use crate::torch::precision::Precision;

const FORWARD: Forward = Forward { train: true, precision: Precision::Fp32 };

/// A pre-trainer of width 16 with dropout; equal at every call.
fn model() -> DsdocreModel {
    let sizes = json!({
        "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 12,
    });
    let spec = EncoderSpec::preset("tiny", sizes);
    let mut parameters = Parameters::new(5, Device::Cpu);
    let encoder = build(&spec, 50, &mut parameters).unwrap();
    let foundation = Foundation { dropout: Some(0.1), ..foundation_of(encoder, parameters, &[]) };
    let settings = DsdocreSettings { relation_width: 8, ..DsdocreSettings::default() };
    DsdocreModel::new(foundation, ModelKind::Pretrainer, &settings).unwrap()
}

/// The view of a document with three entities and one masked mention; its length differs from item
/// to item.
fn view(item: usize, side: usize) -> View {
    let length = 7 + item + 2 * side;
    View {
        ids: (0..length).map(|at| ((at * 7 + item * 13 + side * 29) % 50) as u32).collect(),
        mention_positions: vec![vec![1], vec![3, 6], vec![5]],
        masked_positions: vec![Some(2)],
        pieces_before_truncation: length,
        ..View::default()
    }
}

/// An item with a row in every slot; items differ in the number of detection rows and in their
/// answers.
fn item(number: usize) -> PretrainItem {
    let pairs = vec![(0, 1), (1, 0), (2, 1)];
    let mention = vec![MentionInstance { query: 0, candidates: vec![0, 1, 2], answer: number % 3 }];
    let entity = Some(EntityInstance { query: 1, candidates: vec![2, 0], answer: number % 2 });
    let detection = |answer| PairInstance { pairs: pairs.clone(), answer };
    let alignment = Some(AlignmentInstance {
        query: (2, 0),
        candidates: vec![(0, 2), (1, 2), (0, 1)],
        answer: (number + 1) % 3,
    });
    PretrainItem {
        mention: [mention.clone(), mention],
        cross_mention: [entity.clone(), entity],
        detection: [(0..=number % 3).map(detection).collect(), vec![detection(2)]],
        cross_detection: vec![CrossPairInstance {
            pairs: [vec![(0, 2)], vec![(1, 2), (2, 0)]],
            answer: number % 3,
        }],
        alignment: [alignment.clone(), alignment.clone()],
        intra_alignment: [alignment, None],
        ..PretrainItem::default()
    }
}

/// A micro-batch of items; dropout is keyed by the item's number, wherever it stands.
fn batch(items: &[(usize, PretrainItem)], candidates: MentionVectors) -> PretrainBatch {
    let views: Vec<View> =
        items.iter().flat_map(|(number, _)| [view(*number, 0), view(*number, 1)]).collect();
    let keys = items.iter().flat_map(|(number, _)| [2 * number, 2 * number + 1]).zip(&views);
    let token_keys = keys
        .flat_map(|(key, view)| (0..view.ids.len()).map(move |token| (key * 1_000 + token) as i64))
        .collect();
    let mut batch = PretrainBatch::new(PackedDocuments { views: pack(&views), token_keys });
    for (index, (_, item)) in items.iter().enumerate() {
        batch.add(item, 2 * index, candidates);
    }
    batch.counted()
}

/// Slot sums over all micro-batches, and the gradient of Σ sum / global count as one vector.
fn step_of(
    model: &DsdocreModel,
    batches: &[PretrainBatch],
    candidates: MentionVectors,
) -> ([f64; SLOTS.len()], Tensor) {
    let settings = DsdocreSettings { mention_vectors: candidates, ..DsdocreSettings::default() };
    let pretrainer = Pretrainer { model, settings: &settings };
    let mut totals = [0.0; SLOTS.len()];
    for batch in batches {
        totals.iter_mut().zip(batch.counts()).for_each(|(total, count)| *total += count);
    }
    let mut sums = [0.0; SLOTS.len()];
    for batch in batches {
        let slots = pretrainer.forward(batch, FORWARD).unwrap();
        sums.iter_mut().zip(&slots).for_each(|(sum, slot)| *sum += slot.double_value(&[]));
        let loss: Tensor =
            slots.iter().zip(totals).map(|(slot, total)| slot / f64::max(total, 1.0)).sum();
        loss.backward();
    }
    let gradients = model.foundation.parameters.trainable().map(|parameter| {
        let gradient = parameter.tensor.grad();
        let gradient = if gradient.defined() { gradient } else { parameter.tensor.zeros_like() };
        gradient.flatten(0, -1)
    });
    (sums, Tensor::cat(&gradients.collect::<Vec<_>>(), 0))
}

/// The same with new weights.
fn step(batches: &[PretrainBatch], candidates: MentionVectors) -> ([f64; SLOTS.len()], Tensor) {
    step_of(&model(), batches, candidates)
}

fn is_finite(tensor: &Tensor) -> bool {
    tensor.isfinite().all().int64_value(&[]) == 1
}

#[test]
fn micro_batches_add_up() {
    for candidates in [MentionVectors::Entities, MentionVectors::TokenStates] {
        let items: Vec<_> = (0..3).map(|number| (number, item(number))).collect();
        let whole = batch(&items, candidates);
        assert_eq!(whole.counts(), [3.0, 3.0, 3.0, 3.0, 6.0, 3.0, 3.0, 3.0, 3.0, 3.0]);
        let (sums, gradient) = step(&[whole], candidates);
        let (split_sums, split_gradient) =
            step(&[batch(&items[..2], candidates), batch(&items[2..], candidates)], candidates);
        for (slot, (whole, split)) in SLOTS.iter().zip(sums.iter().zip(split_sums)) {
            assert!((whole - split).abs() < 1e-5 && *whole > 0.0, "{slot}: {whole} and {split}");
        }
        let difference = (&gradient - split_gradient).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "{difference}");
        assert!(is_finite(&gradient) && gradient.abs().max().double_value(&[]) > 0.01);
    }
}

/// Heads of zeros give all candidates the same score: each row costs ln(candidates).
#[test]
fn equal_scores_cost_the_logarithm_of_the_candidates() {
    let model = model();
    for parameter in
        model.foundation.parameters.iter().filter(|parameter| parameter.name.starts_with("heads."))
    {
        model
            .foundation
            .parameters
            .assign(&parameter.name, &parameter.tensor.zeros_like())
            .unwrap();
    }
    let batch = batch(&[(0, item(0)), (1, item(1))], MentionVectors::Entities);
    let (sums, _) = step_of(&model, std::slice::from_ref(&batch), MentionVectors::Entities);
    for (slot, ((sum, rows), candidates)) in SLOTS.iter().zip(
        sums.iter().zip(batch.counts()).zip([3f64, 3.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]),
    ) {
        assert!((sum - rows * candidates.ln()).abs() < 1e-5, "{slot}: {sum}");
    }
}

#[test]
fn a_slot_without_rows_is_zero() {
    let candidates = MentionVectors::Entities;
    let partial = PretrainItem {
        cross_detection: vec![],
        alignment: [None, None],
        intra_alignment: [None, None],
        cross_mention: [None, None],
        ..item(1)
    };
    let lacking = batch(&[(1, partial)], candidates);
    assert_eq!(lacking.counts(), [1.0, 1.0, 0.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    let (sums, gradient) = step(&[lacking], candidates);
    for (slot, (sum, expected)) in SLOTS
        .iter()
        .zip(sums.iter().zip([true, true, false, false, true, true, false, false, false, false]))
    {
        assert_eq!(*sum > 0.0, expected, "{slot}: {sum}");
    }
    assert!(is_finite(&gradient) && gradient.abs().max().double_value(&[]) > 0.0);
    let (sums, gradient) = step(&[batch(&[(0, PretrainItem::default())], candidates)], candidates);
    assert_eq!(
        (sums, gradient.abs().max().double_value(&[])),
        ([0.0; SLOTS.len()], 0.0),
        "a batch without any row"
    );
}

/// A masked mention beyond the cut has no position; its row does not count.
#[test]
fn a_mention_that_was_cut_off_gives_no_row() {
    let views = [View { masked_positions: vec![None], ..view(0, 0) }, view(0, 1)];
    let token_keys = vec![0; views[0].ids.len() + views[1].ids.len()];
    let mut batch = PretrainBatch::new(PackedDocuments { views: pack(&views), token_keys });
    batch.add(&item(0), 0, MentionVectors::Entities);
    assert_eq!(batch.counted().counts()[..2], [0.0, 1.0]);
}
