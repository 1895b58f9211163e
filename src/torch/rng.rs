//! The state of libtorch's CPU generator, for checkpoints.
//!
//! Not for: random choices of the data (`sampling`) or dropout masks, which need no state.

use tch::{Kind, Tensor};

use super::shim::{check, docre_rng_get, docre_rng_set, produce};
use crate::Result;

/// The state of the CPU generator, as libtorch writes it.
///
/// # Errors
/// If libtorch refuses.
pub fn generator_state() -> Result<Vec<u8>> {
    // SAFETY: the shim only writes the new tensor.
    let state = produce(|out| unsafe { docre_rng_get(out) })?;
    let mut bytes = vec![0; state.numel()];
    state.f_copy_data_u8(&mut bytes, state.numel())?;
    Ok(bytes)
}

/// Restores what [`generator_state`] gave.
///
/// # Errors
/// If the bytes are no state of this generator.
pub fn set_generator_state(state: &[u8]) -> Result<()> {
    let tensor = Tensor::f_from_data_size(state, &[state.len() as i64], Kind::Uint8)?;
    // SAFETY: the tensor is alive.
    check(unsafe { docre_rng_set(tensor.as_ptr()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_state_is_the_same_state() {
        // Other tests draw from the same generator at the same time, so the draws themselves cannot be compared here.
        let state = generator_state().unwrap();
        assert!(state.len() > 5000);
        set_generator_state(&state).unwrap();
        assert!(set_generator_state(&state[..10]).is_err());
    }
}
