//! Embeddings with a padding row.

use tch::Tensor;

use crate::Result;
use crate::torch::{Init, Parameters};

/// Declares an embedding `name.weight` [rows, width] from N(0, 1) whose row `padding` is zero.
///
/// # Errors
/// If the name is taken.
pub fn padded_table(
    parameters: &mut Parameters,
    name: &str,
    rows: i64,
    width: i64,
    padding: i64,
) -> Result<Tensor> {
    let table =
        parameters.declare(format!("{name}.weight"), &[rows, width], Init::Normal { std: 1.0 })?;
    let _ = tch::no_grad(|| table.f_narrow(0, padding, 1)?.f_zero_())?;
    Ok(table)
}

/// Rows `[R]` of an embedding; the padding row gets no gradient. [R, width]
///
/// # Errors
/// If libtorch rejects an operation.
pub fn padded_rows(table: &Tensor, rows: &Tensor, padding: i64) -> Result<Tensor> {
    Ok(Tensor::f_embedding(table, rows, padding, false, false)?)
}
