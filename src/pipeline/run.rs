//! The whole pipeline from one recipe: data → rank → score → pretrain → finetune → predict →
//! evaluate → report.

use std::path::{Path, PathBuf};

use super::data::{Role, RunData, prepare_data_while};
use super::finetune::{
    FinetuneTask, finetune, finetune_first_stage, finetune_in_stages, first_stage_of,
};
use super::needed::check_roles;
use super::pretrain::{Pretraining, pretrain};
use super::rank::rank;
use super::score::{ScoreTask, score};
use super::session::Session;
use super::summary::Summary;
use super::teach::{TeachTask, teach};
use super::training::{ActiveRun, claim};
use super::training_shards::TrainingShards;
use crate::base::{run_files, say};
use crate::recipe::Recipe;
use crate::sampling::KeptPairs;
use crate::systems::Variant;
use crate::systems::dsdocre::DsdocreSettings;
use crate::systems::evidence::EvidenceSettings;
use crate::train::Checkpoint;
use crate::{Error, Result};

/// How far a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Milestone {
    /// The shards are prepared.
    Data,
    /// The ranker is trained and has scored all shards.
    Ranker,
    /// The encoder is pre-trained.
    Pretraining,
    /// The first stage of a system that has two is fine-tuned.
    FirstStage,
    /// The teachers of all students are fine-tuned and have judged the distant documents.
    Teacher,
    /// Everything is done: scores and report are written.
    End,
}

impl Milestone {
    /// Those that the recipe comes by, in order.
    pub fn of(recipe: &Recipe) -> Vec<Self> {
        let pretrained = recipe.variants.iter().any(|variant| variant.is_pretrained());
        let staged = recipe.settings().is_ok_and(|settings| settings.first_stage().is_some());
        let reached = [
            (Self::Data, true),
            (Self::Ranker, wants_ranker(recipe)),
            (Self::Pretraining, pretrained),
            (Self::FirstStage, staged),
            (Self::Teacher, teachers_of(recipe).next().is_some()),
            (Self::End, true),
        ];
        reached
            .into_iter()
            .filter_map(|(milestone, reached)| reached.then_some(milestone))
            .collect()
    }
}

/// Whether a variant of the recipe trains on pairs that a ranker has kept.
fn wants_ranker(recipe: &Recipe) -> bool {
    recipe.variants.iter().any(|variant| variant.is_ranked())
}

/// Runs a recipe in `folder`. Finished stages are skipped; `resume` continues an unfinished one.
///
/// # Errors
/// Errors of any stage.
pub fn run(recipe: &Recipe, folder: &Path, resume: bool, session: &Session) -> Result<()> {
    run_until(Milestone::End, recipe, folder, resume, session)
}

/// As [`run`], up to a milestone.
///
/// # Errors
/// Errors of any stage.
pub fn run_until(
    last: Milestone,
    recipe: &Recipe,
    folder: &Path,
    resume: bool,
    session: &Session,
) -> Result<()> {
    if recipe.settings()?.get::<EvidenceSettings>().is_some() {
        return Err(Error::recipe(
            "system `lstm-sp` finds evidence, and `run` ends in predicted relations",
        )
        .with_hint("train it with `finetune --system lstm-sp`"));
    }
    check_denoising(recipe)?;
    // Rows of a table share early work, which needs fewer documents than the variants do.
    if last == Milestone::End {
        check_roles(recipe)?;
    }
    let run = ActiveRun::enter(recipe, folder, resume, session, || {
        let same = || same_recipe(recipe, folder, resume);
        let (run, identity) = claim(recipe, folder, resume, session, same)?;
        say(format!(
            "run {} in {} on {} rank(s)",
            identity.id,
            folder.display(),
            session.world.size()
        ));
        Ok(run)
    })?;
    let preparing = session.world.watchdog().unbounded_section("preparing the data");
    let data: RunData = session.world.on_root(|| {
        let asked = session.asked_while("while preparing the data");
        prepare_data_while(recipe, &run.folder.path().join(run_files::DATA), asked)
    })?;
    drop(preparing);
    if last == Milestone::Data {
        return Ok(());
    }
    let pipeline = Pipeline { run: &run, data: &data };
    let ranker = wants_ranker(recipe).then(|| pipeline.rank()).transpose()?;
    let scored = ranker.as_ref().map(|ranker| pipeline.score_all(ranker)).transpose()?;
    if last == Milestone::Ranker {
        return Ok(());
    }
    let unranked = match recipe.variants.iter().any(|variant| variant.starts_unranked()) {
        true => Some(pipeline.pretrain(&data.need(Role::Distant)?, Pretraining::Unranked)?),
        false => None,
    };
    let denoised = match &scored {
        Some(scored) if recipe.variants.contains(&Variant::Pretrained) => {
            Some(pipeline.pretrain(&scored.need(Role::Distant)?, Pretraining::Denoised)?)
        }
        _ => None,
    };
    if last == Milestone::Pretraining {
        return Ok(());
    }
    let start = |variant: Variant| {
        let start = if variant.is_ranked() { &denoised } else { &unranked };
        start.as_ref().filter(|_| variant.is_pretrained())
    };
    let ranked = (ranker.as_ref(), scored.as_ref());
    if last == Milestone::FirstStage {
        let mut variants = recipe.variants.iter();
        return variants.try_for_each(|&variant| {
            pipeline.finetune(variant, ranked, start(variant), finetune_first_stage).map(drop)
        });
    }
    let taught = |teacher: Variant| {
        let checkpoint = pipeline.finetune(teacher, ranked, start(teacher), finetune_in_stages)?.0;
        pipeline.teach(teacher, &checkpoint)
    };
    if last == Milestone::Teacher {
        return teachers_of(recipe).try_for_each(|teacher| taught(teacher).map(drop));
    }
    let mut summary = Summary::new(&run, &data, scored.as_ref())?;
    for &variant in &recipe.variants {
        let distant = variant.teacher().map(&taught).transpose()?;
        distant.iter().try_for_each(|distant| summary.add_taught(distant))?;
        let (checkpoint, data) = match distant {
            Some(distant) if variant == Variant::TaughtPretrained => {
                let start = pipeline.pretrain(&distant, Pretraining::Taught)?;
                pipeline.finetune(variant, ranked, Some(&start), finetune_in_stages)?
            }
            Some(distant) => (pipeline.student(variant, &distant, start(variant))?, &data),
            None => pipeline.finetune(variant, ranked, start(variant), finetune_in_stages)?,
        };
        summary.add(variant, &checkpoint, data)?;
    }
    summary.finish()
}

/// Refuses a row "+D+P" whose pre-training would not be denoised.
fn check_denoising(recipe: &Recipe) -> Result<()> {
    let keeps = recipe.settings_of::<DsdocreSettings>()?.k_pretrain();
    if keeps.is_some() || !recipe.variants.contains(&Variant::Pretrained) {
        return Ok(());
    }
    Err(Error::recipe(
        "variants holds \"pretrained\" (+D+P), but dsdocre.k_pretrain = 0 pre-trains without \
         denoising",
    )
    .with_hint(
        "name \"unranked-pretrained\" (+P) in its place: pre-training and fine-tuning without a \
         ranker",
    ))
}

/// Refuses a folder in which another recipe has begun.
///
/// # Errors
/// A recipe error that names the first key that differs.
pub fn same_recipe(recipe: &Recipe, folder: &Path, resume: bool) -> Result<()> {
    let path = folder.join(run_files::RECIPE);
    if path.exists()
        && has_begun(folder)
        && let Some((key, was, is)) = Recipe::load(&path, &[])?.difference(recipe)?
    {
        let message = format!(
            "{} was started with another recipe: `{key}` was {was} and is {is}",
            folder.display()
        );
        let hint = if resume {
            "resume with the recipe of the run folder: run R/recipe.toml --run-dir R --resume"
        } else {
            "name another --run-dir"
        };
        return Err(Error::recipe(message).with_hint(hint));
    }
    Ok(())
}

/// Whether a run folder holds anything but a recipe: one that ended at its first mistake can have
/// another.
fn has_begun(folder: &Path) -> bool {
    let filled = |part: &str| {
        fs_err::read_dir(folder.join(part)).is_ok_and(|mut entries| entries.next().is_some())
    };
    [run_files::DATA, run_files::CHECKPOINTS].into_iter().any(filled)
}

/// Pairs kept by `score`: enough for both stages, and for the recall curve of the report.
const KEPT: KeptPairs = KeptPairs { pairs: 60, times: 3, cap: None };

struct Pipeline<'a> {
    run: &'a ActiveRun<'a>,
    data: &'a RunData,
}

impl<'a> Pipeline<'a> {
    fn rank(&self) -> Result<Checkpoint> {
        let _stage = self.run.session.world.watchdog().unbounded_section("stage rank");
        rank(self.run, &self.data.need(Role::Human)?)
    }

    /// Scores the shards of every role; the result has the same roles in another folder.
    fn score_all(&self, ranker: &Checkpoint) -> Result<RunData> {
        let ActiveRun { recipe, folder, session, .. } = self.run;
        let output = folder.path().join(run_files::SCORED);
        let settings: &DsdocreSettings = recipe.settings_of()?;
        let roles = Role::ALL.into_iter().filter(|&role| self.data.shards_of(role).is_some());
        let mut names: Vec<&str> = roles.map(Role::name).collect();
        names.extend(recipe.data.source.iter().map(|source| source.name.as_str()));
        for name in names {
            let joint = name == Role::Distant.name() && settings.pretrain_on_human;
            let annotated = joint.then(|| self.data.need(Role::Human)).transpose()?;
            let task = ScoreTask {
                checkpoint: ranker.path(),
                input: &self.data.shards.join(name),
                annotated: annotated.as_deref(),
                output: &output.join(name),
                keep: KEPT,
                tokens: 2 * recipe.rank.token_budget(session.device),
            };
            score(&task, session)?;
        }
        Ok(RunData { shards: output, ..self.data.clone() })
    }

    fn pretrain(&self, distant: &Path, how: Pretraining) -> Result<Checkpoint> {
        let watchdog = self.run.session.world.watchdog();
        let _stage = watchdog.unbounded_section(format!("stage {}", how.stage()));
        pretrain(self.run, distant, how)
    }

    /// Does `work`, fine-tuning or a part of it, for a variant, from the encoder of `start` or as
    /// the recipe chose. Also returns the data that the variant learns and is scored on.
    fn finetune<T>(
        &self,
        variant: Variant,
        (ranker, scored): (Option<&Checkpoint>, Option<&'a RunData>),
        start: Option<&Checkpoint>,
        work: impl FnOnce(&FinetuneTask, &ActiveRun) -> Result<T>,
    ) -> Result<(T, &'a RunData)> {
        let ActiveRun { recipe, session, .. } = self.run;
        let settings = recipe.settings()?;
        let ranked = variant.is_ranked() && settings.info().uses_ranker();
        let data = if ranked { scored.unwrap_or(self.data) } else { self.data };
        let (train, dev) = (data.training(&recipe.data)?, data.need(Role::Dev)?);
        let stage = stage_of(variant);
        let _stage = session.world.watchdog().unbounded_section(format!("stage {stage}"));
        let task = FinetuneTask {
            stage: &stage,
            train: &train,
            dev: &dev,
            start: start.map(Checkpoint::path),
            heads_from: None,
            ranker: ranker.filter(|_| ranked).map(Checkpoint::path),
            settings: &settings,
            schedule: None,
        };
        Ok((work(&task, self.run)?, data))
    }

    /// The distant documents with what a variant's model says of them.
    fn teach(&self, teacher: Variant, checkpoint: &Checkpoint) -> Result<PathBuf> {
        let ActiveRun { recipe, folder, session, .. } = self.run;
        let output = folder.path().join(run_files::TAUGHT).join(teacher.name());
        let task = TeachTask {
            checkpoint: checkpoint.path().to_owned(),
            input: self.data.need(Role::Distant)?,
            output: output.clone(),
            dev: self.data.shards_of(Role::Dev),
            dev_labels: self.data.dev_distant(),
        };
        let report = teach(&task, &recipe.distant, session)?;
        if session.is_root() && !report.was_there {
            say(format!("teach: {report}"));
        }
        Ok(output)
    }

    /// Trains a variant's student on taught documents, then fine-tunes it.
    fn student(
        &self,
        variant: Variant,
        taught: &Path,
        start: Option<&Checkpoint>,
    ) -> Result<Checkpoint> {
        let ActiveRun { recipe, session, .. } = self.run;
        let settings = recipe.settings()?;
        let (human, dev) = (self.data.training(&recipe.data)?, self.data.need(Role::Dev)?);
        let mut both =
            vec![TrainingShards { name: "distant".into(), ..TrainingShards::alone(taught) }];
        let weight = recipe.distant.human_weight;
        if weight > 0.0 {
            let beside = |own: &TrainingShards| TrainingShards {
                weight: own.weight * weight,
                ..own.clone()
            };
            both.extend(human.iter().map(beside));
        }
        let stage = student_stage_of(variant);
        let _stage = session.world.watchdog().unbounded_section(format!("stage {stage}"));
        let task = FinetuneTask {
            stage: &stage,
            train: &both,
            dev: &dev,
            start: start.map(Checkpoint::path),
            heads_from: None,
            ranker: None,
            settings: &settings.student(),
            schedule: Some(&recipe.student),
        };
        let student = finetune(&task, self.run)?;
        let stage = stage_of(variant);
        let _stage = session.world.watchdog().unbounded_section(format!("stage {stage}"));
        let task = FinetuneTask {
            stage: &stage,
            train: &human,
            start: Some(student.path()),
            heads_from: Some(student.path()),
            settings: &settings.refined(),
            schedule: Some(&recipe.refine),
            ..task
        };
        finetune(&task, self.run)
    }
}

/// The stage in which the student of a variant learns from taught documents.
pub fn student_stage_of(variant: Variant) -> String {
    format!("{}-distant", variant.name())
}

/// The stage in which a variant is fine-tuned.
pub fn stage_of(variant: Variant) -> String {
    format!("finetune-{}", variant.name())
}

/// The variants whose models teach.
pub fn teachers_of(recipe: &Recipe) -> impl Iterator<Item = Variant> + '_ {
    recipe.variants.iter().filter_map(|variant| variant.teacher())
}

/// The stages of a milestone in the run folder: those that train.
pub fn stages_of(milestone: Milestone, recipe: &Recipe) -> Vec<String> {
    match milestone {
        Milestone::Ranker => vec!["rank".to_owned()],
        Milestone::Pretraining => {
            [Pretraining::Denoised, Pretraining::Unranked].map(|how| how.stage().to_owned()).into()
        }
        Milestone::FirstStage => {
            recipe.variants.iter().map(|&variant| first_stage_of(&stage_of(variant))).collect()
        }
        Milestone::Teacher => teachers_of(recipe).map(stage_of).collect(),
        Milestone::Data | Milestone::End => Vec::new(),
    }
}
