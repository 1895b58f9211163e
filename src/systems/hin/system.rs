//! HIN in the registry.

use toml::Table;

use super::{Hin, HinSettings, parity};
use crate::Result;
use crate::parity::CaseKind;
use crate::systems::{
    Extractor, Foundation, Profile, PublishedScores, Reads, System, SystemInfo, adam_schedule,
};
use crate::train::Schedule;

/// HIN.
pub struct HinSystem;

const PUBLISHED: &[PublishedScores] =
    &[PublishedScores::new("HIN-BERT", [56.31, 54.29], [55.60, 53.70])];

impl System for HinSystem {
    type Settings = HinSettings;

    fn info(&self) -> SystemInfo {
        SystemInfo {
            reads: Reads::Words,
            parity: Some(CaseKind { system: "hin", compute: parity::hin }),
            published: PUBLISHED,
            ..SystemInfo::new(
                "hin",
                "entity, sentence and document inference over BiLSTMs; translation and bilinear \
                 features in several spaces",
                "Tang et al. 2020, HIN: Hierarchical Inference Network for Document-Level \
                 Relation Extraction",
            )
        }
    }

    fn defaults(&self, profile: Profile, _user: &Table) -> HinSettings {
        HinSettings::of(profile)
    }

    fn check(&self, settings: &HinSettings) -> Result<()> {
        settings.check()
    }

    fn schedule(&self, _profile: Profile, _settings: &HinSettings) -> Schedule {
        Schedule { learning_rate: 1e-4, batch: 12, patience: 20, ..adam_schedule() }
    }

    fn build(
        &self,
        foundation: Foundation,
        settings: &HinSettings,
        _ranked: bool,
    ) -> Result<Box<dyn Extractor>> {
        Ok(Box::new(Hin::new(foundation, settings.clone())?))
    }
}
