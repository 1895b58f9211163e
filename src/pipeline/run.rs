//! The whole pipeline from one recipe: data → rank → score → pretrain → finetune → predict →
//! evaluate → report.

use std::path::Path;

use super::data::{Role, RunData, prepare_data};
use super::finetune::{FinetuneTask, finetune_in_stages};
use super::model::EncoderStart;
use super::pretrain::pretrain;
use super::rank::rank;
use super::score::{ScoreTask, score};
use super::session::Session;
use super::summary::{Summary, VariantResult};
use super::training::StageTask;
use crate::base::write_whole;
use crate::base::{run_files, say};
use crate::recipe::Recipe;
use crate::sampling::KeptPairs;
use crate::systems::Variant;
use crate::systems::dsdocre::DsdocreSettings;
use crate::systems::evidence::EvidenceSettings;
use crate::train::RunRecipe;
use crate::train::{Checkpoint, RunFolder};
use crate::{Error, Result};

/// Runs a recipe in `folder`. Finished stages are skipped; `resume` continues an unfinished one.
///
/// # Errors
/// Errors of any stage.
pub fn run(recipe: &Recipe, folder: &Path, resume: bool, session: &Session) -> Result<()> {
    if recipe.settings()?.get::<EvidenceSettings>().is_some() {
        return Err(Error::recipe(
            "system `lstm-sp` finds evidence, and `run` ends in predicted relations",
        )
        .with_hint("train it with `finetune --system lstm-sp`"));
    }
    let claimed = if session.is_root() {
        claim(recipe, folder, resume, session)
    } else {
        Ok(RunFolder::shared(folder))
    };
    let run = session.world.agree(claimed)?;
    session.enter(&run, recipe)?;
    let preparing = session.world.watchdog().unbounded_section("preparing the data");
    let data: RunData =
        session.world.on_root(|| prepare_data(recipe, &run.path().join(run_files::DATA)))?;
    drop(preparing);
    let pipeline = Pipeline { recipe, run: &run, data: &data, resume, session };
    let ranker = pipeline.wants_ranker().then(|| pipeline.rank()).transpose()?;
    let scored = match &ranker {
        Some(ranker) => Some(pipeline.score_all(ranker)?),
        None => None,
    };
    let pretrained = match &scored {
        Some(scored) if recipe.variants.contains(&Variant::Pretrained) => {
            Some(pipeline.pretrain(scored)?)
        }
        _ => None,
    };
    let mut summary = Summary::new(recipe, &run, &data, scored.as_ref(), session)?;
    for &variant in &recipe.variants {
        let result =
            pipeline.finetune(variant, ranker.as_ref(), scored.as_ref(), pretrained.as_ref())?;
        summary.add(&result)?;
    }
    summary.finish()
}

fn claim(recipe: &Recipe, folder: &Path, resume: bool, session: &Session) -> Result<RunFolder> {
    let run = RunFolder::claim(folder)?;
    let path = folder.join(run_files::RECIPE);
    let text = recipe.to_toml()?;
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
    write_whole(&path, text.as_bytes())?;
    fs_err::remove_file(folder.join(run_files::STOP)).ok();
    let identity = run.identify(session.world.size(), recipe.seed)?;
    let run = run.mirrored(
        recipe.checkpoint_mirror.as_deref(),
        &RunRecipe { text: &text, same: &|other| recipe.asks_for_the_same(other) },
        resume,
    )?;
    say(format!(
        "run {} in {} on {} rank(s), device {:?}",
        identity.id,
        folder.display(),
        session.world.size(),
        session.device
    ));
    Ok(run)
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
    recipe: &'a Recipe,
    run: &'a RunFolder,
    data: &'a RunData,
    resume: bool,
    session: &'a Session,
}

impl Pipeline<'_> {
    fn wants_ranker(&self) -> bool {
        self.recipe.variants.iter().any(|&variant| variant != Variant::Baseline)
    }

    fn rank(&self) -> Result<Checkpoint> {
        let _stage = self.session.world.watchdog().unbounded_section("stage rank");
        let recipe = self.recipe;
        let train = self.data.need(Role::Human)?;
        let task = StageTask {
            shards: &train,
            encoder: &recipe.encoder,
            settings: recipe.settings_of()?,
            schedule: &recipe.rank,
            seed: recipe.seed,
            deterministic: recipe.deterministic,
            resume: self.resume,
        };
        rank(&task, self.session, self.run)
    }

    /// Scores the shards of every role; the result has the same roles in another folder.
    fn score_all(&self, ranker: &Checkpoint) -> Result<RunData> {
        let output = self.run.path().join(run_files::SCORED);
        let settings: &DsdocreSettings = self.recipe.settings_of()?;
        for role in Role::ALL {
            if let Some(input) = self.data.shards_of(role) {
                let joint = role == Role::Distant && settings.pretrain_on_human;
                let annotated = joint.then(|| self.data.need(Role::Human)).transpose()?;
                let task = ScoreTask {
                    checkpoint: ranker.path(),
                    input: &input,
                    annotated: annotated.as_deref(),
                    output: &output.join(role.name()),
                    keep: KEPT,
                    tokens: 2 * self.recipe.rank.tokens_per_micro_batch,
                };
                score(&task, self.session)?;
            }
        }
        Ok(RunData { shards: output, ..self.data.clone() })
    }

    fn pretrain(&self, scored: &RunData) -> Result<Checkpoint> {
        let _stage = self.session.world.watchdog().unbounded_section("stage pretrain");
        let recipe = self.recipe;
        let distant = scored.need(Role::Distant)?;
        let task = StageTask {
            shards: &distant,
            encoder: &recipe.encoder,
            settings: recipe.settings_of()?,
            schedule: &recipe.pretrain,
            seed: recipe.seed,
            deterministic: recipe.deterministic,
            resume: self.resume,
        };
        pretrain(&task, self.session, self.run)
    }

    fn finetune(
        &self,
        variant: Variant,
        ranker: Option<&Checkpoint>,
        scored: Option<&RunData>,
        pretrained: Option<&Checkpoint>,
    ) -> Result<VariantResult> {
        let recipe = self.recipe;
        let settings = recipe.settings()?;
        let ranked = variant != Variant::Baseline && settings.info().uses_ranker();
        let data = if ranked { scored.unwrap_or(self.data) } else { self.data };
        let start = match (variant, pretrained) {
            (Variant::Pretrained, Some(checkpoint)) => {
                EncoderStart::Checkpoint(checkpoint.path().to_owned())
            }
            _ => EncoderStart::Choice,
        };
        let (train, dev) = (data.need(Role::Human)?, data.need(Role::Dev)?);
        let stage = format!("finetune-{}", variant.name());
        let _stage = self.session.world.watchdog().unbounded_section(format!("stage {stage}"));
        let task = FinetuneTask {
            stage: &stage,
            train: &train,
            dev: &dev,
            encoder: &recipe.encoder,
            start,
            heads_from: None,
            ranker: ranker.filter(|_| ranked).map(Checkpoint::path),
            settings: &settings,
            schedule: &recipe.finetune,
            seed: recipe.seed,
            deterministic: recipe.deterministic,
            resume: self.resume,
        };
        let checkpoint = finetune_in_stages(&task, &recipe.inference, self.session, self.run)?;
        Ok(VariantResult { variant, checkpoint, dev, test: data.shards_of(Role::Test) })
    }
}
