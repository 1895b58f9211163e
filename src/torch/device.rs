//! Where tensors live: the choice of a device, threads, and side streams for communication.
//!
//! Not for: opening CUDA (`cuda`), or what runs there.

use std::ffi::c_void;
use std::str::FromStr;

use tch::Device;

use super::cuda::{self, open_cuda};
use super::shim::{
    CStream, check, docre_cuda_memory_bytes, docre_cuda_set_device, docre_stream_current_waits,
    docre_stream_free, docre_stream_handle, docre_stream_new, docre_stream_wait_current,
};
use crate::base::MemoryUse;
use crate::{Error, Result};

/// The device that the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA where there is a GPU, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device: the one named, or the one with the number of the rank on its node.
    Cuda(Option<usize>),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            Error::recipe(format!("device `{text}` is not known"))
                .with_hint("use `auto`, `cpu`, `cuda` or `cuda:<number>`")
        };
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(None)),
            Some(("cuda", index)) => {
                index.parse().map(|index| Self::Cuda(Some(index))).map_err(|_| unknown())
            }
            _ => Err(unknown()),
        }
    }
}

impl DeviceChoice {
    /// The device for the rank that is number `local_rank` on its node, made current where it is a
    /// CUDA device.
    ///
    /// # Errors
    /// [`Error::Recipe`] with the reason if CUDA was asked for and cannot be used, and also where
    /// nothing was asked for, but there is a GPU: a job on it never trains on the CPU unasked.
    pub fn resolve(self, local_rank: usize) -> Result<Device> {
        let sign = || {
            let variable = |name: &str| std::env::var(name).ok();
            sign_of_gpu(variable, |path| std::path::Path::new(path).exists())
        };
        let device = self.decide(local_rank, open_cuda, sign)?;
        if let Device::Cuda(index) = device {
            // SAFETY: a plain call with a number.
            check(unsafe { docre_cuda_set_device(index as i64) })?;
        }
        Ok(device)
    }

    /// The choice itself. `open` opens CUDA and counts its devices, at least one; `sign` tells what
    /// says that there is a GPU.
    fn decide(
        self,
        local_rank: usize,
        open: impl FnOnce() -> Result<usize>,
        sign: impl FnOnce() -> Option<String>,
    ) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(Some(index)) => existing(index, open()?),
            Self::Cuda(None) => own_device(local_rank, open()?),
            Self::Auto => match open() {
                Ok(count) => own_device(local_rank, count),
                Err(error) => match sign() {
                    Some(sign) => Err(cpu_unasked(&sign, &error)),
                    None => Ok(Device::Cpu),
                },
            },
        }
    }
}

/// What to call a device in messages, such as `cuda:0 (NVIDIA H200)`.
pub fn described(device: Device) -> String {
    match device {
        Device::Cuda(index) => {
            let name =
                cuda::device_name(index).map_or_else(String::new, |name| format!(" ({name})"));
            format!("cuda:{index}{name}")
        }
        _ => "the CPU".to_owned(),
    }
}

/// The device with the rank's number; the only one where a launcher shows each rank one.
fn own_device(local_rank: usize, count: usize) -> Result<Device> {
    existing(if count == 1 { 0 } else { local_rank }, count)
}

fn existing(index: usize, count: usize) -> Result<Device> {
    if index < count {
        return Ok(Device::Cuda(index));
    }
    let message = format!("device `cuda:{index}` does not exist: CUDA devices here: {count}");
    Err(Error::recipe(message)
        .with_hint("start fewer ranks on this node, or check CUDA_VISIBLE_DEVICES"))
}

/// What says that this machine or this job has a GPU; `None` where the user hides it.
fn sign_of_gpu(
    variable: impl Fn(&str) -> Option<String>,
    there: impl Fn(&str) -> bool,
) -> Option<String> {
    let visible = variable("CUDA_VISIBLE_DEVICES");
    if visible.is_some_and(|devices| matches!(devices.trim(), "" | "-1" | "NoDevFiles")) {
        return None;
    }
    let file = ["/proc/driver/nvidia/version", "/dev/nvidia0"].into_iter().find(|path| there(path));
    let given = |name: &&str| variable(name).is_some_and(|gpus| !matches!(gpus.trim(), "" | "0"));
    let slurm = ["SLURM_GPUS_ON_NODE", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS"].into_iter().find(given);
    file.map(|path| format!("there is {path}")).or(slurm.map(|name| format!("{name} is set")))
}

fn cpu_unasked(sign: &str, error: &Error) -> Error {
    let hint = error
        .hint()
        .unwrap_or(
            "use `--device cpu` (`run`: `--set device=cpu`) to train on the CPU all the same",
        )
        .to_owned();
    Error::recipe(format!("this machine has a GPU ({sign}), but {error}")).with_hint(hint)
}

/// Sets the number of threads an operation may use.
///
/// # Errors
/// [`Error::Recipe`] for a number that is not positive or absurd.
pub fn set_threads(threads: usize) -> Result<()> {
    match i32::try_from(threads) {
        Ok(count) if count > 0 => tch::set_num_threads(count),
        _ => return Err(Error::recipe(format!("{threads} threads cannot be used"))),
    }
    Ok(())
}

/// Another number of threads for the operations of the calling thread, until it is dropped.
/// [`set_threads`] is for the whole process: in a test it would change the last bits of matrix
/// products that other tests compare at that moment.
#[cfg(test)]
pub(crate) struct LocalThreads(i32);

#[cfg(test)]
impl LocalThreads {
    pub(crate) fn new(threads: i32) -> Self {
        let before = tch::get_num_threads();
        // SAFETY: a plain call with a number.
        unsafe { crate::torch::shim::docre_local_threads(threads) };
        Self(before)
    }
}

#[cfg(test)]
impl Drop for LocalThreads {
    fn drop(&mut self) {
        // SAFETY: a plain call with a number.
        unsafe { crate::torch::shim::docre_local_threads(self.0) }
    }
}

/// Returns when a device has done all that was queued on it.
pub fn finish(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// Lets the C library keep what tensors give back. Otherwise buffers of some megabytes go back to
/// the kernel at the end of a step, and the next step takes them again page by page, zeroed: an
/// eighth of the time of a small model.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call changes two thresholds of the allocator.
    unsafe {
        let _ = libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        let _ = libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

/// The most memory used so far, in bytes: of the process on the CPU, of libtorch's allocator on
/// CUDA.
///
/// # Errors
/// [`Error::Io`] if the kernel's statistics cannot be read.
pub fn peak_memory_bytes(device: Device) -> Result<u64> {
    Ok(match cuda_memory(device)? {
        Some(memory) => memory.peak,
        None => MemoryUse::of_process(None)?.peak,
    })
}

/// What libtorch's allocator has in use on a CUDA device; `None` for the CPU.
///
/// # Errors
/// If libtorch does not know the device.
pub fn cuda_memory(device: Device) -> Result<Option<MemoryUse>> {
    let Device::Cuda(index) = device else { return Ok(None) };
    let (mut current, mut peak) = (0, 0);
    // SAFETY: both numbers are ours.
    check(unsafe { docre_cuda_memory_bytes(index as i64, &raw mut current, &raw mut peak) })?;
    let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
    Ok(Some(MemoryUse { current: bytes(current), peak: bytes(peak) }))
}

/// A CUDA stream beside the current one, for communication that overlaps with computation.
#[derive(Debug)]
pub struct SideStream(*mut CStream);

// SAFETY: the shim's stream is a plain value (device, number) that any thread may use.
unsafe impl Send for SideStream {}
// SAFETY: no method changes the value; the work they queue is ordered by CUDA.
unsafe impl Sync for SideStream {}

impl SideStream {
    /// A high-priority stream of libtorch's pool on CUDA device `index`.
    ///
    /// # Errors
    /// If CUDA is not open.
    pub fn new(index: usize) -> Result<Self> {
        let mut stream = std::ptr::null_mut();
        // SAFETY: the pointer is ours; the shim fills it with an allocation that `drop` frees.
        check(unsafe { docre_stream_new(index as i64, &raw mut stream) })?;
        Ok(Self(stream))
    }

    /// The `cudaStream_t`.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn handle(&self) -> Result<*mut c_void> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the stream is alive and the pointer is ours.
        check(unsafe { docre_stream_handle(self.0, &raw mut handle) })?;
        Ok(handle)
    }

    /// Makes later work of this stream wait for the work queued on the calling thread's current
    /// stream now.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn wait_current(&self) -> Result<()> {
        // SAFETY: the stream is alive.
        check(unsafe { docre_stream_wait_current(self.0) })
    }

    /// Makes later work of the calling thread's current stream wait for the work queued here now.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn current_waits(&self) -> Result<()> {
        // SAFETY: the stream is alive.
        check(unsafe { docre_stream_current_waits(self.0) })
    }
}

impl Drop for SideStream {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, freed once.
        unsafe { docre_stream_free(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_parsed() {
        assert_eq!("auto".parse::<DeviceChoice>().unwrap(), DeviceChoice::Auto);
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(None));
        assert_eq!("cuda:3".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(Some(3)));
        for wrong in ["gpu", "cuda:", "cuda:x", "cpu:0"] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn cuda_is_either_there_or_refused_with_a_reason() {
        match DeviceChoice::Cuda(None).resolve(0) {
            Ok(device) => assert_eq!(device, Device::Cuda(0)),
            Err(error) => {
                assert!(error.to_string().starts_with("CUDA cannot be used: "), "{error}");
            }
        }
        assert_eq!(DeviceChoice::Cpu.resolve(5).unwrap(), Device::Cpu);
        assert!(DeviceChoice::Auto.resolve(0).is_ok());
    }

    #[test]
    fn a_gpu_that_cannot_be_used_is_not_passed_over() {
        let sign = |set: &[(&str, &str)], files: &[&str]| {
            sign_of_gpu(
                |name| {
                    let found = set.iter().find(|(key, _)| *key == name);
                    found.map(|(_, value)| (*value).to_owned())
                },
                |path| files.contains(&path),
            )
        };
        assert_eq!(sign(&[], &[]), None);
        assert_eq!(sign(&[("SLURM_GPUS_ON_NODE", "0"), ("SLURM_JOB_GPUS", "")], &[]), None);
        assert_eq!(sign(&[("SLURM_GPUS_ON_NODE", "4")], &[]).unwrap(), "SLURM_GPUS_ON_NODE is set");
        assert_eq!(sign(&[], &["/dev/nvidia0"]).unwrap(), "there is /dev/nvidia0");
        for hidden in ["", "-1"] {
            assert_eq!(sign(&[("CUDA_VISIBLE_DEVICES", hidden)], &["/dev/nvidia0"]), None);
        }
        let error = cpu_unasked("there is /dev/nvidia0", &Error::recipe("CUDA cannot be used: x"));
        assert!(error.to_string().contains("has a GPU (there is /dev/nvidia0), but CUDA"));
        assert!(error.hint().unwrap().contains("--device cpu"));
    }

    /// The device that is chosen, or the message. `count`: the devices that CUDA shows, or why it
    /// cannot be used.
    fn chosen(
        choice: &str,
        local_rank: usize,
        count: std::result::Result<usize, &str>,
        sign: Option<&str>,
    ) -> std::result::Result<Device, String> {
        let choice: DeviceChoice = choice.parse().unwrap();
        let open = || count.map_err(|why| Error::recipe(format!("CUDA cannot be used: {why}")));
        choice
            .decide(local_rank, open, || sign.map(str::to_owned))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_choice_of_a_device_follows_this_table() {
        let (old, none) = (Err("the driver is too old"), Err("no libtorch_cuda.so"));
        let nodes = Some("there is /dev/nvidia0");
        let unused =
            |why: &str| format!("this machine has a GPU (there is /dev/nvidia0), but {why}");
        for (choice, local_rank, count, sign, expected) in [
            // One rank a device; a rank that is shown one device takes that one.
            ("auto", 0, Ok(8), nodes, Ok(Device::Cuda(0))),
            ("auto", 7, Ok(8), nodes, Ok(Device::Cuda(7))),
            ("auto", 3, Ok(1), nodes, Ok(Device::Cuda(0))),
            ("cuda", 3, Ok(1), nodes, Ok(Device::Cuda(0))),
            ("cuda", 3, Ok(4), nodes, Ok(Device::Cuda(3))),
            ("cuda:2", 0, Ok(4), nodes, Ok(Device::Cuda(2))),
            // More ranks than devices.
            ("auto", 8, Ok(8), nodes, Err("`cuda:8` does not exist: CUDA devices here: 8".into())),
            (
                "cuda:1",
                0,
                Ok(1),
                nodes,
                Err("`cuda:1` does not exist: CUDA devices here: 1".into()),
            ),
            // CUDA that does not work is passed over only where nothing says that there is a GPU.
            ("auto", 0, old, nodes, Err(unused("CUDA cannot be used: the driver is too old"))),
            ("auto", 0, none, None, Ok(Device::Cpu)),
            ("cuda", 0, none, None, Err("CUDA cannot be used: no libtorch_cuda.so".into())),
            ("cpu", 5, old, nodes, Ok(Device::Cpu)),
        ] {
            let found = chosen(choice, local_rank, count, sign);
            match (&found, &expected) {
                (Err(message), Err(part)) => assert!(message.contains(part.as_str()), "{message}"),
                _ => assert_eq!(found, expected, "{choice} {local_rank} {count:?}"),
            }
        }
    }

    #[test]
    fn devices_are_named() {
        assert_eq!(described(Device::Cpu), "the CPU");
        assert!(described(Device::Cuda(1)).starts_with("cuda:1"));
    }

    #[test]
    fn peak_memory_is_read() {
        assert_eq!(cuda_memory(Device::Cpu).unwrap(), None);
        assert!(peak_memory_bytes(Device::Cpu).unwrap() > 1 << 20);
    }

    #[test]
    fn settings_are_checked() {
        assert!(set_threads(0).is_err());
    }
}
