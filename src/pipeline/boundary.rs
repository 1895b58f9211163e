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
use crate::distant::Calibration;
use crate::systems::Model;
use crate::train::{Boundary, CheckpointWriter, Retention, RunFolder, Schedule, TrainerState};

/// What one evaluation on dev gave.
pub struct Judged {
    /// The score that chooses the step.
    pub score: f64,
    /// Its name.
    pub name: &'static str,
    /// The decision threshold that belongs to it.
    pub threshold: Option<f64>,
    /// How its margins become probabilities.
    pub calibration: Option<Calibration>,
    /// What else is reported.
    pub said: String,
}

/// Evaluates the weights as they are, given the best score so far; called on all ranks, with the
/// same outcome. Threshold and calibration of weights that are not better may be left out.
pub type Judge<'a> = dyn Fn(Option<f64>) -> Result<Judged> + 'a;

/// The boundaries of a stage.
pub struct StageBoundary<'a, M> {
    loaded: &'a Loaded<M>,
    folder: PathBuf,
    schedule: &'a Schedule,
    writer: CheckpointWriter,
    /// How the weights are judged, and the steps of an epoch; `None` for a stage that only saves
    /// checkpoints.
    judge: Option<(&'a Judge<'a>, u64)>,
}

impl<'a, M> StageBoundary<'a, M> {
    /// Saves `loaded` into the folder of a stage as the schedule says, and judges it where a judge
    /// is given, with the steps of an epoch.
    pub fn new(
        loaded: &'a Loaded<M>,
        run: &RunFolder,
        stage: &str,
        schedule: &'a Schedule,
        judge: Option<(&'a Judge<'a>, u64)>,
    ) -> Self {
        let (folder, writer) = (run.checkpoints(stage), CheckpointWriter::new(run.mirror()));
        Self { loaded, folder, schedule, writer, judge }
    }
}

impl<M: Model> Boundary for StageBoundary<'_, M> {
    fn reached(&mut self, state: &mut TrainerState, progress: &Progress) -> Result<bool> {
        let Some((judge, steps_per_epoch)) = self.judge else { return Ok(false) };
        let epoch_of = |step: u64| step as f64 / steps_per_epoch as f64;
        let epoch = epoch_of(state.step);
        if epoch < self.schedule.first_evaluation_epoch && !state.finished {
            return Ok(false);
        }
        let judged = judge(state.best.map(|(best, _)| best))?;
        let Judged { score, name, threshold, calibration, said } = judged;
        state.curve.push((epoch, score));
        let better = state.best.is_none_or(|(best, _)| score > best);
        if better {
            state.best = Some((score, state.step));
            (state.threshold, state.calibration) = (threshold, calibration);
        }
        let best_epoch = state.best.map_or(0.0, |(_, step)| epoch_of(step));
        let since_best =
            state.curve.iter().rev().take_while(|(epoch, _)| *epoch > best_epoch).count();
        state.finished |= self.schedule.patience > 0 && since_best >= self.schedule.patience;
        let mark = if better { ", the best so far" } else { "" };
        progress.note(&format!("epoch {epoch:.0}: dev {name} {:.2}{mark} ({said})", 100.0 * score));
        Ok(better || state.finished)
    }

    fn save(&mut self, state: &TrainerState, optimizer: Vec<(String, Tensor)>) -> Result<()> {
        let retention = Retention {
            newest: self.schedule.keep_checkpoints,
            every: self.schedule.keep_every_steps,
            best: state.best.map(|best| best.1),
        };
        let content = self.loaded.snapshot(state, optimizer)?;
        self.writer.write(self.folder.clone(), content, retention)
    }

    fn settle(&mut self) -> Result<()> {
        self.writer.settle()
    }

    fn unmirrored(&self) -> u64 {
        self.writer.unmirrored()
    }
}
