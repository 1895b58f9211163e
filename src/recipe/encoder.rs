//! The encoder and the schedule of each stage.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The text encoder.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EncoderPlan {
    /// `tiny`, `mini`, `base`, `bilstm`, or a Hugging Face folder.
    pub name: String,
    /// Word vectors (GloVe text): the table of `bilstm`, the start of the word embeddings of a
    /// preset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word_vectors: Option<PathBuf>,
    /// How a preset starts: `local` (attention looks nearby from the first step) or `normal`
    /// (BERT's own random start).
    pub start: String,
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

impl Default for EncoderPlan {
    fn default() -> Self {
        Self {
            name: "tiny".into(),
            word_vectors: None,
            start: "local".into(),
            max_pieces: None,
            truncate: false,
            dropout: -1.0,
            frozen: false,
        }
    }
}

impl EncoderPlan {
    pub(super) fn check(&self) -> Result<()> {
        if ["local", "normal"].contains(&self.start.as_str()) {
            return Ok(());
        }
        Err(Error::recipe(format!(
            "encoder.start = \"{}\", but it must be \"local\" or \"normal\"",
            self.start
        )))
    }
}
