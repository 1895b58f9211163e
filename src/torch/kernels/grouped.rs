//! The grouped bilinear layer of ATLOP and DocRE-II (docs/systems.md, A.5 and I.4), without its P ×
//! blocks·b² outer products.
//!
//! Costs 2 · P · blocks · b² · C FLOPs forward and twice that backward, and no memory beyond its
//! operands. On the CPU a pair's result has the same bits in any batch. Not for: what its operands
//! are (`systems`).

use tch::{Kind, Tensor};

use crate::Result;
use crate::torch::precision::Precision;
use crate::torch::shim::{docre_grouped_bilinear, produce};

/// out\[p, c\] = Σ over blocks k and i, j < b of head\[p, k·b+i\] · tail\[p, k·b+j\] · weight\[c,
/// (k·b+i)·b+j\] + bias\[c\].
///
/// `heads`, `tails`: `[P, blocks·b]`, `weight`: `[C, blocks·b²]`, `bias`: `[C]`; the result is `[P,
/// C]` in 32 bits. On the CPU products are made in 32 bits, on CUDA in `precision`.
///
/// # Errors
/// If shapes do not fit.
pub fn grouped_bilinear(
    heads: &Tensor,
    tails: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    blocks: i64,
    precision: Precision,
) -> Result<Tensor> {
    let kind = if heads.device().is_cuda() { precision.kind() } else { Kind::Float };
    let (heads, tails, weight) =
        (heads.f_to_kind(kind)?, tails.f_to_kind(kind)?, weight.f_to_kind(kind)?);
    // SAFETY: all pointers are to live tensors.
    let out = produce(|out| unsafe {
        docre_grouped_bilinear(heads.as_ptr(), tails.as_ptr(), weight.as_ptr(), blocks, out)
    })?;
    match bias {
        Some(bias) => Ok(out.f_add(&bias.f_to_kind(Kind::Float)?)?),
        None => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::torch::device::LocalThreads;
    use crate::torch::plain::pairs::grouped;
    use crate::torch::rng::Generator;

    /// A source of random leaves.
    fn leaves(seed: u64) -> impl FnMut(&[i64]) -> Tensor {
        let mut generator = Generator::of_test(seed);
        move |shape| generator.randn(shape).set_requires_grad(true)
    }

    fn gradients(out: &Tensor, leaves: [&Tensor; 3]) -> Vec<Tensor> {
        let upstream =
            Tensor::arange(out.numel() as i64, (out.kind(), Device::Cpu)).sin().view_as(out);
        Tensor::run_backward(&[(out * upstream).sum(out.kind())], &leaves, false, false)
    }

    #[test]
    fn equals_outer_products_and_a_linear_layer() {
        let mut normal = leaves(1);
        // Numbers of pairs around the tile, classes around the rows, blocks around the lanes.
        for (pairs, classes, blocks, b) in
            [(1, 1, 1, 1), (48, 8, 2, 16), (130, 97, 3, 64), (49, 11, 2, 24), (7, 9, 4, 5)]
        {
            let (heads, tails) = (normal(&[pairs, blocks * b]), normal(&[pairs, blocks * b]));
            let weight = normal(&[classes, blocks * b * b]);
            let ours =
                grouped_bilinear(&heads, &tails, &weight, None, blocks, Precision::Fp32).unwrap();
            let reference = grouped(&heads, &tails, &weight, blocks);
            let scale = 1e-6 * reference.abs().max().double_value(&[]).max(1.0);
            assert!((&ours - &reference).abs().max().double_value(&[]) < 5.0 * scale);
            let leaves = [&heads, &tails, &weight];
            for (a, b) in gradients(&ours, leaves).iter().zip(gradients(&reference, leaves)) {
                let bound = 5e-6 * b.abs().max().double_value(&[]).max(1.0);
                assert!((a - b).abs().max().double_value(&[]) < bound);
            }
        }
    }

    #[test]
    fn bits_depend_on_neither_neighbours_nor_threads() {
        let mut normal = leaves(2);
        let (heads, tails, weight) = (normal(&[300, 64]), normal(&[300, 64]), normal(&[13, 1024]));
        let all = grouped_bilinear(&heads, &tails, &weight, None, 4, Precision::Fp32).unwrap();
        let grads = gradients(&all, [&heads, &tails, &weight]);
        for threads in [1, 2, 3] {
            let _threads = LocalThreads::new(threads);
            let part = |z: &Tensor| z.narrow(0, 101, 60);
            let own =
                grouped_bilinear(&part(&heads), &part(&tails), &weight, None, 4, Precision::Fp32)
                    .unwrap();
            assert_eq!(own, all.narrow(0, 101, 60));
            let again =
                grouped_bilinear(&heads, &tails, &weight, None, 4, Precision::Fp32).unwrap();
            assert_eq!(gradients(&again, [&heads, &tails, &weight]), grads);
        }
    }

    #[test]
    fn no_pairs_and_wrong_shapes() {
        let mut normal = leaves(3);
        let none = grouped_bilinear(
            &normal(&[0, 8]),
            &normal(&[0, 8]),
            &normal(&[3, 16]),
            None,
            4,
            Precision::Fp32,
        )
        .unwrap();
        assert_eq!(none.size(), [0, 3]);
        none.sum(Kind::Float).backward();
        assert!(
            grouped_bilinear(
                &normal(&[2, 8]),
                &normal(&[2, 8]),
                &normal(&[3, 16]),
                None,
                3,
                Precision::Fp32
            )
            .is_err()
        );
        assert!(
            grouped_bilinear(
                &normal(&[2, 8]),
                &normal(&[2, 8]),
                &normal(&[3, 17]),
                None,
                4,
                Precision::Fp32
            )
            .is_err()
        );
    }
}
