//! Tables of embeddings.

use tch::Tensor;

use crate::Result;

/// Rows of `table` [V, width] by number, int64 of any shape `[..]`; [.., width]. No row is a
/// padding row.
///
/// # Errors
/// If a row does not exist.
pub fn lookup(table: &Tensor, rows: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_embedding(table, rows, -1, false, false)?)
}
