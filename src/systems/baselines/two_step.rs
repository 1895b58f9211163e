//! BERT-TS: how the scores of its two models become one (Wang et al. 2019, SPEC §8.3).

use tch::Tensor;

use crate::Result;

/// The score of every relation of a pair that the first model calls unrelated.
pub const UNRELATED: f64 = -100.0;

/// The second model's logits [P, C] where the first one's [P, 2] (none, related) say "related", [`UNRELATED`] elsewhere.
///
/// The release takes the first model's larger score, and compares sigmoids of the second one with one global threshold; −100 is taken
/// before the sigmoid here, which leaves such pairs behind all others just the same.
///
/// # Errors
/// If the numbers of pairs differ.
pub fn two_step_logits(existence: &Tensor, relations: &Tensor) -> Result<Tensor> {
    let related = existence.f_select(1, 1)?.f_gt_tensor(&existence.f_select(1, 0)?)?.f_unsqueeze(1)?;
    Ok(relations.f_masked_fill(&related.f_logical_not()?, UNRELATED)?)
}
