//! Element-wise functions in which an element's bits depend on nothing but the element.
//!
//! libtorch takes one formula for whole vectors and another for what is left over at the end of a
//! thread's share, so that its tanh of a number depends on where the number lies. On the CPU these
//! functions do not; elsewhere they are libtorch's. Not for: relu, which is exact
//! anyway.

use tch::Tensor;

use super::products::{has_kernel, ours};
use crate::Result;
pub use crate::torch::shim::tables::Activation;
use crate::torch::shim::{docre_activation, docre_log_sum_exp, produce};

impl Activation {
    /// The function of every element.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        if has_kernel(x) {
            // SAFETY: both pointers are to live tensors.
            return produce(|out| unsafe { docre_activation(x.as_ptr(), self as i64, out) });
        }
        Ok(match self {
            Self::Gelu => x.f_gelu("none")?,
            Self::GeluTanh => x.f_gelu("tanh")?,
            Self::Tanh => x.f_tanh()?,
            Self::Sigmoid => x.f_sigmoid()?,
        })
    }
}

/// log Σ exp over the middle axis: `[groups, rows, width]` → `[groups, width]`. A row 87 or more
/// below the largest adds nothing.
///
/// # Errors
/// If there are no rows.
pub fn log_sum_exp(x: &Tensor) -> Result<Tensor> {
    if ours(x) {
        // SAFETY: both pointers are to live tensors.
        return produce(|out| unsafe { docre_log_sum_exp(x.as_ptr(), out) });
    }
    Ok(x.f_logsumexp(1, false)?)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::torch::device::LocalThreads;
    use crate::torch::rng::Generator;

    const ALL: [Activation; 4] =
        [Activation::Gelu, Activation::GeluTanh, Activation::Tanh, Activation::Sigmoid];

    /// The result and its gradient.
    fn pass(x: &Tensor, function: impl Fn(&Tensor) -> Tensor) -> [Tensor; 2] {
        let x = x.detach().set_requires_grad(true);
        let y = function(&x);
        y.sum(y.kind()).backward();
        [y.detach(), x.grad()]
    }

    /// The largest difference from the function in doubles.
    fn error(x: &Tensor, function: impl Fn(&Tensor) -> Tensor) -> f64 {
        let (ours, theirs) = (pass(x, &function), pass(&x.to_kind(Kind::Double), &function));
        let difference = |(a, b): (&Tensor, &Tensor)| (a - b).abs().max().double_value(&[]);
        ours.iter().zip(&theirs).map(difference).fold(0.0, f64::max)
    }

    #[test]
    fn values_and_slopes_are_those_of_libtorch_in_doubles() {
        // Every 1/1024 in [−12, 12]; near 12 neighbouring floats are 1e-6 apart.
        let x = Tensor::arange_start_step(-12.0, 12.0, 1.0 / 1024.0, (Kind::Float, Device::Cpu));
        for kind in ALL {
            let worst = error(&x, |x| kind.apply(x).unwrap());
            assert!(worst < 3e-6, "{kind:?}: {worst:e}");
        }
        let far = Tensor::from_slice(&[-1e4f32, -100.0, 0.0, 100.0, 1e4]);
        for kind in ALL {
            let [value, slope] = pass(&far, |x| kind.apply(x).unwrap());
            let [expected, expected_slope] =
                pass(&far.to_kind(Kind::Double), |x| kind.apply(x).unwrap());
            assert!(
                value.allclose(&expected.to_kind(Kind::Float), 1e-6, 1e-30, false),
                "{kind:?}: {value}"
            );
            assert!(
                slope.allclose(&expected_slope.to_kind(Kind::Float), 1e-6, 1e-30, false),
                "{kind:?}: {slope}"
            );
        }
    }

    #[test]
    fn sums_of_exponentials_are_those_of_libtorch_in_doubles() {
        let x = Generator::of_test(1).randn([5, 4, 37]) * 5.0;
        assert!(error(&x, |x| log_sum_exp(x).unwrap()) < 2e-6);
        let absent = Tensor::full([5, 3, 37], -1e30, (Kind::Float, Device::Cpu));
        assert_eq!(log_sum_exp(&Tensor::cat(&[&x, &absent], 1)).unwrap(), log_sum_exp(&x).unwrap());
        assert!(log_sum_exp(&x.narrow(1, 0, 0)).is_err());
        assert_eq!(log_sum_exp(&x.narrow(0, 0, 0)).unwrap().size(), [0, 37]);
    }

    #[test]
    fn an_element_has_the_same_bits_anywhere() {
        let x = Generator::of_test(2).randn([70_001]) * 3.0;
        for kind in ALL {
            let all = pass(&x, |x| kind.apply(x).unwrap());
            for threads in [1, 2, 3] {
                let _threads = LocalThreads::new(threads);
                let part = pass(&x.narrow(0, 13, 60_005), |x| kind.apply(x).unwrap());
                assert!(
                    part.iter().zip(&all).all(|(part, all)| *part == all.narrow(0, 13, 60_005)),
                    "{kind:?}"
                );
            }
        }
        let few = x.to_kind(Kind::BFloat16);
        for kind in ALL {
            let all = pass(&few, |x| kind.apply(x).unwrap());
            let part = pass(&few.narrow(0, 13, 60_005), |x| kind.apply(x).unwrap());
            assert!(part.iter().zip(&all).all(|(part, all)| *part == all.narrow(0, 13, 60_005)));
            let wide = pass(&few.to_kind(Kind::Float), |x| kind.apply(x).unwrap());
            assert_eq!(wide[0].to_kind(Kind::BFloat16), all[0], "{kind:?}");
        }
        let grid = x.narrow(0, 0, 69_930).view([30, 7, 333]);
        let all = log_sum_exp(&grid).unwrap();
        let _threads = LocalThreads::new(1);
        assert_eq!(log_sum_exp(&grid.narrow(0, 11, 3)).unwrap(), all.narrow(0, 11, 3));
    }
}
