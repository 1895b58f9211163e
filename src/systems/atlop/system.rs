//! ATLOP in the registry.

use std::sync::Arc;

use super::settings::check_blocks;
use super::{Atlop, AtlopSettings, parity, risk_parity};
use crate::parity::CaseKind;
use crate::systems::reading::MarkerScheme;
use crate::systems::{Extractor, Foundation, Profile, System, SystemInfo, SystemSettings};
use crate::train::Schedule;
use crate::{Error, Result};

/// ATLOP.
pub static ATLOP: System = System::new::<AtlopSettings>(
    SystemInfo {
        title: "ATLOP",
        parity: Some(CaseKind { system: "atlop", compute: parity::atlop }),
        ..SystemInfo::new(
            "atlop",
            "localized context pooling over the encoder's own attention, grouped bilinear \
             classifier, adaptive thresholds",
            "Zhou et al. 2021, Document-Level Relation Extraction with Adaptive Thresholding \
             and Localized Context Pooling",
        )
    },
    |profile, _| Arc::new(AtlopSettings::of(profile)),
);

/// SSR-PU: ATLOP with another loss, in the same table.
pub static SSR_PU: System = System::new::<AtlopSettings>(
    SystemInfo {
        title: "SSR-PU",
        table: "atlop",
        parity: Some(CaseKind { system: "ssr-pu", compute: risk_parity::ssr_pu }),
        ..SystemInfo::new(
            "ssr-pu",
            "ATLOP with squared risks in which a pair without a label is not a negative",
            "Wang et al. 2022, A Unified Positive-Unlabeled Learning Framework for \
             Document-Level Relation Extraction with Incomplete Labeling",
        )
    },
    |profile, _| Arc::new(AtlopSettings::positive_unlabelled(profile)),
);

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

impl SystemSettings for AtlopSettings {
    fn check(&self) -> Result<()> {
        check_blocks(self.emb_size, self.block_size)?;
        self.check_loss()?;
        if self.markers == MarkerScheme::Typed {
            return Err(Error::recipe("atlop has no typed markers")
                .with_hint("use star-per-word, star-per-mention, entity or none"));
        }
        self.long_documents.without_extension("atlop")
    }

    fn schedule(&self, _system: &SystemInfo, _profile: Profile) -> Schedule {
        schedule()
    }

    fn build(&self, foundation: Foundation, _ranked: bool) -> Result<Box<dyn Extractor>> {
        Ok(Box::new(Atlop::new(foundation, self.clone())?))
    }
}
