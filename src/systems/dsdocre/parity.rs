//! The DSDocRE cases: ranker, pre-trainer, fine-tuner.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::corpus::RelationSet;
use crate::parity::Case;
use crate::sampling::{ordered_pairs, top_pairs};
use crate::systems::cases::foundation::{EVALUATION, on_pieces};
use crate::systems::dsdocre::{
    AlignmentDistance, AlignmentRows, Dsdocre, DsdocreModel, DsdocreSettings, DsdocreTables,
    MarkerNumbering, MatchRows, MentionVectors, ModelConfig, ModelKind, PairRows, PretrainBatch,
    Pretrainer, RankBatch, Ranker,
};
use crate::systems::{
    DocumentViews, Example, Extractor, Foundation, PackedDocuments, Pair, RelationBatch, tables,
};
use crate::text::{
    Markers, SpecialPieces, TokenizedDocument, Tokenizer, View, ViewChoices, ViewOptions,
};
use crate::train::{MicroBatch, Objective};

const IGNORED: i64 = -100;

/// Compares the model that the case's inputs are for.
pub(crate) fn dsdocre(case: &mut Case) -> Result<()> {
    if case.has_input("rankh") {
        ranker(case)
    } else if case.has_input("XRelDet_Label") {
        pretrainer(case)
    } else {
        finetuner(case)
    }
}

/// Names of the heads in the reference, and ours.
fn rename(name: &str) -> String {
    let own = [
        ("linear.", "relation."),
        ("bilinear.", "relation."),
        ("binaryLinear.", "align_score."),
        ("men_bilinar.", "mention."),
        ("rank_score.", "rank_score."),
        ("classify.", "classify."),
    ];
    let renamed = own.iter().find_map(|(theirs, ours)| {
        name.strip_prefix(theirs).map(|rest| format!("heads.{ours}{rest}"))
    });
    renamed.unwrap_or_else(|| name.to_owned())
}

fn settings(case: &Case) -> Result<DsdocreSettings> {
    let max_mentions = Some(case.at("/switches/max_mentions").as_u64().unwrap_or(3) as usize);
    Ok(DsdocreSettings {
        relation_width: case.number("/dims/relation_width")?,
        max_mentions,
        ..DsdocreSettings::default()
    })
}

/// The ranker or the pre-trainer with the case's weights.
fn model(case: &Case, kind: ModelKind, tokenizer: &Tokenizer) -> Result<DsdocreModel> {
    let foundation = on_pieces(case, tokenizer, 0)?;
    let config = ModelConfig::of(kind, &settings(case)?, 0);
    let model = DsdocreModel::new(foundation.encoder, foundation.parameters, config, None)?;
    case.load_weights(&model.parameters, rename)?;
    Ok(model)
}

fn view_options(case: &Case, padded: bool) -> Result<ViewOptions> {
    let length = case.number("/dims/encoder/max_position")? as usize;
    let max_pieces = case.at("/switches/max_len").as_u64().map_or(length, |length| length as usize);
    // The release pads to the width of its tables, whatever it cuts at.
    let width = ["doc", "doc1", "docs"]
        .into_iter()
        .find_map(|name| Some(*case.integers(name).ok()?.1.get(1)?));
    Ok(ViewOptions {
        max_pieces: Some(max_pieces),
        truncate: true,
        pad_to: padded.then(|| width.map_or(max_pieces, |width| width as usize)),
        max_mentions: settings(case)?.max_mentions,
        markers: Markers::PerEntity,
        repeat_masked: false,
        // Pieces and positions of all variants come from the release.
        in_turn: case.has_input("XRelDet_Label"),
    })
}

/// The views of the case; `padded` reproduces the release, which attends to its padding.
fn views(case: &Case, pieces: SpecialPieces, padded: bool) -> Result<DocumentViews> {
    Ok(DocumentViews { pieces, options: view_options(case, padded)?, seed: 0 })
}

/// Compares ids padded to the reference's length, and mention positions as rows padded by repeating
/// the first.
fn compare_views(
    case: &mut Case,
    views: &[View],
    rows: &[usize],
    ids: &str,
    positions: &str,
) -> Result<()> {
    let (reference, shape) = case.integers(ids)?;
    let length = shape[1] as usize;
    let padded = |view: &View| {
        let ids = view.ids.iter().map(|&id| i64::from(id)).collect::<Vec<_>>();
        let fill = length.saturating_sub(ids.len());
        ids.into_iter().chain(std::iter::repeat_n(0, fill)).collect::<Vec<_>>()
    };
    let ours: Vec<i64> = rows.iter().flat_map(|&row| padded(&views[row])).collect();
    case.compare_integers(ids, &ours, &reference);
    let (reference, shape) = case.integers(positions)?;
    let (entities, width) = (shape[1] as usize, shape[2] as usize);
    let mut ours = Vec::new();
    for &row in rows {
        let mentions = &views[row].mention_positions;
        for entity in 0..entities {
            let list = mentions.get(entity).filter(|list| !list.is_empty());
            ours.extend(
                (0..width)
                    .map(|at| list.map_or(0, |list| i64::from(*list.get(at).unwrap_or(&list[0])))),
            );
        }
    }
    case.compare_integers(positions, &ours, &reference);
    Ok(())
}

/// The rows of a padded reference tensor [documents, length, d] that are real, packed.
fn unpadded(reference: &Tensor, rows: &[usize], lengths: &[i64]) -> Result<Tensor> {
    let parts = rows
        .iter()
        .zip(lengths)
        .map(|(&row, &length)| Ok(reference.f_get(row as i64)?.f_narrow(0, 0, length)?));
    Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
}

fn lengths(packed: &PackedDocuments) -> Vec<i64> {
    packed.views.offsets.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn entity_counts(packed: &PackedDocuments) -> Vec<i64> {
    packed.views.entity_offsets.windows(2).map(|pair| (pair[1] - pair[0]) as i64).collect()
}

/// All ordered pairs of all documents, as entity rows.
fn all_pairs(documents: &[TokenizedDocument], packed: &PackedDocuments) -> (Vec<i64>, Vec<i64>) {
    let mut rows = PairRows::default();
    for (index, document) in documents.iter().enumerate() {
        rows.extend_pairs(
            &ordered_pairs(document.entities.len()).collect::<Vec<_>>(),
            packed.entity_base(index),
        );
    }
    (rows.heads, rows.tails)
}

fn ranker(case: &mut Case) -> Result<()> {
    let (documents, tokenizer) = case.documents(&RelationSet::default())?;
    let loaded = model(case, ModelKind::Ranker, &tokenizer)?;
    let objective = Ranker { model: &loaded };
    let rows: Vec<usize> = (0..documents.len()).collect();
    for padded in [false, true] {
        if padded && !case.has_outputs("code/") {
            continue;
        }
        let views_of = views(case, tokenizer.special().clone(), padded)?;
        let laid: Vec<View> = documents
            .iter()
            .map(|document| views_of.view(document, &ViewChoices::default()))
            .collect::<Result<_>>()?;
        let packed = views_of.pack(&laid, &vec![0; laid.len()]);
        let (heads, tails) = all_pairs(&documents, &packed);
        let (states, entities) = loaded.encode(&packed, EVALUATION)?;
        let prefix = if padded { "code/" } else { "" };
        let scores = loaded.ranking_scores(&entities, &heads, &tails)?;
        let pairs: Vec<i64> =
            documents.iter().map(|document| document.num_pairs() as i64).collect();
        let reference = unpadded(case.output(&format!("{prefix}scores"))?, &rows, &pairs)?;
        case.compare_with(&format!("{prefix}scores"), &scores, &reference, false)?;
        if !padded {
            compare_views(case, &laid, &rows, "doc", "entPos")?;
            let reference = unpadded(case.output("hidden")?, &rows, &lengths(&packed))?;
            case.compare_with("hidden", &states, &reference, false)?;
            let reference = unpadded(case.output("entities")?, &rows, &entity_counts(&packed))?;
            case.compare_with("entities", &entities, &reference, false)?;
            let features = loaded.relation_vectors(&entities, &heads, &tails)?;
            let reference = unpadded(case.output("pair_features")?, &rows, &pairs)?;
            case.compare_with("pair_features", &features, &reference, false)?;
        }
        let batch = rank_batch(case, packed)?;
        let instances = loaded.ranking_scores(&entities, &batch.rows.heads, &batch.rows.tails)?;
        case.compare(&format!("{prefix}instance_scores"), &instances, false)?;
        let loss = loss(&objective.forward(&batch, EVALUATION)?, batch.counts())?;
        case.compare(&format!("{prefix}loss"), &loss, false)?;
        if !padded {
            loss.f_backward()?;
            case.compare_gradients("grad/", &loaded.parameters, rename)?;
        }
    }
    Ok(())
}

fn rank_batch(case: &Case, packed: PackedDocuments) -> Result<RankBatch> {
    let (heads, shape) = case.integers("rankh")?;
    let (tails, _) = case.integers("rankt")?;
    let (answers, _) = case.integers("ranklabel")?;
    let (instances, width) = (shape[1] as usize, shape[2] as usize);
    let mut rows = PairRows::default();
    for (index, answer) in answers.iter().enumerate() {
        let at = index * width..(index + 1) * width;
        let pairs: Vec<(u32, u32)> = heads[at.clone()]
            .iter()
            .zip(&tails[at])
            .map(|(&head, &tail)| (head as u32, tail as u32))
            .collect();
        rows.push(&pairs, packed.entity_base(index / instances), *answer as usize);
    }
    Ok(RankBatch::new(packed, rows, width as i64))
}

/// Σ over slots of sum / count, without the empty ones.
fn loss(sums: &[Tensor], counts: &[f64]) -> Result<Tensor> {
    let terms = sums
        .iter()
        .zip(counts)
        .filter(|(_, count)| **count > 0.0)
        .map(|(sum, &count)| Ok(sum.f_div_scalar(count)?));
    let terms = terms.collect::<Result<Vec<_>>>()?;
    Ok(Tensor::f_stack(&terms, 0)?.f_sum(Kind::Float)?)
}

fn pretrainer(case: &mut Case) -> Result<()> {
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
        loaded.parameters.trainable().for_each(|entry| entry.tensor.shallow_clone().zero_grad());
        total.f_backward()?;
        case.compare_gradients(&format!("{prefix}grad/"), &loaded.parameters, rename)?;
    }
    Ok(())
}

fn choices(case: &Case, row: usize, entities: usize) -> ViewChoices {
    let numbers = |value: &serde_json::Value| -> Vec<u32> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|n| n.as_u64())
            .map(|n| n as u32)
            .collect()
    };
    let mut blanked = vec![false; entities];
    for entity in numbers(case.at(&format!("/details/blanked_entities/{row}"))) {
        blanked[entity as usize] = true;
    }
    let masked =
        case.at(&format!("/details/masked_mentions/{row}")).as_array().into_iter().flatten();
    let masked = masked
        .map(&numbers)
        .filter(|pair| pair.len() == 2)
        .map(|pair| (pair[0], pair[1]))
        .collect();
    ViewChoices { blanked, masked }
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
    for (side, rows) in sides(laid.len()).iter().enumerate() {
        let number = side + 1;
        compare_views(case, laid, rows, &format!("doc{number}"), &format!("entPos{number}"))?;
        let take = |table: &Tensor, starts: &dyn Fn(usize) -> (i64, i64)| -> Result<Tensor> {
            let parts =
                rows.iter().map(|&row| Ok(table.f_narrow(0, starts(row).0, starts(row).1)?));
            Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
        };
        let (offsets, counts) = (&packed.views.offsets, entity_counts(packed));
        let items: Vec<usize> = (0..rows.len()).collect();
        let (all_lengths, all_counts) = (lengths(packed), counts.clone());
        let of = |all: &[i64]| rows.iter().map(|&row| all[row]).collect::<Vec<i64>>();
        let reference =
            unpadded(case.output(&format!("hidden{number}"))?, &items, &of(&all_lengths))?;
        let ours = take(&states, &|row| (offsets[row], all_lengths[row]))?;
        case.compare_with(&format!("hidden{number}"), &ours, &reference, false)?;
        let reference =
            unpadded(case.output(&format!("entities{number}"))?, &items, &of(&all_counts))?;
        let ours = take(&entities, &|row| (packed.entity_base(row), all_counts[row]))?;
        case.compare_with(&format!("entities{number}"), &ours, &reference, false)?;
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
        objective.model.relation_vectors(&entities, &detection.heads, &detection.tails)?;
    let (labels, _) = case.integers("RelDet_Label1")?;
    if labels.iter().all(|&label| label != IGNORED) {
        case.compare("pair_features_RelDet1", &features, false)?;
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
    case.compare_with(output, ours, &reference, false)
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
            loss(&terms, &used)?
        } else {
            Tensor::f_zeros(1, (Kind::Float, Device::Cpu))?
        };
        case.compare(&format!("{prefix}loss/{task}"), &value, false)?;
    }
    let total = loss(&sums, counts)?;
    case.compare(&format!("{prefix}loss/total"), &total, false)?;
    Ok(total)
}

/// CaseRows of an index tensor [items, …, width] as (item, row).
struct CaseRows {
    values: Vec<i64>,
    width: usize,
    per_item: usize,
}

impl CaseRows {
    fn new(case: &Case, name: &str) -> Result<Self> {
        let (values, shape) = case.integers(name)?;
        let width = if shape.len() > 1 { shape[shape.len() - 1] as usize } else { 1 };
        let rows = values.len() / width;
        Ok(Self { values, width, per_item: rows / shape[0] as usize })
    }

    /// One value a row, whatever the shape.
    fn scalars(case: &Case, name: &str) -> Result<Self> {
        let (values, shape) = case.integers(name)?;
        let per_item = values.len() / shape[0] as usize;
        Ok(Self { values, width: 1, per_item })
    }

    fn row(&self, row: usize) -> &[i64] {
        &self.values[row * self.width..(row + 1) * self.width]
    }
}

/// The labels of the case, or of its alternative set.
fn labels(case: &Case, prefix: &str, name: &str) -> Result<CaseRows> {
    let alternative = format!("{prefix}{name}");
    CaseRows::scalars(case, if case.has_input(&alternative) { &alternative } else { name })
}

fn pairs_of(heads: &CaseRows, tails: &CaseRows, row: usize) -> Vec<(u32, u32)> {
    heads
        .row(row)
        .iter()
        .zip(tails.row(row))
        .map(|(&head, &tail)| (head as u32, tail as u32))
        .collect()
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
        (CaseRows::new(case, "XRelDet_Head1")?, CaseRows::new(case, "XRelDet_Tail1")?);
    let (heads2, tails2) =
        (CaseRows::new(case, "XRelDet_Head2")?, CaseRows::new(case, "XRelDet_Tail2")?);
    let answers = labels(case, prefix, "XRelDet_Label")?;
    for (row, &answer) in
        answers.values.iter().enumerate().filter(|(_, answer)| **answer != IGNORED)
    {
        let first = 2 * (row / answers.per_item);
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
    let queries = CaseRows::scalars(case, &format!("MenMat_Query{number}"))?;
    let options = CaseRows::new(case, &format!("MenMat_Cand{number}"))?;
    let answers = labels(case, prefix, &format!("MenMat_Label{number}"))?;
    let mut rows = MatchRows::default();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (row, &answer) in
        answers.values.iter().enumerate().filter(|(_, answer)| **answer != IGNORED)
    {
        let document = 2 * (row / answers.per_item) + side;
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
    let queries = CaseRows::scalars(case, &format!("XMenMat_Query{query}"))?;
    let options = CaseRows::new(case, &format!("XMenMat_Cand{other}"))?;
    let answers = labels(case, prefix, &format!("XMenMat_Label{other}"))?;
    let mut rows = MatchRows::default();
    for (item, &answer) in
        answers.values.iter().enumerate().filter(|(_, answer)| **answer != IGNORED)
    {
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
        CaseRows::new(case, &format!("RelDet_Head{number}"))?,
        CaseRows::new(case, &format!("RelDet_Tail{number}"))?,
    );
    let answers = labels(case, prefix, &format!("RelDet_Label{number}"))?;
    let mut rows = PairRows::default();
    for (row, &answer) in
        answers.values.iter().enumerate().filter(|(_, answer)| **answer != IGNORED)
    {
        rows.push(
            &pairs_of(&heads, &tails, row),
            packed.entity_base(2 * (row / answers.per_item) + side),
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
        CaseRows::scalars(case, &format!("RelAlign_QueryHead{query}"))?,
        CaseRows::scalars(case, &format!("RelAlign_QueryTail{query}"))?,
    );
    let (heads, tails) = (
        CaseRows::new(case, &format!("RelAlign_CandHead{other}"))?,
        CaseRows::new(case, &format!("RelAlign_CandTail{other}"))?,
    );
    let answers = labels(case, prefix, &format!("RelAlign_Label{query}{other}"))?;
    let mut rows = AlignmentRows::default();
    for (item, &answer) in
        answers.values.iter().enumerate().filter(|(_, answer)| **answer != IGNORED)
    {
        let (base, other_base) =
            (packed.entity_base(2 * item + side), packed.entity_base(2 * item + 1 - side));
        let pair = pairs_of(&query_heads, &query_tails, item)[0];
        rows.push(pair, base, &pairs_of(&heads, &tails, item), other_base, answer as usize);
    }
    Ok(rows)
}

fn relations_of(case: &Case) -> RelationSet {
    let mut classes: Vec<(u64, String)> = case
        .at("/details/label2id_with_NA_last")
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(id, _)| *id != "NA")
        .map(|(id, class)| (class.as_u64().unwrap_or_default(), id.clone()))
        .collect();
    classes.sort();
    let mut set = RelationSet::default();
    for (_, id) in &classes {
        set.insert(id, id);
    }
    set
}

/// The fine-tuner with the case's weights, laid out as asked.
fn extractor(
    case: &Case,
    tokenizer: &Tokenizer,
    relations: usize,
    markers: MarkerNumbering,
) -> Result<Dsdocre> {
    let ViewOptions { max_pieces, truncate, .. } = view_options(case, false)?;
    let foundation = Foundation { max_pieces, truncate, ..on_pieces(case, tokenizer, relations)? };
    let extractor =
        Dsdocre::new(foundation, &DsdocreSettings { markers, ..settings(case)? }, true)?;
    case.load_weights(extractor.parameters(), rename)?;
    Ok(extractor)
}

fn finetuner(case: &mut Case) -> Result<()> {
    let relations = relations_of(case);
    let (documents, tokenizer) = case.documents(&relations)?;
    let documents: Vec<Arc<TokenizedDocument>> = documents.into_iter().map(Arc::new).collect();
    let chosen = kept_pairs(case, &documents)?;
    let example = |(document, pairs): (&Arc<TokenizedDocument>, &Vec<Pair>)| {
        let (document, pairs) = (Arc::clone(document), pairs.clone());
        Example { document, pairs, visit: 0, train: true }
    };
    let examples: Vec<Example> = documents.iter().zip(&chosen).map(example).collect();
    let only_kept = case.at("/switches/mark_only_kept").as_bool().unwrap_or(false);
    let own = if only_kept { MarkerNumbering::KeptEntities } else { MarkerNumbering::Entity };
    for (prefix, markers) in [("", own), ("code/", MarkerNumbering::KeptOrder)] {
        if !case.has_outputs(prefix) {
            continue;
        }
        let extractor = extractor(case, &tokenizer, relations.len(), markers)?;
        compare_finetuning(case, prefix, &extractor, &examples)?;
    }
    Ok(())
}

fn compare_finetuning(
    case: &mut Case,
    prefix: &str,
    extractor: &Dsdocre,
    examples: &[Example],
) -> Result<()> {
    let rows: Vec<usize> = (0..examples.len()).collect();
    let counts: Vec<i64> = examples.iter().map(|example| example.pairs.len() as i64).collect();
    let chosen: Vec<Vec<Pair>> = examples.iter().map(|example| example.pairs.clone()).collect();
    let laid: Vec<View> = examples
        .iter()
        .map(|example| extractor.view(&example.document, &example.pairs))
        .collect::<Result<_>>()?;
    compare_pair_positions(case, &laid, &chosen, prefix)?;
    let batch =
        RelationBatch::new(&*extractor.layout(), examples, extractor.classes(), extractor.loss())?;
    if prefix.is_empty() {
        compare_views(case, &laid, &rows, "docs", "entPos")?;
        let packed = &tables::<DsdocreTables>(&batch.tables)?.documents;
        let (states, entities) = extractor.model.encode(packed, EVALUATION)?;
        let reference = unpadded(case.output("hidden")?, &rows, &lengths(packed))?;
        case.compare_with("hidden", &states, &reference, false)?;
        let reference = unpadded(case.output("entities")?, &rows, &entity_counts(packed))?;
        case.compare_with("entities", &entities, &reference, false)?;
    }
    let (features, logits) = extractor.vectors_and_logits(&batch, EVALUATION)?;
    let reference = unpadded(case.output(&format!("{prefix}logits"))?, &rows, &counts)?;
    case.compare_with(&format!("{prefix}logits"), &logits, &reference, false)?;
    extractor.begin_prediction()?;
    case.compare_with(
        &format!("{prefix}logits (folded)"),
        &tch::no_grad(|| extractor.predict(&batch, EVALUATION))?,
        &reference,
        false,
    )?;
    let reference = unpadded(case.output(&format!("{prefix}argmax"))?, &rows, &counts)?;
    let (ours, theirs): (Vec<i64>, Vec<i64>) =
        (Vec::try_from(logits.f_argmax(1, false)?)?, Vec::try_from(reference)?);
    case.compare_integers(&format!("{prefix}argmax"), &ours, &theirs);
    let loss = loss(&extractor.losses(&batch, EVALUATION)?, batch.counts())?;
    case.compare(&format!("{prefix}loss"), &loss, false)?;
    if prefix.is_empty() {
        compare_targets(case, &batch, &counts)?;
        let reference = unpadded(case.output("pair_features")?, &rows, &counts)?;
        case.compare_with("pair_features", &features, &reference, false)?;
        loss.f_backward()?;
        case.compare_gradients("grad/", extractor.parameters(), rename)?;
    }
    Ok(())
}

/// The pairs kept from the given score vectors, compared with the case's.
fn kept_pairs(
    case: &mut Case,
    documents: &[Arc<TokenizedDocument>],
) -> Result<Vec<Vec<(u32, u32)>>> {
    let scores = case.floats("score_vector")?;
    let stride = scores.len() / documents.len();
    let (heads, shape) = case.integers("pair_head")?;
    let (tails, _) = case.integers("pair_tail")?;
    let (mask, _) = case.integers("label_mask")?;
    let width = shape[1] as usize;
    let mut chosen = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        let entities = document.entities.len();
        let own = &scores[index * stride..index * stride + document.num_pairs()];
        let kept = top_pairs(own, entities, (2 * entities).min(width));
        let pairs: Vec<(u32, u32)> = kept.iter().map(|pair| (pair.head, pair.tail)).collect();
        let valid = |values: &[i64]| -> Vec<i64> {
            let rows = index * width..(index + 1) * width;
            rows.filter(|&row| mask[row] == 1).map(|row| values[row]).collect()
        };
        case.compare_integers(
            &format!("pair_head[{index}]"),
            &pairs.iter().map(|pair| i64::from(pair.0)).collect::<Vec<_>>(),
            &valid(&heads),
        );
        case.compare_integers(
            &format!("pair_tail[{index}]"),
            &pairs.iter().map(|pair| i64::from(pair.1)).collect::<Vec<_>>(),
            &valid(&tails),
        );
        chosen.push(pairs);
    }
    Ok(chosen)
}

/// Positions of head and tail mentions of the kept pairs, and the ids of the release's markers.
fn compare_pair_positions(
    case: &mut Case,
    laid: &[View],
    chosen: &[Vec<Pair>],
    prefix: &str,
) -> Result<()> {
    for (name, is_head) in [("head", true), ("tail", false)] {
        let (reference, shape) = case.integers(&format!("{prefix}{name}"))?;
        let (most, width) = (shape[1] as usize, shape[2] as usize);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for (index, (view, pairs)) in laid.iter().zip(chosen).enumerate() {
            for (row, pair) in pairs.iter().enumerate() {
                let list = &view.mention_positions[if is_head { pair.0 } else { pair.1 } as usize];
                ours.extend((0..width).map(|at| i64::from(*list.get(at).unwrap_or(&list[0]))));
                theirs.extend_from_slice(&reference[(index * most + row) * width..][..width]);
            }
        }
        case.compare_integers(&format!("{prefix}{name}"), &ours, &theirs);
    }
    if prefix == "code/" {
        let (reference, shape) = case.integers("code/docs")?;
        let length = shape[1] as usize;
        let ours: Vec<i64> = laid
            .iter()
            .flat_map(|view| {
                view.ids
                    .iter()
                    .map(|&id| i64::from(id))
                    .chain(std::iter::repeat_n(0, length.saturating_sub(view.ids.len())))
            })
            .collect();
        case.compare_integers("code/docs", &ours, &reference);
    }
    Ok(())
}

fn compare_targets(case: &mut Case, batch: &RelationBatch, counts: &[i64]) -> Result<()> {
    let (reference, shape) = case.integers("labels")?;
    let (most, classes) = (shape[1] as usize, shape[2] as usize);
    let valid = |(index, &count): (usize, &i64)| {
        reference[index * most * classes..][..count as usize * classes].to_vec()
    };
    let theirs: Vec<i64> = counts.iter().enumerate().flat_map(valid).collect();
    let ours: Vec<i64> = batch.targets.iter().map(|&target| target as i64).collect();
    case.compare_integers("labels", &ours, &theirs);
    Ok(())
}
