//! TTM-RE in the registry.

use std::sync::Arc;

use super::{TtmRe, TtmReSettings, parity};
use crate::encoders::checks::{COUNTS, check_within};
use crate::parity::CaseKind;
use crate::systems::atlop::{self, check_blocks};
use crate::systems::{Extractor, Foundation, Profile, System, SystemInfo, SystemSettings};
use crate::train::Schedule;
use crate::{Error, Result};

/// TTM-RE.
pub static TTM_RE: System = System::new::<TtmReSettings>(
    SystemInfo {
        title: "TTM-RE",
        parity: Some(CaseKind { system: "ttm-re", compute: parity::ttm_re }),
        ..SystemInfo::new(
            "ttm-re",
            "ATLOP's reading, pairs that read from learned memory tokens, a squared ranking loss",
            "Gao et al. 2024, TTM-RE: Memory-Augmented Document-Level Relation Extraction",
        )
    },
    |profile, _| Arc::new(TtmReSettings::of(profile)),
);

impl SystemSettings for TtmReSettings {
    fn check(&self) -> Result<()> {
        check_blocks(self.emb_size, self.block_size)?;
        let counts = [
            ("memory_size", self.memory_size),
            ("memory_layers", self.memory_layers as i64),
            ("memory_heads", self.memory_heads),
            ("pair_chunk", self.pair_chunk as i64),
        ];
        check_within("ttm-re", &counts, COUNTS, "leave it out for the release's number")?;
        if self.emb_size % self.memory_heads != 0 {
            return Err(Error::recipe(format!(
                "ttm-re: `memory_heads` {} does not divide `emb_size` {}",
                self.memory_heads, self.emb_size
            ))
            .with_hint("the release has 8 and 768"));
        }
        if !(self.memory_rate.is_finite() && self.memory_rate >= 0.0) {
            return Err(Error::recipe(format!("ttm-re: `memory_rate` is {}", self.memory_rate))
                .with_hint("it must be a number of at least 0"));
        }
        self.rule().check()?;
        self.reading().check()
    }

    /// Fine-tuning as in the release (docs/systems.md, "T. TTM-RE").
    fn schedule(&self, _system: &SystemInfo, profile: Profile) -> Schedule {
        let base = atlop::schedule();
        let no_decay = if profile == Profile::Code { Vec::new() } else { base.no_decay };
        let (learning_rate, head_rate) = (3e-5, 1.0 / 3.0);
        Schedule { learning_rate, head_rate, weight_decay: 0.01, no_decay, ..base }
    }

    fn build(&self, foundation: Foundation, _ranked: bool) -> Result<Box<dyn Extractor>> {
        Ok(Box::new(TtmRe::new(foundation, self.clone())?))
    }
}
