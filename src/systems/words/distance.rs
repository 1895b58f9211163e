//! Signed distance bins of entity pairs and their embedding rows (docs/systems.md, C.6 and C.7).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::padded::{padded_rows, padded_table};
use crate::Result;
use crate::text::TokenizedEntity;
use crate::torch::Parameters;

/// Rows of a distance table.
pub const DISTANCE_ROWS: i64 = 20;
/// The row of bin 0, which is the padding row: zero, never trained.
pub const NO_DISTANCE: i64 = 10;

/// Which mention of an entity the distance of a pair is measured from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FirstMention {
    /// The first in the order of the source (DocRED baselines, BERT-RE, HIN).
    #[default]
    Listed,
    /// The one with the smallest offset (GLRE).
    Smallest,
}

impl FirstMention {
    /// The word where the chosen mention of `entity` starts, counted from the start of the
    /// document; 0 without mentions.
    pub fn start(self, entity: &TokenizedEntity) -> i64 {
        let starts = entity.mentions.iter().map(|mention| i64::from(mention.start));
        match self {
            Self::Listed => starts.into_iter().next(),
            Self::Smallest => starts.min(),
        }
        .unwrap_or(0)
    }
}

/// The bin of δ = start(head) − start(tail), with its sign: 0, 1, 2–3, 4–7, …, 128–255, ≥ 256 are
/// bins 0 to 9.
pub fn signed_bin(delta: i64) -> i64 {
    let bin = i64::from(u64::BITS - delta.unsigned_abs().leading_zeros()).min(9);
    bin * delta.signum()
}

/// The embedding of distance bins: 10 + bin for head → tail, 10 − bin for tail → head.
#[derive(Debug)]
pub struct DistanceTable {
    /// [20, width]
    pub weight: Tensor,
}

impl DistanceTable {
    /// Declares the table as `name.weight`.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn declare(parameters: &mut Parameters, name: &str, width: i64) -> Result<Self> {
        Ok(Self { weight: padded_table(parameters, name, DISTANCE_ROWS, width, NO_DISTANCE)? })
    }

    /// Rows head → tail of signed bins `[P]`; [P, width].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn of_heads(&self, bins: &Tensor) -> Result<Tensor> {
        padded_rows(&self.weight, &bins.f_add_scalar(NO_DISTANCE)?, NO_DISTANCE)
    }

    /// Rows tail → head of signed bins `[P]`; [P, width].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn of_tails(&self, bins: &Tensor) -> Result<Tensor> {
        padded_rows(&self.weight, &bins.f_neg()?.f_add_scalar(NO_DISTANCE)?, NO_DISTANCE)
    }
}
