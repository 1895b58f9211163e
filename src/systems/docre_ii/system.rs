//! DocRE-II in the registry.

use std::sync::Arc;

use super::{DocreIi, DocreIiSettings, Stage, parity};
use crate::parity::CaseKind;
use crate::systems::atlop::{self, check_blocks};
use crate::systems::{Extractor, Foundation, Profile, System, SystemInfo, SystemSettings, Values};
use crate::train::{Schedule, Select};
use crate::{Error, Result};

/// DocRE-II, either stage.
pub static DOCRE_II: System = System::new::<DocreIiSettings>(
    SystemInfo {
        title: "DocRE-II",
        parity: Some(CaseKind { system: "docre-ii", compute: parity::docre_ii }),
        ..SystemInfo::new(
            "docre-ii",
            "an ATLOP base whose predictions an inference module refines, iterated at test; \
             two training stages",
            "Zhang et al. 2022, Towards Better Document-level Relation Extraction via \
             Iterative Inference",
        )
    },
    |profile, _| Arc::new(DocreIiSettings::of(profile)),
);

impl SystemSettings for DocreIiSettings {
    fn check(&self) -> Result<()> {
        check_blocks(self.emb_size, self.block_size)?;
        let wrong = |what: String, hint: &str| Err(Error::recipe(what).with_hint(hint.to_owned()));
        if self.inference_heads != 4 {
            return wrong(
                format!("`inference_heads` is {}", self.inference_heads),
                "there are four sets of pairs, and one head for each",
            );
        }
        if self.inference_width < 4 || self.inference_width % 4 != 0 {
            return wrong(
                format!(
                    "`inference_width` {} does not split into four heads",
                    self.inference_width
                ),
                "the release has 512",
            );
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return wrong(
                format!("`dropout` is {}", self.dropout),
                "a dropout rate lies in [0, 1)",
            );
        }
        let ranges = [
            ("noise_rate", self.noise_rate),
            ("positive_noise", self.positive_noise),
            ("negative_noise", self.negative_noise),
        ];
        for (name, [low, high]) in ranges {
            if !(0.0 <= low && low <= high && high <= 1.0) {
                return wrong(
                    format!("`{name}` is [{low}, {high}]"),
                    "a range of shares rises within 0 and 1",
                );
            }
        }
        if self.freeze_base && !self.pretrained_base {
            return wrong(
                "`freeze_base` is true, but `pretrained_base` is false".to_owned(),
                "a base module that no stage has trained cannot stay as it is",
            );
        }
        if self.temperature <= 0.0 {
            return wrong(format!("`temperature` is {}", self.temperature), "it must be positive");
        }
        Ok(())
    }

    /// The base module's schedule (docs/systems.md, "I. DocRE-II").
    fn schedule(&self, _system: &SystemInfo, profile: Profile) -> Schedule {
        let base = Schedule { batch: 8, weight_decay: 1e-4, ..atlop::schedule() };
        match profile {
            Profile::Code => Schedule { batch: 20, epochs: 102.0, select: Select::IgnF1, ..base },
            _ => base,
        }
    }

    fn second_schedule(&self, profile: Profile) -> Option<Schedule> {
        let (batch, epochs) = if profile == Profile::Code { (12, 52.0) } else { (8, 15.0) };
        let base = self.schedule(&DOCRE_II.info(), profile);
        Some(Schedule { learning_rate: 1e-5, head_rate: 10.0, batch, epochs, ..base })
    }

    fn second_stage(&self) -> bool {
        self.stage == Stage::Inference
    }

    fn first_stage(&self) -> Option<Values> {
        let first = self.second_stage() && self.pretrained_base;
        first.then(|| Arc::new(Self { stage: Stage::Base, ..self.clone() }) as Values)
    }

    fn fit(&self, layers: usize) -> Option<Values> {
        let averaged_layers = self.averaged_layers.min(layers);
        Some(Arc::new(Self { averaged_layers, ..self.clone() }))
    }

    fn build(&self, foundation: Foundation, _ranked: bool) -> Result<Box<dyn Extractor>> {
        Ok(Box::new(DocreIi::new(foundation, self.clone())?))
    }
}
