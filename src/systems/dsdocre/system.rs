//! DSDocRE in the registry, and the schedules of its three stages.

use serde_json::Value;
use toml::Table;

use super::{Dsdocre, DsdocreModel, DsdocreSettings, parity};
use crate::parity::CaseKind;
use crate::systems::{
    Extractor, Foundation, Model, Profile, PublishedScores, Settings, System, SystemInfo, Variant,
};
use crate::torch::Parameters;
use crate::train::Schedule;
use crate::{Error, Result};

/// DSDocRE: ranker, pre-trainer and extractor.
pub struct DsdocreSystem;

/// The ranker's schedule: 32 documents a step, the checkpoint of epoch 4.
pub fn rank_schedule() -> Schedule {
    Schedule::base()
}

/// The schedule of pre-training: 16 document pairs a step, 16 epochs of 1,000 steps.
pub fn pretrain_schedule() -> Schedule {
    Schedule { batch: 16, epochs: 16.0, checkpoint_steps: 1000, ..Schedule::base() }
}

const PUBLISHED: &[PublishedScores] = &[
    PublishedScores::new("BERT", [55.67, 53.32], [56.17, 53.66]),
    PublishedScores::new("BERT+D", [57.42, 55.88], [57.20, 55.53]),
    PublishedScores::new("BERT+D+P", [58.65, 57.00], [58.43, 56.68]),
];

impl System for DsdocreSystem {
    type Settings = DsdocreSettings;

    fn info(&self) -> SystemInfo {
        SystemInfo {
            variants: &[Variant::Baseline, Variant::Denoised, Variant::Pretrained],
            parity: Some(CaseKind { system: "dsdocre", compute: parity::dsdocre }),
            published: PUBLISHED,
            ..SystemInfo::new(
                "dsdocre",
                "marked entities, max-pooled mentions, bilinear relation vectors of the ranker's \
                 best pairs; arg-max with NA",
                "Xiao et al. 2020, Denoising Relation Extraction from Document-level Distant \
                 Supervision",
            )
        }
    }

    fn defaults(&self, profile: Profile, _user: &Table) -> DsdocreSettings {
        DsdocreSettings::of(profile)
    }

    fn check(&self, settings: &DsdocreSettings) -> Result<()> {
        settings.check()
    }

    fn schedule(&self, profile: Profile, _settings: &DsdocreSettings) -> Schedule {
        let batch = if profile == Profile::Code { 6 } else { 4 };
        Schedule { learning_rate: 1e-5, batch, epochs: 30.0, ..Schedule::base() }
    }

    fn shared_layers(&self, settings: &DsdocreSettings) -> Option<&'static str> {
        settings.transfer_bilinear.then_some("relation.")
    }

    fn build(
        &self,
        foundation: Foundation,
        settings: &DsdocreSettings,
        ranked: bool,
    ) -> Result<Box<dyn Extractor>> {
        Ok(Box::new(Dsdocre::new(foundation, settings, ranked)?))
    }
}

impl DsdocreSettings {
    /// The settings of DSDocRE among those of any system.
    ///
    /// # Errors
    /// [`Error::Recipe`] for another system, which has no ranker.
    pub fn within(settings: &Settings) -> Result<&Self> {
        settings.get().ok_or_else(|| {
            let system = settings.system();
            Error::recipe(format!("system `{system}` has no ranker and no pre-training of its own"))
        })
    }
}

impl Model for DsdocreModel {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }
    fn encoder_config(&self) -> Value {
        self.encoder.config()
    }
}
