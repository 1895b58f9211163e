//! Panics that are expected (libraries that read hostile files panic on some of them), what a panic
//! says, locks that a panic has left, and errors that take the way of a panic.

use std::any::Any;
use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Error, Result};

thread_local! {
    /// Whether this thread catches its panics itself and makes errors of them.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is caught by [`catch_panic`], so that nobody else has to report
/// it.
pub fn is_expected() -> bool {
    EXPECTED.get()
}

/// Calls `f`; a panic inside is returned and does not end the world of ranks.
///
/// # Errors
/// The payload of the panic.
pub fn catch_panic<T>(f: impl FnOnce() -> T) -> std::thread::Result<T> {
    let outer = EXPECTED.replace(true);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    EXPECTED.set(outer);
    outcome
}

/// The message of a panic, by its payload.
pub fn message(payload: &dyn Any) -> Option<&str> {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

/// Locks, also where a thread panicked while it held the lock: for data that is whole at any time.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error on its way up through code that returns no `Result`.
struct Raised(Error);

/// Ends the work of this thread with an error, where what calls cannot return one: random access to
/// documents that were read and checked before, and whose file has changed since. No panic is
/// reported; [`caught`] gives the error back.
pub fn raise(error: Error) -> ! {
    std::panic::resume_unwind(Box::new(Raised(error)))
}

/// Calls `f`, whose error may also be one that was [raised](raise).
///
/// # Errors
/// Those of `f`. Panics go on.
pub fn caught<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f))
        .unwrap_or_else(|payload| Err(raised(payload)))
}

/// The error that a payload carries; other panics go on.
fn raised(payload: Box<dyn Any + Send>) -> Error {
    match payload.downcast::<Raised>() {
        Ok(raised) => raised.0,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn a_raised_error_is_caught_across_threads_and_a_panic_goes_on() {
        let fail = |number: i32| -> i32 {
            if number == 7 { raise(Error::recipe("seven")) } else { number }
        };
        let sum = caught(|| Ok((0..6).into_par_iter().map(fail).sum::<i32>()));
        assert_eq!(sum.unwrap(), 15);
        let error = caught(|| Ok((0..9).into_par_iter().map(fail).sum::<i32>())).unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (64, "seven"));
        let panic = catch_panic(|| caught::<()>(|| panic!("a bug"))).unwrap_err();
        assert_eq!(message(panic.as_ref()), Some("a bug"));
    }
}
