//! What a system is: its entry in the registry, the trait that its settings implement, and a system
//! with its settings.
//!
//! Rooms above see [`System`] and [`Settings`] alone, so that no code elsewhere names a system.
//! Not for: the list of systems (`registry`), nor for how a model computes (`extractor`).

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::Value;
use toml::Table;

use super::{Extractor, Foundation, Model, Profile, SystemInfo};
use crate::Result;
use crate::train::Schedule;

/// The settings of a system, what paper and release leave open or differ in, and all that follows
/// from them.
pub trait SystemSettings: Written + Any + Send + Sync {
    /// Refuses settings that no model can be built from.
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe) naming the setting.
    fn check(&self) -> Result<()>;

    /// The schedule of fine-tuning a system with these settings, as paper or release have it.
    fn schedule(&self, system: &SystemInfo, profile: Profile) -> Schedule;

    /// The schedule of a second stage of fine-tuning, for a system that has one.
    fn second_schedule(&self, _profile: Profile) -> Option<Schedule> {
        None
    }

    /// Whether a model with these settings is trained by the schedule of the second stage.
    fn second_stage(&self) -> bool {
        false
    }

    /// The settings of a first stage, from whose best checkpoint a model with these settings
    /// starts, heads included; `None` where there is one stage.
    fn first_stage(&self) -> Option<Values> {
        None
    }

    /// The settings of a student that learns taught documents, where its training is another than
    /// that of its teacher.
    fn student(&self) -> Option<Values> {
        None
    }

    /// What a model with these settings learns from a teacher beside probabilities.
    fn learns(&self) -> Option<TeacherColumn> {
        None
    }

    /// The settings of a student that is fine-tuned on annotated documents, where these are others.
    fn refined(&self) -> Option<Values> {
        None
    }

    /// Keys of the table in a recipe that the first stage does not read.
    fn keys_of_second_stage(&self) -> &'static [&'static str] {
        &[]
    }

    /// The prefix of the layers that a model takes over, with the encoder, from the checkpoint of
    /// another stage.
    fn shared_layers(&self) -> Option<&'static str> {
        None
    }

    /// The settings for an encoder of so many layers, where these ask for more.
    fn fit(&self, _layers: usize) -> Option<Values> {
        None
    }

    /// How often a model with these settings repeats itself in prediction; `None` for a system that
    /// does not.
    fn iterations(&self) -> Option<usize> {
        None
    }

    /// The same settings with so many iterations, 0 for the prediction that they start from; `None`
    /// where [`Self::iterations`] is.
    fn with_iterations(&self, _iterations: usize) -> Option<Values> {
        None
    }

    /// The parts that the layer joins from which relations are predicted, where the paper compares
    /// their weights.
    fn weight_parts(&self) -> Vec<WeightPart> {
        Vec::new()
    }

    /// Builds the extractor. `ranked` says whether documents carry a ranker's pairs.
    ///
    /// # Errors
    /// Settings that cannot be built; a system that extracts no relations; errors of libtorch.
    fn build(&self, foundation: Foundation, ranked: bool) -> Result<Box<dyn Extractor>>;

    /// Builds the model that is trained, extractor or not.
    ///
    /// # Errors
    /// As [`Self::build`].
    fn model(&self, foundation: Foundation) -> Result<Box<dyn Model>> {
        Ok(Box::new(self.build(foundation, false)?))
    }
}

/// The columns of a layer's weight that read one part of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightPart {
    /// What the part is.
    pub name: &'static str,
    /// The weight [out, in], under its name in `heads.safetensors`.
    pub tensor: &'static str,
    /// The columns.
    pub columns: Range<i64>,
}

/// What a student can learn from a teacher beside probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TeacherColumn {
    /// How pairs attend to tokens.
    Tokens,
    /// All logits.
    Logits,
}

/// Settings of any type.
pub type Values = Arc<dyn SystemSettings>;

/// What serde can write: all types of settings, but not [`Settings`], which have no schema.
pub trait Written {
    /// The settings as an object.
    ///
    /// # Errors
    /// If serde cannot write them, which is a bug.
    fn value(&self) -> serde_json::Result<Value>;
}

impl<S: Serialize + JsonSchema> Written for S {
    fn value(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }
}

/// A system: what is known of it, and where its settings come from. Its folder has one, and the
/// registry lists it.
pub struct System {
    info: SystemInfo,
    defaults: fn(Profile, &Table) -> Values,
    from_table: fn(toml::Value) -> std::result::Result<Values, toml::de::Error>,
    from_value: fn(Value) -> serde_json::Result<Values>,
    /// The schema of the settings.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

impl System {
    /// A system with settings of type `S`. `defaults` gives those of a profile; its second argument
    /// is the table that a recipe's author wrote, for settings that choose the defaults of others;
    /// it is laid over the result.
    pub const fn new<S>(info: SystemInfo, defaults: fn(Profile, &Table) -> Values) -> Self
    where
        S: SystemSettings + DeserializeOwned + JsonSchema,
    {
        Self {
            info,
            defaults,
            from_table: |table| Ok(Arc::new(table.try_into::<S>()?)),
            from_value: |value| Ok(Arc::new(serde_json::from_value::<S>(value)?)),
            schema: |generator| generator.subschema_for::<S>(),
        }
    }

    /// Name, citation and the like.
    pub fn info(&self) -> SystemInfo {
        self.info
    }

    /// The settings of a profile, as [`System::new`] has them.
    pub fn defaults(&'static self, profile: Profile, user: &Table) -> Settings {
        Settings { entry: self, values: (self.defaults)(profile, user) }
    }

    /// Reads settings from a table of a recipe.
    ///
    /// # Errors
    /// A value that its key cannot take; the error names the key within the table.
    pub fn read_table(
        &'static self,
        table: toml::Value,
    ) -> std::result::Result<Settings, toml::de::Error> {
        Ok(Settings { entry: self, values: (self.from_table)(table)? })
    }

    /// Reads settings as a checkpoint keeps them.
    ///
    /// # Errors
    /// A value that its key cannot take.
    pub fn read_value(&'static self, value: Value) -> serde_json::Result<Settings> {
        Ok(Settings { entry: self, values: (self.from_value)(value)? })
    }
}

/// A system with its settings, as a recipe holds them and a checkpoint keeps them: an object with
/// the system's name as its only key.
#[derive(Clone)]
pub struct Settings {
    /// The system.
    pub entry: &'static System,
    values: Values,
}

impl Settings {
    /// A system with settings.
    pub fn of(entry: &'static System, settings: impl SystemSettings) -> Self {
        Self { entry, values: Arc::new(settings) }
    }

    /// Name, citation and the like of the system.
    pub fn info(&self) -> SystemInfo {
        self.entry.info
    }

    /// The system's name, as in `finetune --system`.
    pub fn system(&self) -> &'static str {
        self.entry.info.name
    }

    /// The settings as `T`, where that is their type.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        let values: &dyn Any = &*self.values;
        values.downcast_ref()
    }

    /// As [`SystemSettings::first_stage`].
    pub fn first_stage(&self) -> Option<Self> {
        Some(Self { values: self.values.first_stage()?, ..*self })
    }

    /// The settings of a student that learns taught documents.
    #[must_use]
    pub fn student(&self) -> Self {
        let values = self.values.student();
        Self { values: values.unwrap_or_else(|| Arc::clone(&self.values)), ..*self }
    }

    /// The settings of a student that is fine-tuned on annotated documents.
    #[must_use]
    pub fn refined(&self) -> Self {
        let values = self.values.refined();
        Self { values: values.unwrap_or_else(|| Arc::clone(&self.values)), ..*self }
    }

    /// As [`SystemSettings::with_iterations`].
    pub fn with_iterations(&self, iterations: usize) -> Option<Self> {
        Some(Self { values: self.values.with_iterations(iterations)?, ..*self })
    }

    /// The settings for an encoder of so many layers.
    #[must_use]
    pub fn fit(&self, layers: usize) -> Self {
        let fitted = self.values.fit(layers);
        Self { values: fitted.unwrap_or_else(|| Arc::clone(&self.values)), ..*self }
    }
}

impl Deref for Settings {
    type Target = dyn SystemSettings;

    fn deref(&self) -> &Self::Target {
        &*self.values
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.system(), self.values.value())
    }
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let value = self.values.value().map_err(serde::ser::Error::custom)?;
        BTreeMap::from([(self.system(), value)]).serialize(serializer)
    }
}
