//! DocRE-II in the registry.

use std::sync::Arc;

use super::settings::KEYS_OF_SECOND_STAGE;
use super::{DocreIi, DocreIiSettings, Preset, Stage, parity};
use crate::parity::CaseKind;
use crate::systems::atlop::{self, check_blocks};
use crate::systems::{
    Extractor, Foundation, Profile, System, SystemInfo, SystemSettings, Values, WeightPart,
};
use crate::train::{Schedule, Select};
use crate::{Error, Result};

/// DocRE-II, either stage. The preset that the table names chooses the other defaults. A wrong
/// preset is refused when the table is read.
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
    |profile, user| {
        let preset = user.get("preset").and_then(|preset| preset.clone().try_into().ok());
        Arc::new(DocreIiSettings::preset(profile, preset.unwrap_or_default()))
    },
);

/// A stage's schedule; `rates`: of the encoder (in the second stage of the base module) and of the
/// heads.
fn schedule(profile: Profile, batch: usize, epochs: f64, rates: [f64; 2]) -> Schedule {
    let [learning_rate, heads] = rates;
    let select = if profile == Profile::Code { Select::IgnF1 } else { Select::F1 };
    let head_rate = (heads / learning_rate * 1e6).round() / 1e6;
    let base = Schedule { weight_decay: 1e-4, select, ..atlop::schedule() };
    Schedule { batch, epochs, learning_rate, head_rate, ..base }
}

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
        let (batch, epochs, learning_rate, heads) = match (self.preset, profile) {
            (Preset::Docred, Profile::Code) => (20, 102.0, 5e-5, 1e-4),
            (Preset::Docred, _) => (8, 30.0, 5e-5, 1e-4),
            (Preset::DocredRoberta, _) => (4, 30.0, 5e-5, 1e-4),
            (Preset::Cdr, _) => (8, 20.0, 1e-5, 5e-5),
            (Preset::Gda, _) => (6, 10.0, 2e-5, 8e-5),
        };
        schedule(profile, batch, epochs, [learning_rate, heads])
    }

    fn second_schedule(&self, profile: Profile) -> Option<Schedule> {
        let (batch, epochs, learning_rate, heads) = match (self.preset, profile) {
            (Preset::Docred, Profile::Code) => (12, 52.0, 1e-5, 1e-4),
            (Preset::Docred, _) => (8, 15.0, 1e-5, 1e-4),
            (Preset::DocredRoberta, _) => (4, 15.0, 5e-6, 1e-4),
            (Preset::Cdr, _) => (8, 10.0, 1e-6, 5e-5),
            (Preset::Gda, _) => (6, 5.0, 2e-6, 8e-5),
        };
        Some(schedule(profile, batch, epochs, [learning_rate, heads]))
    }

    fn second_stage(&self) -> bool {
        self.stage == Stage::Inference
    }

    fn first_stage(&self) -> Option<Values> {
        let first = self.second_stage() && self.pretrained_base;
        first.then(|| Arc::new(Self { stage: Stage::Base, ..self.clone() }) as Values)
    }

    fn keys_of_second_stage(&self) -> &'static [&'static str] {
        &KEYS_OF_SECOND_STAGE
    }

    fn fit(&self, layers: usize) -> Option<Values> {
        let averaged_layers = self.averaged_layers.min(layers);
        Some(Arc::new(Self { averaged_layers, ..self.clone() }))
    }

    fn iterations(&self) -> Option<usize> {
        (self.stage == Stage::Inference).then_some(self.iterations)
    }

    fn with_iterations(&self, iterations: usize) -> Option<Values> {
        self.iterations().map(|_| Arc::new(Self { iterations, ..self.clone() }) as Values)
    }

    /// F and R in W_c (equation 12), or in the linear layer below it where one joins them.
    fn weight_parts(&self) -> Vec<WeightPart> {
        if self.stage == Stage::Base {
            return Vec::new();
        }
        let (width, joined) = (self.inference_width, self.project_inputs);
        let tensor = if joined {
            "CCA.Online_inference.dense.0.weight"
        } else {
            "CCA.relation_layer.weight"
        };
        [("features F", 0..width), ("relations R", width..2 * width)]
            .map(|(name, columns)| WeightPart { name, tensor, columns })
            .into()
    }

    fn build(&self, foundation: Foundation, _ranked: bool) -> Result<Box<dyn Extractor>> {
        Ok(Box::new(DocreIi::new(foundation, self.clone())?))
    }
}
