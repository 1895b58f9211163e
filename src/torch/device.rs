//! Where tensors live: the choice of a device, CUDA opened at run time, threads, and side streams
//! for communication.
//!
//! Not for: what runs there.

use std::ffi::{CStr, CString, c_void};
use std::str::FromStr;

use tch::{Cuda, Device};

use super::shim::{
    CStream, check, docre_cuda_peak_bytes, docre_cuda_set_device, docre_stream_current_waits,
    docre_stream_free, docre_stream_handle, docre_stream_new, docre_stream_wait_current,
};
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
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto => match open_cuda() {
                Ok(()) => cuda_device(local_rank % usable_devices().max(1)),
                Err(error) => {
                    let variable = |name: &str| std::env::var(name).ok();
                    let there = |path: &str| std::path::Path::new(path).exists();
                    match sign_of_gpu(variable, there) {
                        Some(sign) => Err(cpu_unasked(&sign, &error)),
                        None => Ok(Device::Cpu),
                    }
                }
            },
            Self::Cuda(index) => {
                open_cuda()?;
                cuda_device(index.unwrap_or(local_rank))
            }
        }
    }
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
    Error::recipe(format!("this machine has a GPU ({sign}), but {error}"))
        .with_hint("use `--device cpu` to train on the CPU all the same")
}

fn usable_devices() -> usize {
    usize::try_from(Cuda::device_count()).unwrap_or(0)
}

fn cuda_device(index: usize) -> Result<Device> {
    let count = usable_devices();
    if index >= count {
        let message = format!(
            "device `cuda:{index}` does not exist: this machine shows {count} CUDA devices"
        );
        return Err(Error::recipe(message)
            .with_hint("start fewer ranks on this node, or check CUDA_VISIBLE_DEVICES"));
    }
    // SAFETY: a plain call with a number.
    check(unsafe { docre_cuda_set_device(index as i64) })?;
    Ok(Device::Cuda(index))
}

/// Loads libtorch's CUDA half, which the program is not linked against.
///
/// # Errors
/// [`Error::Recipe`] saying why CUDA cannot be used here.
pub fn open_cuda() -> Result<()> {
    let refuse = |why: &str| {
        Error::recipe(format!("CUDA cannot be used: {why}")).with_hint("use `--device cpu`")
    };
    let name = CString::new("libtorch_cuda.so")
        .map_err(|_| Error::Bug("a file name holds a zero byte".into()))?;
    // libtorch opens further libraries lazily and finds their symbols only if this one is global.
    // SAFETY: the library's initialisers register kernels and start nothing.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        return Err(refuse(&format!(
            "libtorch's CUDA library cannot be loaded ({})",
            loader_message()
        )));
    }
    if Cuda::is_available() {
        Ok(())
    } else {
        Err(refuse("libtorch finds no CUDA device (is the driver installed?)"))
    }
}

/// The dynamic loader's last error.
fn loader_message() -> String {
    // SAFETY: the pointer is null or to a string that lives until the next loader call of this
    // thread.
    let message = unsafe { libc::dlerror() };
    if message.is_null() {
        "no reason given".into()
    } else {
        unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
    }
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
    let Device::Cuda(index) = device else {
        return Ok(parse_peak(&fs_err::read_to_string("/proc/self/status")?).unwrap_or(0));
    };
    let mut bytes = 0;
    // SAFETY: the number is ours.
    check(unsafe { docre_cuda_peak_bytes(index as i64, &raw mut bytes) })?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// The line `VmHWM:   1234 kB`, in bytes.
fn parse_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
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
                assert!(error.to_string().starts_with("CUDA cannot be used: libtorch"), "{error}");
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
    }

    #[test]
    fn peak_memory_is_read() {
        assert_eq!(parse_peak("VmPeak:\t9 kB\nVmHWM:\t  1234 kB\n"), Some(1_263_616));
        assert_eq!(parse_peak("VmPeak:\t9 kB\n"), None);
        assert!(peak_memory_bytes(Device::Cpu).unwrap() > 1 << 20);
    }

    #[test]
    fn settings_are_checked() {
        assert!(set_threads(0).is_err());
    }
}
