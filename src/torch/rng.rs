//! Random tensors from a generator of one's own. libtorch's shared generator is never used on the
//! CPU: two threads that seed and draw would take each other's numbers.
//!
//! Not for: random choices of the data (`sampling`) or dropout masks, which need no state.

use std::ptr::{self, NonNull};

use tch::Tensor;

use super::shim::{
    CGenerator, check, docre_generator_draw, docre_generator_free, docre_generator_new, produce,
};
use crate::{Error, Result};

/// libtorch's Mersenne twister on the CPU: the numbers of `torch.manual_seed(seed)` followed by the
/// same draws.
pub struct Generator(NonNull<CGenerator>);

impl Generator {
    /// A generator at the start of the sequence of a seed.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn new(seed: u64) -> Result<Self> {
        let mut raw = ptr::null_mut();
        // SAFETY: the shim writes one pointer, owned from here on.
        check(unsafe { docre_generator_new(seed, &raw mut raw) })?;
        NonNull::new(raw).map(Self).ok_or_else(|| Error::Bug("libtorch gave no generator".into()))
    }

    /// N(0, 1), fp32 on the CPU.
    ///
    /// # Errors
    /// If libtorch rejects the shape.
    pub fn normal(&mut self, shape: &[i64]) -> Result<Tensor> {
        self.draw(shape, true, 0.0, 1.0)
    }

    /// U(from, to), fp32 on the CPU.
    ///
    /// # Errors
    /// If libtorch rejects the shape or the bounds.
    pub fn uniform(&mut self, shape: &[i64], from: f64, to: f64) -> Result<Tensor> {
        self.draw(shape, false, from, to)
    }

    fn draw(&mut self, shape: &[i64], normal: bool, from: f64, to: f64) -> Result<Tensor> {
        // SAFETY: the generator is alive and ours alone; the shape is read, the new tensor written.
        produce(|out| unsafe {
            docre_generator_draw(
                self.0.as_ptr(),
                shape.as_ptr(),
                shape.len(),
                normal.into(),
                from,
                to,
                out,
            )
        })
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { docre_generator_free(self.0.as_ptr()) }
    }
}

/// Numbers for tests, whatever other tests draw meanwhile.
#[cfg(test)]
impl Generator {
    pub(crate) fn of_test(seed: u64) -> Self {
        Self::new(seed).unwrap()
    }

    pub(crate) fn randn(&mut self, shape: impl AsRef<[i64]>) -> Tensor {
        self.normal(shape.as_ref()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence_whoever_else_draws() {
        let alone = (0..20).map(|_| Generator::of_test(7).randn([3, 11])).collect::<Vec<_>>();
        let beside: Vec<Tensor> = std::thread::scope(|scope| {
            let draws: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Generator::of_test(7).randn([3, 11]))).collect();
            draws.into_iter().map(|draw| draw.join().unwrap()).collect()
        });
        assert!(alone.iter().chain(&beside).all(|drawn| drawn == &alone[0]));
        let mut generator = Generator::of_test(7);
        assert!(generator.randn([3, 11]) == alone[0] && generator.randn([3, 11]) != alone[0]);
        assert_ne!(Generator::of_test(8).randn([3, 11]), alone[0]);
    }

    #[test]
    fn draws_have_the_moments_asked_for() {
        let mut generator = Generator::of_test(1);
        let normal = generator.randn([40_000]);
        assert!(normal.mean(tch::Kind::Float).double_value(&[]).abs() < 0.02);
        assert!((normal.std(false).double_value(&[]) - 1.0).abs() < 0.02);
        let uniform = generator.uniform(&[40_000], -2.0, 4.0).unwrap();
        assert!((uniform.mean(tch::Kind::Float).double_value(&[]) - 1.0).abs() < 0.03);
        assert!(uniform.min().double_value(&[]) >= -2.0 && uniform.max().double_value(&[]) <= 4.0);
        assert!(generator.uniform(&[2], 4.0, -2.0).is_err() && generator.normal(&[-1]).is_err());
    }
}
