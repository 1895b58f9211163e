//! The tensor half of DREEAM (docs/systems.md, E.1–E.5): ATLOP's heads on the mean of the last
//! layers, and a second loss on the attention of pairs.

use std::sync::Arc;

use tch::Tensor;

use super::layout::{DreeamLayout, DreeamTables, SecondTables};
use super::losses::{attention_sum, evidence_sum};
use super::settings::{DreeamSettings, DreeamStage};
use crate::systems::atlop::{Atlop, AtlopPairs};
use crate::systems::reading::{Pooling, Reader, check_layers};
use crate::systems::{
    Classes, DecisionRule, EvidenceRule, EvidenceWeights, Extractor, Foundation, Layout,
    RelationBatch, RelationLoss, ScoredBatch, SystemSettings, tables,
};
use crate::train::Forward;
use crate::{Error, Result};

/// ε of the release (docs/systems.md, E.1).
const EPSILON: f64 = 1e-30;

/// DREEAM.
pub struct Dreeam {
    pub(super) atlop: Atlop,
    layout: Arc<DreeamLayout>,
}

impl Dreeam {
    /// Puts DREEAM's heads on an encoder.
    ///
    /// # Errors
    /// If no model can be built from the settings, or libtorch rejects an operation.
    pub fn new(foundation: Foundation, settings: DreeamSettings) -> Result<Self> {
        settings.check()?;
        check_layers("dreeam", &*foundation.encoder, settings.averaged_layers)?;
        let reader = Reader {
            pooling: Pooling::Logsumexp,
            context: true,
            layers: settings.averaged_layers,
            averaged: true,
            epsilon: EPSILON,
        };
        let atlop = Atlop::with_reader(foundation, settings.atlop(), reader)?;
        let layout = Arc::new(DreeamLayout { reading: atlop.reading(), settings });
        Ok(Self { atlop, layout })
    }

    /// Its settings.
    pub fn settings(&self) -> &DreeamSettings {
        &self.layout.settings
    }

    /// The sum of the second loss, without its weight.
    ///
    /// # Errors
    /// Self-training without a teacher's attention, or with that of other documents; if libtorch
    /// rejects an operation.
    pub(super) fn second_sum(&self, batch: &RelationBatch, pairs: &AtlopPairs) -> Result<Tensor> {
        let laid: &DreeamTables = tables(&batch.tables)?;
        match &laid.second {
            SecondTables::Evidence(labels) => {
                evidence_sum(&self.atlop.span_sums(pairs, &labels.table)?, labels)
            }
            SecondTables::Attention(table) => {
                let targets = batch.attention.as_ref().ok_or_else(|| {
                    Error::recipe("dreeam.stage = \"self-training\" without a teacher's attention")
                        .with_hint(
                            "`teach` stores it with distant.tokens = 32; dreeam.stage = \
                             \"teacher\" learns from annotated documents",
                        )
                })?;
                attention_sum(&self.atlop.span_sums(pairs, table)?, table, targets)
            }
        }
    }
}

impl Extractor for Dreeam {
    fn layout(&self) -> Arc<dyn Layout> {
        Arc::<DreeamLayout>::clone(&self.layout)
    }

    fn classes(&self) -> Classes {
        self.atlop.classes()
    }

    fn loss(&self) -> RelationLoss {
        self.atlop.loss()
    }

    fn decision(&self) -> DecisionRule {
        self.atlop.decision()
    }

    fn evidence(&self) -> Option<EvidenceRule> {
        let settings = self.settings();
        Some(EvidenceRule {
            threshold: settings.evidence_threshold,
            most: settings.max_evidence_sentences,
            fusion: settings.fusion.then_some(settings.fusion_form),
        })
    }

    fn logits(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        let laid: &DreeamTables = tables(&batch.tables)?;
        self.atlop.classify(&self.atlop.pairs(&laid.reading, forward)?, forward)
    }

    fn scored(&self, batch: &RelationBatch, forward: Forward) -> Result<ScoredBatch> {
        let laid: &DreeamTables = tables(&batch.tables)?;
        let pairs = self.atlop.pairs(&laid.reading, forward)?;
        self.atlop.scored_pairs(&laid.reading, &pairs, forward)
    }

    fn scored_with_tokens(
        &self,
        batch: &RelationBatch,
        forward: Forward,
    ) -> Result<(ScoredBatch, EvidenceWeights)> {
        let laid: &DreeamTables = tables(&batch.tables)?;
        let pairs = self.atlop.pairs(&laid.reading, forward)?;
        self.atlop.scored_pairs_with_tokens(&laid.reading, &pairs, forward)
    }

    fn slots(&self) -> &[&'static str] {
        match self.settings().stage {
            DreeamStage::SelfTraining => &["relation", "attention"],
            DreeamStage::Teacher | DreeamStage::FineTuning => &["relation", "evidence"],
        }
    }

    fn losses(&self, batch: &RelationBatch, forward: Forward) -> Result<Vec<Tensor>> {
        let laid: &DreeamTables = tables(&batch.tables)?;
        let pairs = self.atlop.pairs(&laid.reading, forward)?;
        let logits = self.atlop.classify(&pairs, forward)?;
        let relation = batch.loss_sum(self.loss(), &logits)?;
        let weight = match self.settings().stage {
            DreeamStage::SelfTraining => self.settings().attention_weight,
            DreeamStage::Teacher | DreeamStage::FineTuning => self.settings().evidence_weight,
        };
        Ok(vec![relation, self.second_sum(batch, &pairs)?.f_mul_scalar(weight)?])
    }

    fn foundation(&self) -> &Foundation {
        self.atlop.foundation()
    }
}
