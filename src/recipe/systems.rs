//! The systems' tables of a recipe. The registry says which there are and what their defaults are.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::IgnoredAny;
use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use toml::Table;

use super::overlay;
use crate::systems::{Profile, Settings, System, systems};
use crate::{Error, Result};

/// The settings of every table of the registry, in its order. A table that several systems share
/// belongs to the one that is fine-tuned.
#[derive(Clone, Debug, Default)]
pub struct SystemTables(Vec<Settings>);

impl SystemTables {
    /// The defaults of a profile. `user` is the whole recipe as its author wrote it.
    pub(super) fn defaults(profile: Profile, system: &'static System, user: &Table) -> Self {
        let mut tables: Vec<Settings> = Vec::new();
        for each in systems() {
            let table = each.info().table;
            if tables.iter().all(|settings| settings.info().table != table) {
                let owner = if system.info().table == table { system } else { each };
                let written = user.get(table).and_then(toml::Value::as_table);
                tables.push(owner.defaults(profile, written.unwrap_or(&Table::new())));
            }
        }
        Self(tables)
    }

    /// Takes the systems' tables out of the user's recipe and lays them over the defaults.
    pub(super) fn overlay(
        self,
        user: &mut Table,
        schema: &serde_json::Value,
        origin: &str,
    ) -> Result<Self> {
        let lay = |settings: Settings| {
            let name = settings.info().table;
            let Some(written) = user.remove(name) else { return Ok(settings) };
            let mut values = toml::Value::Table(overlay::table_of(&without_nulls(&settings)?)?);
            overlay::merge_value(&mut values, written);
            let wrong = |error| overlay::wrong_value(&error, schema, origin, Some(name));
            settings.entry.read_table(values).map_err(wrong)
        };
        Ok(Self(self.0.into_iter().map(lay).collect::<Result<_>>()?))
    }

    pub(super) fn check(&self) -> Result<()> {
        self.0.iter().try_for_each(|settings| settings.check())
    }

    /// The settings of a system's table.
    ///
    /// # Errors
    /// [`Error::Bug`] for a system whose table is not here.
    pub(super) fn of(&self, system: &'static System) -> Result<&Settings> {
        let table = system.info().table;
        self.0.iter().find(|settings| settings.info().table == table).ok_or_else(|| {
            Error::Bug(format!("the recipe was read before its table `{table}` was registered"))
        })
    }

    /// The settings of type `T`.
    pub(super) fn get<T: 'static>(&self) -> Option<&T> {
        self.0.iter().find_map(Settings::get)
    }

    /// Fits all settings to an encoder of so many layers.
    pub fn fit(&mut self, layers: usize) {
        self.0.iter_mut().for_each(|settings| *settings = settings.fit(layers));
    }
}

/// Settings as an object without the keys that have no value, which TOML cannot write.
fn without_nulls(settings: &Settings) -> Result<Map<String, Value>> {
    match settings.value() {
        Ok(Value::Object(values)) => {
            Ok(values.into_iter().filter(|(_, value)| !value.is_null()).collect())
        }
        other => Err(Error::Bug(format!("the settings of a system are no object: {other:?}"))),
    }
}

impl Serialize for SystemTables {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for settings in &self.0 {
            let values = without_nulls(settings).map_err(S::Error::custom)?;
            map.serialize_entry(settings.info().table, &values)?;
        }
        map.end()
    }
}

/// Leaves the tables to `SystemTables::overlay`, whose errors name the key.
impl<'de> Deserialize<'de> for SystemTables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer)?;
        Ok(Self::default())
    }
}

impl JsonSchema for SystemTables {
    fn schema_name() -> Cow<'static, str> {
        "SystemTables".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut tables = Map::new();
        for system in systems() {
            let mut schema = (system.schema)(generator);
            let definition = schema.get("$ref").and_then(Value::as_str);
            let definition = definition.and_then(|path| path.rsplit('/').next());
            let about =
                definition.and_then(|name| generator.definitions().get(name)?.get("description"));
            if let Some(about) = about.cloned() {
                schema.insert("description".to_owned(), about);
            }
            tables.entry(system.info().table).or_insert_with(|| schema.to_value());
        }
        let required: Vec<&String> = tables.keys().collect();
        json_schema!({ "type": "object", "required": required, "properties": tables })
    }
}
