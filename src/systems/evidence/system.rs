//! LSTM-SP in the registry.

use std::sync::Arc;

use super::{EvidencePredictor, EvidenceSettings, parity};
use crate::encoders::checks::check_rates;
use crate::parity::CaseKind;
use crate::systems::{
    Extractor, Foundation, Model, Profile, Reads, System, SystemInfo, SystemSettings, adam_schedule,
};
use crate::train::Schedule;
use crate::{Error, Result};

/// LSTM-SP, the evidence predictor.
pub static LSTM_SP: System = System::new::<EvidenceSettings>(
    SystemInfo {
        title: "LSTM-SP",
        reads: Reads::Words,
        parity: Some(CaseKind { system: "baseline-lstm-sp", compute: parity::evidence_predictor }),
        ..SystemInfo::new(
            "lstm-sp",
            "the evidence predictor: which sentences support a fact that another system has \
             predicted",
            "Yao et al. 2019",
        )
    },
    |profile, _| Arc::new(EvidenceSettings::of(profile)),
);

impl SystemSettings for EvidenceSettings {
    fn check(&self) -> Result<()> {
        let least = [
            ("position_width", self.position_width, 1),
            ("position_rows", self.position_rows, 3),
            ("type_width", self.type_width, 1),
            ("hidden", self.hidden, 1),
        ];
        if let Some((name, value, least)) = least.iter().find(|(_, value, least)| value < least) {
            return Err(Error::recipe(format!(
                "`{name}` is {value}, but must be at least {least}"
            ))
            .with_hint("leave it out for the default"));
        }
        check_rates("", &[("locked_dropout", self.locked_dropout)])?;
        self.long_documents.without_extension("lstm-sp")
    }

    /// The epoch is chosen by the F1 of evidence sentences.
    fn schedule(&self, _system: &SystemInfo, _profile: Profile) -> Schedule {
        Schedule { learning_rate: 1e-3, batch: 40, evaluate_epochs: 5, ..adam_schedule() }
    }

    fn build(&self, _foundation: Foundation, _ranked: bool) -> Result<Box<dyn Extractor>> {
        Err(Error::recipe("system `lstm-sp` finds the evidence of relations, not relations")
            .with_hint(
                "train it with `finetune --system lstm-sp`, use it with `predict --checkpoint C \
                 --evidence LSTM_SP`",
            ))
    }

    fn model(&self, foundation: Foundation) -> Result<Box<dyn Model>> {
        Ok(Box::new(EvidencePredictor::new(foundation, self)?))
    }
}
