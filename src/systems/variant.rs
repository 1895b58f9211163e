//! The rows of the results table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A row of the paper's results table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// Fine-tuning alone: no ranker, no pre-training ("BERT").
    Baseline,
    /// Ranker and fine-tuning ("BERT+D").
    Denoised,
    /// Ranker, pre-training and fine-tuning ("BERT+D+P").
    Pretrained,
}

impl Variant {
    /// The name used in folders and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Denoised => "denoised",
            Self::Pretrained => "pretrained",
        }
    }

    /// The row's label in the paper.
    pub fn label(self) -> &'static str {
        match self {
            Self::Baseline => "no pre-training",
            Self::Denoised => "+D",
            Self::Pretrained => "+D+P",
        }
    }
}
