//! Labels under the adaptive threshold, as tensors.

use tch::{Kind, Tensor};

use crate::Result;

/// Multi-hot labels of logits [P, C] (docs/systems.md, C.16): a class is set where its logit
/// exceeds that of class 0 and is among the `top` largest (0: no limit; class 0 takes a place like
/// any other); class 0 is set where no other is. 32-bit zeros and ones, without gradient.
///
/// # Errors
/// If libtorch rejects an operation.
pub fn adaptive_labels(logits: &Tensor, top: usize) -> Result<Tensor> {
    let logits = logits.f_detach()?;
    let (_, classes) = logits.size2()?;
    let mut chosen = logits.f_gt_tensor(&logits.f_narrow(1, 0, 1)?)?;
    let top = top as i64;
    if top > 0 && top < classes {
        let (largest, _) = logits.f_topk(top, 1, true, true)?;
        chosen =
            chosen.f_logical_and(&logits.f_ge_tensor(&largest.f_narrow(1, top - 1, 1)?)?)?;
    }
    let none = chosen.f_any_dim(1, true)?.f_logical_not()?;
    Ok(Tensor::f_cat(&[none, chosen.f_narrow(1, 1, classes - 1)?], 1)?.f_to_kind(Kind::Float)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_takes_a_place_among_the_largest() {
        let logits = Tensor::from_slice(&[1.0f32, 4.0, 3.0, 2.0, 0.0, 2.0, 1.0, 0.0, 1.5, -1.0])
            .view([2, 5]);
        let labels = |top| {
            Vec::<f32>::try_from(adaptive_labels(&logits, top).unwrap().flatten(0, 1)).unwrap()
        };
        assert_eq!(labels(0), [0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(labels(2), [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(labels(9), labels(0));
    }
}
