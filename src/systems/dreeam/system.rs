//! DREEAM in the registry.

use std::sync::Arc;

use super::{Dreeam, DreeamSettings, DreeamStage, parity};
use crate::Result;
use crate::parity::CaseKind;
use crate::systems::{
    Extractor, Foundation, Profile, PublishedScores, System, SystemInfo, SystemSettings,
    TeacherColumn, Values, atlop,
};
use crate::train::{Schedule, Select};

/// DREEAM.
pub static DREEAM: System = System::new::<DreeamSettings>(
    SystemInfo {
        title: "DREEAM",
        parity: Some(CaseKind { system: "dreeam", compute: parity::dreeam }),
        published: &[PublishedScores {
            model: "DREEAM (RoBERTa-large, distant data, fusion)",
            dev_f1: 67.41,
            dev_ign_f1: None,
            test_f1: 67.53,
            test_ign_f1: Some(65.47),
        }],
        ..SystemInfo::new(
            "dreeam",
            "ATLOP whose attention is trained to lie on evidence sentences, which it predicts as \
             well; self-training on distant documents; a second run over the evidence",
            "Ma et al. 2023, DREEAM: Guiding Attention with Evidence for Improving Document-Level \
             Relation Extraction",
        )
    },
    |profile, _| Arc::new(DreeamSettings::of(profile)),
);

/// A schedule with learning rates of encoder and heads.
fn schedule(rates: [f64; 2], epochs: f64, clip: f64) -> Schedule {
    let [learning_rate, heads] = rates;
    let head_rate = (heads / learning_rate * 1e6).round() / 1e6;
    Schedule { learning_rate, head_rate, epochs, clip, select: Select::IgnF1, ..atlop::schedule() }
}

impl SystemSettings for DreeamSettings {
    fn check(&self) -> Result<()> {
        self.check_values()
    }

    fn learns(&self) -> Option<TeacherColumn> {
        (self.stage == DreeamStage::SelfTraining).then_some(TeacherColumn::Tokens)
    }

    fn student(&self) -> Option<Values> {
        Some(Arc::new(Self { stage: DreeamStage::SelfTraining, ..self.clone() }))
    }

    fn refined(&self) -> Option<Values> {
        Some(Arc::new(Self { stage: DreeamStage::FineTuning, ..self.clone() }))
    }

    fn schedule(&self, _system: &SystemInfo, profile: Profile) -> Schedule {
        match self.stage {
            DreeamStage::Teacher => schedule([5e-5, 1e-4], 30.0, 1.0),
            DreeamStage::FineTuning => schedule([1e-6, 3e-6], 10.0, 2.0),
            // The release sets gradients to 0 before every micro-batch and updates after every
            // second one. Each update sees one of 4 documents, and an epoch half of them.
            DreeamStage::SelfTraining if profile == Profile::Code => {
                schedule([3e-5, 1e-4], 1.0, 5.0)
            }
            DreeamStage::SelfTraining => Schedule { batch: 8, ..schedule([3e-5, 1e-4], 2.0, 5.0) },
        }
    }

    fn fit(&self, layers: usize) -> Option<Values> {
        let averaged_layers = self.averaged_layers.min(layers);
        Some(Arc::new(Self { averaged_layers, ..self.clone() }))
    }

    fn build(&self, foundation: Foundation, _ranked: bool) -> Result<Box<dyn Extractor>> {
        Ok(Box::new(Dreeam::new(foundation, self.clone())?))
    }
}
