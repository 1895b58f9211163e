//! KD-DocRE in the registry.

use std::sync::Arc;

use super::{KdDocre, KdDocreSettings, KdDocreStage, parity};
use crate::encoders::checks::{COUNTS, check_rates, check_within};
use crate::parity::CaseKind;
use crate::systems::atlop::check_blocks;
use crate::systems::{
    Extractor, Foundation, Profile, PublishedScores, System, SystemInfo, SystemSettings,
    TeacherColumn, Values,
};
use crate::train::Schedule;
use crate::{Error, Result};

/// KD-DocRE. The stage that the table names chooses other defaults. A wrong stage is refused when
/// the table is read.
pub static KD_DOCRE: System = System::new::<KdDocreSettings>(
    SystemInfo {
        title: "KD-DocRE",
        parity: Some(CaseKind { system: "kd-docre", compute: parity::kd_docre }),
        published: &[PublishedScores::new("KD-DocRE, BERT-base", [62.03, 60.08], [62.08, 60.04])],
        ..SystemInfo::new(
            "kd-docre",
            "ATLOP's reading, axial attention over the matrix of entity pairs, adaptive focal \
             loss, distillation of a teacher's logits",
            "Tan et al. 2022, Document-Level Relation Extraction with Adaptive Focal Loss and \
             Knowledge Distillation",
        )
    },
    |profile, user| {
        let stage = user.get("stage").and_then(|stage| stage.clone().try_into().ok());
        Arc::new(KdDocreSettings::staged(profile, stage.unwrap_or_default()))
    },
);

impl SystemSettings for KdDocreSettings {
    fn check(&self) -> Result<()> {
        check_blocks(self.emb_size, self.block_size)?;
        let layers = self.axial_layers as i64;
        let counts = [("axial_layers", layers), ("axial_heads", self.axial_heads)];
        check_within("kd-docre", &counts, COUNTS, "the release has 6 layers of 8 heads")?;
        check_rates("", &[("drop_unlabelled", self.drop_unlabelled)])?;
        let factors = [
            ("gamma", self.gamma),
            ("mse_weight", self.mse_weight),
            ("axial_rate", self.axial_rate),
        ];
        if let Some((name, value)) =
            factors.iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0))
        {
            return Err(Error::recipe(format!("kd-docre: `{name}` is {value}"))
                .with_hint("it must be a number of at least 0"));
        }
        if self.biased_padding && self.grid_size == 0 {
            return Err(Error::recipe("kd-docre: `biased_padding` is true, `grid_size` is 0")
                .with_hint("grids without padding have no padded cells; the release has 42"));
        }
        self.reading().check()
    }

    fn learns(&self) -> Option<TeacherColumn> {
        (self.stage == KdDocreStage::Distil).then_some(TeacherColumn::Logits)
    }

    fn student(&self) -> Option<Values> {
        Some(Arc::new(Self { stage: KdDocreStage::Distil, ..self.clone() }))
    }

    fn refined(&self) -> Option<Values> {
        // The axial layers' rate is a part of each stage's schedule.
        let own = Self::staged(Profile::default(), KdDocreStage::Continue);
        let axial_rate = if self.axial_rate == Self::default().axial_rate {
            own.axial_rate
        } else {
            self.axial_rate
        };
        Some(Arc::new(Self { stage: KdDocreStage::Continue, axial_rate, ..self.clone() }))
    }

    /// With BERT-base (docs/systems.md, "K. KD-DocRE").
    fn schedule(&self, _system: &SystemInfo, _profile: Profile) -> Schedule {
        let (batch, epochs, rates, clip) = match self.stage {
            KdDocreStage::Teacher => (8, 50.0, (3e-5, 10.0 / 3.0), 1.0),
            KdDocreStage::Distil => (8, 50.0, (3e-5, 10.0 / 3.0), 5.0),
            KdDocreStage::Continue => (2, 10.0, (1e-6, 3.0), 2.0),
        };
        let (learning_rate, head_rate) = rates;
        let base = crate::systems::atlop::schedule();
        Schedule { batch, epochs, learning_rate, head_rate, clip, ..base }
    }

    fn build(&self, foundation: Foundation, _ranked: bool) -> Result<Box<dyn Extractor>> {
        Ok(Box::new(KdDocre::new(foundation, self.clone())?))
    }
}
