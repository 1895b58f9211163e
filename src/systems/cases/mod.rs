//! What the parity cases of several systems have in common. Not for: reading a case and comparing
//! with it (`parity`), nor for the cases themselves (`systems::NAME::parity`).

pub(crate) mod foundation;
pub(crate) mod pairs;
pub(crate) mod relabelling;
pub(crate) mod word_level;
pub(crate) mod words;

#[cfg(test)]
mod tests;

use tch::{Kind, Tensor};

use crate::Result;

/// The name of a head's parameter.
pub(crate) fn head_name(name: &str) -> Option<String> {
    Some(format!("heads.{name}"))
}

/// Σ over slots of sum / count, without the empty ones.
///
/// # Errors
/// If libtorch rejects an operation.
pub(crate) fn total_loss(sums: &[Tensor], counts: &[f64]) -> Result<Tensor> {
    let terms = sums.iter().zip(counts).filter(|(_, count)| **count > 0.0);
    let terms = terms.map(|(sum, &count)| Ok(sum.f_div_scalar(count)?));
    Ok(Tensor::f_stack(&terms.collect::<Result<Vec<_>>>()?, 0)?.f_sum(Kind::Float)?)
}
