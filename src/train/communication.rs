//! How gradients travel between ranks, as a recipe says it.
//!
//! Not for sending them (`ranks`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Kind;

/// The kind of number in which gradients travel.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum WirePrecision {
    /// Single precision.
    #[default]
    Fp32,
    /// bfloat16: half as many bytes.
    Bf16,
}

impl WirePrecision {
    /// The kind of the tensors that are sent.
    pub fn kind(self) -> Kind {
        match self {
            Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

/// What ranks send each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CommunicationSettings {
    /// Gradients travel as `fp32` or, over several ranks, rounded to `bf16`: over NCCL half as many
    /// bytes. Not with `deterministic = true`.
    pub precision: WirePrecision,
}
