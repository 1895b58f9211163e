//! What a system does with the weights of a text encoder below it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of a text encoder's weights (docs/systems.md, "H. HIN" and "G. GLRE").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BertMode {
    /// They stay as they are: the encoder gives features.
    Frozen,
    /// They are trained with the rest.
    Finetune,
}
