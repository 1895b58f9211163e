//! Outputs of an encoder beside the last layer's states, for systems over pairs: means over the
//! last layers, attention rows of mentions, more positions.

use tch::Tensor;

use crate::torch::kernels::context::AttentionTable;
use crate::{Error, Result};

/// What a system reads of an encoder's last layers.
#[derive(Clone, Copy, Debug)]
pub struct Attending<'a> {
    /// The mean of how many last layers (ATLOP: 1, DocRE-II's release: 3).
    pub layers: usize,
    /// The tokens whose attention rows are wanted; `None` for none.
    pub plan: Option<&'a AttentionTable>,
}

/// Answer to [`Attending`].
#[derive(Debug)]
pub struct Attended {
    /// Mean states; [T, d], 32 bits.
    pub states: Tensor,
    /// Mean attention of entities, as [`crate::torch::kernels::context::entity_attention`] gives
    /// it; `None` where no plan was given.
    pub attention: Option<Tensor>,
}

impl Attended {
    /// Means over layers; nothing is computed for a single one.
    pub(super) fn mean(states: &[Tensor], attention: &[Tensor]) -> Result<Self> {
        let attention = if attention.is_empty() { None } else { Some(mean(attention)?) };
        Ok(Self { states: mean(states)?, attention })
    }
}

fn mean(parts: &[Tensor]) -> Result<Tensor> {
    let [first, rest @ ..] = parts else {
        return Err(Error::Bug("the mean of no layer was asked for".into()));
    };
    let mut sum = first.shallow_clone();
    for part in rest {
        sum = sum.f_add(part)?;
    }
    if rest.is_empty() { Ok(sum) } else { Ok(sum.f_div_scalar(parts.len() as f64)?) }
}

/// How many times as many positions there are after an extension.
pub(super) const TIMES: usize = 3;

/// A position table three times as long by hierarchical decomposition (docs/systems.md, C.5): u_i =
/// (p_i − α p_0) / (1 − α), row n·a + i = α u_a + (1 − α) u_i for a = 0, 1, 2; the first n rows
/// stay as they are. `[n, d]` → `[3n, d]`.
pub(super) fn extended_positions(table: &Tensor, alpha: f64) -> Result<Tensor> {
    let times = TIMES as i64;
    if !(0.0..1.0).contains(&alpha) || table.size()[0] < times {
        return Err(Error::recipe(format!("positions cannot be extended with α = {alpha}"))
            .with_hint("α lies in [0, 1); the release has 0.4"));
    }
    let base = table.f_sub(&(table.f_narrow(0, 0, 1)? * alpha))?.f_div_scalar(1.0 - alpha)?;
    let mut parts = vec![table.shallow_clone()];
    for a in 1..times {
        parts.push((base.f_narrow(0, a, 1)? * alpha).f_add(&(&base * (1.0 - alpha)))?);
    }
    Ok(Tensor::f_cat(&parts, 0)?)
}
