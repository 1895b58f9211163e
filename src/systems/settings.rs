//! The settings of any system, and what builds it from them.

use serde::{Deserialize, Serialize};

use super::dsdocre::{Dsdocre, Switches};
use super::{Extractor, Foundation};
use crate::Result;

/// Names of the systems, as in `finetune --system`.
pub const SYSTEMS: &[&str] = &["dsdocre"];

/// A system with its settings, as a checkpoint keeps them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settings {
    /// DSDocRE, all parts.
    Dsdocre(Box<Switches>),
}

impl Settings {
    /// The system's name, as in `finetune --system`.
    pub fn system(&self) -> &'static str {
        match self {
            Self::Dsdocre(_) => "dsdocre",
        }
    }

    /// DSDocRE's switches.
    ///
    /// # Errors
    /// Another system.
    pub fn dsdocre(&self) -> Result<&Switches> {
        match self {
            Self::Dsdocre(switches) => Ok(switches),
        }
    }

    /// Builds the extractor; `ranked` says whether documents carry a ranker's pairs (DSDocRE alone asks).
    ///
    /// # Errors
    /// Settings that cannot be built; what libtorch refuses.
    pub fn build(&self, foundation: Foundation, ranked: bool) -> Result<Box<dyn Extractor>> {
        Ok(match self {
            Self::Dsdocre(switches) => Box::new(Dsdocre::new(foundation, switches, ranked)?),
        })
    }
}
