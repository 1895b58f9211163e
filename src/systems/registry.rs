//! The list of systems: one line each.

use std::collections::BTreeMap;
use std::sync::RwLock;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::cases::relabelling::RELABELLING;
use super::{
    Settings, System, atlop, baselines, docre_ii, dreeam, dsdocre, evidence, glre, hin, kd_docre,
    ttm_re,
};
use crate::parity::CaseKind;
use crate::{Error, Result};

/// The systems of this program; the first is the one that a recipe trains unless it names another.
static SYSTEMS: &[&System] = &[
    &dsdocre::DSDOCRE,
    &atlop::ATLOP,
    &docre_ii::DOCRE_II,
    &dreeam::DREEAM,
    &kd_docre::KD_DOCRE,
    &atlop::SSR_PU,
    &ttm_re::TTM_RE,
    &hin::HIN,
    &glre::GLRE,
    &baselines::CNN,
    &baselines::LSTM,
    &baselines::BILSTM,
    &baselines::CONTEXT_AWARE,
    &baselines::BERT_RE,
    &baselines::BERT_TS,
    &evidence::LSTM_SP,
];

/// Systems that a program on top of this library has added.
static ADDED: RwLock<Vec<&'static System>> = RwLock::new(Vec::new());

/// All systems.
pub fn systems() -> Vec<&'static System> {
    let added = ADDED.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    SYSTEMS.iter().chain(&*added).copied().collect()
}

/// The system that a recipe trains unless it names another.
pub fn default_system() -> &'static System {
    SYSTEMS[0]
}

/// Adds a system from outside this crate.
///
/// # Errors
/// [`Error::Recipe`] if a system of that name is there already.
pub fn register(system: &'static System) -> Result<()> {
    let name = system.info().name;
    if find(name).is_ok() {
        return Err(Error::recipe(format!("a system `{name}` is registered already")));
    }
    ADDED.write().unwrap_or_else(std::sync::PoisonError::into_inner).push(system);
    Ok(())
}

/// The system of that name.
///
/// # Errors
/// [`Error::Recipe`] listing the names.
pub fn find(name: &str) -> Result<&'static System> {
    let systems = systems();
    systems.iter().copied().find(|system| system.info().name == name).ok_or_else(|| {
        let names: Vec<&str> = systems.iter().map(|system| system.info().name).collect();
        Error::recipe(format!("there is no system `{name}`"))
            .with_hint(format!("the systems are {}", names.join(", ")))
    })
}

/// The cases of the reference implementations that systems, and the relabelling of their distant
/// documents, must reproduce.
pub fn parity_cases() -> Vec<CaseKind> {
    let of_systems = systems().into_iter().filter_map(|system| system.info().parity);
    of_systems.chain([RELABELLING]).collect()
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let tagged = BTreeMap::<String, Value>::deserialize(deserializer)?;
        let Some((name, value)) = tagged.into_iter().next() else {
            return Err(D::Error::custom("the settings name no system"));
        };
        find(&name).map_err(D::Error::custom)?.read_value(value).map_err(D::Error::custom)
    }
}
