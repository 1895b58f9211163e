//! Panics that are expected: libraries that read hostile files panic on some of them.

use std::cell::Cell;

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
