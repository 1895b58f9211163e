//! Which encoder a recipe or a command line asks for.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{BertConfig, BiLstmConfig, WordVectors, WordsConfig};
use crate::{Error, Result};

/// Where an encoder comes from.
#[derive(Debug)]
pub enum EncoderSpec {
    /// A BERT of known dimensions with random weights.
    Preset {
        /// `tiny`, `mini` or `base`.
        name: String,
        /// Keys of `config.json` that differ from the preset.
        overrides: Map<String, Value>,
    },
    /// A Hugging Face folder: `config.json` with `model.safetensors` or `pytorch_model.bin`.
    Folder(PathBuf),
    /// A BiLSTM over word vectors.
    BiLstm {
        /// Its dimensions; `vocab_size` is replaced by the tokenizer's.
        config: BiLstmConfig,
        /// Word vectors by vocabulary row; random ones where `None`.
        vectors: Option<WordVectors>,
    },
    /// A plain table of word vectors, for systems that bring their own network.
    Words {
        /// Its dimensions; `vocab_size` is replaced by the tokenizer's.
        config: WordsConfig,
        /// Word vectors by vocabulary row; random ones where `None`.
        vectors: Option<WordVectors>,
    },
}

impl EncoderSpec {
    /// Reads `tiny`, `mini`, `base`, `bilstm`, `words` or the path of a folder.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a name that is neither a preset nor a folder.
    pub fn parse(text: &str) -> Result<Self> {
        if BertConfig::PRESETS.contains(&text) {
            return Ok(Self::Preset { name: text.to_owned(), overrides: Map::new() });
        }
        if text == "bilstm" {
            return Ok(Self::BiLstm { config: BiLstmConfig::default(), vectors: None });
        }
        if text == "words" {
            return Ok(Self::Words { config: WordsConfig::default(), vectors: None });
        }
        let path = PathBuf::from(text);
        if path.is_dir() { Ok(Self::Folder(path)) } else { Err(unknown(text)) }
    }
}

fn unknown(text: &str) -> Error {
    let presets = BertConfig::PRESETS.join("`, `");
    Error::recipe(format!("encoder `{text}` is neither a preset nor a folder")).with_hint(format!(
        "name one of `{presets}`, `bilstm`, `words`, or the folder of a Hugging \
            Face BERT checkpoint"
    ))
}
