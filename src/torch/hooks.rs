//! Calls when the gradient of a parameter is complete, so that its bucket can leave while backward
//! goes on.
//!
//! Not for: what is done then (`ranks`).

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tch::Tensor;

use super::shim::{check, docre_hook_clear, docre_hook_set};
use crate::Result;

/// A callback on the thread that runs backward.
type Callback = Arc<dyn Fn() + Send + Sync>;

/// Keeps a hook in place until it is dropped.
#[derive(Debug)]
pub struct HookGuard {
    parameter: Tensor,
}

impl Drop for HookGuard {
    fn drop(&mut self) {
        // SAFETY: the guard keeps the tensor alive. A failure cannot be answered here and leaves
        // the hook in place, which is sound.
        let _ = check(unsafe { docre_hook_clear(self.parameter.as_mut_ptr()) });
    }
}

/// Calls `callback` each time backward has added to the gradient of `parameter` (a leaf), from the
/// thread that does so. A parameter has one hook: a second call replaces the first. A panic of the
/// callback ends backward with an error.
///
/// # Errors
/// If `parameter` is not a leaf that requires a gradient.
pub fn on_gradient_ready(parameter: &Tensor, callback: Callback) -> Result<HookGuard> {
    let mut guarded = parameter.shallow_clone();
    let context = Box::into_raw(Box::new(callback)).cast::<c_void>();
    // SAFETY: the shim owns `context` from here on and hands it to `call` and, once, to `release`.
    check(unsafe { docre_hook_set(guarded.as_mut_ptr(), call, release, context) })?;
    Ok(HookGuard { parameter: guarded })
}

extern "C" fn call(context: *mut c_void) -> c_int {
    // SAFETY: `context` came from `on_gradient_ready` and has not been released.
    let callback = unsafe { &*context.cast::<Callback>() };
    c_int::from(catch_unwind(AssertUnwindSafe(|| callback())).is_err())
}

extern "C" fn release(context: *mut c_void) {
    // SAFETY: as in `call`; the shim releases once.
    drop(unsafe { Box::from_raw(context.cast::<Callback>()) });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tch::{Device, Kind};

    use super::*;

    fn leaf() -> Tensor {
        Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(true)
    }

    #[test]
    fn fires_once_a_backward_until_the_guard_is_dropped() {
        let (x, calls) = (leaf(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&calls);
        let guard =
            on_gradient_ready(&x, Arc::new(move || _ = counter.fetch_add(1, Ordering::Relaxed)))
                .unwrap();
        for expected in 1..=2 {
            // Two uses of the leaf make one accumulation.
            (&x * 2.0 + &x).sum(Kind::Float).backward();
            assert_eq!(calls.load(Ordering::Relaxed), expected);
        }
        drop(guard);
        assert_eq!(Arc::strong_count(&calls), 1, "the callback was freed");
        x.sum(Kind::Float).backward();
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_panic_becomes_an_error_of_backward() {
        let x = leaf();
        let _guard = on_gradient_ready(&x, Arc::new(|| panic!("on purpose"))).unwrap();
        assert!(x.sum(Kind::Float).f_backward().is_err());
    }
}
