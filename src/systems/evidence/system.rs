//! LSTM-SP in the registry.

use serde_json::Value;
use toml::Table;

use super::{EvidencePredictor, EvidenceSettings, parity};
use crate::parity::CaseKind;
use crate::systems::{
    Extractor, Foundation, Model, Profile, Reads, System, SystemInfo, adam_schedule,
};
use crate::torch::Parameters;
use crate::train::{Objective, Schedule};
use crate::{Error, Result};

/// LSTM-SP, the evidence predictor.
pub struct EvidenceSystem;

impl System for EvidenceSystem {
    type Settings = EvidenceSettings;

    fn info(&self) -> SystemInfo {
        SystemInfo {
            reads: Reads::Words,
            parity: Some(CaseKind {
                system: "baseline-lstm-sp",
                compute: parity::evidence_predictor,
            }),
            ..SystemInfo::new(
                "lstm-sp",
                "the evidence predictor: which sentences support a fact that another system has \
                 predicted",
                "Yao et al. 2019",
            )
        }
    }

    fn defaults(&self, profile: Profile, _user: &Table) -> EvidenceSettings {
        EvidenceSettings::of(profile)
    }

    fn check(&self, settings: &EvidenceSettings) -> Result<()> {
        settings.check()
    }

    /// The epoch is chosen by the F1 of evidence sentences.
    fn schedule(&self, _profile: Profile, _settings: &EvidenceSettings) -> Schedule {
        Schedule { learning_rate: 1e-3, batch: 40, evaluate_epochs: 5, ..adam_schedule() }
    }

    fn build(
        &self,
        _foundation: Foundation,
        _settings: &EvidenceSettings,
        _ranked: bool,
    ) -> Result<Box<dyn Extractor>> {
        Err(Error::recipe("system `lstm-sp` finds the evidence of relations, not relations")
            .with_hint(
                "train it with `finetune --system lstm-sp`, use it with `predict --checkpoint C \
                 --evidence LSTM_SP`",
            ))
    }

    fn model(&self, foundation: Foundation, settings: &EvidenceSettings) -> Result<Box<dyn Model>> {
        Ok(Box::new(EvidencePredictor::new(foundation, settings)?))
    }
}

impl Model for EvidencePredictor {
    fn parameters(&self) -> &Parameters {
        Objective::parameters(self)
    }
    fn encoder_config(&self) -> Value {
        self.encoder_config()
    }
}
