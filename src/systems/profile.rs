//! The published reading that a system's defaults follow.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which published reading the defaults follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The paper's intent with the release's bugs removed.
    #[default]
    Fixed,
    /// What the text says.
    Paper,
    /// What the release does.
    Code,
}
