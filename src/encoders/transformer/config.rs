//! The configuration of a Transformer: the keys of its family, and those that other programs read.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Family;
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
        check_positive(KEY, &F::counts(&self.keys))?;
        check_rates(KEY, &F::rates(&self.keys))?;
        F::dimensions(&self.keys).check()?;
        F::check(&self.keys)
    }
}

/// The numbers of a Transformer that do not depend on how its family spells them.
#[derive(Clone, Copy, Debug)]
pub(in crate::encoders) struct Dimensions {
    /// Rows of the word-piece table.
    pub pieces: i64,
    /// Width d of a state.
    pub width: i64,
    /// Number of layers.
    pub layers: i64,
    /// Attention heads a layer.
    pub heads: i64,
    /// Width of the feed-forward layer.
    pub inner: i64,
    /// Dropout rates of (hidden states, attention probabilities).
    pub dropout_rates: (f64, f64),
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// The longest document.
    pub limit: Limit,
}

impl Dimensions {
    fn check(&self) -> Result<()> {
        let Self { width, heads, .. } = self;
        if width % heads != 0 {
            return Err(Error::recipe(format!(
                "the width {width} of the encoder is not a multiple of its {heads} attention heads"
            )));
        }
        match self.limit {
            Limit::Table(rows) if rows < 1 => Err(Error::recipe(
                "`max_position_embeddings` leaves no position after the padding piece",
            )),
            _ => Ok(()),
        }
    }

    /// Forward FLOPs of a document of so many pieces: products with the weights, with `matrices`
    /// matrices in the feed-forward layer, and products of queries and keys and of probabilities
    /// and values, where a query sees `seen` keys.
    pub fn flops(&self, length: f64, matrices: f64, seen: f64) -> f64 {
        let [layers, width, inner] = [self.layers, self.width, self.inner].map(|n| n as f64);
        let weights = 8.0 * width * width + 2.0 * matrices * width * inner;
        layers * length * (weights + 4.0 * seen.min(length) * width)
    }
}

/// How long a document may be, in pieces.
#[derive(Clone, Copy, Debug)]
pub(in crate::encoders) enum Limit {
    /// There is a row for each position.
    Table(i64),
    /// Longer documents work, but the encoder was trained on documents up to this length: longer
    /// ones are read in windows.
    Trained(i64),
    /// Any length.
    None,
}

impl Limit {
    /// The longest document that is read in one go.
    pub fn tokens(self) -> Option<i64> {
        match self {
            Self::Table(tokens) | Self::Trained(tokens) => Some(tokens),
            Self::None => None,
        }
    }

    /// Refuses a document that is longer than the table of positions.
    pub fn check(self, longest: i64) -> Result<()> {
        let Self::Table(positions) = self else { return Ok(()) };
        if longest <= positions {
            return Ok(());
        }
        Err(Error::recipe(format!(
            "a document of {longest} pieces does not fit the encoder, which has \
            {positions} positions"
        ))
        .with_hint(
            "encode long documents in windows, allow them to be cut, or take an encoder \
                with more positions",
        ))
    }
}
