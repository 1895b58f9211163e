//! DocRE-II as a system: its parts, iterations at test, losses of both stages.

use std::sync::Arc;

use tch::Tensor;

use super::base::{BaseModule, BasePairs, NAMES};
use super::contrast::ContrastPredictor;
use super::eca::{DeviceGrids, PairDropout};
use super::inference::{InferenceModule, ModulePass};
use super::layout::{DocreIiLayout, DocreIiTables};
use super::settings::{Contrast, DocreIiSettings, Stage};
use crate::systems::reading::{ReadingLayout, ReadingOptions, adaptive_labels, check_layers};
use crate::systems::{
    Classes, DecisionRule, Extractor, Foundation, Layout, LongDocuments, NaClass, RelationBatch,
    RelationLoss, ScoredBatch, SystemSettings, on, row_dropout, tables, windows_of,
};
use crate::text::{TokenizedDocument, View};
use crate::torch::HEADS;
use crate::torch::kernels::products::matmul;
use crate::train::Forward;
use crate::{Error, Result};

/// DocRE-II.
pub struct DocreIi {
    base: BaseModule,
    inference: Option<InferenceModule>,
    predictor: Option<ContrastPredictor>,
    foundation: Foundation,
    layout: Arc<DocreIiLayout>,
}

/// One iteration of inference.
pub struct Iteration {
    /// The module's output O; [P, W].
    pub output: Tensor,
    /// The module's logits f^k; [P, C].
    pub module_logits: Tensor,
    /// f^k, or the sum of all logits so far; [P, C].
    pub logits: Tensor,
    /// Labels of those; [P, C].
    pub labels: Tensor,
}

fn reading_options(foundation: &Foundation, settings: &DocreIiSettings) -> ReadingOptions {
    let positions = foundation.encoder.facts().max_positions;
    let own = (settings.max_pieces > 0).then_some(settings.max_pieces);
    let in_windows = settings.long_documents == LongDocuments::Windows;
    let one_pass = [positions, foundation.max_pieces, own].into_iter().flatten().min();
    ReadingOptions {
        markers: settings.markers,
        mention: settings.mention,
        max_pieces: if in_windows { own } else { one_pass },
        truncate: foundation.truncate || settings.cut_silently,
        windows: in_windows
            .then(|| windows_of(foundation, settings.max_windows, settings.window_stride))
            .flatten(),
    }
}

impl DocreIi {
    /// Puts the base module, and in stage 2 the inference module, on an encoder.
    ///
    /// # Errors
    /// If no model can be built from the settings, or libtorch rejects an operation.
    pub fn new(mut foundation: Foundation, settings: DocreIiSettings) -> Result<Self> {
        settings.check()?;
        check_layers("docre-ii", &*foundation.encoder, settings.averaged_layers)?;
        if settings.long_documents == LongDocuments::ExtendedPositions {
            let own = foundation.encoder.facts().max_positions;
            foundation
                .encoder
                .extend_positions(settings.position_alpha, &mut foundation.parameters)?;
            // A limit that was the encoder's own no longer holds; a shorter one that was asked for
            // does.
            foundation.max_pieces = foundation.max_pieces.filter(|_| foundation.max_pieces != own);
        }
        let classes = Classes { relations: foundation.relations, na: NaClass::First };
        let count = classes.count() as i64;
        let reading = ReadingLayout::new(&foundation, reading_options(&foundation, &settings));
        let width = foundation.encoder.facts().width;
        let base = BaseModule::declare(&mut foundation, &settings, count)?;
        let second = settings.stage == Stage::Inference;
        let parameters = &mut foundation.parameters;
        // Parts of the base module stay as stage 1 made them, if there was one.
        let trained = second && settings.pretrained_base;
        if trained && settings.freeze_base {
            parameters.freeze();
        } else if trained && !settings.train_base_heads {
            parameters.freeze_where(|name| name.starts_with(HEADS));
        }
        let inference = second
            .then(|| InferenceModule::declare(parameters, &settings, width, count))
            .transpose()?;
        let output = InferenceModule::output_width(&settings);
        let contrasted = second && settings.contrast != Contrast::None;
        let predictor =
            contrasted.then(|| ContrastPredictor::declare(parameters, output)).transpose()?;
        let seed = foundation.seed;
        let layout = Arc::new(DocreIiLayout { reading, classes, settings, seed });
        Ok(Self { base, inference, predictor, foundation, layout })
    }

    /// Its settings.
    pub fn settings(&self) -> &DocreIiSettings {
        &self.layout.settings
    }

    /// How a document is laid out.
    ///
    /// # Errors
    /// A document over the limit that may not be cut; markers that run out.
    pub fn view(&self, document: &TokenizedDocument) -> Result<View> {
        self.layout.reading.view(document)
    }

    /// The base module on a batch.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn base_pairs(&self, tables: &DocreIiTables, forward: Forward) -> Result<BasePairs> {
        let drop = self.pair_dropout(tables, forward)?;
        let drop = drop.as_ref().map(|drop| &drop.pairs);
        self.base.pairs(&self.foundation, self.settings(), tables, forward, drop)
    }

    /// F_0, the feature matrix that the inference module reads; [P, W]. Without dropout.
    ///
    /// # Errors
    /// If libtorch rejects an operation; [`Error::Bug`] in stage 1.
    pub fn feature_matrix(&self, base: &BasePairs) -> Result<Tensor> {
        self.inference()?.reduce(&base.features, None, 0)
    }

    /// K iterations of inference, each on the labels of the one before. An iteration on labels that
    /// were there before is not computed again.
    ///
    /// # Errors
    /// If libtorch rejects an operation; [`Error::Bug`] in stage 1.
    pub fn iterations(
        &self,
        tables: &DocreIiTables,
        base_logits: &Tensor,
        features: &Tensor,
    ) -> Result<Vec<Iteration>> {
        let module = self.inference()?;
        let grids = DeviceGrids::new(&tables.grids, features.device())?;
        let run = ModulePass { grids: &grids, drop: None, salt: 0 };
        let mut logits = base_logits.shallow_clone();
        let mut input = self.input_labels(&logits)?;
        let mut all: Vec<(Iteration, Tensor)> = Vec::new();
        for _ in 0..self.settings().iterations {
            let (output, module_logits) =
                match all.last().filter(|(_, before)| before.equal(&input)) {
                    Some((same, _)) => {
                        (same.output.shallow_clone(), same.module_logits.shallow_clone())
                    }
                    None => {
                        let output =
                            module.forward(features, &matmul(&input, &module.relations)?, &run)?;
                        let found = module.classifier.forward(&output)?;
                        (output, found)
                    }
                };
            logits = if self.settings().accumulate {
                logits.f_add(&module_logits)?
            } else {
                module_logits.shallow_clone()
            };
            let labels = adaptive_labels(&logits, self.settings().num_labels)?;
            let next = self.input_labels(&logits)?;
            all.push((
                Iteration { output, module_logits, logits: logits.shallow_clone(), labels },
                input,
            ));
            input = next;
        }
        Ok(all.into_iter().map(|(iteration, _)| iteration).collect())
    }

    pub(super) fn inference(&self) -> Result<&InferenceModule> {
        self.inference
            .as_ref()
            .ok_or_else(|| Error::Bug("stage 1 of DocRE-II has no inference module".into()))
    }

    pub(super) fn predictor(&self) -> Result<&ContrastPredictor> {
        self.predictor.as_ref().ok_or_else(|| Error::Bug("this DocRE-II has no predictor".into()))
    }

    /// Dropout of pairs in training.
    pub(super) fn pair_dropout(
        &self,
        tables: &DocreIiTables,
        forward: Forward,
    ) -> Result<Option<PairDropout>> {
        let (p, device) = (self.settings().dropout, self.foundation.parameters.device());
        let Some(pairs) = row_dropout(p, forward, device, || &tables.pair_keys)? else {
            return Ok(None);
        };
        let heads =
            tables.head_keys.iter().map(|keys| on(keys, device)).collect::<Result<Vec<_>>>()?;
        Ok(Some(PairDropout { pairs, heads: (Tensor::f_stack(&heads, 0)?, p) }))
    }
}

impl Extractor for DocreIi {
    fn layout(&self) -> Arc<dyn Layout> {
        Arc::<DocreIiLayout>::clone(&self.layout)
    }

    fn classes(&self) -> Classes {
        self.layout.classes
    }

    fn loss(&self) -> RelationLoss {
        RelationLoss::AdaptiveThreshold { scale: self.settings().loss_scale }
    }

    fn decision(&self) -> DecisionRule {
        DecisionRule::Adaptive { top: self.settings().num_labels }
    }

    /// The base module's logits.
    fn logits(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        Ok(self.base_pairs(tables(&batch.tables)?, forward)?.logits)
    }

    fn predict(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        Ok(self.scored(batch, forward)?.logits)
    }

    fn scored(&self, batch: &RelationBatch, forward: Forward) -> Result<ScoredBatch> {
        let laid: &DocreIiTables = tables(&batch.tables)?;
        let base = self.base_pairs(laid, forward)?;
        let reader = BaseModule::reader(self.settings());
        let evidence = Some(reader.evidence(&self.foundation, &base.read, &laid.reading)?);
        if self.settings().stage == Stage::Base || self.settings().iterations == 0 {
            return Ok(ScoredBatch { logits: base.logits, evidence });
        }
        let features = self.feature_matrix(&base)?;
        let last = self.iterations(laid, &base.logits, &features)?.pop();
        Ok(ScoredBatch { logits: last.map_or(base.logits, |last| last.logits), evidence })
    }

    fn slots(&self) -> &[&'static str] {
        match self.settings().stage {
            Stage::Base => &["relation"],
            Stage::Inference => &["base", "view_a", "view_b", "contrast"],
        }
    }

    fn losses(&self, batch: &RelationBatch, forward: Forward) -> Result<Vec<Tensor>> {
        let laid: &DocreIiTables = tables(&batch.tables)?;
        if self.settings().stage == Stage::Base {
            let logits = self.base_pairs(laid, forward)?.logits;
            return Ok(vec![batch.loss_sum(self.loss(), &logits)?]);
        }
        batch.refuse_soft_targets()?;
        let shape = [batch.pairs as i64, self.layout.classes.count() as i64];
        let targets = on(&batch.targets, self.foundation.parameters.device())?.f_view(shape)?;
        Ok(self.stage2(laid, &targets, forward)?.sums)
    }

    fn foundation(&self) -> &Foundation {
        &self.foundation
    }

    fn rate(&self, name: &str) -> f64 {
        let of_base = NAMES
            .iter()
            .any(|own| name.strip_prefix(HEADS).is_some_and(|rest| rest.starts_with(own)));
        if of_base && self.settings().stage == Stage::Inference {
            self.settings().base_head_rate
        } else {
            1.0
        }
    }
}
