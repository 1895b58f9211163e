//! Matrix products in which a row's bits do not depend on the other rows.
//!
//! On the CPU a row of the result and of the gradient of x has the same bits alone and in a batch,
//! and the weight's gradient the same bits whatever the number of threads: a BLAS, which picks its
//! kernel by the number of rows, promises neither. In bfloat16 a BLAS also keeps a compiled kernel
//! for every number of rows that it meets. Other kinds and devices take libtorch's products. Not
//! for: layers with parameters and number formats (`torch::nn`).

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::torch::shim::tables::Activation;
use crate::torch::shim::{
    docre_batched_product, docre_half_linear, docre_half_product, docre_product, pointer, produce,
};

/// x·weightᵀ + bias; x `[.., in]`, weight `[out, in]`, bias `[out]` → `[.., out]`, of the kind of
/// x. Weight and bias may be of 32 bits where x is bfloat16: they are rounded to it, and their
/// gradients have 32 bits.
///
/// # Errors
/// If the shapes or kinds do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if has_kernel(x) {
        return product(x, weight, bias, true);
    }
    if x.kind() == Kind::BFloat16 && weight.kind() == Kind::Float && x.device().is_cuda() {
        return half_linear(x, weight, bias);
    }
    let bias = bias.map(|bias| bias.f_to_kind(x.kind())).transpose()?;
    Ok(x.f_linear(&weight.f_to_kind(x.kind())?, bias.as_ref())?)
}

/// [`linear`] in bfloat16 over weights of 32 bits; x may be of 32 bits, too, and its gradient then
/// is.
///
/// # Errors
/// As [`linear`].
pub fn half_linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if x.device() == Device::Cpu {
        return half_product(x, weight, bias, true, None);
    }
    let mut shape = x.size();
    let rows = x.f_flatten(0, -2)?;
    // SAFETY: all pointers are to live tensors, or null where the shim allows it.
    let out = produce(|out| unsafe {
        docre_half_linear(rows.as_ptr(), weight.as_ptr(), pointer(bias), out)
    })?;
    if let (Some(last), Some(&width)) = (shape.last_mut(), weight.size().first()) {
        *last = width;
    }
    Ok(out.f_view(&shape[..])?)
}

/// [`half_linear`], then a function of every element.
///
/// # Errors
/// As [`linear`].
pub fn half_linear_activated(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    function: Activation,
) -> Result<Tensor> {
    if x.device() == Device::Cpu {
        return half_product(x, weight, bias, true, Some(function));
    }
    function.apply(&half_linear(x, weight, bias)?)
}

/// x·weight; x `[.., in]`, weight `[in, out]` → `[.., out]`.
///
/// # Errors
/// If the shapes or kinds do not fit.
pub fn matmul(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if has_kernel(x) {
        return product(x, weight, None, false);
    }
    Ok(x.f_matmul(weight)?)
}

/// x·vector; x `[.., in]`, vector `[in]` → `[..]`.
///
/// # Errors
/// If the shapes or kinds do not fit.
pub fn dot(x: &Tensor, vector: &Tensor) -> Result<Tensor> {
    Ok(linear(x, &vector.f_unsqueeze(0)?, None)?.f_squeeze_dim(-1)?)
}

/// Matrix by matrix x·yᵀ; x `[batch, n, k]`, y `[batch, m, k]` → `[batch, n, m]`. An entry of the
/// batch has the same bits in any batch.
///
/// # Errors
/// If the shapes or kinds do not fit.
pub fn batched_turned(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if ours(x) {
        return batched_product(x, y, true);
    }
    Ok(x.f_bmm(&y.f_transpose(1, 2)?)?)
}

/// Matrix by matrix x·y; x `[batch, n, k]`, y `[batch, k, m]` → `[batch, n, m]`. An entry of the
/// batch has the same bits in any batch.
///
/// # Errors
/// If the shapes or kinds do not fit.
pub fn batched(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if ours(x) {
        return batched_product(x, y, false);
    }
    Ok(x.f_bmm(y)?)
}

fn batched_product(x: &Tensor, y: &Tensor, turned: bool) -> Result<Tensor> {
    // SAFETY: all pointers are to live tensors.
    produce(|out| unsafe { docre_batched_product(x.as_ptr(), y.as_ptr(), turned.into(), out) })
}

pub(super) fn ours(x: &Tensor) -> bool {
    x.device() == Device::Cpu && x.kind() == Kind::Float
}

/// Whether there is a kernel for numbers of this kind and place.
pub(super) fn has_kernel(x: &Tensor) -> bool {
    x.device() == Device::Cpu && matches!(x.kind(), Kind::Float | Kind::BFloat16)
}

fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, turned: bool) -> Result<Tensor> {
    if x.kind() == Kind::BFloat16 {
        return half_product(x, weight, bias, turned, None);
    }
    // SAFETY: all pointers are to live tensors, or null where the shim allows it.
    produce(|out| unsafe {
        docre_product(x.as_ptr(), weight.as_ptr(), pointer(bias), turned.into(), out)
    })
}

fn half_product(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    turned: bool,
    function: Option<Activation>,
) -> Result<Tensor> {
    let number = function.map_or(-1, |function| function as i64);
    // SAFETY: all pointers are to live tensors, or null where the shim allows it.
    produce(|out| unsafe {
        docre_half_product(x.as_ptr(), weight.as_ptr(), pointer(bias), turned.into(), number, out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::device::LocalThreads;
    use crate::torch::rng::Generator;

    fn upstream(out: &Tensor) -> Tensor {
        Tensor::arange(out.numel() as i64, (Kind::Float, Device::Cpu)).sin().view_as(out)
    }

    /// The result, and the gradients of x, weight and bias.
    fn pass(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, turned: bool) -> Vec<Tensor> {
        let leaf = |tensor: &Tensor| tensor.detach().set_requires_grad(true);
        let (x, weight, bias) = (leaf(x), leaf(weight), bias.map(leaf));
        let out = product(&x, &weight, bias.as_ref(), turned).unwrap();
        let inputs: Vec<&Tensor> = [&x, &weight].into_iter().chain(&bias).collect();
        let gradients = Tensor::run_backward(
            &[(&out * upstream(&out)).sum(Kind::Float)],
            &inputs,
            false,
            false,
        );
        std::iter::once(out.detach()).chain(gradients).collect()
    }

    /// The same in doubles by libtorch, where the gradient from above is of the kind of x.
    fn expected(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, turned: bool) -> Vec<Tensor> {
        let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
        let weight = if turned { double(weight).tr() } else { double(weight) };
        let plain = double(x).matmul(&weight);
        let grad = double(&upstream(&plain).to_kind(x.kind()));
        let of_weight = double(x).tr().matmul(&grad);
        let out = bias.map_or_else(|| plain.shallow_clone(), |bias| &plain + double(bias));
        let mut all =
            vec![out, grad.matmul(&weight.tr()), if turned { of_weight.tr() } else { of_weight }];
        all.extend(bias.map(|_| grad.sum_dim_intlist(0, false, Kind::Double)));
        all
    }

    #[test]
    fn products_of_16_bits_are_those_of_rounded_numbers() {
        let mut generator = Generator::of_test(7);
        let rounded = |tensor: &Tensor| tensor.to_kind(Kind::BFloat16);
        // Odd numbers of terms and of rows, whole panels and parts of them.
        for (rows, inner, columns) in [
            (1, 1, 1),
            (5, 16, 15),
            (7, 17, 64),
            (127, 300, 65),
            (253, 129, 200),
            (300, 521, 70),
            (0, 3, 4),
        ] {
            for turned in [false, true] {
                let x = rounded(&generator.randn([rows, inner]));
                let shape = if turned { [columns, inner] } else { [inner, columns] };
                let (weight, bias) = (generator.randn(shape), generator.randn([columns]));
                let ours = pass(&x, &weight, Some(&bias), turned);
                let wide = rounded(&weight).to_kind(Kind::Float);
                let reference = expected(&x, &wide, Some(&bias), turned);
                let kinds: Vec<Kind> = ours.iter().map(Tensor::kind).collect();
                let (few, many) = (Kind::BFloat16, Kind::Float);
                assert_eq!(kinds, [few, few, many, many]);
                for (part, (a, b)) in ours.iter().zip(&reference).enumerate() {
                    if a.numel() == 0 {
                        continue;
                    }
                    let largest = b.abs().max().double_value(&[]).max(1e-3);
                    let far = (a.to_kind(Kind::Double) - b).abs().max().double_value(&[]);
                    // Results are rounded, and so is the gradient that comes from above.
                    assert!(far < 0.006 * largest, "{rows} {inner} {columns} {part}: {far}");
                }
            }
        }
    }

    #[test]
    fn a_product_with_a_function_is_the_function_of_the_product() {
        let mut generator = Generator::of_test(9);
        for (rows, inner, columns) in [(1, 1, 1), (40, 33, 70), (260, 300, 128)] {
            let (x, weight, bias) = (
                generator.randn([rows, inner]),
                generator.randn([columns, inner]) / (inner as f64).sqrt(),
                generator.randn([columns]),
            );
            for function in
                [Activation::Gelu, Activation::GeluTanh, Activation::Tanh, Activation::Sigmoid]
            {
                let pass = |fused: bool, x: &Tensor| {
                    let leaf = |tensor: &Tensor| tensor.detach().set_requires_grad(true);
                    let leaves = [x, &weight, &bias].map(leaf);
                    let [x, weight, bias] = &leaves;
                    let out = if fused {
                        half_linear_activated(x, weight, Some(bias), function).unwrap()
                    } else {
                        function.apply(&half_linear(x, weight, Some(bias)).unwrap()).unwrap()
                    };
                    let loss = (&out * upstream(&out)).sum(Kind::Float);
                    let gradients = Tensor::run_backward(&[loss], &leaves, false, false);
                    std::iter::once(out.detach()).chain(gradients).collect::<Vec<_>>()
                };
                // Rows of 32 bits are rounded first, and their gradient is not rounded.
                let short = x.to_kind(Kind::BFloat16);
                assert_eq!(pass(true, &x), pass(false, &x));
                assert_eq!(pass(true, &short), pass(false, &short));
                let (wide, narrow) = (pass(true, &x), pass(true, &short));
                assert_eq!(wide[1].to_kind(Kind::BFloat16), narrow[1]);
                assert_eq!((&wide[0], &wide[2..]), (&narrow[0], &narrow[2..]));
                // Without gradients nothing is kept, and the result is the same.
                let alone = tch::no_grad(|| {
                    half_linear_activated(&x, &weight, Some(&bias), function).unwrap()
                });
                assert_eq!(alone, wide[0]);
            }
        }
    }

    #[test]
    fn rows_of_16_bits_have_the_same_bits_alone_and_with_any_threads() {
        let mut generator = Generator::of_test(8);
        let x = generator.randn([300, 77]).to_kind(Kind::BFloat16);
        let (weight, bias) = (generator.randn([130, 77]), generator.randn([130]));
        let all = pass(&x, &weight, Some(&bias), true);
        for threads in [1, 2, 3] {
            let _threads = LocalThreads::new(threads);
            assert_eq!(pass(&x, &weight, Some(&bias), true), all);
            for (first, count) in [(0, 1), (7, 100), (299, 1)] {
                let part = product(&x.narrow(0, first, count), &weight, Some(&bias), true);
                assert_eq!(part.unwrap(), all[0].narrow(0, first, count));
            }
        }
    }

    /// Within 16 roundings of the largest number.
    fn near(a: &Tensor, b: &Tensor) -> bool {
        a.numel() == 0
            || (a - b).abs().max().double_value(&[])
                < 1e-6 * b.abs().max().double_value(&[]).max(1.0)
    }

    #[test]
    fn equals_products_in_doubles() {
        let mut generator = Generator::of_test(1);
        // Around the tile's rows, the lanes, whole panels, a chunk of rows and a block of terms.
        for (rows, inner, columns) in [
            (1, 1, 1),
            (5, 16, 15),
            (6, 17, 64),
            (127, 128, 65),
            (253, 129, 97),
            (300, 260, 200),
            (0, 3, 4),
        ] {
            let (x, bias) = (generator.randn([rows, inner]), generator.randn([columns]));
            for turned in [false, true] {
                let weight =
                    generator.randn(if turned { [columns, inner] } else { [inner, columns] });
                for bias in [None, Some(&bias)] {
                    let (ours, theirs) =
                        (pass(&x, &weight, bias, turned), expected(&x, &weight, bias, turned));
                    assert_eq!(ours.len(), theirs.len());
                    for (a, b) in ours.iter().zip(&theirs) {
                        assert_eq!(a.size(), b.size());
                        assert!(near(a, b), "{rows} × {inner} → {columns}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_at_any_place_in_any_company() {
        let mut generator = Generator::of_test(2);
        for (inner, columns) in [(7, 3), (64, 64), (150, 97), (256, 200)] {
            let (x, weight, bias) = (
                generator.randn([400, inner]),
                generator.randn([columns, inner]),
                generator.randn([columns]),
            );
            let all = linear(&x, &weight, Some(&bias)).unwrap();
            let turned = matmul(&x, &weight.tr()).unwrap();
            assert_eq!(turned, linear(&x, &weight, None).unwrap());
            for (first, rows) in
                (0..14).map(|i| (i * 23, i + 1)).chain([(3, 126), (11, 127), (140, 260)])
            {
                let part = x.narrow(0, first, rows);
                assert_eq!(
                    linear(&part, &weight, Some(&bias)).unwrap(),
                    all.narrow(0, first, rows)
                );
                assert_eq!(matmul(&part, &weight.tr()).unwrap(), turned.narrow(0, first, rows));
            }
        }
    }

    #[test]
    fn threads_change_no_bit_of_results_and_gradients() {
        let mut generator = Generator::of_test(3);
        let (x, weight, bias) =
            (generator.randn([700, 150]), generator.randn([200, 150]), generator.randn([200]));
        let results = [1, 2, 3, 5].map(|threads| {
            let _threads = LocalThreads::new(threads);
            pass(&x, &weight, Some(&bias), true)
        });
        assert!(results.iter().all(|result| *result == results[0]));
    }

    #[test]
    fn batches_of_matrices_equal_products_in_doubles_and_do_not_know_of_each_other() {
        let mut generator = Generator::of_test(5);
        for (batch, n, k, m) in
            [(1, 1, 1, 1), (3, 4, 37, 19), (5, 20, 16, 1), (7, 33, 130, 70), (2, 0, 3, 4)]
        {
            let x = generator.randn([batch, n, k]).set_requires_grad(true);
            let y = generator.randn([batch, k, m]).set_requires_grad(true);
            let plain = x.to_kind(Kind::Double).bmm(&y.to_kind(Kind::Double));
            let expected = Tensor::run_backward(
                &[(&plain * upstream(&plain).to_kind(Kind::Double)).sum(Kind::Double)],
                &[&x, &y],
                false,
                false,
            );
            for out in [batched(&x, &y).unwrap(), batched_turned(&x, &y.transpose(1, 2)).unwrap()] {
                let gradients = Tensor::run_backward(
                    &[(&out * upstream(&out)).sum(Kind::Float)],
                    &[&x, &y],
                    false,
                    false,
                );
                assert!(
                    near(&out, &plain)
                        && near(&gradients[0], &expected[0])
                        && near(&gradients[1], &expected[1]),
                    "{n} × {k} × {m}"
                );
                for entry in 0..batch {
                    let own = |tensor: &Tensor| tensor.narrow(0, entry, 1);
                    assert_eq!(batched(&own(&x), &own(&y)).unwrap(), own(&out));
                }
            }
        }
        assert!(batched(&generator.randn([2, 3, 4]), &generator.randn([2, 5, 6])).is_err());
    }

    #[test]
    fn batches_of_rows_vectors_and_wrong_shapes() {
        let mut generator = Generator::of_test(4);
        let (x, weight) = (generator.randn([2, 3, 8]), generator.randn([5, 8]));
        let out = linear(&x, &weight, None).unwrap();
        assert_eq!(out.size(), [2, 3, 5]);
        assert_eq!(out.view([6, 5]), linear(&x.view([6, 8]), &weight, None).unwrap());
        assert_eq!(dot(&x, &weight.get(4)).unwrap(), out.select(2, 4));
        assert!(linear(&x, &generator.randn([5, 7]), None).is_err());
        assert!(linear(&x, &weight, Some(&generator.randn([4]))).is_err());
        assert!(matmul(&x, &weight.to_kind(Kind::Double).tr()).is_err());
        let double = linear(&x.to_kind(Kind::Double), &weight.to_kind(Kind::Double), None).unwrap();
        assert!((double - out).abs().max().double_value(&[]) < 1e-5);
    }
}
