//! The configuration of a Transformer: the keys of its family, and those that other programs read.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::family::{COUNTS, Family, PIECES, RATES};
use crate::encoders::checks::{check_positive, check_rates};
use crate::encoders::kind::{from_json, overridden};
use crate::{Error, Result};

/// What an error says before the name of a key.
const KEY: &str = "encoder key ";

/// Sizes of presets with their numbers of layers, widths and heads: those of Google's BERT-tiny,
/// BERT-mini and BERT-base.
const SIZES: [(&str, [i64; 3]); 3] =
    [("tiny", [2, 128, 2]), ("mini", [4, 256, 4]), ("base", [12, 768, 12])];

/// The content of a `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::encoders) struct Config<Keys> {
    /// The keys that the family reads.
    #[serde(flatten)]
    pub keys: Keys,
    /// Keys that this program does not read, kept for other programs.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl<Keys: Clone + Serialize + DeserializeOwned> Config<Keys> {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Recipe`] for keys that are missing or of another type.
    pub fn read<F: Family<Keys = Keys>>(config: &Value) -> Result<Self> {
        let mut keys = F::assumed();
        if let (Some(keys), Some(given)) = (keys.as_object_mut(), config.as_object()) {
            keys.extend(given.clone());
        }
        let mut read: Self = from_json(&keys)?;
        // Keys that stand in a structure of their own are handed to both.
        let known = serde_json::to_value(&read.keys).unwrap_or_default();
        for key in known.as_object().into_iter().flat_map(Map::keys) {
            read.other.remove(key);
        }
        F::adapt(&mut read.keys, &mut read.other)?;
        Ok(read)
    }

    /// A preset: the name of a size, after the family's own name and a hyphen where it has one.
    ///
    /// # Errors
    /// [`Error::Recipe`] for an unknown name.
    pub fn preset<F: Family<Keys = Keys>>(
        name: &str,
        pieces: i64,
        padding: Option<i64>,
    ) -> Result<Self> {
        let size =
            SIZES.iter().find(|(size, _)| name == *size || name.ends_with(&format!("-{size}")));
        let (_, size) = size.ok_or_else(|| {
            Error::recipe(format!("no preset of `{}` is called `{name}`", F::MODEL_TYPE))
        })?;
        let mut config = F::preset(*size, pieces);
        if let Some(padding) = padding {
            config["pad_token_id"] = json!(padding);
        }
        Self::read::<F>(&config)
    }

    /// Replaces the values of some keys.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a key that is not there, or a value of the wrong type.
    pub fn replace<F: Family<Keys = Keys>>(&mut self, values: &Map<String, Value>) -> Result<()> {
        let mut config = serde_json::to_value(&*self).unwrap_or_default();
        for key in F::OPTIONAL {
            config.as_object_mut().map(|config| config.entry(*key).or_insert(Value::Null));
        }
        *self = Self::read::<F>(&overridden(&config, values)?)?;
        Ok(())
    }

    /// Sets the number of rows of the word-piece table.
    ///
    /// # Errors
    /// If the keys cannot be read again.
    pub fn set_pieces(&mut self, pieces: i64) -> Result<()> {
        let mut keys = serde_json::to_value(&self.keys).unwrap_or_default();
        keys[PIECES] = json!(pieces);
        self.keys = from_json(&keys)?;
        Ok(())
    }

    /// The content of `config.json`. `architectures` and `model_type` say what is saved, whatever
    /// was loaded.
    pub fn to_json<F: Family<Keys = Keys>>(&self) -> Value {
        let mut config = crate::encoders::kind::to_json(self, F::ARCHITECTURE, F::MODEL_TYPE);
        let kind = if self.other.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        config[kind] = json!("float32");
        config
    }

    /// # Errors
    /// [`Error::Recipe`] naming a key whose value cannot be used.
    pub fn check<F: Family<Keys = Keys>>(&self) -> Result<()> {
        let values = serde_json::to_value(&self.keys).unwrap_or_default();
        let counts = COUNTS.iter().chain(F::COUNTS);
        let counts = counts.filter_map(|&key| Some((key, values.get(key)?.as_i64()?)));
        check_positive(KEY, &counts.collect::<Vec<_>>())?;
        let rates = RATES.iter().chain(F::RATES);
        let rates = rates.filter_map(|&key| Some((key, values.get(key)?.as_f64()?)));
        check_rates(KEY, &rates.collect::<Vec<_>>())?;
        F::dimensions(&self.keys).check()?;
        F::check(&self.keys)
    }
}
