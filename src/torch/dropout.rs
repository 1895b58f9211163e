//! Dropout whose mask depends on (token key, place in the network, channel) alone.
//!
//! A token key is made on the host from (seed, step, item, token position), so that the losses do
//! not depend on which other documents share a micro-batch or on the number of ranks. On CUDA
//! libtorch's own generator draws the masks (one kernel instead of a dozen): there a run repeats
//! itself only with the same ranks and after seeding the generator at the start of each step.

use tch::Tensor;

use super::shim::{docre_dropout, produce};
use crate::{Error, Result};

/// Rate and token keys of one forward pass.
#[derive(Debug)]
pub struct Dropout {
    /// The probability of dropping.
    pub p: f64,
    /// int64 `[tokens]`; not read on CUDA.
    pub token_keys: Tensor,
    /// On CUDA, rows that share a mask; each row has its own where this is `None`.
    pub shared: Option<SharedRows>,
}

/// Rows of a stream that share the row of a dropout mask.
#[derive(Debug)]
pub struct SharedRows {
    /// Number of rows of the mask.
    pub count: i64,
    /// The row of the mask of each row of the stream; int64 `[tokens]`.
    pub of_tokens: Tensor,
}

impl Dropout {
    /// Dropping with probability `p` in [0, 1); `token_keys`: int64 `[tokens]`.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a `p` outside [0, 1).
    pub fn new(p: f64, token_keys: Tensor) -> Result<Self> {
        if !(0.0..1.0).contains(&p) {
            return Err(Error::recipe(format!("dropout must lie in [0, 1), not {p}")));
        }
        Ok(Self { p, token_keys, shared: None })
    }

    /// Dropout of rows that all documents of a pass share, such as a table of distances. The masks
    /// come from the first token of the pass.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn of_rows(&self, rows: i64) -> Result<Self> {
        let keys = &self.token_keys;
        let first = if keys.numel() == 0 { 0 } else { keys.f_int64_value(&[0])? };
        let rows: Vec<i64> = (0..rows.cast_unsigned())
            .map(|row| Self::token_key(first.cast_unsigned(), 0, 0, row))
            .collect();
        Self::new(self.p, Tensor::f_from_slice(&rows)?.f_to_device(keys.device())?)
    }

    /// The key of one token (SplitMix64 over the four numbers).
    pub fn token_key(seed: u64, step: u64, item: u64, position: u64) -> i64 {
        [seed, step, item, position]
            .into_iter()
            .fold(0u64, |state, part| mix(state ^ part))
            .cast_signed()
    }
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `x` [tokens, d] with each element kept with probability 1 − p and scaled by 1/(1 − p), else 0.
/// `salt` names the place in the network.
///
/// # Errors
/// If shapes or kinds do not fit.
pub fn dropout(x: &Tensor, dropout: Option<&Dropout>, salt: u64) -> Result<Tensor> {
    match dropout {
        Some(active) if active.p > 0.0 && x.device().is_cuda() => by_library(x, active),
        // SAFETY: the pointers are to live tensors.
        Some(active) if active.p > 0.0 => produce(|out| unsafe {
            docre_dropout(x.as_ptr(), active.token_keys.as_ptr(), salt.cast_signed(), active.p, out)
        }),
        _ => Ok(x.shallow_clone()),
    }
}

/// The same with masks of libtorch's own generator.
fn by_library(x: &Tensor, active: &Dropout) -> Result<Tensor> {
    let Some(SharedRows { count, of_tokens }) = &active.shared else {
        return Ok(x.f_dropout(active.p, true)?);
    };
    let ones = Tensor::f_ones([*count, x.size2()?.1], (x.kind(), x.device()))?;
    Ok(x.f_mul(&ones.f_dropout(active.p, true)?.f_index_select(0, of_tokens)?)?)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::torch::rng::Generator;

    const OPTIONS: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn keys(item: u64, tokens: u64) -> Tensor {
        Tensor::from_slice(
            &(0..tokens)
                .map(|position| Dropout::token_key(7, 1, item, position))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn keeps_the_right_share_and_scales_it() {
        let active = Dropout::new(0.1, keys(0, 1000)).unwrap();
        let y = dropout(&Tensor::ones([1000, 77], OPTIONS), Some(&active), 3).unwrap();
        let kept = y.gt(0.0).sum(Kind::Float).double_value(&[]) / 77_000.0;
        // Three standard deviations of a binomial share: 3·√(0.09/77000) = 0.0033.
        assert!((kept - 0.9).abs() < 0.0033, "{kept}");
        let values = y.masked_select(&y.gt(0.0));
        assert!((values.min().double_value(&[]) - 1.0 / 0.9).abs() < 1e-6);
        assert!((values.max().double_value(&[]) - 1.0 / 0.9).abs() < 1e-6);
        // Neither a channel nor a token is favoured: each column's share stays within five
        // deviations, 5·√(0.09/1000) = 0.047.
        let columns = y.gt(0.0).to_kind(Kind::Float).mean_dim(0, false, Kind::Float);
        assert!((columns - 0.9).abs().max().double_value(&[]) < 0.047);
    }

    #[test]
    fn depends_on_key_and_salt_but_not_on_neighbours() {
        let x = Tensor::ones([8, 40], OPTIONS);
        let alone = dropout(&x, Some(&Dropout::new(0.5, keys(5, 8)).unwrap()), 1).unwrap();
        let both = Tensor::cat(&[keys(4, 3), keys(5, 8)], 0);
        let packed =
            dropout(&Tensor::ones([11, 40], OPTIONS), Some(&Dropout::new(0.5, both).unwrap()), 1)
                .unwrap();
        assert_eq!(packed.narrow(0, 3, 8), alone);
        assert_ne!(dropout(&x, Some(&Dropout::new(0.5, keys(5, 8)).unwrap()), 2).unwrap(), alone);
        assert_ne!(dropout(&x, Some(&Dropout::new(0.5, keys(6, 8)).unwrap()), 1).unwrap(), alone);
    }

    #[test]
    fn gradient_is_the_mask() {
        let mut generator = Generator::of_test(1);
        for kind in [Kind::Float, Kind::BFloat16] {
            let active = Dropout::new(0.3, keys(0, 9)).unwrap();
            let mask =
                dropout(&Tensor::ones([9, 21], (kind, Device::Cpu)), Some(&active), 4).unwrap();
            let x = generator.randn([9, 21]).to_kind(kind).set_requires_grad(true);
            dropout(&x, Some(&active), 4).unwrap().sum(Kind::Float).backward();
            assert_eq!(x.grad(), mask);
        }
    }

    #[test]
    fn is_the_identity_without_dropout_and_refuses_certainty() {
        let x = Generator::of_test(2).randn([3, 4]);
        assert_eq!(dropout(&x, None, 0).unwrap(), x);
        assert_eq!(dropout(&x, Some(&Dropout::new(0.0, keys(0, 3)).unwrap()), 0).unwrap(), x);
        assert!(Dropout::new(1.0, keys(0, 3)).is_err());
        assert!(dropout(&x, Some(&Dropout::new(0.5, keys(0, 2)).unwrap()), 0).is_err());
    }

    #[test]
    fn rows_that_share_a_mask_are_dropped_alike_by_the_library() {
        let of_tokens = Tensor::from_slice(&[0i64, 0, 0, 1, 3, 3]);
        let shared = Some(SharedRows { count: 4, of_tokens });
        let locked = Dropout { shared, ..Dropout::new(0.5, Tensor::new()).unwrap() };
        let x = Tensor::ones([6, 200], OPTIONS).set_requires_grad(true);
        let y = by_library(&x, &locked).unwrap();
        assert_eq!((y.get(1), y.get(2), y.get(5)), (y.get(0), y.get(0), y.get(4)));
        // Masks of 200 fair coins.
        assert!(!y.get(3).equal(&y.get(0)) && !y.get(4).equal(&y.get(3)));
        let kept = y.gt(0.0).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        // Three masks count: 5·√(0.25/600) = 0.1.
        assert!((kept - 0.5).abs() < 0.15, "{kept}");
        assert_eq!(y.max().double_value(&[]), 2.0);
        y.sum(Kind::Float).backward();
        assert_eq!(x.grad(), y.detach());
    }
}
