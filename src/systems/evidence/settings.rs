//! The settings of the evidence predictor.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::systems::{LongDocuments, Profile};

/// Settings of LSTM-SP, the evidence predictor. A limit of 0 is no limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EvidenceSettings {
    /// Width of a row that says head, tail or neither.
    pub position_width: i64,
    /// Rows of that table; three are used, the release has 512.
    pub position_rows: i64,
    /// Width of an entity type row.
    pub type_width: i64,
    /// Width of an LSTM state a direction, of the map after it, and of a relation row.
    pub hidden: i64,
    /// Locked dropout on the LSTM's input.
    pub locked_dropout: f64,
    /// Documents with more pieces than a text encoder has positions: `windows` or `cut`.
    pub long_documents: LongDocuments,
    /// Words after which a document is cut silently; later sentences have no score (the release:
    /// 512, and it fails there).
    pub max_words: usize,
}

impl Default for EvidenceSettings {
    fn default() -> Self {
        Self::of(Profile::Fixed)
    }
}

impl EvidenceSettings {
    /// The settings of a profile.
    pub fn of(profile: Profile) -> Self {
        let release = profile == Profile::Code;
        Self {
            position_width: 20,
            position_rows: if release { 512 } else { 3 },
            type_width: 20,
            hidden: 128,
            locked_dropout: 0.2,
            long_documents: LongDocuments::of(profile),
            max_words: if profile == Profile::Fixed { 0 } else { 512 },
        }
    }
}
