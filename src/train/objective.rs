//! What the step loop needs of a model: losses as sums over valid rows, so that global
//! normalisation is exact.

use tch::Tensor;

use crate::Result;
use crate::torch::Parameters;
use crate::torch::precision::Precision;

/// How a forward pass is run.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    /// Dropout on.
    pub train: bool,
    /// Precision of the matrix products.
    pub precision: Precision,
}

/// One prepared micro-batch: host data only, so that it can be made on another thread.
pub trait MicroBatch: Send {
    /// Valid rows of each loss slot, `[slots]`.
    fn counts(&self) -> &[f64];
    /// Documents inside.
    fn documents(&self) -> usize;
    /// Real tokens inside, special pieces and markers included.
    fn tokens(&self) -> usize;
}

/// A trainable model with its losses.
///
/// A *slot* is one mean of the published loss: a task, or one direction of a task (`RelDet/1`). The
/// total loss is Σ over slots of (sum over all valid rows of the global batch) / (their number); a
/// slot without valid rows is 0.
pub trait Objective {
    /// What [`Self::forward`] takes.
    type Batch: MicroBatch;

    /// Names of the slots, `TASK` or `TASK/DIRECTION`.
    fn slots(&self) -> &[&'static str];

    /// Sum of each slot over the valid rows of `batch`, as scalars that can be differentiated;
    /// `[slots]`.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    fn forward(&self, batch: &Self::Batch, forward: Forward) -> Result<Vec<Tensor>>;

    /// All parameters.
    fn parameters(&self) -> &Parameters;

    /// Learning rate of a parameter as a multiple of its group's (encoder or heads).
    fn rate(&self, _name: &str) -> f64 {
        1.0
    }
}
