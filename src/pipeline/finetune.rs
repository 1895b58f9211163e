//! Stage 3: fine-tune on human annotation, choosing the epoch by dev F1 (docs/systems.md,
//! D.20–D.22; docs/scores.md, "What stages report").

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dev::{DevBoundary, Judge, Judged};
use super::evaluate::gold_of;
use super::evidence::train_evidence;
use super::model::{Description, EncoderStart, LoadedExtractor, NewModel, check_system};
use super::predict::{Decider, DocumentScores, PREDICT_TOKENS, Predictor};
use super::session::Session;
use super::training::{SaveOnly, StageRun, StageStart, total_steps};
use crate::corpus::Document;
use crate::eval::{
    EvaluateOptions, FactSet, FactSets, Gold, Prediction, ScoredFact, best_prefix, evaluate,
};
use crate::recipe::EncoderChoice;
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::dsdocre::Part;
use crate::systems::evidence::EvidenceSettings;
use crate::systems::{DecisionRule, Extraction, ExtractionSource, Extractor, Settings};
use crate::text::TokenizedDocument;
use crate::train::Schedule;
use crate::train::Select;
use crate::train::{Checkpoint, RunFolder};
use crate::{DataError, Error, Result};

/// What is fine-tuned on what.
#[derive(Clone)]
pub struct FinetuneTask<'a> {
    /// Name of the stage in the run folder.
    pub stage: &'a str,
    /// Human-annotated shards.
    pub train: &'a Path,
    /// Labelled shards that choose the epoch.
    pub dev: &'a Path,
    /// The encoder.
    pub encoder: &'a EncoderChoice,
    /// Where its weights start.
    pub start: EncoderStart,
    /// A checkpoint whose heads are taken over where name and shape agree.
    pub heads_from: Option<PathBuf>,
    /// The ranker whose pairs are kept (DSDocRE); `None` for its baseline and for every other
    /// system.
    pub ranker: Option<&'a Path>,
    /// The system with its settings.
    pub settings: &'a Settings,
    /// The schedule.
    pub plan: &'a Schedule,
    /// The seed.
    pub seed: u64,
    /// Whether results must not depend on the number of ranks.
    pub deterministic: bool,
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
/// No labelled document, shards without scores although a ranker is named; what the data, the disk
/// or a peer refuse.
pub fn finetune(
    task: &FinetuneTask,
    session: &Session,
    run: &RunFolder,
) -> Result<FinetuneOutcome> {
    if let Some(settings) = task.settings.get::<EvidenceSettings>() {
        return train_evidence(task, settings, session, run);
    }
    let start = StageStart::find(run, task.stage, task.resume)?;
    if let Some(checkpoint) = start.finished()? {
        check_system(&checkpoint, Part::Finetuner, task.settings)?;
        return Ok(FinetuneOutcome { checkpoint });
    }
    let store = DocumentStore::open(task.train, StoreOptions::default())?;
    let dev = DocumentStore::open(task.dev, StoreOptions::default())?;
    check_shards(task, &store, &dev, session)?;
    let loaded = build(task, &store, session, run)?;
    let plan = task.plan;
    let source = ExtractionSource::new(
        &*loaded.model,
        &store,
        plan.batch,
        plan.tokens_per_micro_batch,
        task.seed,
    )?;
    let total_steps = total_steps(plan, source.rows.len());
    let steps_per_epoch = source.order.steps_per_epoch();
    let (gold, train_facts) = (gold_of(&dev), FactSet::from_documents(&gold_of(&store)));
    let judge =
        RelationJudge { extractor: &*loaded.model, session, dev: &dev, gold, train_facts, plan };
    let save = SaveOnly::new(&loaded, run, task.stage, plan);
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
    let checkpoint = stage.train(&Extraction(&*loaded.model), &source, &loaded, &mut boundary);
    let checkpoint = checkpoint.map_err(|error| error.in_file(task.train))?;
    Ok(FinetuneOutcome { checkpoint })
}

/// Fine-tunes a system to its end. Where it has two stages, the second starts from the first one's
/// best checkpoint, heads included, with the schedule `inference`.
///
/// # Errors
/// As [`finetune`].
pub fn finetune_in_stages(
    task: &FinetuneTask,
    inference: &Schedule,
    session: &Session,
    run: &RunFolder,
) -> Result<Checkpoint> {
    let Some(base) = task.settings.first_stage() else {
        return Ok(finetune(task, session, run)?.checkpoint);
    };
    let stage = format!("{}-base", task.stage);
    let base =
        finetune(&FinetuneTask { stage: &stage, settings: &base, ..task.clone() }, session, run)?
            .checkpoint;
    let folder = base.path().to_owned();
    let second = FinetuneTask {
        start: EncoderStart::Checkpoint(folder.clone()),
        heads_from: Some(folder),
        plan: inference,
        ..task.clone()
    };
    Ok(finetune(&second, session, run)?.checkpoint)
}

/// Refuses shards that do not go together or hold nothing to learn from.
///
/// # Errors
/// As said.
pub fn check_shards(
    task: &FinetuneTask,
    store: &DocumentStore,
    dev: &DocumentStore,
    session: &Session,
) -> Result<()> {
    session.same_shards(store)?;
    session.same_shards(dev)?;
    if task.ranker.is_some() && !task.settings.info().uses_ranker() {
        let problem =
            format!("system `{}` does not choose pairs by a ranker", task.settings.system());
        return Err(Error::recipe(problem).with_hint("leave --ranker out"));
    }
    for (path, store) in [(task.train, store), (task.dev, dev)] {
        if task.ranker.is_some() && store.manifest().scored.is_none() {
            return Err(Error::recipe(format!("{}: the pairs are not scored", path.display()))
                .with_hint("run `score` on the shards first"));
        }
    }
    if store.relations() != dev.relations() {
        let message =
            format!("{} and {} have different relations", task.train.display(), task.dev.display());
        return Err(Error::recipe(message).with_hint("prepare both with the same --relations"));
    }
    dev.manifest().check_tokenizer(task.dev, &store.tokenizer()?)?;
    if let Some(ranker) = task.ranker {
        check_ranker(ranker, &[(task.train, store), (task.dev, dev)])?;
    }
    if (0..dev.len()).all(|row| !dev.get(row).labelled) {
        let error = Error::recipe(format!(
            "{}: no document carries labels to choose the epoch by",
            task.dev.display()
        ));
        return Err(error.with_hint("name annotated documents with --dev (data.dev in a recipe)"));
    }
    if (0..store.len()).all(|row| store.get(row).facts.is_empty()) {
        let error = Error::recipe(format!(
            "{}: no document has a label to fine-tune on",
            task.train.display()
        ));
        return Err(
            error.with_hint("name annotated documents with --train (data.human in a recipe)")
        );
    }
    Ok(())
}

/// Refuses a ranker that is none, or not the one that scored the shards: the model would be trained
/// on other pairs than it predicts for.
fn check_ranker(ranker: &Path, shards: &[(&Path, &DocumentStore)]) -> Result<()> {
    let checkpoint = Checkpoint::open(ranker)?;
    let description: Description = checkpoint.description()?;
    if description.part != Part::Ranker {
        let problem = format!("holds a {:?}, but a {:?} is needed", description.part, Part::Ranker);
        return Err(DataError::new(ranker, problem)
            .hint("name the checkpoint that `score` used")
            .into());
    }
    let identity = checkpoint.identity()?;
    for (path, store) in shards {
        if store.manifest().scored.as_ref().is_some_and(|scored| scored.checkpoint != identity) {
            let error = Error::recipe(format!(
                "{}: the pairs were scored by another ranker than {}",
                path.display(),
                ranker.display()
            ));
            return Err(
                error.with_hint("name the ranker that scored both, or score them with this one")
            );
        }
    }
    Ok(())
}

fn build(
    task: &FinetuneTask,
    store: &DocumentStore,
    session: &Session,
    run: &RunFolder,
) -> Result<LoadedExtractor> {
    let new = NewModel {
        plan: task.encoder,
        start: &task.start,
        seed: task.seed,
        device: session.device,
    };
    let mut loaded = new.extractor(store, task.settings, task.ranker.is_some())?;
    if let (Some(prefix), EncoderStart::Checkpoint(folder)) =
        (task.settings.shared_layers(), &task.start)
    {
        loaded.transfer_heads(folder, prefix)?;
    }
    if let Some(folder) = &task.heads_from {
        loaded.transfer_heads(folder, "")?;
    }
    loaded.description.ranker = task.ranker.map(|ranker| relative(ranker, run, task.stage));
    Ok(loaded)
}

/// The ranker as seen from a checkpoint of this run, so that the run folder can be moved; otherwise
/// as an absolute path.
fn relative(ranker: &Path, run: &RunFolder, stage: &str) -> PathBuf {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (ranker, root) = (absolute(ranker), absolute(run.path()));
    let up = run.checkpoints(stage).components().count() - run.path().components().count() + 1;
    match ranker.strip_prefix(&root) {
        Ok(inner) => std::iter::repeat_n("..", up).collect::<PathBuf>().join(inner),
        Err(_) => ranker,
    }
}

/// Judges relations by F1 on dev.
struct RelationJudge<'a> {
    extractor: &'a dyn Extractor,
    session: &'a Session,
    dev: &'a DocumentStore,
    gold: Vec<Document>,
    /// Facts of the training documents, which Ign F1 leaves out.
    train_facts: FactSet,
    plan: &'a Schedule,
}

impl Judge for RelationJudge<'_> {
    fn judge(&self) -> Result<Judged> {
        let predictor = Predictor::new(
            self.extractor,
            self.session.precision(self.plan.precision),
            PREDICT_TOKENS,
        );
        let scores = shared_scores(&predictor, self.dev, self.session)?;
        let (predictions, threshold) =
            decide_on_dev(&scores, self.dev, &self.gold, Decider::of(self.extractor, None));
        let facts = FactSets { annotated: Some(&self.train_facts), distant: None };
        let options = EvaluateOptions { facts, ..EvaluateOptions::default() };
        let scores = evaluate("dev", &Gold::new(&self.gold)?, &predictions, &options).official;
        let (name, score) = match self.plan.select {
            Select::F1 => ("F1", scores.f1),
            Select::IgnF1 => ("Ign F1", scores.ign_annotated.map_or(scores.f1, |ign| ign.f1)),
        };
        Ok(Judged { score, name, threshold, said: format!("{} facts", predictions.len()) })
    }
}

/// Scores a store with all ranks; every rank gets all results.
///
/// # Errors
/// If the model or another rank fails.
pub fn shared_scores(
    predictor: &Predictor,
    store: &DocumentStore,
    session: &Session,
) -> Result<Vec<DocumentScores>> {
    let _section = session
        .world
        .watchdog()
        .unbounded_section(format!("predicting {}", store.folder().display()));
    let (rank, world) = (session.world.rank(), session.world.size());
    let mine: Vec<Arc<TokenizedDocument>> =
        (0..store.len()).filter(|row| row % world == rank).map(|row| store.get(row)).collect();
    let scores = predictor.scores(&mine, &mut |_| {})?;
    if world == 1 {
        return Ok(scores);
    }
    let all = session.world.communicator().all_gather(&DocumentScores::encode(&scores))?;
    let mut parts: Vec<_> =
        all.iter().map(|bytes| DocumentScores::decode(bytes).into_iter()).collect();
    Ok((0..store.len()).map(|row| parts[row % world].next().unwrap_or_default()).collect())
}

/// Predictions on dev and, for the threshold rule, the θ that makes them best.
pub fn decide_on_dev(
    scores: &[DocumentScores],
    store: &DocumentStore,
    gold: &[Document],
    mut decider: Decider,
) -> (Vec<Prediction>, Option<f64>) {
    if decider.rule != DecisionRule::Threshold {
        return (predictions(scores, store, decider), None);
    }
    let ranked = ranked_facts(scores, store, decider, &FactSet::default());
    let threshold = best_prefix(&ranked, gold_facts(gold)).map(|best| f64::from(best.theta));
    decider.threshold = threshold.unwrap_or(decider.threshold);
    (predictions(scores, store, decider), threshold)
}

/// Predictions of a whole store.
pub fn predictions(
    scores: &[DocumentScores],
    store: &DocumentStore,
    decider: Decider,
) -> Vec<Prediction> {
    let decide = |(row, scores): (usize, &DocumentScores)| {
        decider.decide(scores, store.title(row), store.relations())
    };
    scores.iter().enumerate().flat_map(decide).collect()
}

/// Every (pair, relation) with its probability and whether it is a gold fact, for thresholds and
/// curves.
pub fn ranked_facts(
    scores: &[DocumentScores],
    store: &DocumentStore,
    decider: Decider,
    train: &FactSet,
) -> Vec<ScoredFact> {
    let mut ranked = Vec::new();
    for (row, scores) in scores.iter().enumerate() {
        let document = store.get(row);
        let gold: std::collections::HashSet<(u32, u32, u32)> =
            document.facts.iter().map(|fact| (fact.head, fact.tail, fact.relation)).collect();
        let in_train = |pair: (u32, u32), class: usize| {
            let names = |entity: u32| {
                document.entities[entity as usize]
                    .mentions
                    .iter()
                    .map(|mention| mention.name.as_str())
            };
            let Some(relation) = store.relations().get(class) else { return false };
            names(pair.0)
                .any(|head| names(pair.1).any(|tail| train.contains(head, tail, &relation.id)))
        };
        ranked.extend(decider.relations(scores).map(|(pair, class, score)| ScoredFact {
            score,
            correct: gold.contains(&(pair.0, pair.1, class as u32)),
            // Asked for only where it can matter: a wrong fact is never ignored.
            in_train: !train.is_empty()
                && gold.contains(&(pair.0, pair.1, class as u32))
                && in_train(pair, class),
        }));
    }
    ranked
}

/// Unique gold facts.
pub fn gold_facts(gold: &[Document]) -> usize {
    gold.iter().map(|document| document.facts().len()).sum()
}
