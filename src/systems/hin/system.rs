//! HIN in the registry.

use std::sync::Arc;

use super::{Hin, HinSettings, parity};
use crate::Result;
use crate::encoders::checks::{COUNTS, check_within};
use crate::parity::CaseKind;
use crate::systems::{
    Extractor, Foundation, Profile, PublishedScores, Reads, System, SystemInfo, SystemSettings,
    adam_schedule,
};
use crate::train::Schedule;

/// The paper's learning rate.
const RATE: f64 = 1e-4;
/// Of a fine-tuned text encoder, which the paper does not have.
const ENCODER_RATE: f64 = 3e-5;

/// HIN.
pub static HIN: System = System::new::<HinSettings>(
    SystemInfo {
        title: "HIN",
        reads: Reads::Words,
        parity: Some(CaseKind { system: "hin", compute: parity::hin }),
        published: &[PublishedScores::new("HIN-BERT", [56.31, 54.29], [55.60, 53.70])],
        ..SystemInfo::new(
            "hin",
            "entity, sentence and document inference over BiLSTMs; translation and bilinear \
             features in several spaces",
            "Tang et al. 2020, HIN: Hierarchical Inference Network for Document-Level \
             Relation Extraction",
        )
    },
    |profile, _| Arc::new(HinSettings::of(profile)),
);

impl SystemSettings for HinSettings {
    fn check(&self) -> Result<()> {
        let widths = [
            ("word_width", self.word_width),
            ("type_width", self.type_width),
            ("coreference_width", self.coreference_width),
            ("coreference_rows", self.coreference_rows),
            ("distance_width", self.distance_width),
            ("lstm_hidden", self.lstm_hidden),
            ("spaces", self.spaces as i64),
            ("space_width", self.latent_width()),
            ("max_words", self.max_words.map_or(1, |words| words as i64)),
        ];
        check_within("hin", &widths, COUNTS, "widths and counts are at least 1")?;
        check_within("hin", &[("dropout", self.dropout)], 0.0..1.0, "a rate lies in [0, 1)")?;
        self.long_documents.without_extension("hin")
    }

    /// The layers above the encoder have the paper's rate in every profile. An encoder that is
    /// fine-tuned takes a lower one (docs/systems.md, "H. HIN").
    fn schedule(&self, _system: &SystemInfo, profile: Profile) -> Schedule {
        let encoder = if profile == Profile::Fixed { ENCODER_RATE } else { RATE };
        Schedule {
            learning_rate: encoder,
            head_rate: RATE / encoder,
            batch: 12,
            patience: 20,
            ..adam_schedule()
        }
    }

    fn build(&self, foundation: Foundation, _ranked: bool) -> Result<Box<dyn Extractor>> {
        Ok(Box::new(Hin::new(foundation, self.clone())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_above_the_encoder_have_the_papers_rate_and_the_encoder_of_fixed_a_lower_one() {
        for (profile, encoder) in
            [(Profile::Fixed, 3e-5), (Profile::Paper, 1e-4), (Profile::Code, 1e-4)]
        {
            let schedule = HinSettings::of(profile).schedule(&HIN.info(), profile);
            assert_eq!(schedule.learning_rate.to_bits(), f64::to_bits(encoder), "{profile:?}");
            let heads = schedule.learning_rate * schedule.head_rate;
            assert!((heads - 1e-4).abs() < 1e-18, "{profile:?}: {heads}");
            assert_eq!((schedule.warmup, schedule.clip, schedule.batch), (0.0, 0.0, 12));
        }
    }
}
