//! The pre-trainer's case.

use tch::Tensor;

use super::shared::{
    IGNORED, IndexRows, PairIndices, compare_views, entity_offsets, model, rename, views,
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
use crate::text::{TokenizedDocument, View, ViewChoices};
use crate::train::{MicroBatch, Objective};

pub(super) fn pretrainer(case: &mut Case) -> Result<()> {
    let (documents, tokenizer) = case.documents(&RelationSet::default())?;
    let loaded = model(case, ModelKind::Pretrainer, &tokenizer)?;
    let choices = choices(case, &documents)?;
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

/// The blanked entities and masked mentions of each document.
fn choices(case: &Case, documents: &[TokenizedDocument]) -> Result<Vec<ViewChoices>> {
    let blanked: Vec<Vec<usize>> = case.stated("/details/blanked_entities")?;
    let masked: Vec<Vec<(u32, u32)>> = case.stated("/details/masked_mentions")?;
    let of_document = |(document, (blanked, masked)): (&TokenizedDocument, (Vec<usize>, _))| {
        let entities = 0..document.entities.len();
        ViewChoices { blanked: entities.map(|entity| blanked.contains(&entity)).collect(), masked }
    };
    Ok(documents.iter().zip(blanked.into_iter().zip(masked)).map(of_document).collect())
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
            let parts = table.f_split_with_sizes(&lengths(offsets)[..], 0)?;
            let own: Vec<&Tensor> = rows.iter().map(|&row| &parts[row]).collect();
            let counts: Vec<i64> = own.iter().map(|part| part.size()[0]).collect();
            case.compare_rows(&name, &Tensor::f_cat(&own, 0)?, &counts)?;
        }
    }
    let scores = objective.scores(batch, &batch.upload(states.device())?, &states, &entities)?;
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
    let scores = objective.scores(batch, &batch.upload(states.device())?, &states, &entities)?;
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
        let asked = used.iter().any(|&count| count > 0.0);
        let value = if asked { total_loss(&terms, &used)? } else { Tensor::from(0f32) };
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
    let first = PairIndices::new(case, "XRelDet_Head1", "XRelDet_Tail1")?;
    let second = PairIndices::new(case, "XRelDet_Head2", "XRelDet_Tail2")?;
    let answers = labels(case, prefix, "XRelDet_Label")?;
    for (row, item, answer) in answers.asked() {
        for (document, pairs) in [(2 * item, &first), (2 * item + 1, &second)] {
            let base = batch.documents.entity_base(document);
            batch.cross_detection.extend_pairs(&pairs.row(row), base);
        }
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
        let masked = packed.views.masked[document].get(row % answers.per_item);
        let position = masked.copied().flatten().unwrap_or(IGNORED);
        ours.push(position - offset);
        theirs.push(queries.values[row]);
        let of_entities = candidates == MentionVectors::Entities;
        let base = if of_entities { packed.entity_base(document) } else { offset };
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
    let (head, tail) = (format!("RelDet_Head{number}"), format!("RelDet_Tail{number}"));
    let pairs = PairIndices::new(case, &head, &tail)?;
    let answers = labels(case, prefix, &format!("RelDet_Label{number}"))?;
    let mut rows = PairRows::default();
    for (row, item, answer) in answers.asked() {
        rows.push(&pairs.row(row), packed.entity_base(2 * item + side), answer as usize);
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
    let query_heads = IndexRows::scalars(case, &format!("RelAlign_QueryHead{query}"))?;
    let query_tails = IndexRows::scalars(case, &format!("RelAlign_QueryTail{query}"))?;
    let (head, tail) = (format!("RelAlign_CandHead{other}"), format!("RelAlign_CandTail{other}"));
    let candidates = PairIndices::new(case, &head, &tail)?;
    let answers = labels(case, prefix, &format!("RelAlign_Label{query}{other}"))?;
    let mut rows = AlignmentRows::default();
    for (_, item, answer) in answers.asked() {
        let (base, other_base) =
            (packed.entity_base(2 * item + side), packed.entity_base(2 * item + 1 - side));
        let pair = (query_heads.values[item] as u32, query_tails.values[item] as u32);
        rows.push(pair, base, &candidates.row(item), other_base, answer as usize);
    }
    Ok(rows)
}
