//! The KD-DocRE cases: pairs, axial layers, losses and gradients of the training path, logits of
//! the evaluation path, and a step of distillation.

use tch::{Kind, Tensor};

use super::layout::KdDocreTables;
use super::{FocalKind, KdDocre, KdDocreSettings, KdDocreStage};
use crate::parity::{Case, WEIGHTS, lengths, padded};
use crate::systems::cases::foundation::EVALUATION;
use crate::systems::cases::pairs::{batch, compare_labels, compare_mentions, foundation};
use crate::systems::cases::{head_name, total_loss};
use crate::systems::reading::adaptive_labels;
use crate::systems::{Extractor, Profile, RelationBatch, on, tables};
use crate::text::{TokenizedDocument, Tokenizer};
use crate::train::{Forward, MicroBatch};
use crate::{Error, Result};

/// The release computes its losses in training mode; no dropout rate is above 0 here.
const TRAINING: Forward = Forward { train: true, ..EVALUATION };

fn settings(case: &Case) -> Result<KdDocreSettings> {
    let distils = case.has_input("teacher_logits");
    let one_plus = case.stated::<String>("/switches/focal_weight")?.starts_with("1+");
    let masked = case.at("/switches/mask_padding_in_evaluation").as_bool().unwrap_or(false);
    Ok(KdDocreSettings {
        stage: if distils { KdDocreStage::Distil } else { KdDocreStage::Teacher },
        emb_size: case.number("/dims/emb_size")?,
        block_size: case.number("/dims/block_size")?,
        axial_layers: case.number("/dims/axial_layers")? as usize,
        axial_heads: case.number("/dims/axial_heads")?,
        grid_size: case.number("/dims/grid")? as usize,
        biased_padding: !masked,
        focal_weight: if one_plus { FocalKind::OnePlus } else { FocalKind::Plain },
        gamma: case.stated("/switches/gamma")?,
        mse_weight: case.at("/switches/mse_weight").as_f64().unwrap_or(1.0),
        num_labels: case.at("/switches/num_labels").as_u64().unwrap_or(4) as usize,
        ..KdDocreSettings::of(Profile::Code)
    })
}

/// The model of a case; its parameters do not depend on the settings that differ between variants.
fn model(case: &Case, tokenizer: &Tokenizer, settings: KdDocreSettings) -> Result<KdDocre> {
    let system = KdDocre::new(foundation(case, tokenizer)?, settings)?;
    case.load_weights(system.parameters(), WEIGHTS, head_name)?;
    Ok(system)
}

pub(super) fn kd_docre(case: &mut Case) -> Result<()> {
    let (documents, tokenizer) = case.documents(&case.relations()?)?;
    let system = model(case, &tokenizer, settings(case)?)?;
    let mut batch = batch(&system, &documents)?;
    compare_inputs(case, &system, &documents, &batch)?;
    if case.has_input("teacher_logits") {
        return distillation(case, &system, &mut batch);
    }
    let laid: &KdDocreTables = tables(&batch.tables)?;
    compare_reading(case, &system, laid)?;
    training(case, &system, &batch)?;
    evaluation(case, &system, &batch)?;
    variants(case, &tokenizer, &documents)?;
    dropped(case, &system, &mut batch)
}

/// Rows of the pairs that are asked about, at their places among all pairs; 0 at the others.
fn all_pairs(laid: &KdDocreTables, rows: &Tensor) -> Result<Tensor> {
    let (pairs, columns) = (laid.contexts.len() as i64, rows.size()[1]);
    let zeros = Tensor::f_zeros([pairs, columns], (rows.kind(), rows.device()))?;
    Ok(zeros.f_index_copy(0, &on(&laid.asked, rows.device())?, rows)?)
}

/// Rows of the cells that are pairs.
fn of_pairs(laid: &KdDocreTables, cells: &Tensor) -> Result<Tensor> {
    Ok(cells.f_index_select(0, &on(&laid.grids.places, cells.device())?)?)
}

fn compare_inputs(
    case: &mut Case,
    system: &KdDocre,
    documents: &[TokenizedDocument],
    batch: &RelationBatch,
) -> Result<()> {
    let laid: &KdDocreTables = tables(&batch.tables)?;
    let views = &laid.reading.documents.views;
    let width = case.integers("input_ids")?.1[1] as usize;
    case.compare_input("input_ids", &padded(&views.ids, &views.offsets, width))?;
    case.compare_input("lengths", &lengths(&views.offsets))?;
    let entities = documents.iter().map(|document| document.entities.len() as i64);
    case.compare_input("num_entities", &entities.collect::<Vec<_>>())?;
    let mut pairs = Vec::new();
    for (index, document) in (0i64..).zip(documents) {
        let count = document.entities.len() as i64;
        let cells = (0..count).flat_map(|head| (0..count).map(move |tail| [index, head, tail]));
        pairs.extend(cells.flatten());
    }
    case.compare_input("pairs", &pairs)?;
    compare_targets(case, laid, batch)?;
    let mask: Vec<i64> = match &laid.grids.sources {
        Some(sources) => {
            sources.iter().map(|&pair| i64::from(pair < laid.contexts.len() as i64)).collect()
        }
        None => vec![1; laid.contexts.len()],
    };
    case.compare_input("negative_mask", &mask)?;
    let spans = documents.iter().map(|document| Ok(system.view(document)?.mention_spans));
    compare_mentions(case, documents, &spans.collect::<Result<Vec<_>>>()?)
}

/// Labels; those of an entity with itself are NA.
fn compare_targets(case: &mut Case, laid: &KdDocreTables, batch: &RelationBatch) -> Result<()> {
    let pairs = laid.contexts.len();
    let classes = batch.targets.len() / batch.pairs.max(1);
    let mut labels = vec![0; pairs * classes];
    (0..pairs).for_each(|pair| labels[pair * classes] = 1);
    for (&pair, row) in laid.asked.iter().zip(batch.targets.chunks_exact(classes.max(1))) {
        let place = pair as usize * classes;
        for (label, &target) in labels[place..place + classes].iter_mut().zip(row) {
            *label = target as i64;
        }
    }
    case.compare_input("labels", &labels)
}

/// Everything up to the features, in training.
fn compare_reading(case: &mut Case, system: &KdDocre, laid: &KdDocreTables) -> Result<()> {
    let pairs = system.pairs(laid, TRAINING)?;
    let offsets = &laid.reading.documents.views.offsets;
    case.compare_rows("sequence_output", &pairs.read.states, &lengths(offsets))?;
    case.compare("entities", &pairs.read.entities)?;
    let own = on(&laid.contexts, pairs.context.device())?;
    case.compare("context", &pairs.context.f_index_select(0, &own)?)?;
    case.compare("head_feature", &pairs.heads)?;
    case.compare("tail_feature", &pairs.tails)?;
    case.compare("projected", &pairs.projected)?;
    let cells = system.cells(laid, &pairs.projected, TRAINING)?;
    if let Some([attention, first]) = system.first_layer(laid, &cells, TRAINING)? {
        case.compare("axial_attention_layer0", &of_pairs(laid, &attention)?)?;
        case.compare("axial_layer0", &of_pairs(laid, &first)?)?;
    }
    let axial = system.axial(laid, &cells, TRAINING)?;
    case.compare("axial", &of_pairs(laid, &axial)?)?;
    let features = axial.f_add(&cells)?;
    case.compare("feature", &of_pairs(laid, &features)?)?;
    compare_padding(case, "padded_feature", &features)
}

/// Features of the cells (N, N), (0, N) and (N, 0) at the end of each grid.
fn compare_padding(case: &mut Case, name: &str, features: &Tensor) -> Result<()> {
    let side = case.number("/dims/grid")?;
    let grids = features.size()[0] / (side * side);
    let corners = [side * side - 1, side - 1, side * (side - 1)];
    let places: Vec<i64> =
        (0..grids).flat_map(|grid| corners.map(|place| grid * side * side + place)).collect();
    case.compare(name, &features.f_index_select(0, &on(&places, features.device())?)?)
}

/// Logits and targets of a batch, and the loss over classes divided by its count.
fn relation_loss(system: &KdDocre, batch: &RelationBatch, logits: &Tensor) -> Result<Tensor> {
    let laid: &KdDocreTables = tables(&batch.tables)?;
    let sum = system.focal_sum(laid, logits, &batch.targets_like(logits)?)?;
    Ok(sum.f_div_scalar(batch.counts()[0])?)
}

fn training(case: &mut Case, system: &KdDocre, batch: &RelationBatch) -> Result<()> {
    let laid: &KdDocreTables = tables(&batch.tables)?;
    let logits = system.logits(batch, TRAINING)?;
    case.compare("logits", &all_pairs(laid, &logits)?)?;
    let loss = relation_loss(system, batch, &logits)?;
    case.compare("loss", &loss)?;
    // Without a true relation only the term of the threshold is left.
    let targets = batch.targets_like(&logits)?;
    let whole = |targets: &Tensor| system.focal_sum(laid, &logits, targets);
    let hidden = logits.f_masked_fill(&targets.f_gt(0.5)?, -1e30)?;
    let threshold = Tensor::f_cat(
        &[&logits.f_narrow(1, 0, 1)?, &hidden.f_narrow(1, 1, hidden.size()[1] - 1)?],
        1,
    )?;
    let none = targets.f_zeros_like()?;
    let of_threshold = system.focal_sum(laid, &threshold, &none)?;
    let of_positives = whole(&targets)?.f_sub(&of_threshold)?;
    let count = batch.counts()[0];
    case.compare("threshold_term", &of_threshold.f_div_scalar(count)?)?;
    case.compare("positive_term", &of_positives.f_div_scalar(count)?)?;
    loss.f_backward()?;
    case.compare_gradients("grad/", system.parameters(), head_name)
}

fn evaluation(case: &mut Case, system: &KdDocre, batch: &RelationBatch) -> Result<()> {
    let laid: &KdDocreTables = tables(&batch.tables)?;
    let logits = all_pairs(laid, &system.logits(batch, EVALUATION)?)?;
    case.compare("eval/logits", &logits)?;
    let top = case.number("/switches/num_labels")? as usize;
    compare_labels(case, "decoded", &adaptive_labels(&logits, top)?)?;
    let projected = system.pairs(laid, EVALUATION)?.projected;
    let cells = system.cells(laid, &projected, EVALUATION)?;
    let features = system.axial(laid, &cells, EVALUATION)?.f_add(&cells)?;
    compare_padding(case, "eval/padded_feature", &features)
}

/// Other weights of the loss.
fn variants(case: &mut Case, tokenizer: &Tokenizer, documents: &[TokenizedDocument]) -> Result<()> {
    let own = settings(case)?;
    let variants = [
        ("paper/loss", FocalKind::Plain, own.gamma),
        ("gamma2/loss", FocalKind::OnePlus, 2.0),
        ("paper/gamma2_loss", FocalKind::Plain, 2.0),
    ];
    for (name, focal_weight, gamma) in variants {
        if !case.has_output(name) {
            continue;
        }
        let settings = KdDocreSettings { focal_weight, gamma, ..own.clone() };
        let system = model(case, tokenizer, settings)?;
        let batch = batch(&system, documents)?;
        let loss = relation_loss(&system, &batch, &system.logits(&batch, TRAINING)?)?;
        case.compare(name, &loss)?;
        if let Some(prefix) = name.strip_suffix("loss").filter(|prefix| prefix.ends_with('/')) {
            loss.f_backward()?;
            case.compare_gradients(&format!("grad/{prefix}"), system.parameters(), head_name)?;
        }
    }
    Ok(())
}

/// The recorded draw of pairs whose features are dropped.
fn dropped(case: &mut Case, system: &KdDocre, batch: &mut RelationBatch) -> Result<()> {
    if !case.has_input("drop/negative_mask") {
        return Ok(());
    }
    let mask = case.floats("drop/negative_mask")?;
    let laid: &mut KdDocreTables =
        batch.tables.downcast_mut().ok_or_else(|| Error::Bug("no tables of KD-DocRE".into()))?;
    let kept = laid.grids.places.iter().map(|&place| mask[place as usize]);
    laid.kept = Some(kept.collect());
    let laid: &KdDocreTables = tables(&batch.tables)?;
    let logits = system.logits(batch, TRAINING)?;
    case.compare("drop/logits", &all_pairs(laid, &logits)?)?;
    case.compare("drop/loss", &relation_loss(system, batch, &logits)?)
}

/// A step of the student.
fn distillation(case: &mut Case, system: &KdDocre, batch: &mut RelationBatch) -> Result<()> {
    let laid: &KdDocreTables = tables(&batch.tables)?;
    let (all, classes) = (case.floats("teacher_logits")?, system.classes().count());
    let rows = laid.asked.iter().flat_map(|&pair| {
        let first = pair as usize * classes;
        all[first..first + classes].iter().copied()
    });
    batch.with_teacher_logits(rows.collect())?;
    let laid: &KdDocreTables = tables(&batch.tables)?;
    let logits = system.logits(batch, TRAINING)?.f_to_kind(Kind::Float)?;
    case.compare("logits", &all_pairs(laid, &logits)?)?;
    let sums = system.losses(batch, TRAINING)?;
    let counts = batch.counts();
    case.compare("own_loss", &sums[0].f_div_scalar(counts[0])?)?;
    let factor = case.at("/switches/mse_weight").as_f64().unwrap_or(1.0);
    case.compare("mse", &sums[1].f_div_scalar(counts[1] * factor)?)?;
    let total = total_loss(&sums, counts)?;
    case.compare("loss", &total)?;
    total.f_backward()?;
    case.compare_gradients("grad/", system.parameters(), head_name)
}
