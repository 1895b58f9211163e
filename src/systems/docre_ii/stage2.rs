//! Losses of stage 2 (docs/systems.md, I.18–I.20): the base module's, two noisy views of the
//! inference module, and the contrastive loss.

use tch::{Kind, Tensor};

use super::base::BasePairs;
use super::contrast::{attraction, separation};
use super::eca::DeviceGrids;
use super::inference::ModulePass;
use super::layout::DocreIiTables;
use super::model::DocreIi;
use super::noise::{Noise, NoisyRelations, RelationSource};
use super::settings::{Contrast, DocreIiSettings, ExchangedSlots, RelationInput};
use crate::systems::on;
use crate::systems::reading::adaptive_labels;
use crate::torch::kernels::products::matmul;
use crate::torch::nn::losses::adaptive_threshold_sum;
use crate::train::Forward;
use crate::{Error, Result};

/// One view after the module.
pub struct ViewPass {
    /// Logits; [P, C].
    pub logits: Tensor,
    /// The predictor's output; `None` without a contrastive loss.
    pub predicted: Option<Tensor>,
    /// The module's output that the other view's prediction is drawn to; no gradient goes into it.
    /// `None` unless pairs are attracted.
    pub target: Option<Tensor>,
}

/// What of a view the contrastive loss compares.
struct Contrasted {
    /// What the predictor reads.
    predictor_input: Tensor,
    /// As in [`ViewPass`].
    target: Option<Tensor>,
}

/// A forward pass of stage 2.
pub struct Stage2 {
    /// Views A and B.
    pub views: [ViewPass; 2],
    /// Sums of the four slots: base, view A, view B, contrast.
    pub sums: Vec<Tensor>,
}

impl DocreIi {
    /// Runs stage 2 on a batch with its noise; `targets`: [P, C].
    ///
    /// # Errors
    /// If libtorch rejects an operation; [`Error::Bug`] for a batch without noise.
    pub fn stage2(
        &self,
        tables: &DocreIiTables,
        targets: &Tensor,
        forward: Forward,
    ) -> Result<Stage2> {
        let noise = tables
            .noise
            .as_ref()
            .ok_or_else(|| Error::Bug("stage 2 was trained without noise".into()))?;
        let base = self.base_pairs(tables, forward)?;
        let drop = self.pair_dropout(tables, forward)?;
        let module = self.inference()?;
        let grids = DeviceGrids::new(&tables.grids, targets.device())?;
        let features = module.reduce(&base.features, drop.as_ref(), 0)?;
        let mut passes = Vec::new();
        for (number, view) in (0u64..).zip(&noise.views) {
            let labels = self.relation_input(view, &base.logits, targets)?;
            let relations = matmul(&labels, &module.relations)?;
            let run = |pass: u64| ModulePass {
                grids: &grids,
                drop: drop.as_ref(),
                salt: 2 + (2 * number + pass) * module.salts(),
            };
            let output = module.forward(&features, &relations, &run(0))?;
            let exchanged = || module.forward(&relations, &features, &run(1));
            let contrasted = self.contrasted(number, &output, exchanged)?;
            let predict = |contrasted: &Contrasted| {
                self.predictor()?.forward(&contrasted.predictor_input, forward.train)
            };
            passes.push(ViewPass {
                logits: module.classifier.forward(&output)?,
                predicted: contrasted.as_ref().map(predict).transpose()?,
                target: contrasted.and_then(|contrasted| contrasted.target),
            });
        }
        let [a, b] = <[ViewPass; 2]>::try_from(passes)
            .map_err(|_| Error::Bug("a step has two views".into()))?;
        let sums = self.stage2_sums(noise, [&a, &b], &base, targets, &grids)?;
        Ok(Stage2 { views: [a, b], sums })
    }

    /// What the contrastive loss compares of view `number`, whose output is `output`; `exchanged`
    /// runs the module with its slots exchanged.
    fn contrasted(
        &self,
        number: u64,
        output: &Tensor,
        exchanged: impl Fn() -> Result<Tensor>,
    ) -> Result<Option<Contrasted>> {
        let DocreIiSettings { contrast, exchanged_slots, .. } = self.settings();
        let attracted = *contrast == Contrast::Positive;
        Ok(match (contrast, exchanged_slots) {
            (Contrast::None, _) => None,
            (_, ExchangedSlots::Targets) => Some(Contrasted {
                predictor_input: output.shallow_clone(),
                target: attracted.then(|| tch::no_grad(exchanged)).transpose()?,
            }),
            (_, ExchangedSlots::ViewB) => {
                let own = if number == 0 { output.shallow_clone() } else { exchanged()? };
                let target = attracted.then(|| own.shallow_clone());
                Some(Contrasted { predictor_input: own, target })
            }
        })
    }

    fn stage2_sums(
        &self,
        noise: &Noise,
        views: [&ViewPass; 2],
        base: &BasePairs,
        targets: &Tensor,
        grids: &DeviceGrids,
    ) -> Result<Vec<Tensor>> {
        let settings = self.settings();
        let classified = |logits: &Tensor, rows: &[i64]| -> Result<Tensor> {
            let rows = on(rows, logits.device())?;
            let sum = adaptive_threshold_sum(
                &logits.f_index_select(0, &rows)?,
                &targets.f_index_select(0, &rows)?,
            )?;
            Ok(sum.f_mul_scalar(settings.stage2_loss_scale * settings.stage2_factor)?)
        };
        let base_rows: &[i64] = if settings.base_loss { &noise.base_rows } else { &[] };
        let [a, b] = views;
        let contrast = match (settings.contrast, &a.predicted, &b.predicted, &a.target, &b.target) {
            (Contrast::Positive, Some(pa), Some(pb), Some(ta), Some(tb)) => {
                attraction(pa, tb)? + attraction(pb, ta)?
            }
            (Contrast::Negative, Some(pa), Some(pb), _, _) => separation(pa, pb, grids, settings)?,
            _ => a.logits.f_sum(Kind::Float)?.f_mul_scalar(0.0)?,
        };
        Ok(vec![
            classified(&base.logits, base_rows)?,
            classified(&a.logits, &noise.views[0].rows)?,
            classified(&b.logits, &noise.views[1].rows)?,
            contrast.f_mul_scalar(settings.contrast_weight * settings.stage2_factor)?,
        ])
    }

    /// Multi-hot relation input of a view; [P, C].
    fn relation_input(
        &self,
        view: &NoisyRelations,
        base_logits: &Tensor,
        targets: &Tensor,
    ) -> Result<Tensor> {
        match &view.relations {
            RelationSource::Labels(labels) => Ok(on(labels, targets.device())?.f_view_as(targets)?),
            RelationSource::Predictions { draws, rates, classes } => {
                let predicted = self.input_labels(base_logits)?;
                let (pairs, width) = predicted.size2()?;
                let mut labels: Vec<f32> =
                    Vec::try_from(predicted.f_to_device(tch::Device::Cpu)?.f_reshape([-1])?)?;
                for (pair, row) in labels.chunks_exact_mut(width as usize).enumerate() {
                    // "No relation" is no prediction that could be wrong.
                    if row[0] == 0.0 && draws[pair] < rates[pair] {
                        replace(row, classes[pair]);
                    }
                }
                Ok(on(&labels, targets.device())?.f_view([pairs, width])?)
            }
        }
    }

    /// The relation input that predictions make; [P, C].
    pub(super) fn input_labels(&self, logits: &Tensor) -> Result<Tensor> {
        match self.settings().relation_input {
            RelationInput::MultiHot => adaptive_labels(logits, self.settings().num_labels),
            RelationInput::ArgMax => Ok(logits
                .f_argmax(1, false)?
                .f_one_hot(logits.size()[1])?
                .f_to_kind(Kind::Float)?),
        }
    }
}

/// Leaves one wrong label: the first from `class` on that is not set.
fn replace(row: &mut [f32], class: usize) {
    let wrong =
        (0..row.len()).map(|step| (class + step) % row.len()).find(|&class| row[class] == 0.0);
    if let Some(wrong) = wrong {
        row.fill(0.0);
        row[wrong] = 1.0;
    }
}
