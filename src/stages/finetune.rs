//! Stage 3: fine-tune on human annotation, choosing the epoch by dev F1 (SPEC §3.3 j, §3.5).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::Tensor;

use super::evaluate::gold_of;
use super::model::{EncoderStart, LoadedModel, NewModel};
use super::predict::{DocumentScores, PREDICT_TOKENS, Predictor, pair_choice};
use super::session::Session;
use super::training::{SaveOnly, StageRun, StageStart, total_steps};
use crate::corpus::Document;
use crate::eval::{EvaluateOptions, FactSet, Gold, Prediction, ScoredFact, best_prefix, evaluate};
use crate::recipe::{Decision, EncoderPlan, StagePlan, Switches};
use crate::sampling::BatchOrder;
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::dsdocre::{FinetuneSource, Finetuner, PairChoice, Part};
use crate::text::EncodedDocument;
use crate::train::{Boundary, Checkpoint, Progress, RunFolder, TrainerState};
use crate::{Error, Result};

/// What is fine-tuned on what.
pub struct FinetuneTask<'a> {
    /// Name of the stage in the run folder.
    pub stage: &'a str,
    /// Human-annotated shards.
    pub train: &'a Path,
    /// Labelled shards that choose the epoch.
    pub dev: &'a Path,
    /// The encoder.
    pub encoder: &'a EncoderPlan,
    /// Where its weights start.
    pub start: EncoderStart,
    /// The ranker whose pairs are kept; `None` for the baseline.
    pub ranker: Option<&'a Path>,
    /// DSDocRE's switches.
    pub switches: &'a Switches,
    /// The schedule.
    pub plan: &'a StagePlan,
    /// The seed.
    pub seed: u64,
    /// Go on from the last checkpoint.
    pub resume: bool,
}

/// What fine-tuning leaves.
pub struct FinetuneOutcome {
    /// The checkpoint with the best dev F1.
    pub checkpoint: Checkpoint,
}

/// Fine-tunes and returns the best checkpoint.
///
/// # Errors
/// No labelled document, shards without scores although a ranker is named; what the data, the disk or a peer refuse.
pub fn finetune(task: &FinetuneTask, session: &Session, run: &RunFolder) -> Result<FinetuneOutcome> {
    let start = StageStart::find(run, task.stage, task.resume)?;
    if let Some(checkpoint) = start.finished()? {
        return Ok(FinetuneOutcome { checkpoint });
    }
    let store = DocumentStore::open(task.train, StoreOptions::default())?;
    let dev = DocumentStore::open(task.dev, StoreOptions::default())?;
    check_shards(task, &store, &dev)?;
    let rows: Vec<usize> = (0..store.len()).filter(|&row| !store.get(row).facts.is_empty()).collect();
    if rows.is_empty() {
        return Err(Error::recipe(format!("{}: no document has a label to fine-tune on", task.train.display())));
    }
    let loaded = build(task, &store, session, run)?;
    let pairs = pair_choice(task.switches, task.ranker.is_some());
    let total_steps = total_steps(task.plan, rows.len());
    let order = BatchOrder::new(rows.len(), task.seed, task.plan.batch, false)?;
    let steps_per_epoch = order.steps_per_epoch();
    let source = FinetuneSource {
        order,
        store: &store,
        rows,
        views: loaded.views(task.seed),
        markers: task.switches.markers,
        pairs: pairs.clone(),
        classes: loaded.model.config.classes as usize,
        budget: task.plan.tokens_per_micro_batch,
        seed: task.seed,
    };
    let mut boundary = DevBoundary {
        save: SaveOnly { loaded: &loaded, folder: run.checkpoints(task.stage), keep: task.plan.keep_checkpoints },
        session,
        dev: &dev,
        gold: gold_of(&dev),
        pairs,
        plan: task.plan,
        steps_per_epoch,
    };
    let boundary_steps = steps_per_epoch * task.plan.evaluate_epochs as u64;
    let stage = StageRun { session, run, plan: task.plan, total_steps, boundary_steps, start };
    let checkpoint = stage.train(&Finetuner { model: &loaded.model }, &source, &loaded, &mut boundary)?;
    Ok(FinetuneOutcome { checkpoint })
}

fn check_shards(task: &FinetuneTask, store: &DocumentStore, dev: &DocumentStore) -> Result<()> {
    for (path, store) in [(task.train, store), (task.dev, dev)] {
        if task.ranker.is_some() && store.manifest().scored.is_none() {
            return Err(Error::recipe(format!("{}: the pairs are not scored", path.display())).with_hint("run `score` on the shards first"));
        }
    }
    if store.relations() != dev.relations() {
        let message = format!("{} and {} have different relations", task.train.display(), task.dev.display());
        return Err(Error::recipe(message).with_hint("prepare both with the same --relations"));
    }
    Ok(())
}

fn build(task: &FinetuneTask, store: &DocumentStore, session: &Session, run: &RunFolder) -> Result<LoadedModel> {
    let (switches, seed) = (task.switches, task.seed);
    let new = NewModel { plan: task.encoder, start: &task.start, part: Part::Finetuner, switches, seed, device: session.device };
    let mut loaded = new.build(store)?;
    if let (true, EncoderStart::Checkpoint(folder)) = (switches.transfer_bilinear, &task.start) {
        loaded.transfer_relation_layer(folder)?;
    }
    loaded.description.ranker = task.ranker.map(|ranker| relative(ranker, run, task.stage));
    Ok(loaded)
}

/// The ranker as seen from a checkpoint of this run, so that the run folder can be moved; otherwise as an absolute path.
fn relative(ranker: &Path, run: &RunFolder, stage: &str) -> PathBuf {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (ranker, root) = (absolute(ranker), absolute(run.path()));
    let up = run.checkpoints(stage).components().count() - run.path().components().count() + 1;
    match ranker.strip_prefix(&root) {
        Ok(inner) => std::iter::repeat_n("..", up).collect::<PathBuf>().join(inner),
        Err(_) => ranker,
    }
}

/// Evaluates on dev at every boundary and remembers the best step.
struct DevBoundary<'a> {
    save: SaveOnly<'a>,
    session: &'a Session,
    dev: &'a DocumentStore,
    gold: Vec<Document>,
    pairs: PairChoice,
    plan: &'a StagePlan,
    steps_per_epoch: u64,
}

impl Boundary for DevBoundary<'_> {
    fn reached(&mut self, state: &mut TrainerState, progress: &Progress) -> Result<bool> {
        let precision = self.session.precision(&self.plan.precision);
        let predictor = Predictor::new(self.save.loaded, self.pairs.clone(), precision, PREDICT_TOKENS);
        let scores = shared_scores(&predictor, self.dev, self.session)?;
        let description = &self.save.loaded.description;
        let (predictions, threshold) = decide_on_dev(&scores, self.dev, &self.gold, description.switches.decision)?;
        let f1 = evaluate("dev", &Gold::new(&self.gold)?, &predictions, &EvaluateOptions::default()).official.f1;
        let epoch = state.step as f64 / self.steps_per_epoch as f64;
        state.curve.push((epoch, f1));
        let better = state.best.is_none_or(|(best, _)| f1 > best);
        if better {
            state.best = Some((f1, state.step));
            state.threshold = threshold;
        }
        let facts = predictions.len();
        progress.note(&format!(
            "epoch {epoch:.0}: dev F1 {:.2}{} ({facts} facts)",
            100.0 * f1,
            if better { ", the best so far" } else { "" }
        ));
        Ok(better)
    }

    fn save(&mut self, state: &TrainerState, optimizer: Vec<(String, Tensor)>) -> Result<()> {
        self.save.save(state, optimizer)
    }
}

/// Scores a store with all ranks; every rank gets all results.
///
/// # Errors
/// What the model or a peer refuses.
pub fn shared_scores(predictor: &Predictor, store: &DocumentStore, session: &Session) -> Result<Vec<DocumentScores>> {
    let (rank, world) = (session.world.rank(), session.world.size());
    let mine: Vec<Arc<EncodedDocument>> = (0..store.len()).filter(|row| row % world == rank).map(|row| store.get(row)).collect();
    let scores = predictor.scores(&mine, &mut |_| {})?;
    if world == 1 {
        return Ok(scores);
    }
    let all = session.world.communicator().all_gather(&DocumentScores::encode(&scores))?;
    let mut parts: Vec<_> = all.iter().map(|bytes| DocumentScores::decode(bytes).into_iter()).collect();
    Ok((0..store.len()).map(|row| parts[row % world].next().unwrap_or_default()).collect())
}

/// Predictions on dev and, for the threshold rule, the θ that makes them best.
///
/// # Errors
/// What scoring refuses.
pub fn decide_on_dev(
    scores: &[DocumentScores],
    store: &DocumentStore,
    gold: &[Document],
    decision: Decision,
) -> Result<(Vec<Prediction>, Option<f64>)> {
    let threshold = match decision {
        Decision::ArgMax => None,
        Decision::Threshold => {
            best_prefix(&ranked_facts(scores, store, &FactSet::default()), gold_facts(gold)).map(|best| f64::from(best.theta))
        }
    };
    Ok((predictions(scores, store, decision, threshold.unwrap_or(0.5)), threshold))
}

/// Predictions of a whole store.
pub fn predictions(scores: &[DocumentScores], store: &DocumentStore, decision: Decision, threshold: f64) -> Vec<Prediction> {
    let decide = |(row, scores): (usize, &DocumentScores)| scores.decide(store.title(row), store.relations(), decision, threshold);
    scores.iter().enumerate().flat_map(decide).collect()
}

/// Every (pair, relation) with its probability and whether it is a gold fact, for thresholds and curves.
pub fn ranked_facts(scores: &[DocumentScores], store: &DocumentStore, train: &FactSet) -> Vec<ScoredFact> {
    let mut ranked = Vec::new();
    for (row, scores) in scores.iter().enumerate() {
        let document = store.get(row);
        let gold: std::collections::HashSet<(u32, u32, u32)> =
            document.facts.iter().map(|fact| (fact.head, fact.tail, fact.relation)).collect();
        let in_train = |pair: (u32, u32), class: usize| {
            let names = |entity: u32| document.entities[entity as usize].mentions.iter().map(|mention| mention.name.as_str());
            let Some(relation) = store.relations().get(class) else { return false };
            names(pair.0).any(|head| names(pair.1).any(|tail| train.contains(head, tail, &relation.id)))
        };
        ranked.extend(scores.relations().map(|(pair, class, score)| ScoredFact {
            score,
            correct: gold.contains(&(pair.0, pair.1, class as u32)),
            // Asked for only where it can matter: a wrong fact is never ignored.
            in_train: !train.is_empty() && gold.contains(&(pair.0, pair.1, class as u32)) && in_train(pair, class),
        }));
    }
    ranked
}

/// Unique gold facts.
pub fn gold_facts(gold: &[Document]) -> usize {
    gold.iter().map(|document| document.facts().len()).sum()
}
