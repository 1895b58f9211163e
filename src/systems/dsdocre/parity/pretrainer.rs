//! The pre-trainer's case.

use tch::{Device, Kind, Tensor};

use super::shared::{
    IGNORED, IndexRows, compare_views, entity_offsets, model, pairs_of, rename, views,
};
use crate::Result;
use crate::corpus::RelationSet;
use crate::parity::{Case, lengths};
use crate::systems::PackedDocuments;
use crate::systems::cases::foundation::EVALUATION;
use crate::systems::cases::total_loss;
use crate::systems::dsdocre::{
    AlignmentDistance, AlignmentRows, DsdocreSettings, MatchRows, MentionVectors, ModelKind,
    PairRows, PretrainBatch, Pretrainer,
};
use crate::text::{View, ViewChoices};
use crate::train::{MicroBatch, Objective};

pub(super) fn pretrainer(case: &mut Case) -> Result<()> {
    let (documents, tokenizer) = case.documents(&RelationSet::default())?;
    let loaded = model(case, ModelKind::Pretrainer, &tokenizer)?;
    let choices: Vec<ViewChoices> =
        (0..documents.len()).map(|row| choices(case, row, documents[row].entities.len())).collect();
    for (prefix, label_prefix, padded, candidates, distance) in [
        ("abs/", "", false, MentionVectors::Entities, AlignmentDistance::Abs),
        ("squared/", "", false, MentionVectors::Entities, AlignmentDistance::Squared),
        ("partial/", "partial/", false, MentionVectors::Entities, AlignmentDistance::Abs),
        ("code/", "", true, MentionVectors::TokenStates, AlignmentDistance::Squared),
    ] {
        if !case.has_outputs(prefix) {
            continue;
        }
        let views_of = views(case, tokenizer.special().clone(), padded)?;
        let laid: Vec<View> = documents
            .iter()
            .zip(&choices)
            .map(|(document, choices)| views_of.view(document, choices))
            .collect::<Result<_>>()?;
        let packed = views_of.pack(&laid, &vec![0; laid.len()]);
        let batch = pretrain_batch(case, packed, label_prefix, candidates)?;
        let settings = DsdocreSettings {
            alignment_distance: distance,
            mention_vectors: candidates,
            ..DsdocreSettings::default()
        };
        let objective = Pretrainer { model: &loaded, settings: &settings };
        if prefix == "abs/" {
            compare_shared(case, &laid, &batch, &objective)?;
        }
        if !label_prefix.is_empty() || padded {
            drop(compare_losses(case, prefix, &batch, &objective)?);
            continue;
        }
        compare_alignment(case, prefix, &batch, &objective)?;
        let total = compare_losses(case, prefix, &batch, &objective)?;
        loaded
            .foundation
            .parameters
            .trainable()
            .for_each(|entry| entry.tensor.shallow_clone().zero_grad());
        total.f_backward()?;
        case.compare_gradients(&format!("{prefix}grad/"), &loaded.foundation.parameters, rename)?;
    }
    Ok(())
}

fn choices(case: &Case, row: usize, entities: usize) -> ViewChoices {
    let mut blanked = vec![false; entities];
    for entity in case.numbers(&format!("/details/blanked_entities/{row}")) {
        blanked[entity] = true;
    }
    let list = format!("/details/masked_mentions/{row}");
    let count = case.at(&list).as_array().map_or(0, Vec::len);
    let pairs = (0..count).map(|index| case.numbers(&format!("{list}/{index}")));
    let masked = pairs.filter(|pair| pair.len() == 2);
    ViewChoices { blanked, masked: masked.map(|pair| (pair[0] as u32, pair[1] as u32)).collect() }
}

/// First and second documents of all items: rows 0, 2, … and 1, 3, ….
fn sides(documents: usize) -> [Vec<usize>; 2] {
    [(0..documents).step_by(2).collect(), (1..documents).step_by(2).collect()]
}

fn compare_shared(
    case: &mut Case,
    laid: &[View],
    batch: &PretrainBatch,
    objective: &Pretrainer,
) -> Result<()> {
    let packed = &batch.documents;
    let (states, entities) = objective.model.encode(packed, EVALUATION)?;
    let entity_offsets = entity_offsets(packed);
    for (side, rows) in sides(laid.len()).iter().enumerate() {
        let number = side + 1;
        compare_views(case, laid, rows, &format!("doc{number}"), &format!("entPos{number}"))?;
        for (name, table, offsets) in [
            (format!("hidden{number}"), &states, &packed.views.offsets),
            (format!("entities{number}"), &entities, &entity_offsets),
        ] {
            let parts = rows.iter().map(|&row| {
                Ok(table.f_narrow(0, offsets[row], offsets[row + 1] - offsets[row])?)
            });
            let ours = Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?;
            let all = lengths(offsets);
            let own: Vec<i64> = rows.iter().map(|&row| all[row]).collect();
            case.compare_rows(&name, &ours, &own)?;
        }
    }
    let scores = objective.scores(batch, &states, &entities)?;
    let named = [
        ("MenMat_scores1", "MenMat_Label1", &scores.mention[0]),
        ("MenMat_scores2", "MenMat_Label2", &scores.mention[1]),
        ("XMenMat_scores_query1_cand2", "XMenMat_Label2", &scores.cross_mention[0]),
        ("XMenMat_scores_query2_cand1", "XMenMat_Label1", &scores.cross_mention[1]),
        ("RelDet_scores1", "RelDet_Label1", &scores.detection[0]),
        ("RelDet_scores2", "RelDet_Label2", &scores.detection[1]),
        ("XRelDet_scores", "XRelDet_Label", &scores.cross_detection),
    ];
    for (output, label, scores) in named {
        compare_rows(case, output, label, scores.as_ref())?;
    }
    let detection = &batch.detection[0];
    let features =
        objective.model.heads.relation.forward(&entities, &detection.heads, &detection.tails)?;
    let (labels, _) = case.integers("RelDet_Label1")?;
    if labels.iter().all(|&label| label != IGNORED) {
        case.compare("pair_features_RelDet1", &features)?;
    }
    Ok(())
}

/// Compares the rows of a score tensor whose label is not ignored.
fn compare_rows(case: &mut Case, output: &str, label: &str, ours: Option<&Tensor>) -> Result<()> {
    let (labels, _) = case.integers(label)?;
    let valid: Vec<i64> =
        (0..labels.len() as i64).filter(|&row| labels[row as usize] != IGNORED).collect();
    let Some(ours) = ours else {
        case.compare_integers(output, &[], &valid);
        return Ok(());
    };
    let reference = case
        .output(output)?
        .f_view([labels.len() as i64, -1])?
        .f_index_select(0, &Tensor::f_from_slice(&valid)?)?;
    case.compare_with(output, ours, &reference)
}

fn compare_alignment(
    case: &mut Case,
    prefix: &str,
    batch: &PretrainBatch,
    objective: &Pretrainer,
) -> Result<()> {
    let (states, entities) = objective.model.encode(&batch.documents, EVALUATION)?;
    let scores = objective.scores(batch, &states, &entities)?;
    for (direction, scores) in ["12", "21"].into_iter().zip(&scores.alignment) {
        compare_rows(
            case,
            &format!("{prefix}RelAlign_scores{direction}"),
            &format!("RelAlign_Label{direction}"),
            scores.as_ref(),
        )?;
    }
    Ok(())
}

/// Compares each task's loss and the total; returns the total.
fn compare_losses(
    case: &mut Case,
    prefix: &str,
    batch: &PretrainBatch,
    objective: &Pretrainer,
) -> Result<Tensor> {
    let sums = objective.forward(batch, EVALUATION)?;
    let counts = batch.counts();
    for task in ["RelAlign", "RelDet", "XRelDet", "MenMat", "XMenMat"] {
        let slots: Vec<usize> = (0..sums.len())
            .filter(|&slot| objective.slots()[slot].split('/').next() == Some(task))
            .collect();
        let terms: Vec<Tensor> = slots.iter().map(|&slot| sums[slot].shallow_clone()).collect();
        let used: Vec<f64> = slots.iter().map(|&slot| counts[slot]).collect();
        let value = if used.iter().any(|&count| count > 0.0) {
            total_loss(&terms, &used)?
        } else {
            Tensor::f_zeros(1, (Kind::Float, Device::Cpu))?
        };
        case.compare(&format!("{prefix}loss/{task}"), &value)?;
    }
    let total = total_loss(&sums, counts)?;
    case.compare(&format!("{prefix}loss/total"), &total)?;
    Ok(total)
}

/// The labels of the case, or of its alternative set.
fn labels(case: &Case, prefix: &str, name: &str) -> Result<IndexRows> {
    let alternative = format!("{prefix}{name}");
    IndexRows::scalars(case, if case.has_input(&alternative) { &alternative } else { name })
}

fn pretrain_batch(
    case: &mut Case,
    packed: PackedDocuments,
    prefix: &str,
    candidates: MentionVectors,
) -> Result<PretrainBatch> {
    let mut batch = PretrainBatch::new(packed);
    for side in 0..2 {
        batch.mention[side] = mention_rows(case, &batch.documents, prefix, side, candidates)?;
        batch.cross_mention[side] = cross_mention_rows(case, &batch.documents, prefix, side)?;
        batch.detection[side] = detection_rows(case, &batch.documents, prefix, side)?;
        batch.alignment[side] = alignment_rows(case, &batch.documents, prefix, side)?;
    }
    let (heads1, tails1) =
        (IndexRows::new(case, "XRelDet_Head1")?, IndexRows::new(case, "XRelDet_Tail1")?);
    let (heads2, tails2) =
        (IndexRows::new(case, "XRelDet_Head2")?, IndexRows::new(case, "XRelDet_Tail2")?);
    let answers = labels(case, prefix, "XRelDet_Label")?;
    for (row, item, answer) in answers.asked() {
        let first = 2 * item;
        batch
            .cross_detection
            .extend_pairs(&pairs_of(&heads1, &tails1, row), batch.documents.entity_base(first));
        batch
            .cross_detection
            .extend_pairs(&pairs_of(&heads2, &tails2, row), batch.documents.entity_base(first + 1));
        batch.cross_detection.answers.push(answer);
    }
    Ok(batch.counted())
}

fn mention_rows(
    case: &mut Case,
    packed: &PackedDocuments,
    prefix: &str,
    side: usize,
    candidates: MentionVectors,
) -> Result<MatchRows> {
    let number = side + 1;
    let queries = IndexRows::scalars(case, &format!("MenMat_Query{number}"))?;
    let options = IndexRows::new(case, &format!("MenMat_Cand{number}"))?;
    let answers = labels(case, prefix, &format!("MenMat_Label{number}"))?;
    let mut rows = MatchRows::default();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (row, item, answer) in answers.asked() {
        let document = 2 * item + side;
        let offset = packed.views.offsets[document];
        let position = packed.views.masked[document]
            .get(row % answers.per_item)
            .copied()
            .flatten()
            .unwrap_or(IGNORED);
        ours.push(position - offset);
        theirs.push(queries.values[row]);
        let base = if candidates == MentionVectors::Entities {
            packed.entity_base(document)
        } else {
            offset
        };
        rows.push(position, options.row(row).iter().map(|&entity| base + entity), answer as usize);
    }
    if prefix.is_empty() && candidates == MentionVectors::Entities {
        case.compare_integers(&format!("MenMat_Query{number}"), &ours, &theirs);
    }
    Ok(rows)
}

/// Query in document `side`, candidates in the other; labels are numbered by the candidates'
/// document.
fn cross_mention_rows(
    case: &Case,
    packed: &PackedDocuments,
    prefix: &str,
    side: usize,
) -> Result<MatchRows> {
    let (query, other) = (side + 1, 2 - side);
    let queries = IndexRows::scalars(case, &format!("XMenMat_Query{query}"))?;
    let options = IndexRows::new(case, &format!("XMenMat_Cand{other}"))?;
    let answers = labels(case, prefix, &format!("XMenMat_Label{other}"))?;
    let mut rows = MatchRows::default();
    for (_, item, answer) in answers.asked() {
        let (base, other_base) =
            (packed.entity_base(2 * item + side), packed.entity_base(2 * item + 1 - side));
        rows.push(
            base + queries.values[item],
            options.row(item).iter().map(|&entity| other_base + entity),
            answer as usize,
        );
    }
    Ok(rows)
}

fn detection_rows(
    case: &Case,
    packed: &PackedDocuments,
    prefix: &str,
    side: usize,
) -> Result<PairRows> {
    let number = side + 1;
    let (heads, tails) = (
        IndexRows::new(case, &format!("RelDet_Head{number}"))?,
        IndexRows::new(case, &format!("RelDet_Tail{number}"))?,
    );
    let answers = labels(case, prefix, &format!("RelDet_Label{number}"))?;
    let mut rows = PairRows::default();
    for (row, item, answer) in answers.asked() {
        rows.push(
            &pairs_of(&heads, &tails, row),
            packed.entity_base(2 * item + side),
            answer as usize,
        );
    }
    Ok(rows)
}

fn alignment_rows(
    case: &Case,
    packed: &PackedDocuments,
    prefix: &str,
    side: usize,
) -> Result<AlignmentRows> {
    let (query, other) = (side + 1, 2 - side);
    let (query_heads, query_tails) = (
        IndexRows::scalars(case, &format!("RelAlign_QueryHead{query}"))?,
        IndexRows::scalars(case, &format!("RelAlign_QueryTail{query}"))?,
    );
    let (heads, tails) = (
        IndexRows::new(case, &format!("RelAlign_CandHead{other}"))?,
        IndexRows::new(case, &format!("RelAlign_CandTail{other}"))?,
    );
    let answers = labels(case, prefix, &format!("RelAlign_Label{query}{other}"))?;
    let mut rows = AlignmentRows::default();
    for (_, item, answer) in answers.asked() {
        let (base, other_base) =
            (packed.entity_base(2 * item + side), packed.entity_base(2 * item + 1 - side));
        let pair = pairs_of(&query_heads, &query_tails, item)[0];
        rows.push(pair, base, &pairs_of(&heads, &tails, item), other_base, answer as usize);
    }
    Ok(rows)
}
