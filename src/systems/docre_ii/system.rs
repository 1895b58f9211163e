//! DocRE-II in the registry.

use toml::Table;

use super::{DocreIi, DocreIiSettings, Stage, parity};
use crate::Result;
use crate::parity::CaseKind;
use crate::systems::{Extractor, Foundation, Profile, System, SystemInfo, atlop};
use crate::train::{Schedule, Select};

/// DocRE-II, either stage.
pub struct DocreIiSystem;

/// The base module's schedule (docs/systems.md, "I. DocRE-II").
fn base_schedule(profile: Profile) -> Schedule {
    let base = Schedule { batch: 8, weight_decay: 1e-4, ..atlop::schedule() };
    match profile {
        Profile::Code => Schedule { batch: 20, epochs: 102.0, select: Select::IgnF1, ..base },
        _ => base,
    }
}

impl System for DocreIiSystem {
    type Settings = DocreIiSettings;

    fn info(&self) -> SystemInfo {
        SystemInfo {
            parity: Some(CaseKind { system: "docre-ii", compute: parity::docre_ii }),
            ..SystemInfo::new(
                "docre-ii",
                "an ATLOP base whose predictions an inference module refines, iterated at test; \
                 two training stages",
                "Zhang et al. 2022, Towards Better Document-level Relation Extraction via \
                 Iterative Inference",
            )
        }
    }

    fn defaults(&self, profile: Profile, _user: &Table) -> DocreIiSettings {
        DocreIiSettings::of(profile)
    }

    fn check(&self, settings: &DocreIiSettings) -> Result<()> {
        settings.check()
    }

    fn schedule(&self, profile: Profile, _settings: &DocreIiSettings) -> Schedule {
        base_schedule(profile)
    }

    fn second_schedule(&self, profile: Profile) -> Option<Schedule> {
        let (batch, epochs) = if profile == Profile::Code { (12, 52.0) } else { (8, 15.0) };
        let base = base_schedule(profile);
        Some(Schedule { learning_rate: 1e-5, head_rate: 10.0, batch, epochs, ..base })
    }

    fn first_stage(&self, settings: &DocreIiSettings) -> Option<DocreIiSettings> {
        let second = settings.stage == Stage::Inference;
        second.then(|| DocreIiSettings { stage: Stage::Base, ..settings.clone() })
    }

    fn fit(&self, settings: &mut DocreIiSettings, layers: usize) {
        settings.averaged_layers = settings.averaged_layers.min(layers);
    }

    fn build(
        &self,
        foundation: Foundation,
        settings: &DocreIiSettings,
        _ranked: bool,
    ) -> Result<Box<dyn Extractor>> {
        Ok(Box::new(DocreIi::new(foundation, settings.clone())?))
    }
}
