//! From mentions to entities.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::ReadingTables;
use crate::Result;
use crate::systems::on;
use crate::torch::kernels::activations::log_sum_exp;

/// Keeps absent mentions out of a maximum.
const ABSENT: f64 = -1e30;

/// How the states of mentions become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// log Σ exp, element-wise (ATLOP; docs/systems.md, A.1).
    #[default]
    Logsumexp,
    /// The mean.
    Mean,
    /// The element-wise maximum.
    Max,
}

impl Pooling {
    /// Token states [tokens, d] → entity vectors [E, d]; zero for an entity without mentions in
    /// range.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn pool(self, states: &Tensor, tables: &ReadingTables) -> Result<Tensor> {
        let (device, width) = (states.device(), tables.mention_width as i64);
        let at = |table: &[i64]| -> Result<Tensor> {
            Ok(states.f_index_select(0, &on(table, device)?)?.f_view([
                -1,
                width,
                states.size()[1],
            ])?)
        };
        let mut mentions = at(&tables.mention_starts)?; // [E, width, d]
        if let Some(ends) = &tables.mention_ends {
            mentions = mentions.f_add(&at(ends)?)?.f_div_scalar(2.0)?;
        }
        let present = on(&tables.mention_mask, device)?.f_view([-1, width, 1])?;
        let count = present.f_sum_dim_intlist(1, false, Kind::Float)?;
        let absent = present.f_eq(0.0)?;
        Ok(match self {
            Self::Mean => mentions
                .f_mul(&present)?
                .f_sum_dim_intlist(1, false, Kind::Float)?
                .f_div(&count.f_clamp_min(1.0)?)?,
            Self::Max => mentions
                .f_masked_fill(&absent, ABSENT)?
                .f_amax([1], false)?
                .f_mul(&count.f_clamp_max(1.0)?)?,
            Self::Logsumexp => log_sum_exp(&mentions.f_masked_fill(&absent, ABSENT)?)?
                .f_mul(&count.f_clamp_max(1.0)?)?,
        })
    }
}
