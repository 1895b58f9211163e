//! Memory that is in use, now and at most so far. Not for: what the memory of a device is used for.

use serde::Serialize;

use crate::Result;

/// Bytes in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryUse {
    /// Now.
    pub current: u64,
    /// The most so far.
    pub peak: u64,
}

impl MemoryUse {
    /// Main memory that a process of this machine holds; `None` means this process. Costs the
    /// kernel some 20 µs.
    ///
    /// # Errors
    /// If there is no such process, or the kernel does not say.
    pub fn of_process(process: Option<u32>) -> Result<Self> {
        let name = process.map_or_else(|| "self".to_owned(), |process| process.to_string());
        let path = format!("/proc/{name}/status");
        let status = fs_err::read_to_string(&path)?;
        let unsaid = || std::io::Error::other(format!("{path} names no resident memory"));
        Ok(Self::parse(&status).ok_or_else(unsaid)?)
    }

    /// Reads the lines `VmRSS:  1234 kB` and `VmHWM:  1234 kB`.
    fn parse(status: &str) -> Option<Self> {
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
        };
        Some(Self { current: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_a_process_is_read() {
        let read = MemoryUse::parse("VmPeak:\t9 kB\nVmHWM:\t  1234 kB\nVmRSS:\t  1000 kB\n");
        assert_eq!(read, Some(MemoryUse { current: 1_024_000, peak: 1_263_616 }));
        assert_eq!(MemoryUse::parse("VmHWM:\t9 kB\n"), None);
        let own = MemoryUse::of_process(None).unwrap();
        assert!(own.current > 1 << 20 && own.peak >= own.current);
        let named = MemoryUse::of_process(Some(std::process::id())).unwrap();
        assert!(named.current > 1 << 20);
        // Kernel threads, and processes that have ended, hold none.
        assert!(MemoryUse::of_process(Some(u32::MAX)).is_err());
    }
}
