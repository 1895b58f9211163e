//! The DocRE-II cases: the base module, iterated inference, and a training step of stage 2 with
//! recorded noise.

use crate::parity::{Case, WEIGHTS};
use crate::systems::cases::foundation::EVALUATION;
use crate::systems::cases::pairs::{
    batch, compare_inputs, compare_labels, compare_read, compare_training, foundation,
};
use crate::systems::cases::{head_name, total_loss};
use crate::systems::docre_ii::{
    BasePairs, DocreIi, DocreIiSettings, DocreIiTables, Noise, NoisyRelations, RelationSource,
    Stage,
};
use crate::systems::reading::adaptive_labels;
use crate::systems::{Extractor, Profile, RelationBatch, on, tables};
use crate::text::{TokenizedDocument, Tokenizer};
use crate::train::Forward;
use crate::{Error, Result};

const POSITIONS: &str = "embeddings.position_embeddings.weight";
/// The release computes its losses in training mode; no dropout rate is above 0 here.
const TRAINING: Forward = Forward { train: true, ..EVALUATION };

fn settings(case: &Case, stage: Stage) -> Result<DocreIiSettings> {
    let code = DocreIiSettings::of(Profile::Code);
    let size =
        |name: &str, default: i64| case.at(&format!("/dims/{name}")).as_i64().unwrap_or(default);
    Ok(DocreIiSettings {
        stage,
        emb_size: case.number("/dims/emb_size")?,
        block_size: case.number("/dims/block_size")?,
        inference_width: size("inference_width", code.inference_width),
        inference_heads: size("inference_heads", code.inference_heads),
        ffn_width: size("ffn_width", code.ffn_width),
        num_labels: case.number("/switches/num_labels")? as usize,
        loss_scale: case.at("/switches/loss_scale").as_f64().unwrap_or(code.loss_scale),
        self_key_bias: case.at("/switches/self_key_bias").as_f64().unwrap_or(code.self_key_bias),
        iterations: case.at("/switches/K").as_u64().map_or(code.iterations, |k| k as usize),
        // Their gradients are part of the case, though the release's optimiser leaves them out.
        train_base_heads: true,
        dropout: 0.0,
        ..code
    })
}

fn model(case: &Case, tokenizer: &Tokenizer, settings: DocreIiSettings) -> Result<DocreIi> {
    DocreIi::new(foundation(case, tokenizer)?, settings)
}

pub(crate) fn docre_ii(case: &mut Case) -> Result<()> {
    if case.has_output("loss") { base(case) } else { inference(case) }
}

fn base(case: &mut Case) -> Result<()> {
    let (documents, tokenizer) = case.documents(&case.relations()?)?;
    let settings = settings(case, Stage::Base)?;
    let system = model(case, &tokenizer, settings.clone())?;
    let positions = system.parameters().get(POSITIONS);
    let missing = || Error::Bug("the encoder has no position table".into());
    case.compare("position_table", positions.ok_or_else(missing)?)?;
    case.load_weights(system.parameters(), WEIGHTS, head_name)?;
    let batch = batch(&system, &documents)?;
    let laid: &DocreIiTables = tables(&batch.tables)?;
    compare_inputs(case, &documents, &batch, &laid.reading, |document| system.view(document))?;
    let pairs = system.base_pairs(laid, EVALUATION)?;
    compare_read(case, &laid.reading, &pairs.read)?;
    case.compare("context", &pairs.context)?;
    case.compare("head_feature", &pairs.heads)?;
    case.compare("tail_feature", &pairs.tails)?;
    case.compare("pair_features", &pairs.features)?;
    compare_training(case, &system, &batch, &pairs.logits, settings.num_labels)
}

fn inference(case: &mut Case) -> Result<()> {
    let (documents, tokenizer) = case.documents(&case.relations()?)?;
    for (number, layers) in case.stated::<Vec<_>>("/switches/N_I")?.into_iter().enumerate() {
        for accumulate in [true, false] {
            let settings = DocreIiSettings {
                inference_layers: layers,
                accumulate,
                ..settings(case, Stage::Inference)?
            };
            let system = model(case, &tokenizer, settings)?;
            case.load_weights(system.parameters(), WEIGHTS, head_name)?;
            let mut batch = batch(&system, &documents)?;
            let laid: &DocreIiTables = tables(&batch.tables)?;
            let base = system.base_pairs(laid, EVALUATION)?;
            if number == 0 && accumulate {
                let view = |document: &TokenizedDocument| system.view(document);
                compare_inputs(case, &documents, &batch, &laid.reading, view)?;
                compare_base(case, &system, &base)?;
            }
            compare_iterations(case, &format!("ni{layers}"), &system, laid, &base)?;
            if accumulate {
                compare_step(case, &format!("stage2/ni{layers}"), &system, &mut batch)?;
            }
        }
    }
    Ok(())
}

fn compare_base(case: &mut Case, system: &DocreIi, base: &BasePairs) -> Result<()> {
    case.compare("entities", &base.read.entities)?;
    case.compare("pair_features", &base.features)?;
    case.compare("base_logits", &base.logits)?;
    case.compare("F", &system.feature_matrix(base)?)?;
    let labels = adaptive_labels(&base.logits, system.settings().num_labels)?;
    compare_labels(case, "base_decoded", &labels)
}

fn compare_iterations(
    case: &mut Case,
    prefix: &str,
    system: &DocreIi,
    laid: &DocreIiTables,
    base: &BasePairs,
) -> Result<()> {
    let kind = if system.settings().accumulate { "accumulated" } else { "plain" };
    let features = system.feature_matrix(base)?;
    let iterations = tch::no_grad(|| system.iterations(laid, &base.logits, &features))?;
    for (number, iteration) in (1..).zip(&iterations) {
        for (part, ours) in [
            ("O", &iteration.output),
            ("logits", &iteration.logits),
            ("module_logits", &iteration.module_logits),
        ] {
            let name = format!("{prefix}/{kind}/{part}_iter{number}");
            if case.has_output(&name) {
                case.compare(&name, ours)?;
            }
        }
        compare_labels(case, &format!("{prefix}/{kind}/decoded_iter{number}"), &iteration.labels)?;
    }
    Ok(())
}

/// The noise that the case has recorded, for the batch's pairs in order.
fn recorded(case: &Case) -> Result<Noise> {
    let (pairs, _) = case.integers("pairs")?;
    let cells = |name: &str| -> Result<(Vec<i64>, Vec<usize>)> {
        let (values, shape) = case.integers(name)?;
        let place = |pair: &[i64]| ((pair[0] * shape[1] + pair[1]) * shape[2] + pair[2]) as usize;
        Ok((values, pairs.chunks_exact(3).map(place).collect()))
    };
    let rows = |name: &str| -> Result<Vec<i64>> {
        let (mask, places) = cells(name)?;
        let kept = (0i64..).zip(places).filter(|(_, place)| mask[*place] == 1);
        Ok(kept.map(|(pair, _)| pair).collect())
    };
    let view = |letter: &str| -> Result<NoisyRelations> {
        let (values, places) = cells(&format!("noise/view{letter}_labels"))?;
        let classes = case.number("/dims/classes")? as usize;
        let labels = places.into_iter().flat_map(|place| {
            values[place * classes..(place + 1) * classes].iter().map(|&label| label as f32)
        });
        Ok(NoisyRelations {
            relations: RelationSource::Labels(labels.collect()),
            rows: rows(&format!("noise/view{letter}_train_mask"))?,
        })
    };
    Ok(Noise { base_rows: rows("noise/base_train_mask")?, views: [view("A")?, view("B")?] })
}

fn compare_step(
    case: &mut Case,
    prefix: &str,
    system: &DocreIi,
    batch: &mut RelationBatch,
) -> Result<()> {
    let laid: &mut DocreIiTables =
        batch.tables.downcast_mut().ok_or_else(|| Error::Bug("no tables of DocRE-II".into()))?;
    laid.noise = Some(recorded(case)?);
    let counts = system.layout().counts(&batch.tables, &batch.targets).unwrap_or_default();
    let laid: &DocreIiTables = tables(&batch.tables)?;
    let device = system.parameters().device();
    let targets = on(&batch.targets, device)?.f_view([batch.pairs as i64, -1])?;
    let step = system.stage2(laid, &targets, TRAINING)?;
    for (letter, view) in [("A", &step.views[0]), ("B", &step.views[1])] {
        let parts = [
            ("logits", Some(&view.logits)),
            ("mlp", view.predicted.as_ref()),
            ("swapped", view.target.as_ref()),
        ];
        for (part, ours) in parts {
            let name = format!("{prefix}/view{letter}_{part}");
            if let (true, Some(ours)) = (case.has_output(&name), ours) {
                case.compare(&name, ours)?;
            }
        }
    }
    let factor = system.settings().stage2_factor;
    let slots = step.sums.iter().zip(&counts);
    for (name, (sum, &count)) in ["ATL_base", "ATL_A", "ATL_B", "contrastive"].iter().zip(slots) {
        let term = sum.f_div_scalar(count)?.f_div_scalar(factor)?;
        case.compare(&format!("{prefix}/loss/{name}"), &term)?;
    }
    let total = total_loss(&step.sums, &counts)?;
    case.compare(&format!("{prefix}/loss/total"), &total)?;
    for (statistic, name) in
        [("running_mean", "bn_running_mean_after"), ("running_var", "bn_running_var_after")]
    {
        if let Some(ours) = system.parameters().get(&format!("heads.CCA.MLP.1.{statistic}")) {
            case.compare(&format!("{prefix}/{name}"), &ours.shallow_clone())?;
        }
    }
    total.f_backward()?;
    case.compare_gradients(&format!("{prefix}/grad/"), system.parameters(), head_name)
}
