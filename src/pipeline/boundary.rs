//! What a stage does at the boundaries between stretches of steps: ranker and pre-training only
//! save checkpoints; fine-tuning evaluates on dev, remembers the best step, and stops where nothing
//! gets better any more.
//!
//! Not for: how a system is judged (`finetune`, `evidence`).

use std::path::PathBuf;

use tch::Tensor;

use super::model::Loaded;
use crate::Result;
use crate::base::Progress;
use crate::systems::Model;
use crate::train::CheckpointWriter;
use crate::train::{Boundary, Retention, RunFolder, Schedule, TrainerState};

/// Saves at checkpoints and does nothing else at boundaries.
pub struct SaveOnly<'a, M> {
    loaded: &'a Loaded<M>,
    folder: PathBuf,
    retention: Retention,
    writer: CheckpointWriter,
}

impl<'a, M> SaveOnly<'a, M> {
    /// Saves `loaded` into the folder of a stage as the schedule says.
    pub fn new(loaded: &'a Loaded<M>, run: &RunFolder, stage: &str, schedule: &Schedule) -> Self {
        let retention = Retention {
            newest: schedule.keep_checkpoints,
            every: schedule.keep_every_steps,
            best: None,
        };
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

/// What one evaluation on dev gave.
pub struct Judged {
    /// The score that chooses the step.
    pub score: f64,
    /// Its name.
    pub name: &'static str,
    /// The decision threshold that belongs to it.
    pub threshold: Option<f64>,
    /// What else is reported.
    pub said: String,
}

/// Evaluates the weights as they are; called on all ranks, with the same outcome.
pub trait Judge {
    /// The evaluation.
    ///
    /// # Errors
    /// Errors of the model or of another rank.
    fn judge(&self) -> Result<Judged>;
}

/// Fine-tuning's boundary.
pub struct DevBoundary<'a, M, J> {
    /// Saves the checkpoints.
    pub save: SaveOnly<'a, M>,
    /// Evaluates.
    pub judge: J,
    /// When to evaluate and when to give up.
    pub schedule: &'a Schedule,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
}

impl<M: Model, J: Judge> Boundary for DevBoundary<'_, M, J> {
    fn reached(&mut self, state: &mut TrainerState, progress: &Progress) -> Result<bool> {
        let epoch = state.step as f64 / self.steps_per_epoch as f64;
        if epoch < self.schedule.first_evaluation_epoch && !state.finished {
            return Ok(false);
        }
        let judged = self.judge.judge()?;
        state.curve.push((epoch, judged.score));
        let better = state.best.is_none_or(|(best, _)| judged.score > best);
        if better {
            state.best = Some((judged.score, state.step));
            state.threshold = judged.threshold;
        }
        let best_epoch =
            state.best.map_or(0.0, |(_, step)| step as f64 / self.steps_per_epoch as f64);
        let since_best =
            state.curve.iter().rev().take_while(|(epoch, _)| *epoch > best_epoch).count();
        state.finished |= self.schedule.patience > 0 && since_best >= self.schedule.patience;
        let (mark, Judged { name, score, said, .. }) =
            (if better { ", the best so far" } else { "" }, judged);
        progress.note(&format!("epoch {epoch:.0}: dev {name} {:.2}{mark} ({said})", 100.0 * score));
        Ok(better || state.finished)
    }

    fn save(&mut self, state: &TrainerState, optimizer: Vec<(String, Tensor)>) -> Result<()> {
        self.save.save(state, optimizer)
    }

    fn settle(&mut self) -> Result<()> {
        self.save.settle()
    }

    fn unmirrored(&self) -> u64 {
        self.save.unmirrored()
    }
}
