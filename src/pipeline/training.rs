//! What the three training stages have in common: where they start, how they save, what they leave.

use std::path::PathBuf;

use tch::Tensor;

use super::model::Loaded;
use super::session::Session;
use crate::base::{Progress, say};
use crate::systems::Model;
use crate::train::{
    BatchSource, Boundary, Checkpoint, CheckpointWriter, Metrics, Objective, OrderKey, Retention,
    RunFolder, Schedule, StageContext, Trainer, TrainerSettings, TrainerState, folder_of_step,
};
use crate::{DataError, Error, Result};

/// Steps of an epoch-wise stage over `items` documents.
pub fn total_steps(plan: &Schedule, items: usize) -> u64 {
    // As the order counts: the last batch of an epoch may be short.
    let per_epoch = items.div_ceil(plan.batch.max(1)).max(1);
    plan.steps.unwrap_or_else(|| (plan.epochs * per_epoch as f64).round().max(1.0) as u64)
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
        let OrderKey { seed, batch } = then;
        let message = format!(
            "{folder} stands at step {step} of a run with seed {seed} and batch {batch}, not {} \
             and {}",
            now.seed, now.batch
        );
        Err(Error::recipe(message)
            .with_hint("resume with the same seed and batch, or name another --run-dir"))
    }

    fn best(&self) -> Result<Checkpoint> {
        let last = Checkpoint::latest(&self.folder)?
            .ok_or_else(|| Error::Bug(format!("stage {} left no checkpoint", self.stage)))?;
        match last.trainer()?.best {
            Some((_, step)) => Checkpoint::open(&folder_of_step(&self.folder, step)),
            None => Ok(last),
        }
    }
}

/// Saves at checkpoints and does nothing else at boundaries.
pub struct SaveOnly<'a, M> {
    /// The model.
    pub loaded: &'a Loaded<M>,
    /// Folder of the stage's checkpoints.
    pub folder: PathBuf,
    /// Checkpoints to keep.
    pub retention: Retention,
    writer: CheckpointWriter,
}

impl<'a, M> SaveOnly<'a, M> {
    /// Saves `loaded` into the folder of a stage as the plan says.
    pub fn new(loaded: &'a Loaded<M>, run: &RunFolder, stage: &str, plan: &Schedule) -> Self {
        let retention =
            Retention { newest: plan.keep_checkpoints, every: plan.keep_every_steps, best: None };
        Self {
            loaded,
            folder: run.checkpoints(stage),
            retention,
            writer: CheckpointWriter::new(run.mirror()),
        }
    }
}

impl<M: Model> Boundary for SaveOnly<'_, M> {
    fn reached(&mut self, _state: &mut TrainerState, _progress: &Progress) -> Result<bool> {
        Ok(false)
    }

    fn save(&mut self, state: &TrainerState, optimizer: Vec<(String, Tensor)>) -> Result<()> {
        let content = self.loaded.snapshot(state, optimizer)?;
        let retention = Retention { best: state.best.map(|best| best.1), ..self.retention };
        self.writer.write(self.folder.clone(), content, retention)
    }

    fn settle(&mut self) -> Result<()> {
        self.writer.settle()
    }

    fn unmirrored(&self) -> u64 {
        self.writer.unmirrored()
    }
}

/// A stage ready to run.
pub struct StageRun<'a> {
    /// The process.
    pub session: &'a Session,
    /// The run folder.
    pub run: &'a RunFolder,
    /// Schedule and optimiser.
    pub plan: &'a Schedule,
    /// Steps in all.
    pub total_steps: u64,
    /// Steps between boundaries; 0: only at the end.
    pub boundary_steps: u64,
    /// The seed of the order and of everything random.
    pub seed: u64,
    /// Whether results must not depend on the number of ranks.
    pub deterministic: bool,
    /// Where it begins.
    pub start: StageStart,
}

impl StageRun<'_> {
    /// Trains to the end and returns the stage's checkpoint (the best, or the last).
    ///
    /// # Errors
    /// What the data, the model, the disk or a peer refuse.
    pub fn train<O, S, M>(
        self,
        objective: &O,
        source: &S,
        loaded: &Loaded<M>,
        boundary: &mut dyn Boundary,
    ) -> Result<Checkpoint>
    where
        M: Model,
        O: Objective,
        S: BatchSource<Batch = O::Batch>,
    {
        let stage = self.start.stage.clone();
        if self.deterministic && self.session.device.is_cuda() {
            let error = Error::recipe(
                "deterministic = true, but the device is a GPU, whose kernels add in an order of \
                 their own",
            );
            return Err(error.with_hint("set device = \"cpu\", or leave deterministic out"));
        }
        let context = StageContext {
            stage: &stage,
            world: &self.session.world,
            run: self.run,
            signals: &self.session.signals,
        };
        let settings = TrainerSettings {
            schedule: self.plan.clone(),
            total_steps: self.total_steps,
            boundary_steps: self.boundary_steps,
            precision: self.session.precision(self.plan.precision),
            deterministic: self.deterministic,
            seed: self.seed,
        };
        let order = OrderKey { seed: self.seed, batch: self.plan.batch };
        self.start.same_order(order)?;
        let state = TrainerState {
            total_steps: self.total_steps,
            order: Some(order),
            ..self.start.state.clone()
        };
        if let Some(checkpoint) = &self.start.checkpoint {
            loaded.restore(checkpoint)?;
        }
        self.same_model(objective, loaded, &state)?;
        let mut trainer = Trainer::new(objective, settings, &self.session.world, state)?;
        if let Some(checkpoint) = &self.start.checkpoint {
            trainer.load_optimizer(&checkpoint.optimizer()?)?;
            if context.is_root() {
                let TrainerState { step, total_steps: before, .. } = self.start.state;
                let more = if before == self.total_steps {
                    String::new()
                } else {
                    format!(", to step {} instead of {before}", self.total_steps)
                };
                say(format!("{stage}: going on at step {step}{more}"));
            }
        }
        let metrics = context.is_root().then(|| Metrics::open(self.run.path(), &stage)).transpose();
        let mut metrics = self.session.world.agree(metrics)?;
        trainer.run(source, &context, &mut metrics, boundary)?;
        self.session.world.communicator().barrier()?;
        self.start.best()
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
        self.session.world.same(&[
            ("the step to start from", format!("{} of {}", state.step, state.total_steps)),
            ("the tokenizer", loaded.description.tokenizer.clone()),
            ("the list of parameters", shapes.collect::<Vec<_>>().join("\n")),
        ])
    }
}
