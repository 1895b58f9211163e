//! The list of systems: their names, where they come from, their settings, and what builds them.

use serde::{Deserialize, Serialize};

use super::atlop::{Atlop, AtlopSettings};
use super::dsdocre::{Dsdocre, Switches};
use super::{Extractor, Foundation, Profile};
use crate::{Error, Result};

/// A system as the command line lists it.
#[derive(Clone, Copy, Debug)]
pub struct SystemInfo {
    /// Name, as in `finetune --system`.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Paper, section of the specification, parity cases.
    pub source: &'static str,
    /// Table of the recipe that holds its settings.
    pub table: &'static str,
}

/// All systems.
pub const SYSTEMS: &[SystemInfo] = &[
    SystemInfo {
        name: "dsdocre",
        about: "marked entities, max-pooled mentions, bilinear relation vectors of the ranker's best pairs; arg-max with NA",
        source: "Xiao et al. 2020, Denoising Relation Extraction from Document-level Distant Supervision",
        table: "switches",
    },
    SystemInfo {
        name: "atlop",
        about: "localized context pooling over the encoder's own attention, grouped bilinear classifier, adaptive thresholds",
        source: "Zhou et al. 2021, Document-Level Relation Extraction with Adaptive Thresholding and Localized Context Pooling",
        table: "atlop",
    },
];

impl SystemInfo {
    /// The system of that name.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the nearest one.
    pub fn of(name: &str) -> Result<&'static Self> {
        SYSTEMS.iter().find(|system| system.name == name).ok_or_else(|| {
            let names: Vec<&str> = SYSTEMS.iter().map(|system| system.name).collect();
            Error::recipe(format!("there is no system `{name}`")).with_hint(format!("the systems are {}", names.join(", ")))
        })
    }
}

/// A system with its settings, as a checkpoint keeps them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settings {
    /// DSDocRE, all parts.
    Dsdocre(Box<Switches>),
    /// ATLOP.
    Atlop(AtlopSettings),
}

impl Settings {
    /// The settings of a profile.
    ///
    /// # Errors
    /// As [`SystemInfo::of`].
    pub fn of(system: &str, profile: Profile) -> Result<Self> {
        Ok(match SystemInfo::of(system)?.name {
            "dsdocre" => Self::Dsdocre(Box::new(Switches::of(profile))),
            "atlop" => Self::Atlop(AtlopSettings::of(profile)),
            listed => return Err(Error::Bug(format!("system `{listed}` has no settings"))),
        })
    }

    /// The system's name, as in `finetune --system`.
    pub fn system(&self) -> &'static str {
        match self {
            Self::Dsdocre(_) => "dsdocre",
            Self::Atlop(_) => "atlop",
        }
    }

    /// DSDocRE's switches.
    ///
    /// # Errors
    /// Another system.
    pub fn dsdocre(&self) -> Result<&Switches> {
        match self {
            Self::Dsdocre(switches) => Ok(switches),
            other => Err(Error::recipe(format!("system `{}` has no ranker and no pre-training of its own", other.system()))),
        }
    }

    /// Builds the extractor; `ranked` says whether documents carry a ranker's pairs (DSDocRE alone asks).
    ///
    /// # Errors
    /// Settings that cannot be built; what libtorch refuses.
    pub fn build(&self, foundation: Foundation, ranked: bool) -> Result<Box<dyn Extractor>> {
        Ok(match self {
            Self::Dsdocre(switches) => Box::new(Dsdocre::new(foundation, switches, ranked)?),
            Self::Atlop(settings) => Box::new(Atlop::new(foundation, settings.clone())?),
        })
    }
}
