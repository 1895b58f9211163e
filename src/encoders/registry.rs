//! All encoders, one line each, and building one.
//!
//! An encoder is a folder or file of this room with an [`EncoderKind`], and a line in [`ENCODERS`].
//! Nothing else in the program asks which encoder it has.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Encoder, EncoderSpec, NewEncoder, bert, bilstm, words};
use crate::torch::Parameters;
use crate::torch::hf::{self, Folder, WeightNames};
use crate::{Error, Result};

/// The encoders. A configuration without `model_type` is the first one's: those written before 2020
/// do not name their type.
const ENCODERS: &[&EncoderKind] = &[
    &bert::BERT,
    &bert::ROBERTA,
    &bilstm::BILSTM,
    &words::WORDS,
    #[cfg(test)]
    &super::tests::toy::TOY,
];

/// What the registry knows about an encoder.
pub struct EncoderKind {
    /// The value of `model_type` in the `config.json` of its folders.
    pub model_type: &'static str,
    /// Names of configurations that it is built from with new weights.
    pub presets: &'static [&'static str],
    /// Whether it reads words, so that a file of word vectors can be its vocabulary.
    pub reads_words: bool,
    /// How the tensors of its folders are named.
    pub names: WeightNames,
    /// Builds one with new weights for a tokenizer of so many pieces.
    pub create: fn(&NewEncoder, i64, &mut Parameters) -> Result<Box<dyn Encoder>>,
    /// Builds one with the weights of a folder for a tokenizer of so many pieces.
    pub load: fn(&Folder, i64, &mut Parameters) -> Result<Box<dyn Encoder>>,
    /// Forward FLOPs for a document of so many pieces, from its `config.json`; `None` where they
    /// are not known.
    pub flops: fn(&Value, f64) -> Option<f64>,
}

/// Names of all presets.
pub(super) fn presets() -> Vec<&'static str> {
    ENCODERS.iter().flat_map(|kind| kind.presets).copied().collect()
}

pub(super) fn kind_of_preset(name: &str) -> Option<&'static EncoderKind> {
    ENCODERS.iter().find(|kind| kind.presets.contains(&name)).copied()
}

fn kind_of_config(config: &Value) -> Option<&'static EncoderKind> {
    let model_type = config.get("model_type").and_then(Value::as_str);
    let model_type = model_type.unwrap_or(ENCODERS[0].model_type);
    ENCODERS.iter().find(|kind| kind.model_type == model_type).copied()
}

/// Builds an encoder and declares its parameters in `params`, under Hugging Face names without a
/// prefix.
///
/// `pieces` is the number of pieces of the tokenizer. Weights from a folder overwrite the initial
/// values.
///
/// # Errors
/// [`Error::Recipe`] for an unusable configuration, [`Error::Data`] for a folder that cannot be
/// read.
pub fn build(spec: &EncoderSpec, pieces: i64, params: &mut Parameters) -> Result<Box<dyn Encoder>> {
    match spec {
        EncoderSpec::New(new) => {
            let kind = kind_of_preset(&new.preset).ok_or_else(|| {
                Error::recipe(format!("no encoder preset is called `{}`", new.preset))
                    .with_hint(format!("the presets are {}", presets().join(", ")))
            })?;
            (kind.create)(new, pieces, params)
        }
        EncoderSpec::Folder(dir) => from_folder(dir, pieces, params),
    }
}

fn from_folder(dir: &Path, pieces: i64, params: &mut Parameters) -> Result<Box<dyn Encoder>> {
    let mut folder = hf::read_folder(dir)?;
    let kind = kind_of_config(&folder.config).ok_or_else(|| {
        let known: Vec<&str> = ENCODERS.iter().map(|kind| kind.model_type).collect();
        folder
            .error(format!(
                "`model_type` is `{}`, which cannot be loaded",
                folder.config["model_type"].as_str().unwrap_or_default()
            ))
            .hint(format!("the encoders that can be loaded are `{}`", known.join("`, `")))
    })?;
    folder.rename(&kind.names)?;
    (kind.load)(&folder, pieces, params)
}

/// Forward FLOPs of an encoder for a document of `length` pieces, from its `config.json`; `None`
/// where they are not known.
pub fn encoder_flops(config: &Value, length: f64) -> Option<f64> {
    (kind_of_config(config)?.flops)(config, length)
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
