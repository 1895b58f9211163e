//! One system of `bench systems`, in a process of its own: trained as `finetune` would, then timed
//! and scored.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::systems::{Splits, SystemsBench};
use super::table::SystemRow;
use crate::pipeline::{
    ActiveRun, Decider, FinetuneTask, LoadedEvidence, LoadedExtractor, PREDICT_TOKENS, Predictor,
    Session, TrainingShards, facts_of, finetune_in_stages, predictions,
};
use crate::recipe::Recipe;
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::evidence::{EvidenceSettings, f1_at, sentences_of};
use crate::text::TokenizedDocument;
use crate::torch::{Parameters, device};
use crate::train::metrics::{MetricLine, MetricsWriter, read_metrics};
use crate::train::{Checkpoint, Forward, Objective, PrecisionChoice, RunFolder};
use crate::{Error, Result};

const STAGE: &str = "finetune";
/// Documents predicted before the clock starts.
const WARM_UP: usize = 8;

/// Trains and measures `system` on the documents prepared below `work`.
///
/// # Errors
/// More than one rank; what training and prediction meet.
pub fn enter(
    bench: &SystemsBench,
    system: &str,
    work: &Path,
    session: &Session,
) -> Result<SystemRow> {
    if session.world.size() > 1 {
        return Err(Error::recipe("`bench systems` starts a process a system")
            .with_hint("call it without mpirun"));
    }
    let (recipe, splits) = (bench.recipe_of(system)?, bench.splits(system, work)?);
    let folder = RunFolder::claim(&work.join(format!("run-{system}")))?;
    let run = ActiveRun { recipe: &recipe, folder, resume: false, session };
    let settings = recipe.settings()?;
    let task = FinetuneTask {
        stage: STAGE,
        train: &[TrainingShards::alone(&splits.train)],
        dev: &splits.dev,
        start: None,
        heads_from: None,
        ranker: None,
        settings: &settings,
        schedule: None,
    };
    let checkpoint = finetune_in_stages(&task, &run)?;
    let store = DocumentStore::open(&splits.held_out, StoreOptions::default())?;
    let measured = if settings.get::<EvidenceSettings>().is_some() {
        measure_evidence(&checkpoint, &store, session)?
    } else {
        measure(&checkpoint, &store, &splits, session)?
    };
    let lines = read_metrics(&MetricsWriter::path(run.folder.path()))?;
    Ok(SystemRow {
        system: system.to_owned(),
        encoder: recipe.encoder.name.clone(),
        train_documents_per_s: train_rate(&lines),
        peak_memory_mb: Some(device::peak_memory_bytes(session.device)? as f64 / 1e6),
        losses: losses(&lines, &recipe, &splits)?,
        ..measured
    })
}

/// Scores, speed of prediction and size of a fine-tuned checkpoint.
fn measure(
    checkpoint: &Checkpoint,
    store: &DocumentStore,
    splits: &Splits,
    session: &Session,
) -> Result<SystemRow> {
    let loaded = LoadedExtractor::open(checkpoint.path(), session.device)?;
    let predictor = Predictor::new(&*loaded.model, session.precision(PrecisionChoice::Auto));
    let documents: Vec<Arc<TokenizedDocument>> =
        (0..store.len()).map(|row| store.get(row)).collect();
    predictor.scores(&documents[..WARM_UP.min(documents.len())], &mut |_| Ok(()))?;
    let started = Instant::now();
    let scores = predictor.scores(&documents, &mut |_| Ok(()))?;
    let seconds = started.elapsed().as_secs_f64();
    let decider = Decider::of(&*loaded.model, checkpoint.trainer()?.threshold);
    let official = splits.score(store, &predictions(&scores, store, decider))?;
    let ign_f1 = official.ign_annotated.map(|ign| ign.f1);
    let rate = Some(documents.len() as f64 / seconds);
    Ok(SystemRow {
        f1: official.f1,
        ign_f1,
        predict_documents_per_s: rate,
        ..sized(loaded.model.parameters())
    })
}

/// As [`measure`], for the evidence of the labelled facts.
fn measure_evidence(
    checkpoint: &Checkpoint,
    store: &DocumentStore,
    session: &Session,
) -> Result<SystemRow> {
    let loaded = LoadedEvidence::open(checkpoint.path(), session.device)?;
    let items = facts_of(store);
    let forward = Forward { train: false, precision: session.precision(PrecisionChoice::Auto) };
    loaded.model.scores(&items[..WARM_UP.min(items.len())], forward, PREDICT_TOKENS)?;
    let started = Instant::now();
    let scores = loaded.model.scores(&items, forward, PREDICT_TOKENS)?;
    let rate = Some(store.len() as f64 / started.elapsed().as_secs_f64());
    let theta = checkpoint.trainer()?.threshold.unwrap_or(0.5) as f32;
    let f1 = f1_at(
        &sentences_of(&items, scores),
        theta,
        items.iter().map(|item| item.fact.evidence.len()).sum(),
    );
    Ok(SystemRow {
        f1,
        predict_documents_per_s: rate,
        ..sized(Objective::parameters(&loaded.model))
    })
}

fn sized(parameters: &Parameters) -> SystemRow {
    let all: usize = parameters.iter().map(|entry| entry.tensor.numel()).sum();
    let trained: usize = parameters.trainable().map(|entry| entry.tensor.numel()).sum();
    SystemRow {
        parameters: Some(trained as i64),
        frozen_parameters: Some((all - trained) as i64),
        ..SystemRow::default()
    }
}

/// Documents a second of the middle step, which the first steps and those that waited for the
/// machine do not move.
fn train_rate(lines: &[MetricLine]) -> Option<f64> {
    let mut rates: Vec<f64> = lines
        .iter()
        .filter(|line| line.stage == STAGE)
        .filter_map(|line| line.documents_per_s)
        .collect();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied()
}

/// What classifies; an attraction between representations has no zero to fall to.
fn classifying(line: &MetricLine) -> f64 {
    line.tasks().filter(|(task, _)| *task != "contrast").map(|(_, loss)| loss).sum()
}

fn losses(lines: &[MetricLine], recipe: &Recipe, splits: &Splits) -> Result<Vec<[f64; 2]>> {
    let documents = DocumentStore::open(&splits.train, StoreOptions::default())?.len();
    let base = format!("{STAGE}-base");
    let second = lines.iter().any(|line| line.stage == base);
    let mut all = Vec::new();
    for (stage, schedule) in [
        (base.as_str(), &recipe.finetune),
        (STAGE, if second { &recipe.inference } else { &recipe.finetune }),
    ] {
        let steps: Vec<f64> =
            lines.iter().filter(|line| line.stage == stage).map(classifying).collect();
        let epoch = documents.div_ceil(schedule.batch).clamp(1, steps.len().max(1));
        if let Some(first) = steps.first() {
            all.push([*first, steps.iter().rev().take(epoch).sum::<f64>() / epoch as f64]);
        }
    }
    Ok(all)
}
