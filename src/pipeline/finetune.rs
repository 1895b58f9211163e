//! Stage 3: fine-tune on human annotation, choosing the epoch by dev F1 (docs/systems.md,
//! D.20–D.22; docs/scores.md, "What stages report").

use std::path::{Path, PathBuf};

use super::boundary::Judged;
use super::calibrate::calibration_on;
use super::evaluate::gold_of;
use super::evidence::{check_evidence, facts_of, judge_evidence};
use super::fusion::Fusion;
use super::model::{Description, Loaded, check_system};
use super::predictor::{Decider, DocumentScores, Predictor, decide_on_dev, shared_scores};
use super::relation_names::start_relations;
use super::rules::RuleCounts;
use super::session::Session;
use super::training::{ActiveRun, TrainingStage};
use super::training_shards::{OpenShards, TrainingShards, same_relations};
use crate::base::say;
use crate::corpus::Document;
use crate::eval::{EvaluateOptions, FactSet, FactSets, Gold, evaluate};
use crate::recipe::Recipe;
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::dsdocre::ModelKind;
use crate::systems::evidence::{EvidenceSettings, EvidenceSource};
use crate::systems::{
    Extraction, ExtractionSource, Model, Settings, TrainingDocuments, TrainingSource,
};
use crate::train::{Checkpoint, RunFolder, Schedule, Select};
use crate::{DataError, Error, Result};

/// What is fine-tuned on what.
#[derive(Clone, Copy)]
pub struct FinetuneTask<'a> {
    /// Name of the stage in the run folder.
    pub stage: &'a str,
    /// The shards that are trained on; at least one folder.
    pub train: &'a [TrainingShards],
    /// Labelled shards that choose the epoch.
    pub dev: &'a Path,
    /// The checkpoint that the encoder starts from; `None`: as the recipe chose.
    pub start: Option<&'a Path>,
    /// A checkpoint whose heads are taken over where name and shape agree.
    pub heads_from: Option<&'a Path>,
    /// The ranker whose pairs are kept (DSDocRE); `None` for its baseline and for every other
    /// system.
    pub ranker: Option<&'a Path>,
    /// The system with its settings.
    pub settings: &'a Settings,
    /// The schedule; `None`: the recipe's for these settings.
    pub schedule: Option<&'a Schedule>,
}

/// Fine-tunes and returns the checkpoint with the best score on dev.
///
/// # Errors
/// If no document is labelled, or the shards have no scores although a ranker is named; errors of
/// the data, the disk or another rank.
pub fn finetune(task: &FinetuneTask, run: &ActiveRun) -> Result<Checkpoint> {
    let (schedule, session, seed) = (task.schedule(run.recipe), run.session, run.recipe.seed);
    let stage = TrainingStage { name: task.stage, schedule, run };
    task.check_heads()?;
    let start = stage.start()?;
    if let Some(checkpoint) = start.finished()? {
        check_system(&checkpoint, ModelKind::Finetuner, task.settings)?;
        return Ok(checkpoint);
    }
    let train =
        OpenShards::open(task.train, run.recipe.data.memory())?.with_rules(&run.recipe.distant)?;
    let dev = DocumentStore::open(task.dev, StoreOptions::default())?;
    check_shards(task, &train, &dev, session)?;
    if session.is_root()
        && let Some(told) = train.trained_on_dev(&dev)
    {
        say(format!("warning: {}: {told}", task.stage));
    }
    let (sources, stores) = (train.sources(), train.stores());
    let tell = |documents: &TrainingDocuments| {
        if session.is_root() {
            say(format!("{}: {documents}", task.stage));
        }
    };
    let new = stage.new_model(task.start);
    let (batch, budget) = (schedule.batch, schedule.token_budget(session.device));
    let precision = session.precision(schedule.precision);
    let trained = if let Some(settings) = task.settings.get::<EvidenceSettings>() {
        stores.iter().try_for_each(|store| check_evidence(store.folder(), store))?;
        check_evidence(task.dev, &dev)?;
        let loaded = new.evidence(stores, settings)?;
        task.take_heads(&loaded)?;
        let model = &loaded.model;
        let source = EvidenceSource::new(&model.layout, &sources, batch, budget, seed)?;
        tell(&source.documents);
        let items = facts_of(&dev);
        let judge = |_| judge_evidence(model, session, &items, precision);
        let (steps, mut boundary) = stage.judged(&loaded, source.documents.order(), &judge);
        stage.train(&start, steps, (model, &source), &loaded, &mut boundary)
    } else {
        let mut loaded = new.extractor(stores, task.settings, task.ranker.is_some())?;
        start_relations(&loaded, session)?;
        if let (Some(prefix), Some(folder)) = (task.settings.shared_layers(), task.start) {
            loaded.transfer_heads(folder, prefix)?;
        }
        task.take_heads(&loaded)?;
        loaded.description.ranker =
            task.ranker.map(|ranker| relative(ranker, &run.folder, task.stage));
        let extractor = &*loaded.model;
        if session.is_root() {
            for source in &sources {
                if let Some(rules) = source.rules {
                    let counts = RuleCounts::of(source.store, rules);
                    say(format!("{}: {}: {counts}", task.stage, source.name));
                }
            }
        }
        let source = ExtractionSource::new(extractor, &sources, batch, budget, seed)?;
        tell(&source.documents);
        let predictor = Predictor::new(extractor, precision);
        let gold = gold_of(&dev);
        let known = train.known_facts(run.recipe.data.train_facts.as_deref())?;
        let decider = Decider::of(extractor, None);
        let fusion = Fusion::of(&predictor, decider)?;
        let judge = |best: Option<f64>| {
            let scores = shared_scores(&predictor, &dev, session)?;
            let judged = judge_relations(&scores, &dev, &gold, &known, decider, schedule)?;
            if best.is_some_and(|best| judged.score <= best) {
                return Ok(judged);
            }
            let calibration = calibration_on(&scores, &dev, decider);
            let judged = Judged { calibration, ..judged };
            match fusion {
                Some(fusion) => judge_fusion(fusion, judged, &scores, &dev, session),
                None => Ok(judged),
            }
        };
        let (steps, mut boundary) = stage.judged(&loaded, source.documents.order(), &judge);
        stage.train(&start, steps, (&Extraction(extractor), &source), &loaded, &mut boundary)
    };
    trained.map_err(|error| error.in_file(&train.place()))
}

impl<'a> FinetuneTask<'a> {
    /// The schedule of the recipe that trains these settings.
    fn schedule<'r>(&self, recipe: &'r Recipe) -> &'r Schedule
    where
        'a: 'r,
    {
        match self.schedule {
            Some(schedule) => schedule,
            None if self.settings.second_stage() => &recipe.inference,
            None => &recipe.finetune,
        }
    }

    /// Refuses a second stage without the heads of the first, which it would leave as they start,
    /// and heads where all layers are to be trained from their start.
    fn check_heads(&self) -> Result<()> {
        if !self.settings.second_stage() {
            return Ok(());
        }
        let system = self.settings.system();
        let (message, hint) = match (self.settings.first_stage(), self.heads_from) {
            (Some(_), None) => (
                format!("the second stage of `{system}` starts from the heads of its first"),
                format!(
                    "name the first stage's checkpoint with --heads-from; {system}.stage = \
                     \"base\" trains that stage, and {system}.pretrained_base = false trains \
                     both parts together"
                ),
            ),
            (None, Some(_)) => (
                format!("{system}.pretrained_base is false, but there is --heads-from"),
                "leave one of the two out".to_owned(),
            ),
            _ => return Ok(()),
        };
        Err(Error::recipe(message).with_hint(hint))
    }

    /// Takes over the heads that the task names, where there are any.
    fn take_heads<M: Model>(&self, loaded: &Loaded<M>) -> Result<()> {
        self.heads_from.map_or(Ok(()), |folder| loaded.transfer_heads(folder, ""))
    }
}

/// Fine-tunes a system to its end. Where it has two stages, the second starts from the first one's
/// best checkpoint, heads included.
///
/// # Errors
/// As [`finetune`].
pub fn finetune_in_stages(task: &FinetuneTask, run: &ActiveRun) -> Result<Checkpoint> {
    let Some(base) = finetune_first_stage(task, run)? else {
        return finetune(task, run);
    };
    let start = Some(base.path());
    finetune(&FinetuneTask { start, heads_from: start, ..*task }, run)
}

/// The first stage of a system that has two; `None` for the others.
///
/// # Errors
/// As [`finetune`].
pub fn finetune_first_stage(task: &FinetuneTask, run: &ActiveRun) -> Result<Option<Checkpoint>> {
    let first = task.settings.first_stage().map(|base| {
        let stage = first_stage_of(task.stage);
        finetune(&FinetuneTask { stage: &stage, settings: &base, ..*task }, run)
    });
    first.transpose()
}

/// The name of the first stage of a stage in the run folder.
pub fn first_stage_of(stage: &str) -> String {
    format!("{stage}-base")
}

/// Refuses shards that do not go together or hold nothing to learn from.
fn check_shards(
    task: &FinetuneTask,
    train: &OpenShards,
    dev: &DocumentStore,
    session: &Session,
) -> Result<()> {
    let all = || train.stores().iter().chain([dev]);
    all().try_for_each(|store| session.same_shards(store))?;
    if task.ranker.is_some() && !task.settings.info().uses_ranker() {
        let problem =
            format!("system `{}` does not choose pairs by a ranker", task.settings.system());
        return Err(Error::recipe(problem).with_hint("leave --ranker out"));
    }
    for store in all() {
        if task.ranker.is_some() && store.manifest().scored.is_none() {
            let folder = store.folder().display();
            return Err(Error::recipe(format!("{folder}: the pairs are not scored"))
                .with_hint("run `score` on the shards first"));
        }
    }
    same_relations(train.first(), dev)?;
    dev.manifest().check_tokenizer(task.dev, &train.first().tokenizer()?)?;
    if let Some(ranker) = task.ranker {
        check_ranker(ranker, all())?;
    }
    if (0..dev.len()).all(|row| !dev.get(row).labelled) {
        let error = Error::recipe(format!(
            "{}: no document carries labels to choose the epoch by",
            task.dev.display()
        ));
        return Err(error.with_hint("name annotated documents with --dev (data.dev in a recipe)"));
    }
    let sources = train.sources();
    let unlabelled =
        |source: &&TrainingSource| (0..source.store.len()).all(|row| !source.is_learnt(row));
    if let Some(TrainingSource { store, .. }) = sources.iter().find(unlabelled) {
        let error = Error::recipe(format!(
            "{}: no document has a label to fine-tune on",
            store.folder().display()
        ));
        return Err(
            error.with_hint("name annotated documents with --train (data.human in a recipe)")
        );
    }
    Ok(())
}

/// Refuses a ranker that is none, or not the one that scored the shards: the model would be trained
/// on other pairs than it predicts for.
fn check_ranker<'s>(ranker: &Path, shards: impl Iterator<Item = &'s DocumentStore>) -> Result<()> {
    let checkpoint = Checkpoint::open(ranker)?;
    let description: Description = checkpoint.description()?;
    if description.kind != ModelKind::Ranker {
        let problem =
            format!("holds a {:?}, but a {:?} is needed", description.kind, ModelKind::Ranker);
        return Err(DataError::new(ranker, problem)
            .hint("name the checkpoint that `score` used")
            .into());
    }
    let identity = checkpoint.identity()?;
    for store in shards {
        if store.manifest().scored.as_ref().is_some_and(|scored| scored.checkpoint != identity) {
            let error = Error::recipe(format!(
                "{}: the pairs were scored by another ranker than {}",
                store.folder().display(),
                ranker.display()
            ));
            return Err(
                error.with_hint("name the ranker that scored both, or score them with this one")
            );
        }
    }
    Ok(())
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

/// Judges relations by F1 on dev, or by Ign F1 where the schedule chooses the epoch by it.
fn judge_relations(
    scores: &[DocumentScores],
    dev: &DocumentStore,
    gold: &[Document],
    known: &FactSet,
    decider: Decider,
    schedule: &Schedule,
) -> Result<Judged> {
    let (predictions, threshold) = decide_on_dev(scores, dev, gold, decider);
    let facts = FactSets { annotated: Some(known), distant: None };
    let options = EvaluateOptions { facts, ..EvaluateOptions::default() };
    let scores = evaluate("dev", &Gold::new(gold)?, &predictions, &options).official;
    let (name, score) = match schedule.select {
        Select::F1 => ("F1", scores.f1),
        Select::IgnF1 => ("Ign F1", scores.ign_annotated.map_or(scores.f1, |ign| ign.f1)),
    };
    let said = format!("{} facts", predictions.len());
    Ok(Judged { score, name, threshold, calibration: None, said })
}

/// Adds the threshold of fused facts to a judgement. Epochs are chosen without fusion.
fn judge_fusion(
    fusion: Fusion,
    judged: Judged,
    scores: &[DocumentScores],
    dev: &DocumentStore,
    session: &Session,
) -> Result<Judged> {
    let chosen = fusion.choose(&fusion.shared_facts(scores, dev, session)?, dev);
    let said = judged.said + &format!(", with fusion F1 {:.2}", 100.0 * chosen.f1);
    Ok(Judged { threshold: chosen.threshold, said, ..judged })
}
