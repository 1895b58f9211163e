//! The name of this machine, and its memory.

/// This machine's name, for messages and lock files.
pub fn host_name() -> String {
    fs_err::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "an unknown host".into(), |name| name.trim().to_owned())
}

/// Returns what was freed to the machine. For data that is made on one thread and freed on another:
/// the C library keeps free memory apart for each thread, and these parts add up.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, locks the heap itself, and may be called on any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
