//! What attention scores hold beside the product of queries and keys: terms of the distance between
//! two tokens (MPNet, DeBERTa, XLNet), rotated queries and keys, and a window (ModernBERT).
//!
//! Not for: where the tables come from (`encoders`).

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use crate::Result;
use crate::torch::shim::pointer;

/// The terms of one layer:
///
/// score(i, j) = scale · (q_i · k_j + q_i · key_table\[r\] + k_j · query_table\[r\]) + bias\[r\],
/// with the row r = index(j − i), for the keys j that query i sees.
#[derive(Debug)]
pub struct ScoreTerms {
    /// Factor of the products.
    pub scale: f64,
    /// Keys that a query sees on each side; `None`: all keys of its document.
    pub window: Option<i64>,
    /// The rows of distances. Tables need it.
    pub index: Option<DistanceIndex>,
    /// What queries are multiplied with; [rows, heads, width of a head], 32 bits.
    pub key_table: Option<Tensor>,
    /// What keys are multiplied with; [rows, heads, width of a head], 32 bits.
    pub query_table: Option<Tensor>,
    /// What is added as it is; [rows, heads], 32 bits.
    pub bias: Option<Tensor>,
    /// Cosines and sines by which queries and keys are rotated; [2, positions, half a width], 32
    /// bits.
    pub rotary: Option<Tensor>,
}

impl ScoreTerms {
    /// Products alone, divided by √width, as in BERT.
    pub fn plain(width: i64) -> Self {
        Self {
            scale: 1.0 / (width as f64).sqrt(),
            window: None,
            index: None,
            key_table: None,
            query_table: None,
            bias: None,
            rotary: None,
        }
    }

    /// Whether scores are products alone, of keys in a window or of all.
    pub(super) fn are_products(&self) -> bool {
        self.index.is_none()
    }

    /// The tensors as the kernels take them.
    pub(super) fn pointers(&self) -> [*const C_tensor; 5] {
        [
            pointer(self.index.as_ref().map(|index| &index.rows)),
            pointer(self.key_table.as_ref()),
            pointer(self.query_table.as_ref()),
            pointer(self.bias.as_ref()),
            pointer(self.rotary.as_ref()),
        ]
    }

    /// The window as the kernels take it: negative where there is none.
    pub(super) fn side(&self) -> i64 {
        self.window.unwrap_or(-1)
    }
}

/// The table row of every distance from −reach to reach. A distance is key − query.
#[derive(Debug)]
pub struct DistanceIndex {
    /// [2 · reach + 1], on the host.
    rows: Tensor,
    reach: i64,
}

impl DistanceIndex {
    /// The rows that `row` gives to the distances between tokens of documents of up to `longest`
    /// tokens.
    ///
    /// # Errors
    /// If libtorch rejects the tensor.
    pub fn new(longest: i64, row: impl Fn(i64) -> i64) -> Result<Self> {
        let reach = (longest - 1).max(0);
        let rows: Vec<i64> = (-reach..=reach).map(row).collect();
        Ok(Self { rows: Tensor::f_from_slice(&rows)?, reach })
    }

    /// Another handle on the same rows.
    pub fn shallow_clone(&self) -> Self {
        Self { rows: self.rows.shallow_clone(), reach: self.reach }
    }

    /// The rows of a tensor of distances.
    pub(in crate::torch) fn rows_of(&self, distances: &Tensor) -> Result<Tensor> {
        let places = distances.f_clamp(-self.reach, self.reach)?.f_add_scalar(self.reach)?;
        let rows = self.rows.f_to_device(distances.device())?;
        Ok(rows.f_take(&places)?)
    }
}

/// Cosines and sines of the angles position · theta^(−2m / width), m = 0 … width / 2 − 1 (Su et al.
/// 2021), in 32 bits as in Hugging Face's; [2, positions, width / 2].
///
/// # Errors
/// If libtorch rejects an operation.
pub fn rotary_angles(theta: f64, positions: i64, width: i64, device: Device) -> Result<Tensor> {
    let single = (Kind::Float, device);
    let powers = Tensor::f_arange_start_step(0, width, 2, single)?.f_div_scalar(width as f64)?;
    let frequencies = Tensor::f_full([1], theta, single)?.f_pow(&powers)?.f_reciprocal()?;
    let angles = Tensor::f_arange(positions, single)?.f_unsqueeze(1)?.f_mul(&frequencies)?;
    Ok(Tensor::f_stack(&[angles.f_cos()?, angles.f_sin()?], 0)?)
}

#[cfg(test)]
mod tests;
