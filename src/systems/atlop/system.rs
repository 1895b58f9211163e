//! ATLOP in the registry.

use toml::Table;

use super::{Atlop, AtlopSettings, parity};
use crate::Result;
use crate::parity::CaseKind;
use crate::systems::{Extractor, Foundation, Profile, System, SystemInfo};
use crate::train::Schedule;

/// ATLOP.
pub struct AtlopSystem;

/// Fine-tuning as paper and release have it (docs/systems.md, "A. ATLOP"); DocRE-II starts from
/// it.
pub(crate) fn schedule() -> Schedule {
    Schedule {
        learning_rate: 5e-5,
        head_rate: 2.0,
        warmup: 0.06,
        decay: true,
        batch: 4,
        epochs: 30.0,
        ..Schedule::base()
    }
}

impl System for AtlopSystem {
    type Settings = AtlopSettings;

    fn info(&self) -> SystemInfo {
        SystemInfo {
            parity: Some(CaseKind { system: "atlop", compute: parity::atlop }),
            ..SystemInfo::new(
                "atlop",
                "localized context pooling over the encoder's own attention, grouped bilinear \
                 classifier, adaptive thresholds",
                "Zhou et al. 2021, Document-Level Relation Extraction with Adaptive Thresholding \
                 and Localized Context Pooling",
            )
        }
    }

    fn defaults(&self, profile: Profile, _user: &Table) -> AtlopSettings {
        AtlopSettings::of(profile)
    }

    fn check(&self, settings: &AtlopSettings) -> Result<()> {
        settings.check()
    }

    fn schedule(&self, _profile: Profile, _settings: &AtlopSettings) -> Schedule {
        schedule()
    }

    fn build(
        &self,
        foundation: Foundation,
        settings: &AtlopSettings,
        _ranked: bool,
    ) -> Result<Box<dyn Extractor>> {
        Ok(Box::new(Atlop::new(foundation, settings.clone())?))
    }
}
