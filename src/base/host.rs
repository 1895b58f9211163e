//! The name of this machine.

/// This machine's name, for messages and lock files.
pub fn host_name() -> String {
    fs_err::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "an unknown host".into(), |name| name.trim().to_owned())
}
