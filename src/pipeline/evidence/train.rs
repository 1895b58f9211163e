//! Training the evidence predictor: facts of human-annotated documents, the epoch chosen by the F1
//! of evidence sentences on dev.

use crate::pipeline::dev::{DevBoundary, Judge, Judged};
use crate::pipeline::finetune::{FinetuneOutcome, FinetuneTask, check_shards};
use crate::pipeline::model::{EncoderStart, LoadedEvidence, NewModel, check_system};
use crate::pipeline::predict::{DocumentScores, PREDICT_TOKENS};
use crate::pipeline::session::Session;
use crate::pipeline::training::{SaveOnly, StageRun, StageStart, total_steps};
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::dsdocre::Part;
use crate::systems::evidence::{
    EvidenceItem, EvidencePredictor, EvidenceSettings, EvidenceSource, best_threshold, sentences_of,
};
use crate::train::Forward;
use crate::train::RunFolder;
use crate::train::Schedule;
use crate::{Error, Result};

/// Trains the evidence predictor and returns the best checkpoint; its threshold is the score of the
/// last sentence of dev's best prefix.
///
/// # Errors
/// No fact with evidence, in training or on dev; what the data, the disk or a peer refuse.
pub fn train_evidence(
    task: &FinetuneTask,
    settings: &EvidenceSettings,
    session: &Session,
    run: &RunFolder,
) -> Result<FinetuneOutcome> {
    let start = StageStart::find(run, task.stage, task.resume)?;
    if let Some(checkpoint) = start.finished()? {
        check_system(&checkpoint, Part::Finetuner, task.settings)?;
        return Ok(FinetuneOutcome { checkpoint });
    }
    let store = DocumentStore::open(task.train, StoreOptions::default())?;
    let dev = DocumentStore::open(task.dev, StoreOptions::default())?;
    check_shards(task, &store, &dev, session)?;
    for (path, store) in [(task.train, &store), (task.dev, &dev)] {
        check_evidence(path, store)?;
    }
    let loaded = build(task, &store, settings, session)?;
    let plan = task.plan;
    let source = EvidenceSource::new(
        loaded.model.layout(),
        &store,
        plan.batch,
        plan.tokens_per_micro_batch,
        task.seed,
    )?;
    let (total_steps, steps_per_epoch) =
        (total_steps(plan, source.rows.len()), source.order.steps_per_epoch());
    let save = SaveOnly::new(&loaded, run, task.stage, plan);
    let judge = EvidenceJudge { model: &loaded.model, session, items: facts_of(&dev), plan };
    let mut boundary = DevBoundary { save, judge, plan, steps_per_epoch };
    let boundary_steps = steps_per_epoch * plan.evaluate_epochs as u64;
    let stage = StageRun {
        session,
        run,
        plan,
        total_steps,
        boundary_steps,
        seed: task.seed,
        deterministic: task.deterministic,
        start,
    };
    Ok(FinetuneOutcome { checkpoint: stage.train(&loaded.model, &source, &loaded, &mut boundary)? })
}

fn check_evidence(path: &std::path::Path, store: &DocumentStore) -> Result<()> {
    if (0..store.len()).any(|row| store.get(row).facts.iter().any(|fact| !fact.evidence.is_empty()))
    {
        return Ok(());
    }
    Err(Error::recipe(format!("{}: no fact names its evidence", path.display()))
        .with_hint("distant labels have none; take annotated documents"))
}

fn build(
    task: &FinetuneTask,
    store: &DocumentStore,
    settings: &EvidenceSettings,
    session: &Session,
) -> Result<LoadedEvidence> {
    let start: &EncoderStart = &task.start;
    let loaded = NewModel { plan: task.encoder, start, seed: task.seed, device: session.device }
        .evidence(store, settings)?;
    if let Some(folder) = &task.heads_from {
        loaded.transfer_heads(folder, "")?;
    }
    Ok(loaded)
}

/// Every labelled fact of a store.
pub fn facts_of(store: &DocumentStore) -> Vec<EvidenceItem> {
    let documents = (0..store.len()).map(|row| store.get(row));
    let facts = |document: std::sync::Arc<crate::text::TokenizedDocument>| {
        let item = |fact: &crate::text::TokenizedFact| EvidenceItem {
            document: document.clone(),
            fact: fact.clone(),
            visit: 0,
        };
        document.facts.iter().map(item).collect::<Vec<_>>()
    };
    documents.flat_map(facts).collect()
}

struct EvidenceJudge<'a> {
    model: &'a EvidencePredictor,
    session: &'a Session,
    items: Vec<EvidenceItem>,
    plan: &'a Schedule,
}

impl EvidenceJudge<'_> {
    /// Scores of the sentences of every fact; each rank judges its share of the facts.
    fn scores(&self) -> Result<Vec<Vec<f32>>> {
        let (rank, world) = (self.session.world.rank(), self.session.world.size());
        let forward =
            Forward { train: false, precision: self.session.precision(self.plan.precision) };
        let mine: Vec<EvidenceItem> =
            self.items.iter().skip(rank).step_by(world).cloned().collect();
        let scores = self.model.scores(&mine, forward, PREDICT_TOKENS)?;
        let sent: Vec<DocumentScores> =
            scores.into_iter().map(|logits| DocumentScores { pairs: Vec::new(), logits }).collect();
        let all = self.session.world.communicator().all_gather(&DocumentScores::encode(&sent))?;
        let mut parts: Vec<_> =
            all.iter().map(|bytes| DocumentScores::decode(bytes).into_iter()).collect();
        Ok((0..self.items.len())
            .map(|index| parts[index % world].next().unwrap_or_default().logits)
            .collect())
    }
}

impl Judge for EvidenceJudge<'_> {
    fn judge(&self) -> Result<Judged> {
        let ranked = sentences_of(&self.items, self.scores()?);
        let total = self.items.iter().map(|item| item.fact.evidence.len()).sum();
        let best = best_threshold(&ranked, total);
        let (score, threshold) =
            (best.map_or(0.0, |best| best.f1), best.map(|best| f64::from(best.theta)));
        let said = format!(
            "{} sentences of {} facts",
            best.map_or(0, |best| best.prefix + 1),
            self.items.len()
        );
        Ok(Judged { score, name: "evidence F1", threshold, said })
    }
}
