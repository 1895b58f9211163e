//! Fine-tuning's boundary: judge on dev, remember the best step, stop where nothing gets better any
//! more.
//!
//! Not for: how a system is judged (`finetune`, `evidence`).

use tch::Tensor;

use super::training::SaveOnly;
use crate::Result;
use crate::base::Progress;
use crate::systems::Model;
use crate::train::Schedule;
use crate::train::{Boundary, TrainerState};

/// What one evaluation on dev gave.
pub struct Judged {
    /// The score that chooses the step.
    pub score: f64,
    /// Its name.
    pub name: &'static str,
    /// The decision threshold that belongs to it.
    pub threshold: Option<f64>,
    /// What else is said of it.
    pub said: String,
}

/// Evaluates the weights as they are; called on all ranks, with the same outcome.
pub trait Judge {
    /// The evaluation.
    ///
    /// # Errors
    /// If the model or another rank fails.
    fn judge(&self) -> Result<Judged>;
}

/// The boundary.
pub struct DevBoundary<'a, M, J> {
    /// What saves.
    pub save: SaveOnly<'a, M>,
    /// What judges.
    pub judge: J,
    /// When to evaluate and when to give up.
    pub plan: &'a Schedule,
    /// Steps an epoch.
    pub steps_per_epoch: u64,
}

impl<M: Model, J: Judge> Boundary for DevBoundary<'_, M, J> {
    fn reached(&mut self, state: &mut TrainerState, progress: &Progress) -> Result<bool> {
        let epoch = state.step as f64 / self.steps_per_epoch as f64;
        if epoch < self.plan.first_evaluation_epoch && !state.finished {
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
        state.finished |= self.plan.patience > 0 && since_best >= self.plan.patience;
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
