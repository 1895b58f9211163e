//! GLRE in the registry.

use toml::Table;

use super::{Glre, GlreCorpus, GlreSettings, parity};
use crate::Result;
use crate::parity::CaseKind;
use crate::systems::{Extractor, Foundation, Profile, System, SystemInfo, adam_schedule};
use crate::train::Schedule;

/// GLRE.
pub struct GlreSystem;

impl System for GlreSystem {
    type Settings = GlreSettings;

    fn info(&self) -> SystemInfo {
        SystemInfo {
            parity: Some(CaseKind { system: "glre", compute: parity::glre }),
            ..SystemInfo::new(
                "glre",
                "global entity representations from a relational graph, local ones by attention \
                 to mentions, context of other pairs",
                "Wang et al. 2020, Global-to-Local Neural Networks for Document-Level Relation \
                 Extraction",
            )
        }
    }

    /// The corpus that the table names chooses the other defaults. A wrong corpus is refused when
    /// the table is read.
    fn defaults(&self, profile: Profile, user: &Table) -> GlreSettings {
        let corpus = user.get("corpus").and_then(|corpus| corpus.clone().try_into().ok());
        match corpus.unwrap_or_default() {
            GlreCorpus::Docred => GlreSettings::of(profile),
            GlreCorpus::Cdr => GlreSettings::cdr(profile),
        }
    }

    fn check(&self, settings: &GlreSettings) -> Result<()> {
        settings.check()
    }

    /// As the paper on the corpus (docs/systems.md, "G. GLRE"). On CDR the encoder is frozen, so
    /// that its rate means nothing.
    fn schedule(&self, _profile: Profile, settings: &GlreSettings) -> Schedule {
        let docred = Schedule {
            learning_rate: 1e-5,
            head_rate: 50.0,
            batch: 8,
            amsgrad: true,
            clip: 10.0,
            first_evaluation_epoch: 10.0,
            patience: 10,
            ..adam_schedule()
        };
        match settings.corpus {
            GlreCorpus::Docred => docred,
            GlreCorpus::Cdr => Schedule {
                batch: 16,
                weight_decay: 1e-4,
                first_evaluation_epoch: 0.0,
                patience: 20,
                ..docred
            },
        }
    }

    fn build(
        &self,
        foundation: Foundation,
        settings: &GlreSettings,
        _ranked: bool,
    ) -> Result<Box<dyn Extractor>> {
        Ok(Box::new(Glre::new(foundation, settings.clone())?))
    }
}
