//! What the training stages have in common: where they start, how they run, what they leave.

use std::path::{Path, PathBuf};

use super::boundary::{Judge, StageBoundary};
use super::model::{Loaded, NewModel};
use super::session::Session;
use crate::base::{run_files, say, write_whole};
use crate::recipe::Recipe;
use crate::sampling::BatchOrder;
use crate::shards::DocumentStore;
use crate::systems::Model;
use crate::torch::{HEADS, peak_rate};
use crate::train::{
    BatchSource, Boundary, Checkpoint, EncoderCost, Gauges, Metrics, Objective, OrderKey,
    RunFolder, RunIdentity, RunRecipe, Schedule, StageContext, Trainer, TrainerSettings,
    TrainerState, folder_of_step, idle_ranks,
};
use crate::{DataError, Error, Result};

/// A recipe at work in its run folder: what all training stages of one call share.
pub struct ActiveRun<'a> {
    /// The recipe: seed, encoder, schedules, settings.
    pub recipe: &'a Recipe,
    /// The run folder.
    pub folder: RunFolder,
    /// Go on from the last checkpoint.
    pub resume: bool,
    /// The process.
    pub session: &'a Session,
}

impl<'a> ActiveRun<'a> {
    /// Enters the run folder with all ranks; `claim` claims it on rank 0.
    ///
    /// # Errors
    /// Those of `claim`; ranks that see different recipes or folders.
    pub fn enter(
        recipe: &'a Recipe,
        folder: &Path,
        resume: bool,
        session: &'a Session,
        claim: impl FnOnce() -> Result<RunFolder>,
    ) -> Result<Self> {
        let claimed = if session.is_root() { claim() } else { Ok(RunFolder::shared(folder)) };
        let folder = session.world.agree(claimed)?;
        session.enter(&folder, recipe)?;
        Ok(Self { recipe, folder, resume, session })
    }
}

/// Claims a run folder and writes the resolved recipe into it (rank 0 only). `check` can refuse
/// what the folder holds before anything is written to it.
///
/// # Errors
/// Those of `check`; a folder that another run holds; the disk or the mirror.
pub fn claim(
    recipe: &Recipe,
    folder: &Path,
    resume: bool,
    session: &Session,
    check: impl FnOnce() -> Result<()>,
) -> Result<(RunFolder, RunIdentity)> {
    let run = RunFolder::claim(folder)?;
    let text = recipe.to_toml()?;
    check()?;
    write_whole(&folder.join(run_files::RECIPE), text.as_bytes())?;
    fs_err::remove_file(folder.join(run_files::STOP)).ok();
    let identity = run.identify(session.world.size(), recipe.seed)?;
    let own = RunRecipe { text: &text, same: &|other| recipe.asks_for_the_same(other) };
    let run = run.mirrored(recipe.checkpoint_mirror.as_deref(), &own, resume)?;
    Ok((run, identity))
}

/// Steps of an epoch-wise stage over `items` documents.
pub fn total_steps(schedule: &Schedule, items: usize) -> u64 {
    // As the order counts: the last batch of an epoch may be short.
    let per_epoch = items.div_ceil(schedule.batch.max(1)).max(1);
    schedule.steps.unwrap_or_else(|| (schedule.epochs * per_epoch as f64).round().max(1.0) as u64)
}

/// Which ranks have nothing to do, if a global batch has fewer items than there are ranks, and the
/// way out. `items` are those of a step: fewer than the batch where there are fewer documents.
pub fn without_work(
    recipe: &Recipe,
    schedule: &Schedule,
    items: usize,
    ranks: usize,
) -> Option<String> {
    let batch = schedule.batch;
    let idle = idle_ranks(batch, items, recipe.deterministic, ranks);
    if idle.is_empty() {
        return None;
    }
    let all_busy =
        |&world: &usize| idle_ranks(batch, items, recipe.deterministic, world).is_empty();
    let enough = (1..ranks).rev().find(all_busy).unwrap_or(1);
    let names = idle.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let (why, way_out) = if items < batch {
        let why = format!("{items} documents, fewer than the batch of {batch}, leave");
        (why, "or add documents")
    } else {
        (format!("a batch of {batch} leaves"), "or raise `batch`, which changes the results")
    };
    Some(format!(
        "{why} {} of {ranks} ranks without work ({names}): start {enough} ranks, {way_out}",
        idle.len()
    ))
}

/// Where a stage begins: at nothing, at a checkpoint, or it is done already.
pub struct StageStart {
    stage: String,
    folder: PathBuf,
    checkpoint: Option<Checkpoint>,
    state: TrainerState,
    /// Whether this rank says what it finds.
    speaks: bool,
}

impl StageStart {
    /// Looks into the run folder.
    ///
    /// # Errors
    /// An unfinished stage where resuming was not asked for; a damaged checkpoint.
    pub fn find(run: &RunFolder, stage: &str, resume: bool) -> Result<Self> {
        let folder = run.checkpoints(stage);
        let checkpoint = Checkpoint::latest(&folder)?;
        let fresh = TrainerState { stage: stage.to_owned(), ..TrainerState::default() };
        let state = checkpoint.as_ref().map_or(Ok(fresh), Checkpoint::trainer)?;
        if checkpoint.is_some() && !state.finished && !resume {
            let message = format!(
                "{} holds an unfinished stage (step {} of {})",
                folder.display(),
                state.step,
                state.total_steps
            );
            return Err(Error::recipe(message)
                .with_hint("add --resume to go on, or name another --run-dir"));
        }
        if let Some((_, step)) = state.best
            && let Err(error) = Checkpoint::open(&folder_of_step(&folder, step))
        {
            let problem = format!("lacks its best checkpoint, that of step {step}: {error}");
            let hint =
                "copy it there, or remove this folder and --resume: the stage is trained again";
            return Err(DataError::new(&folder, problem).hint(hint).into());
        }
        Ok(Self { stage: stage.to_owned(), folder, checkpoint, state, speaks: run.is_claimed() })
    }

    /// The checkpoint of a stage that is complete: the best one where there is a best.
    ///
    /// # Errors
    /// A damaged checkpoint.
    pub fn finished(&self) -> Result<Option<Checkpoint>> {
        if !self.state.finished {
            return Ok(None);
        }
        if self.speaks {
            say(format!(
                "{}: finished before, at step {}; nothing is trained",
                self.stage, self.state.step
            ));
        }
        self.best().map(Some)
    }

    /// Refuses to go on in another order than the one that the checkpoint stands in the middle of.
    /// Another number of steps is taken, but said.
    fn same_order(&self, now: OrderKey) -> Result<()> {
        let Some(then) = self.state.order.filter(|then| *then != now) else { return Ok(()) };
        let (folder, step) = (self.folder.display(), self.state.step);
        let OrderKey { seed, batch, mixture } = then;
        if mixture != now.mixture {
            let message = format!(
                "{folder} stands at step {step} of a run on other sources of documents, with other \
                 weights or with other memory for them (data.memory)"
            );
            return Err(Error::recipe(message)
                .with_hint("resume with the same sources and memory, or name another --run-dir"));
        }
        let message = format!(
            "{folder} stands at step {step} of a run with seed {seed} and batch {batch}, not {} \
             and {}",
            now.seed, now.batch
        );
        Err(Error::recipe(message)
            .with_hint("resume with the same seed and batch, or name another --run-dir"))
    }

    fn best(&self) -> Result<Checkpoint> {
        Checkpoint::best(&self.folder)?
            .ok_or_else(|| Error::Bug(format!("stage {} left no checkpoint", self.stage)))
    }
}

/// How long a stage lasts.
#[derive(Clone, Copy, Debug)]
pub struct StageSteps {
    /// Steps in all.
    pub total: u64,
    /// Steps between boundaries; 0: one boundary, at the end.
    pub boundary: u64,
    /// Items of a step: those of a batch, or all there are.
    pub items: usize,
    /// What tells the sources of documents from others, as [`OrderKey::mixture`].
    pub mixture: u64,
}

/// A training stage of a run.
pub struct TrainingStage<'a> {
    /// Its name in the run folder.
    pub name: &'a str,
    /// Steps, optimiser, checkpoints.
    pub schedule: &'a Schedule,
    /// The run.
    pub run: &'a ActiveRun<'a>,
}

impl TrainingStage<'_> {
    /// Looks where the stage begins.
    ///
    /// # Errors
    /// As [`StageStart::find`].
    pub fn start(&self) -> Result<StageStart> {
        StageStart::find(&self.run.folder, self.name, self.run.resume)
    }

    /// Opens the shards that the stage trains on, which must be the same on all ranks.
    ///
    /// # Errors
    /// As [`DocumentStore::open`] and [`Session::same_shards`].
    pub fn open(&self, shards: &Path) -> Result<DocumentStore> {
        let store = DocumentStore::open(shards, self.run.recipe.data.store_options())?;
        self.run.session.same_shards(&store)?;
        Ok(store)
    }

    /// What a new model of the stage is made of. Its weights start from the checkpoint `start`, or
    /// as the recipe chose.
    pub fn new_model<'s>(&'s self, start: Option<&'s Path>) -> NewModel<'s> {
        let ActiveRun { recipe, session, .. } = self.run;
        NewModel {
            encoder: &recipe.encoder,
            start,
            seed: recipe.seed,
            device: session.device,
            speaks: session.is_root(),
        }
    }

    /// A boundary that only saves checkpoints.
    pub fn save_only<'l, M>(&'l self, loaded: &'l Loaded<M>) -> StageBoundary<'l, M> {
        StageBoundary::new(loaded, &self.run.folder, self.name, self.schedule, None)
    }

    /// The steps of a stage that goes through documents epoch by epoch and is judged on dev as the
    /// schedule says, with the boundary that does so.
    pub fn judged<'l, M>(
        &'l self,
        loaded: &'l Loaded<M>,
        order: &BatchOrder,
        judge: &'l Judge<'l>,
    ) -> (StageSteps, StageBoundary<'l, M>) {
        let (schedule, steps_per_epoch) = (self.schedule, order.steps_per_epoch());
        let steps = StageSteps {
            total: total_steps(schedule, order.visits()),
            boundary: steps_per_epoch * schedule.evaluate_epochs as u64,
            items: schedule.batch.min(order.visits()),
            mixture: order.mixture_key(),
        };
        let judge = Some((judge, steps_per_epoch));
        (steps, StageBoundary::new(loaded, &self.run.folder, self.name, schedule, judge))
    }

    /// Trains to the end and returns the stage's checkpoint: the best, or the last.
    ///
    /// # Errors
    /// Errors of the data, the model, the disk or another rank.
    pub fn train<O, S, M>(
        &self,
        start: &StageStart,
        steps: StageSteps,
        (objective, source): (&O, &S),
        loaded: &Loaded<M>,
        boundary: &mut dyn Boundary,
    ) -> Result<Checkpoint>
    where
        M: Model,
        O: Objective,
        S: BatchSource<Batch = O::Batch>,
    {
        let ActiveRun { recipe, folder, session, .. } = self.run;
        if recipe.deterministic && session.device.is_cuda() {
            let error = Error::recipe(
                "deterministic = true, but the device is a GPU, whose kernels add in an order of \
                 their own",
            );
            return Err(error.with_hint("set device = \"cpu\", or leave deterministic out"));
        }
        if session.is_root()
            && let Some(told) =
                without_work(recipe, self.schedule, steps.items, session.world.size())
        {
            say(format!("warning: {}: {told}", self.name));
        }
        let context = StageContext {
            stage: self.name,
            world: &session.world,
            run: folder,
            signals: &session.signals,
        };
        let settings = TrainerSettings {
            schedule: self.schedule.clone(),
            total_steps: steps.total,
            boundary_steps: steps.boundary,
            precision: session.precision(self.schedule.precision),
            deterministic: recipe.deterministic,
            wire: recipe.communication.precision,
            seed: recipe.seed,
        };
        let (seed, batch, mixture) = (recipe.seed, self.schedule.batch, steps.mixture);
        let order = OrderKey { seed, batch, mixture };
        start.same_order(order)?;
        let state =
            TrainerState { total_steps: steps.total, order: Some(order), ..start.state.clone() };
        if let Some(checkpoint) = &start.checkpoint {
            loaded.restore(checkpoint)?;
        }
        self.same_model(objective, loaded, &state)?;
        let mut trainer = Trainer::new(objective, settings, &session.world, state)?;
        if let Some(checkpoint) = &start.checkpoint {
            trainer.load_optimizer(&checkpoint.optimizer()?)?;
            if context.is_root() {
                let TrainerState { step, total_steps: before, .. } = start.state;
                let more = if before == steps.total {
                    String::new()
                } else {
                    format!(", to step {} instead of {before}", steps.total)
                };
                say(format!("{}: going on at step {step}{more}", self.name));
            }
        }
        let open = || Metrics::open(folder.path(), self.name, self.gauges(loaded, steps.total));
        let metrics = context.is_root().then(open).transpose();
        let mut metrics = session.world.agree(metrics)?;
        trainer.run(source, &context, &mut metrics, boundary)?;
        session.world.communicator().barrier()?;
        let checkpoint = start.best()?;
        if context.is_root() {
            say(format!("{}: its checkpoint is {}", self.name, checkpoint.path().display()));
        }
        Ok(checkpoint)
    }

    /// What the metrics say besides the steps themselves.
    fn gauges<M: Model>(&self, loaded: &Loaded<M>, total_steps: u64) -> Gauges {
        let session = self.run.session;
        let trains =
            loaded.model.parameters().trainable().any(|entry| !entry.name.starts_with(HEADS));
        let peak = peak_rate(session.device, session.precision(self.schedule.precision));
        let cost = peak.map(|peak| EncoderCost {
            config: loaded.model.encoder_config(),
            passes: if trains { 3.0 } else { 1.0 },
            peak_rate: peak * session.world.size() as f64,
        });
        Gauges::new(session.device, total_steps, cost)
    }

    /// Makes sure that all ranks train the same parameters from the same step.
    fn same_model<O: Objective, M>(
        &self,
        objective: &O,
        loaded: &Loaded<M>,
        state: &TrainerState,
    ) -> Result<()> {
        let shapes = objective
            .parameters()
            .iter()
            .map(|entry| format!("{} {:?}", entry.name, entry.tensor.size()));
        let commit = loaded.description.base.as_ref().map(|base| base.commit.clone());
        self.run.session.world.same(&[
            ("the step to start from", format!("{} of {}", state.step, state.total_steps)),
            ("the tokenizer", loaded.description.tokenizer.clone()),
            ("the commit of the encoder", commit.unwrap_or_default()),
            ("the list of parameters", shapes.collect::<Vec<_>>().join("\n")),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_or_corpus_smaller_than_the_world_names_the_ranks_without_work() {
        let recipe = Recipe::parse("", "test", &[]).unwrap();
        let told = |batch, items, ranks| {
            without_work(&recipe, &Schedule { batch, ..Schedule::base() }, items, ranks)
        };
        assert_eq!((told(4, 4, 4), told(4, 4, 1), told(8, 3, 3)), (None, None, None));
        let several = told(4, 4, 8).unwrap();
        let expected = "a batch of 4 leaves 4 of 8 ranks without work (4, 5, 6, 7): start 4 ranks";
        assert!(several.starts_with(expected), "{several}");
        assert_eq!(
            told(8, 3, 4).unwrap(),
            "3 documents, fewer than the batch of 8, leave 1 of 4 ranks without work (3): start 3 \
             ranks, or add documents"
        );
    }
}
