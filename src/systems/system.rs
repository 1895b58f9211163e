//! What a system is: the trait that each system's folder implements, and a system with its
//! settings.
//!
//! Rooms above see [`Settings`] and [`AnySystem`] alone, so that no code elsewhere names a system.
//! Not for: the list of systems (`registry`), nor for how a model computes (`extractor`).

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::Value;
use toml::Table;

use super::{Extractor, Foundation, Model, Profile, PublishedScores, Variant};
use crate::Result;
use crate::parity::CaseKind;
use crate::train::Schedule;

/// What the documents of a system are made of in its paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Word pieces, for a text encoder.
    Pieces,
    /// Words, for a table of word vectors.
    Words,
}

/// What is known of a system without its settings.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SystemInfo {
    /// Name, as in `finetune --system`.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// The paper.
    pub source: &'static str,
    /// Table of the recipe that holds its settings.
    pub table: &'static str,
    /// What its documents are made of.
    #[serde(skip)]
    pub reads: Reads,
    /// Whether it needs a second encoder ([`Foundation::twin`]).
    #[serde(skip)]
    pub twin: bool,
    /// The rows of the results table that it is run for unless the recipe says otherwise.
    #[serde(skip)]
    pub variants: &'static [Variant],
    /// The cases of the reference implementation that its code must reproduce.
    #[serde(skip)]
    pub parity: Option<CaseKind>,
    /// What papers report of it on DocRED.
    #[serde(skip)]
    pub published: &'static [PublishedScores],
}

impl SystemInfo {
    /// A system over word pieces, with a table of its own and no published scores.
    pub const fn new(name: &'static str, about: &'static str, source: &'static str) -> Self {
        Self {
            name,
            about,
            source,
            table: name,
            reads: Reads::Pieces,
            twin: false,
            variants: &[Variant::Baseline],
            parity: None,
            published: &[],
        }
    }

    /// Whether the system chooses pairs by a ranker.
    pub fn uses_ranker(&self) -> bool {
        self.variants.contains(&Variant::Denoised)
    }
}

/// A system: everything that rooms above must know of it. Its folder implements this once, and the
/// registry lists it.
pub trait System: Send + Sync + 'static {
    /// Its settings: what paper and release leave open or differ in.
    type Settings: Clone + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;

    /// Name, citation and the like.
    fn info(&self) -> SystemInfo;

    /// The settings of a profile. `user` is the table that a recipe's author wrote, for settings
    /// that choose the defaults of others; it is laid over the result.
    fn defaults(&self, profile: Profile, user: &Table) -> Self::Settings;

    /// Refuses settings that no model can be built from.
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe) naming the setting.
    fn check(&self, settings: &Self::Settings) -> Result<()>;

    /// The schedule of fine-tuning, as paper or release have it.
    fn schedule(&self, profile: Profile, settings: &Self::Settings) -> Schedule;

    /// The schedule of a second stage of fine-tuning, for a system that has one.
    fn second_schedule(&self, _profile: Profile) -> Option<Schedule> {
        None
    }

    /// The settings of a first stage, from whose best checkpoint a model with these settings
    /// starts, heads included; `None` where there is one stage.
    fn first_stage(&self, _settings: &Self::Settings) -> Option<Self::Settings> {
        None
    }

    /// The prefix of the layers that a model takes over, with the encoder, from the checkpoint of
    /// another stage.
    fn shared_layers(&self, _settings: &Self::Settings) -> Option<&'static str> {
        None
    }

    /// Fits the settings to an encoder of so many layers, where they ask for more.
    fn fit(&self, _settings: &mut Self::Settings, _layers: usize) {}

    /// Builds the extractor. `ranked` says whether documents carry a ranker's pairs.
    ///
    /// # Errors
    /// Settings that cannot be built; a system that extracts no relations; errors of libtorch.
    fn build(
        &self,
        foundation: Foundation,
        settings: &Self::Settings,
        ranked: bool,
    ) -> Result<Box<dyn Extractor>>;

    /// Builds the model that is trained, extractor or not.
    ///
    /// # Errors
    /// As [`Self::build`].
    fn model(&self, foundation: Foundation, settings: &Self::Settings) -> Result<Box<dyn Model>> {
        Ok(Box::new(self.build(foundation, settings, false)?))
    }
}

/// A system whose settings are of any type; every [`System`] is one.
pub trait AnySystem: Send + Sync {
    /// Name, citation and the like.
    fn info(&self) -> SystemInfo;
    /// The settings of a profile, as [`System::defaults`].
    fn defaults(&'static self, profile: Profile, user: &Table) -> Settings;
    /// Reads settings from a table of a recipe.
    ///
    /// # Errors
    /// A value that its key cannot take; the error names the key within the table.
    fn read_table(
        &'static self,
        table: toml::Value,
    ) -> std::result::Result<Settings, toml::de::Error>;
    /// Reads settings as a checkpoint keeps them.
    ///
    /// # Errors
    /// A value that its key cannot take.
    fn read_value(&'static self, value: Value) -> serde_json::Result<Settings>;
    /// The schema of the settings.
    fn schema(&self, generator: &mut SchemaGenerator) -> Schema;
    /// As [`System::second_schedule`].
    fn second_schedule(&self, profile: Profile) -> Option<Schedule>;
}

impl<S: System> AnySystem for S {
    fn info(&self) -> SystemInfo {
        System::info(self)
    }

    fn defaults(&'static self, profile: Profile, user: &Table) -> Settings {
        Settings::of(self, System::defaults(self, profile, user))
    }

    fn read_table(
        &'static self,
        table: toml::Value,
    ) -> std::result::Result<Settings, toml::de::Error> {
        Ok(Settings::of(self, table.try_into()?))
    }

    fn read_value(&'static self, value: Value) -> serde_json::Result<Settings> {
        Ok(Settings::of(self, serde_json::from_value(value)?))
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<S::Settings>()
    }

    fn second_schedule(&self, profile: Profile) -> Option<Schedule> {
        System::second_schedule(self, profile)
    }
}

/// A system with its settings, as a recipe holds them and a checkpoint keeps them: an object with
/// the system's name as its only key.
#[derive(Clone)]
pub struct Settings(Arc<dyn Configured>);

/// A system beside settings of its own type.
struct Bound<S: System> {
    system: &'static S,
    settings: S::Settings,
}

/// A system with its settings: the methods of [`System`] without the type of the settings.
pub trait Configured: Send + Sync {
    /// The system.
    fn entry(&self) -> &'static dyn AnySystem;
    /// The settings.
    fn any(&self) -> &dyn Any;
    /// The settings as an object.
    ///
    /// # Errors
    /// If serde cannot write them, which is a bug.
    fn value(&self) -> serde_json::Result<Value>;
    /// As [`System::check`].
    ///
    /// # Errors
    /// As there.
    fn check(&self) -> Result<()>;
    /// As [`System::schedule`].
    fn schedule(&self, profile: Profile) -> Schedule;
    /// As [`System::first_stage`].
    fn first_stage(&self) -> Option<Settings>;
    /// As [`System::shared_layers`].
    fn shared_layers(&self) -> Option<&'static str>;
    /// The settings for an encoder of so many layers, as [`System::fit`].
    #[must_use]
    fn fit(&self, layers: usize) -> Settings;
    /// As [`System::build`].
    ///
    /// # Errors
    /// As there.
    fn build(&self, foundation: Foundation, ranked: bool) -> Result<Box<dyn Extractor>>;
    /// As [`System::model`].
    ///
    /// # Errors
    /// As there.
    fn model(&self, foundation: Foundation) -> Result<Box<dyn Model>>;
}

impl<S: System> Configured for Bound<S> {
    fn entry(&self) -> &'static dyn AnySystem {
        self.system
    }
    fn any(&self) -> &dyn Any {
        &self.settings
    }
    fn value(&self) -> serde_json::Result<Value> {
        serde_json::to_value(&self.settings)
    }
    fn check(&self) -> Result<()> {
        self.system.check(&self.settings)
    }
    fn schedule(&self, profile: Profile) -> Schedule {
        self.system.schedule(profile, &self.settings)
    }
    fn first_stage(&self) -> Option<Settings> {
        Some(Settings::of(self.system, self.system.first_stage(&self.settings)?))
    }
    fn shared_layers(&self) -> Option<&'static str> {
        self.system.shared_layers(&self.settings)
    }
    fn fit(&self, layers: usize) -> Settings {
        let mut settings = self.settings.clone();
        self.system.fit(&mut settings, layers);
        Settings::of(self.system, settings)
    }
    fn build(&self, foundation: Foundation, ranked: bool) -> Result<Box<dyn Extractor>> {
        self.system.build(foundation, &self.settings, ranked)
    }
    fn model(&self, foundation: Foundation) -> Result<Box<dyn Model>> {
        self.system.model(foundation, &self.settings)
    }
}

impl Settings {
    /// A system with settings.
    pub fn of<S: System>(system: &'static S, settings: S::Settings) -> Self {
        Self(Arc::new(Bound { system, settings }))
    }

    /// Name, citation and the like of the system.
    pub fn info(&self) -> SystemInfo {
        self.entry().info()
    }

    /// The system's name, as in `finetune --system`.
    pub fn system(&self) -> &'static str {
        self.info().name
    }

    /// The settings as `T`, where that is their type.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.0.any().downcast_ref()
    }
}

impl Deref for Settings {
    type Target = dyn Configured;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.system(), self.value())
    }
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let value = self.value().map_err(serde::ser::Error::custom)?;
        BTreeMap::from([(self.system(), value)]).serialize(serializer)
    }
}
