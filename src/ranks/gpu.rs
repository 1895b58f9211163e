//! Which GPU a rank computes on: NCCL does not accept two ranks on one.
//!
//! Not for choosing one: `torch` does that.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int};

use libloading::os::unix::Library;
use serde::{Deserialize, Serialize};

use crate::base::host_name;
use crate::{Error, Result};

/// A GPU of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gpu {
    /// Machine.
    host: String,
    /// Equal for all containers of a machine, whatever they call it.
    boot: String,
    /// Its place on the PCI bus, whatever number it has in this process.
    bus: String,
}

/// The GPU that is the calling thread's current one; `None` if CUDA does not say.
pub(super) fn own() -> Option<Gpu> {
    type GetDevice = unsafe extern "C" fn(*mut c_int) -> c_int;
    type GetBus = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    const ROOM: usize = 64;
    let program = Library::this();
    let (mut device, mut text) = (0, [0 as c_char; ROOM]);
    // SAFETY: the types are those of cuda_runtime_api.h for these names, and the library with them
    // stays loaded; one call writes one int, the other at most `ROOM` letters.
    let failed = unsafe {
        let get_device = program.get::<GetDevice>(b"cudaGetDevice\0").ok()?;
        let get_bus = program.get::<GetBus>(b"cudaDeviceGetPCIBusId\0").ok()?;
        get_device(&raw mut device) != 0 || get_bus(text.as_mut_ptr(), ROOM as c_int, device) != 0
    };
    if failed {
        return None;
    }
    text[ROOM - 1] = 0;
    // SAFETY: the last letter is a zero.
    let bus = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
    let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Some(Gpu { host: host_name(), boot: boot.trim().to_owned(), bus })
}

/// Makes sure that no two ranks have the same GPU; `gpus` are those of all ranks, by rank.
///
/// # Errors
/// A recipe error (64) that names the ranks, the machine and the GPU.
pub(super) fn all_differ(gpus: &[Option<Gpu>]) -> Result<()> {
    let mut users: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (rank, gpu) in gpus.iter().enumerate() {
        if let Some(Gpu { boot, bus, .. }) = gpu {
            users.entry((boot, bus)).or_default().push(rank);
        }
    }
    let Some(shared) = users.into_values().find(|ranks| ranks.len() > 1) else { return Ok(()) };
    let Some(Gpu { host, bus, .. }) = &gpus[shared[0]] else { return Ok(()) };
    let list: Vec<String> = shared.iter().map(ToString::to_string).collect();
    let message = format!("ranks {} share one GPU ({bus} on {host})", list.join(", "));
    Err(Error::recipe(message).with_hint(
        "start as many ranks on a machine as it has GPUs, let each rank see all of them, and use \
         `device = \"cuda\"` without a number",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(host: &str, boot: &str, bus: &str) -> Option<Gpu> {
        Some(Gpu { host: host.into(), boot: boot.into(), bus: bus.into() })
    }

    #[test]
    fn two_ranks_on_one_gpu_are_refused_by_name() {
        let apart = [gpu("a", "1", "0000:3B:00.0"), gpu("a", "1", "0000:86:00.0"), None, None];
        all_differ(&apart).unwrap();
        all_differ(&[gpu("a", "1", "0000:3B:00.0"), gpu("b", "2", "0000:3B:00.0")]).unwrap();
        // Two containers of one machine.
        let [first, second] = [gpu("a", "1", "0000:3B:00.0"), gpu("b", "1", "0000:3B:00.0")];
        let error = all_differ(&[None, first, second]).unwrap_err();
        assert_eq!(error.exit_code(), 64);
        assert_eq!(error.to_string(), "ranks 1, 2 share one GPU (0000:3B:00.0 on a)");
        assert!(error.hint().is_some());
    }
}
