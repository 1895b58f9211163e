//! Panics that are expected (libraries that read hostile files panic on some of them), what a panic
//! says, and locks that a panic has left.

use std::any::Any;
use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
