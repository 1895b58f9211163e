//! DSDocRE in the registry, and the schedules of its three stages.

use std::sync::Arc;

use super::{Dsdocre, DsdocreSettings, parity};
use crate::parity::CaseKind;
use crate::systems::{
    Extractor, Foundation, Profile, PublishedScores, Settings, System, SystemInfo, SystemSettings,
    Variant,
};
use crate::train::Schedule;
use crate::{Error, Result};

/// DSDocRE: ranker, pre-trainer and extractor.
pub static DSDOCRE: System = System::new::<DsdocreSettings>(
    SystemInfo {
        title: "DSDocRE",
        variants: &[Variant::Baseline, Variant::Denoised, Variant::Pretrained],
        parity: Some(CaseKind { system: "dsdocre", compute: parity::dsdocre }),
        published: &[
            PublishedScores::new("BERT", [55.67, 53.32], [56.17, 53.66]),
            PublishedScores::new("BERT+D", [57.42, 55.88], [57.20, 55.53]),
            PublishedScores::new("BERT+D+P", [58.65, 57.00], [58.43, 56.68]),
        ],
        ..SystemInfo::new(
            "dsdocre",
            "marked entities, max-pooled mentions, bilinear relation vectors of the ranker's \
             best pairs; arg-max with NA",
            "Xiao et al. 2020, Denoising Relation Extraction from Document-level Distant \
             Supervision",
        )
    },
    |profile, _| Arc::new(DsdocreSettings::of(profile)),
);

/// The ranker's schedule: 32 documents a step, the checkpoint of epoch 4.
pub fn rank_schedule() -> Schedule {
    Schedule::base()
}

/// The schedule of pre-training: 16 document pairs a step, 16 epochs of 1,000 steps.
pub fn pretrain_schedule() -> Schedule {
    Schedule { batch: 16, epochs: 16.0, checkpoint_steps: 1000, ..Schedule::base() }
}

impl SystemSettings for DsdocreSettings {
    fn check(&self) -> Result<()> {
        let probabilities = [
            ("blank_probability", self.blank_probability),
            ("rank_blank_probability", self.rank_blank_probability),
            ("same_fact_ratio", self.same_fact_ratio),
        ];
        for (key, value) in probabilities {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::recipe(format!("dsdocre.{key} = {value} is not a probability"))
                    .with_hint("a probability lies between 0 and 1"));
            }
        }
        let numbers = [
            ("relation_width", self.relation_width.max(0) as usize, 1),
            ("rank_candidates", self.rank_candidates, 2),
            ("mention_candidates", self.mention_candidates, 2),
            ("cross_mention_candidates", self.cross_mention_candidates, 2),
            ("detection_candidates", self.detection_candidates, 2),
            ("cross_detection_per_document", self.cross_detection_per_document, 1),
            ("alignment_random", self.alignment_random, 1),
        ];
        for (key, value, least) in numbers {
            if value < least {
                return Err(Error::recipe(format!("dsdocre.{key} = {value} is too small"))
                    .with_hint(format!("it must be at least {least}")));
            }
        }
        Ok(())
    }

    fn schedule(&self, _system: &SystemInfo, profile: Profile) -> Schedule {
        let batch = if profile == Profile::Code { 6 } else { 4 };
        Schedule { learning_rate: 1e-5, batch, epochs: 30.0, ..Schedule::base() }
    }

    fn shared_layers(&self) -> Option<&'static str> {
        self.transfer_bilinear.then_some("relation.")
    }

    fn build(&self, foundation: Foundation, ranked: bool) -> Result<Box<dyn Extractor>> {
        Ok(Box::new(Dsdocre::new(foundation, self, ranked)?))
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
