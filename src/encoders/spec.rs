//! Which encoder a recipe or a command line asks for.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::WordVectors;
use super::registry::{kind_of_preset, presets};
use crate::{Error, Result};

/// Where an encoder comes from.
#[derive(Debug)]
pub enum EncoderSpec {
    /// New weights.
    New(NewEncoder),
    /// A Hugging Face folder: `config.json` with `model.safetensors` or `pytorch_model.bin`.
    Folder(PathBuf),
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

impl EncoderSpec {
    /// Reads the name of a preset or the path of a folder.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a name that is neither.
    pub fn parse(text: &str) -> Result<Self> {
        if kind_of_preset(text).is_some() {
            return Ok(Self::preset(text, Value::Null));
        }
        let path = PathBuf::from(text);
        if path.is_dir() { Ok(Self::Folder(path)) } else { Err(unknown(text)) }
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

fn unknown(text: &str) -> Error {
    Error::recipe(format!("encoder `{text}` is neither a preset nor a folder")).with_hint(format!(
        "name one of `{}`, or the folder of a Hugging Face BERT checkpoint",
        presets().join("`, `")
    ))
}
