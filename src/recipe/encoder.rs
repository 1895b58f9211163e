//! The text encoder of a recipe.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a preset starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EncoderInit {
    /// Attention looks nearby from the first step.
    #[default]
    Local,
    /// BERT's own random start.
    Normal,
}

/// The text encoder.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EncoderChoice {
    /// `tiny`, `mini`, `base`, `bilstm`, `words` (a table of word vectors alone), a Hugging Face
    /// folder, or a repository of the Hugging Face Hub: `ORG/NAME`, `ORG/NAME@REVISION`.
    pub name: String,
    /// Word vectors (GloVe text): the table of `bilstm`, the start of the word embeddings of a
    /// preset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word_vectors: Option<PathBuf>,
    /// How a preset starts.
    pub start: EncoderInit,
    /// Longest document in pieces, markers and special pieces included; the encoder's own limit
    /// when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pieces: Option<usize>,
    /// Cut longer documents instead of stopping with an error.
    pub truncate: bool,
    /// Dropout inside the encoder; negative takes the encoder's own rates.
    pub dropout: f64,
    /// Keep the encoder's weights as they start.
    pub frozen: bool,
}

impl Default for EncoderChoice {
    fn default() -> Self {
        Self {
            name: "tiny".into(),
            word_vectors: None,
            start: EncoderInit::Local,
            max_pieces: None,
            truncate: false,
            dropout: -1.0,
            frozen: false,
        }
    }
}
