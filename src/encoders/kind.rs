//! An encoder's entry in the registry, what a new one is built from, and its `config.json`.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Encoder, WordVectors};
use crate::torch::Parameters;
use crate::torch::hf::ModelFolder;
use crate::{Error, Result};

/// An encoder as the registry knows it.
pub struct EncoderKind {
    /// The value of `model_type` in the `config.json` of its folders.
    pub model_type: &'static str,
    /// Names of configurations that it is built from with new weights.
    pub presets: &'static [&'static str],
    /// Whether it reads words, so that a file of word vectors can be its vocabulary.
    pub reads_words: bool,
    /// Builds one with new weights for a tokenizer of so many pieces.
    pub create: fn(&NewEncoder, i64, &mut Parameters) -> Result<Box<dyn Encoder>>,
    /// Builds one with the weights of a folder for a tokenizer of so many pieces.
    pub load: fn(&mut ModelFolder, i64, &mut Parameters) -> Result<Box<dyn Encoder>>,
    /// Width of a state and number of layers, from its `config.json`.
    pub size: fn(&Value) -> Option<[f64; 2]>,
    /// Forward FLOPs for a document of so many pieces, from its `config.json`; `None` where they
    /// are not known.
    pub flops: fn(&Value, f64) -> Option<f64>,
}

/// An encoder with new weights.
#[derive(Debug, Default)]
pub struct NewEncoder {
    /// A preset of the registry: `tiny`, `bilstm`, …
    pub preset: String,
    /// Keys of `config.json` that differ from the preset.
    pub overrides: Map<String, Value>,
    /// Word vectors to start the word table from; random ones where `None`.
    pub words: Option<WordStart>,
    /// Whether attention starts local, for an encoder that has attention.
    pub local: bool,
    /// The tokenizer's padding piece, which some families count positions from; that of the family
    /// where `None`.
    pub padding: Option<i64>,
}

/// Word vectors and what an encoder must know to start from them.
#[derive(Debug)]
pub struct WordStart {
    /// The vectors by vocabulary row.
    pub vectors: WordVectors,
    /// All pieces by row.
    pub vocabulary: Vec<String>,
    /// Rows of pieces that no file of word vectors knows, such as markers.
    pub special_rows: Vec<i64>,
    /// Seed of a random projection to the encoder's width.
    pub seed: u64,
}

/// A preset's configuration with some keys replaced.
///
/// # Errors
/// [`Error::Recipe`] for a key that the encoder does not read, or a value of the wrong type.
pub(super) fn overridden<C: Serialize + DeserializeOwned>(
    preset: &C,
    overrides: &Map<String, Value>,
) -> Result<C> {
    let mut config = serde_json::to_value(preset).unwrap_or_default();
    for (key, value) in overrides {
        let Some(place) = config.get_mut(key) else {
            let keys = config.as_object().into_iter().flat_map(Map::keys);
            let keys = keys.map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::recipe(format!("unknown encoder key `{key}`"))
                .with_hint(format!("the keys are {keys}")));
        };
        *place = value.clone();
    }
    from_json(&config)
}

/// Reads the content of a `config.json`.
///
/// # Errors
/// [`Error::Recipe`] naming the key that is missing or of the wrong type.
pub(super) fn from_json<C: DeserializeOwned>(config: &Value) -> Result<C> {
    serde_json::from_value(config.clone())
        .map_err(|cause| Error::recipe(format!("the encoder's configuration: {cause}")))
}

/// The content of `config.json`.
pub(super) fn to_json(config: &impl Serialize, architecture: &str, model_type: &str) -> Value {
    let mut config = serde_json::to_value(config).unwrap_or_default();
    config["architectures"] = json!([architecture]);
    config["model_type"] = json!(model_type);
    config
}
