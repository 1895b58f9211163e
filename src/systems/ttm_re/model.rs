//! The tensor half of TTM-RE (docs/systems.md, T.1–T.5).

use std::sync::Arc;

use tch::Tensor;

use super::memory::Memory;
use super::settings::TtmReSettings;
use crate::Result;
use crate::systems::atlop::reading_options;
use crate::systems::reading::{
    ATLOP_EPSILON, Pooling, ReadStates, Reader, ReadingLayout, ReadingTables,
};
use crate::systems::{
    Classes, DecisionRule, Extractor, Foundation, Layout, NaClass, RelationBatch, RelationLoss,
    ScoredBatch, SystemSettings, on, tables,
};
use crate::text::{TokenizedDocument, View};
use crate::torch::kernels::activations::Activation;
use crate::torch::kernels::grouped::grouped_bilinear;
use crate::torch::nn::Linear;
use crate::train::Forward;

/// The parameters of the memory.
const MEMORY: &str = "heads.mu_encoder";

/// TTM-RE.
pub struct TtmRe {
    reader: Reader,
    /// Of both sides of a pair.
    extractor: Linear,
    memory: Memory,
    bilinear: Linear,
    layout: Arc<ReadingLayout>,
    settings: TtmReSettings,
    foundation: Foundation,
}

/// A batch's pairs on their way to logits.
pub(super) struct TtmRePairs {
    /// States, entities and attention.
    pub read: ReadStates,
    /// Localized contexts; [P, d].
    pub context: Tensor,
    /// z_h; [P, E].
    pub heads: Tensor,
    /// z_t; [P, E].
    pub tails: Tensor,
    /// O; [P, 2, E].
    pub learned: Tensor,
    /// h' and t'; [P, E] each.
    pub mixed: [Tensor; 2],
}

impl TtmRe {
    /// Puts TTM-RE's heads on an encoder.
    ///
    /// # Errors
    /// If no model can be built from the settings, or libtorch rejects an operation.
    pub fn new(mut foundation: Foundation, settings: TtmReSettings) -> Result<Self> {
        settings.check()?;
        let layout =
            ReadingLayout::new(&foundation, reading_options(&foundation, &settings.reading()));
        let (width, emb) = (foundation.encoder.facts().width, settings.emb_size);
        let classes = foundation.relations as i64 + 1;
        let parameters = &mut foundation.parameters;
        let extractor = Linear::declare(parameters, "heads.head_extractor", 2 * width, emb)?;
        let memory = Memory::declare(parameters, MEMORY, &settings)?;
        let joined = emb * settings.block_size;
        let bilinear = Linear::declare(parameters, "heads.bilinear", joined, classes)?;
        Ok(Self {
            reader: Reader {
                pooling: Pooling::Logsumexp,
                context: true,
                layers: 1,
                averaged: true,
                epsilon: ATLOP_EPSILON,
            },
            extractor,
            memory,
            bilinear,
            layout: Arc::new(layout),
            settings,
            foundation,
        })
    }

    /// How a document is laid out.
    ///
    /// # Errors
    /// A document over the limit that may not be cut.
    pub fn view(&self, document: &TokenizedDocument) -> Result<View> {
        self.layout.view(document)
    }

    /// Everything before the classifier.
    pub(super) fn pairs(&self, laid: &ReadingTables, forward: Forward) -> Result<TtmRePairs> {
        let read = self.reader.read(&self.foundation, laid, forward)?;
        let context = self.reader.contexts(&self.foundation, &read, laid)?;
        let vector = |rows: &[i64]| -> Result<Tensor> {
            let rows = on(rows, read.states.device())?;
            let parts = [(&read.entities, Some(&rows)), (&context, None)];
            Activation::Tanh.apply(&self.extractor.forward_parts(&parts)?)
        };
        let (heads, tails) = (vector(&laid.heads)?, vector(&laid.tails)?);
        let learned = self.memory.read(&heads, &tails)?;
        let mixed = self.memory.mix(&learned, forward.precision)?;
        Ok(TtmRePairs { read, context, heads, tails, learned, mixed })
    }

    /// Logits of pairs; [P, C].
    pub(super) fn classify(&self, pairs: &TtmRePairs, forward: Forward) -> Result<Tensor> {
        let mean = |own: &Tensor, mixed: &Tensor| -> Result<Tensor> {
            Ok(own.f_add(mixed)?.f_div_scalar(2.0)?)
        };
        let (heads, tails) =
            (mean(&pairs.heads, &pairs.mixed[0])?, mean(&pairs.tails, &pairs.mixed[1])?);
        let blocks = self.settings.emb_size / self.settings.block_size;
        let (weight, bias) = (&self.bilinear.weight, self.bilinear.bias.as_ref());
        grouped_bilinear(&heads, &tails, weight, bias, blocks, forward.precision)
    }
}

impl Extractor for TtmRe {
    fn layout(&self) -> Arc<dyn Layout> {
        Arc::<ReadingLayout>::clone(&self.layout)
    }

    fn classes(&self) -> Classes {
        Classes { relations: self.foundation.relations, na: NaClass::First }
    }

    fn loss(&self) -> RelationLoss {
        RelationLoss::PositiveUnlabelled(self.settings.rule())
    }

    fn decision(&self) -> DecisionRule {
        DecisionRule::Adaptive { top: self.settings.num_labels }
    }

    fn logits(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        self.classify(&self.pairs(tables(&batch.tables)?, forward)?, forward)
    }

    fn scored(&self, batch: &RelationBatch, forward: Forward) -> Result<ScoredBatch> {
        let laid: &ReadingTables = tables(&batch.tables)?;
        let pairs = self.pairs(laid, forward)?;
        let evidence = self.reader.evidence(&self.foundation, &pairs.read, laid)?;
        Ok(ScoredBatch { logits: self.classify(&pairs, forward)?, evidence: Some(evidence) })
    }

    fn foundation(&self) -> &Foundation {
        &self.foundation
    }

    fn rate(&self, name: &str) -> f64 {
        if name.starts_with(MEMORY) { self.settings.memory_rate } else { 1.0 }
    }
}
