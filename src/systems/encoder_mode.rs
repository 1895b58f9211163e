//! What a system does with the weights of a text encoder below it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::Result;

/// What becomes of a text encoder's weights (docs/systems.md, "H. HIN" and "G. GLRE").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BertMode {
    /// They stay as they are: the encoder gives features.
    Frozen,
    /// They are trained with the rest.
    Finetune,
}

impl BertMode {
    /// What the encoder gives, without a graph where its weights stay as they are.
    pub(super) fn run(self, states: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        match self {
            Self::Frozen => tch::no_grad(states),
            Self::Finetune => states(),
        }
    }
}
