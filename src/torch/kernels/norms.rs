//! Layer normalisation of a sum, in one pass over each row.
//!
//! Not for: its parameters (`torch::nn::LayerNorm`).

use tch::{Device, Tensor};

use crate::Result;
use crate::torch::dropout::{Dropout, dropout};
use crate::torch::shim::{docre_sum_norm, pointer, produce};

/// What is added to rows before they are normalised.
#[derive(Clone, Copy, Debug)]
pub struct Added<'a> {
    /// As many rows, of 32 bits or of bfloat16.
    pub y: &'a Tensor,
    /// How it is dropped out.
    pub dropout: Option<&'a Dropout>,
    /// The place of the mask in the network.
    pub salt: u64,
}

/// norm(x + dropout(y))·weight + bias (Ba et al. 2016); x [.., width] of 32 bits → [.., width].
/// weight, bias: `[width]`. A row of the result has the same bits alone and in a batch on the CPU.
///
/// # Errors
/// If shapes or kinds do not fit.
pub fn sum_norm(
    x: &Tensor,
    added: Option<Added>,
    weight: &Tensor,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    if x.device() != Device::Cpu {
        return by_library(x, added, weight, bias, eps);
    }
    let drops = added.and_then(|added| added.dropout).filter(|active| active.p > 0.0);
    // SAFETY: all pointers are to live tensors, or null where the shim allows it.
    produce(|out| unsafe {
        docre_sum_norm(
            x.as_ptr(),
            pointer(added.map(|added| added.y)),
            weight.as_ptr(),
            pointer(bias),
            pointer(drops.map(|active| &active.token_keys)),
            added.map_or(0, |added| added.salt.cast_signed()),
            drops.map_or(0.0, |active| active.p),
            eps,
            out,
        )
    })
}

fn by_library(
    x: &Tensor,
    added: Option<Added>,
    weight: &Tensor,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    let sum = match added {
        Some(Added { y, dropout: masks, salt }) => x.f_add(&dropout(y, masks, salt)?)?,
        None => x.shallow_clone(),
    };
    Ok(sum.f_layer_norm(weight.size(), Some(weight), bias, eps, false)?)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::torch::device::LocalThreads;
    use crate::torch::rng::Generator;

    /// The result and all gradients, for an upstream gradient that differs everywhere.
    fn pass(
        [x, y, weight, bias]: [&Tensor; 4],
        apply: impl Fn(&Tensor, &Tensor, &Tensor, &Tensor) -> Tensor,
    ) -> Vec<Tensor> {
        let leaf = |tensor: &Tensor| tensor.detach().set_requires_grad(true);
        let leaves = [x, y, weight, bias].map(leaf);
        let [x, y, weight, bias] = &leaves;
        let out = apply(x, y, weight, bias);
        let upstream = Tensor::arange(out.numel() as i64, (Kind::Float, Device::Cpu)).sin();
        let loss = (&out * upstream.view_as(&out)).sum(out.kind());
        let gradients = Tensor::run_backward(&[loss], &leaves, false, false);
        std::iter::once(out.detach()).chain(gradients).collect()
    }

    fn active(rows: u64) -> Dropout {
        let keys: Vec<i64> = (0..rows).map(|row| Dropout::token_key(3, 1, 2, row)).collect();
        Dropout::new(0.2, Tensor::from_slice(&keys)).unwrap()
    }

    fn inputs(rows: i64, width: i64, kind: Kind) -> [Tensor; 4] {
        let mut generator = Generator::of_test(5);
        [
            generator.randn([rows, width]),
            generator.randn([rows, width]).to_kind(kind),
            generator.randn([width]),
            generator.randn([width]),
        ]
    }

    #[test]
    fn values_and_gradients_are_those_of_a_sum_and_a_norm_in_doubles() {
        for (rows, width) in [(1, 1), (3, 7), (5, 16), (300, 33), (700, 384)] {
            for kind in [Kind::Float, Kind::BFloat16] {
                let tensors = inputs(rows, width, kind);
                let masks = active(rows.cast_unsigned());
                let ones = Tensor::ones([rows, width], (Kind::Float, Device::Cpu));
                for drops in [None, Some(&masks)] {
                    let ours = pass(tensors.each_ref(), |x, y, weight, bias| {
                        let added = Some(Added { y, dropout: drops, salt: 9 });
                        sum_norm(x, added, weight, Some(bias), 1e-5).unwrap()
                    });
                    let mask = dropout(&ones, drops, 9).unwrap().to_kind(Kind::Double);
                    let wide = tensors.each_ref().map(|tensor| tensor.to_kind(Kind::Double));
                    let theirs = pass(wide.each_ref(), |x, y, weight, bias| {
                        let sum = x + y * &mask;
                        sum.layer_norm([width], Some(weight), Some(bias), 1e-5, false)
                    });
                    for (part, (a, b)) in ours.iter().zip(&theirs).enumerate() {
                        let far = (a - b).abs().max().double_value(&[]);
                        let rounded = if part == 2 && kind == Kind::BFloat16 { 4e-3 } else { 2e-5 };
                        let largest = b.abs().max().double_value(&[]).max(1.0);
                        assert!(far < rounded * largest, "{rows} {width} {kind:?} {part}: {far:e}");
                    }
                    assert_eq!(ours[2].kind(), kind);
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_gradients_the_same_with_any_threads() {
        let [x, y, weight, bias] = inputs(900, 100, Kind::BFloat16);
        let of = |x: &Tensor, y: &Tensor| {
            let added = Some(Added { y, dropout: None, salt: 0 });
            sum_norm(x, added, &weight, Some(&bias), 1e-12).unwrap()
        };
        let all = of(&x, &y);
        for (first, rows) in [(0, 1), (7, 100), (899, 1)] {
            let part = |tensor: &Tensor| tensor.narrow(0, first, rows);
            assert_eq!(of(&part(&x), &part(&y)), part(&all));
        }
        let gradients = |threads| {
            let _threads = LocalThreads::new(threads);
            pass([&x, &y, &weight, &bias], |x, y, weight, bias| {
                let added = Some(Added { y, dropout: None, salt: 0 });
                sum_norm(x, added, weight, Some(bias), 1e-12).unwrap()
            })
        };
        assert!(gradients(1) == gradients(2) && gradients(1) == gradients(3));
    }

    #[test]
    fn rows_alone_are_normalised_and_a_nan_stays_in_its_row() {
        let [x, _, weight, bias] = inputs(6, 20, Kind::Float);
        let plain = x.layer_norm([20], Some(&weight), Some(&bias), 1e-5, false);
        let ours = sum_norm(&x, None, &weight, Some(&bias), 1e-5).unwrap();
        assert!((plain - &ours).abs().max().double_value(&[]) < 1e-5);
        let spoilt = x.copy();
        let _ = spoilt.get(2).get(19).fill_(f64::NAN);
        let spoilt = sum_norm(&spoilt, None, &weight, None, 1e-5).unwrap();
        let spread: Vec<bool> = Vec::try_from(spoilt.isnan().all_dim(1, false)).unwrap();
        assert_eq!(spread, [false, false, true, false, false, false]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let [x, y, weight, _] = inputs(4, 8, Kind::Float);
        let narrow = Some(Added { y: &y.narrow(0, 0, 3), dropout: None, salt: 0 });
        for (x, added, weight) in [
            (&x, narrow, &weight),
            (&x, None, &weight.narrow(0, 0, 7)),
            (&x.to_kind(Kind::Double), None, &weight),
        ] {
            assert!(sum_norm(x, added, weight, None, 1e-5).is_err());
        }
    }
}
