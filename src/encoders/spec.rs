//! Which encoder a recipe or a command line asks for, and building it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::registry::{kind_of_config, kind_of_preset, model_types, presets};
use super::{Encoder, EncoderKind, NewEncoder};
use crate::hub::{self, RepoName, Wanted};
use crate::torch::{Parameters, hf};
use crate::{DataError, Error, Result};

/// Where an encoder comes from.
#[derive(Debug)]
pub enum EncoderSpec {
    /// New weights.
    New(NewEncoder),
    /// A Hugging Face folder: `config.json` with `model.safetensors` or `pytorch_model.bin`. That
    /// of a repository lies in the cache of the Hub.
    Folder(PathBuf),
}

impl EncoderSpec {
    /// Reads the name of a preset, the path of a folder, or the name of a repository of the Hub,
    /// `ORG/NAME[@REVISION]`, whose files are fetched unless they are in the cache; weights only if
    /// its encoder is one that can be loaded.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a name that is none of them; [`Error::Data`] for a repository with
    /// another encoder; as [`hub::fetch`].
    pub fn parse(text: &str) -> Result<Self> {
        if Self::is_preset(text) {
            return Ok(Self::preset(text, Value::Null));
        }
        let path = PathBuf::from(text);
        if path.is_dir() {
            return Ok(Self::Folder(path));
        }
        if let Some(name) = RepoName::parse(text) {
            return Ok(Self::Folder(hub::fetch(&name, Wanted::Encoder(accepts))?.folder));
        }
        let problem = format!("encoder `{text}` is neither a preset nor a folder");
        Err(Error::recipe(problem).with_hint(format!(
            "name one of `{}`, the folder of a Hugging Face checkpoint, or a repository of the \
             Hub as ORG/NAME",
            presets().join("`, `")
        )))
    }

    /// Whether a name is that of a preset.
    pub fn is_preset(name: &str) -> bool {
        kind_of_preset(name).is_some()
    }

    /// A preset with some keys of its `config.json` changed; `overrides` is an object or null.
    pub fn preset(name: &str, overrides: Value) -> Self {
        let overrides = if let Value::Object(map) = overrides { map } else { Map::new() };
        Self::New(NewEncoder { preset: name.to_owned(), overrides, ..NewEncoder::default() })
    }

    /// Whether a file of word vectors can be the encoder's vocabulary.
    pub fn reads_words(&self) -> bool {
        match self {
            Self::New(new) => kind_of_preset(&new.preset).is_some_and(|kind| kind.reads_words),
            Self::Folder(_) => false,
        }
    }
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

/// Refuses a folder whose encoder cannot be loaded, from its `config.json` alone.
fn accepts(folder: &Path) -> Result<()> {
    let path = folder.join("config.json");
    let config: Value = serde_json::from_slice(&fs_err::read(&path)?)
        .map_err(|cause| DataError::new(&path, format!("is not JSON: {cause}")))?;
    kind_in(folder, &config).map(drop)
}

fn kind_in(folder: &Path, config: &Value) -> Result<&'static EncoderKind> {
    kind_of_config(config).ok_or_else(|| {
        let model_type = config["model_type"].as_str().unwrap_or_default();
        DataError::new(folder, format!("`model_type` is `{model_type}`, which cannot be loaded"))
            .hint(format!("the encoders that can be loaded are `{}`", model_types().join("`, `")))
            .into()
    })
}

fn from_folder(dir: &Path, pieces: i64, params: &mut Parameters) -> Result<Box<dyn Encoder>> {
    let mut folder = hf::read_folder(dir)?;
    let kind = kind_in(dir, &folder.config)?;
    (kind.load)(&mut folder, pieces, params)
}
