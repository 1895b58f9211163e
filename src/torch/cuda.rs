//! libtorch's CUDA half, opened at run time: where it lies, why it cannot be used, what the GPUs
//! are called, and which numbers their products are made of.
//!
//! Not for: which device a rank takes (`device`).

use std::ffi::{CStr, CString, OsString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use libloading::Library;
use tch::Cuda;

use super::shim::{check, docre_gpu_products};
use crate::{Error, Result};

/// The half that needs a GPU. It lies beside [`CPU_HALF`].
const CUDA_HALF: &str = "libtorch_cuda.so";
/// The half that the program is linked against.
const CPU_HALF: &str = "libtorch_cpu.so";

/// The driver's library, which no toolkit replaces.
const DRIVER: &str = "libcuda.so.1";

/// Says to libtorch's allocator of GPU memory that its segments can grow: batches of ever new
/// shapes would otherwise leave holes between fixed ones. To be called before threads start and
/// CUDA is opened. Does nothing where the user has said something else.
pub fn prepare_allocator() {
    if let Some((name, value)) = allocator_setting(|name| std::env::var_os(name)) {
        // SAFETY: the program calls this first of all, when it has one thread.
        unsafe { std::env::set_var(name, value) };
    }
}

/// The variable to set, and its value.
fn allocator_setting(
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<(&'static str, &'static str)> {
    // The older name still counts.
    let names = ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"];
    let said = names.into_iter().any(|name| variable(name).is_some());
    (!said).then_some((names[0], "expandable_segments:True"))
}

/// Loads libtorch's CUDA half, which the program is not linked against, and counts the devices: at
/// least one.
///
/// # Errors
/// [`Error::Recipe`] saying why CUDA cannot be used here.
pub fn open_cuda() -> Result<usize> {
    let maps = fs_err::read_to_string("/proc/self/maps").unwrap_or_default();
    open_library(&half_beside(&maps)?)?;
    let found = counted_by_runtime()?;
    // libtorch counts for itself.
    match usize::try_from(Cuda::device_count()) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(refusal(
            &format!("CUDA counts {found} devices, but libtorch finds none"),
            "check CUDA_VISIBLE_DEVICES, or use `--device cpu` (`run`: `--set device=cpu`)",
        )),
    }
}

fn refusal(why: &str, hint: &str) -> Error {
    Error::recipe(format!("CUDA cannot be used: {why}")).with_hint(hint)
}

/// The file of the CUDA half: beside the CPU half that this process has mapped, so that both are of
/// one release, and so that no search path has to name the folder.
fn half_beside(maps: &str) -> Result<PathBuf> {
    let path = |line: &str| line.find('/').map(|at| PathBuf::from(&line[at..]));
    let Some(loaded) = maps.lines().filter_map(path).find(|path| path.ends_with(CPU_HALF)) else {
        return Ok(PathBuf::from(CUDA_HALF));
    };
    let half = loaded.with_file_name(CUDA_HALF);
    if half.exists() {
        return Ok(half);
    }
    let folder = loaded.parent().unwrap_or(Path::new("/")).display();
    Err(refusal(
        &format!("libtorch in {folder} is a build for CPUs, without {CUDA_HALF}"),
        "set LD_LIBRARY_PATH to the folder `torch/lib` of a torch 2.11.0 with CUDA, or use \
         `--device cpu` (`run`: `--set device=cpu`)",
    ))
}

fn open_library(path: &Path) -> Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::Bug("a file name holds a zero byte".into()))?;
    // libtorch opens further libraries lazily and finds their symbols only if this one is global.
    // SAFETY: the library's initialisers register kernels and start nothing.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        return Err(refusal(
            &format!("libtorch's CUDA library cannot be loaded ({})", loader_message()),
            "the folder `nvidia` beside that Python's `torch` is needed too; or use `--device cpu` \
             (`run`: `--set device=cpu`)",
        ));
    }
    Ok(())
}

/// The dynamic loader's last error.
fn loader_message() -> String {
    // SAFETY: the pointer is null or to a string that lives until the next loader call of this
    // thread.
    let message = unsafe { libc::dlerror() };
    if message.is_null() {
        "no reason given".into()
    } else {
        // SAFETY: see above.
        unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
    }
}

/// The number of devices, by the CUDA runtime that libtorch brought along.
fn counted_by_runtime() -> Result<usize> {
    type Count = unsafe extern "C" fn(*mut c_int) -> c_int;
    type Text = unsafe extern "C" fn(c_int) -> *const c_char;
    let count_name = c"cudaGetDeviceCount";
    let text_name = c"cudaGetErrorString";
    // SAFETY: names of functions, looked up among all global libraries.
    let (count, text) = unsafe {
        (
            libc::dlsym(libc::RTLD_DEFAULT, count_name.as_ptr()),
            libc::dlsym(libc::RTLD_DEFAULT, text_name.as_ptr()),
        )
    };
    if count.is_null() || text.is_null() {
        // A libtorch with the runtime inside: only libtorch can count.
        return Ok(usize::try_from(Cuda::device_count()).unwrap_or(0));
    }
    // SAFETY: the types are those of the runtime's header.
    let (count, text) = unsafe {
        (
            std::mem::transmute::<*mut c_void, Count>(count),
            std::mem::transmute::<*mut c_void, Text>(text),
        )
    };
    let mut found = 0;
    // SAFETY: the number is ours.
    match unsafe { count(&raw mut found) } {
        0 if found > 0 => Ok(usize::try_from(found).unwrap_or(0)),
        code => {
            let code = if code == 0 { NO_DEVICE } else { code };
            // SAFETY: the runtime has a static text for every code.
            let why = unsafe { CStr::from_ptr(text(code)) }.to_string_lossy();
            Err(refusal(&format!("{why} (CUDA's error {code})"), advice(code)))
        }
    }
}

/// `cudaErrorNoDevice`.
const NO_DEVICE: c_int = 100;

/// What helps against an error of the runtime.
fn advice(code: c_int) -> &'static str {
    match code {
        35 => {
            "CUDA 13.0 needs a driver of release 580 or later (`nvidia-smi` tells); without a GPU \
             use `--device cpu` (`run`: `--set device=cpu`)"
        }
        NO_DEVICE => {
            "ask for GPUs when you start the job (`submit --gpus`), check CUDA_VISIBLE_DEVICES, or \
             use `--device cpu` (`run`: `--set device=cpu`)"
        }
        802 => "start the service nvidia-fabricmanager, or wait until it is ready",
        803 => "the driver's kernel module and libraries differ in release: reboot",
        _ => "check with `nvidia-smi`, or use `--device cpu` (`run`: `--set device=cpu`)",
    }
}

/// The driver's name of a device, such as `NVIDIA H200`; `None` where it does not tell.
pub fn device_name(index: usize) -> Option<String> {
    type Device = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    // SAFETY: the runtime has opened and initialised this library already.
    let driver = unsafe { Library::new(DRIVER) }.ok()?;
    let mut name = [0 as c_char; 256];
    // SAFETY: the types are those of the driver's header, and the buffer has the size it is told.
    let codes = unsafe {
        let start = driver.get::<unsafe extern "C" fn(c_uint) -> c_int>(b"cuInit\0").ok()?;
        let device = driver.get::<Device>(b"cuDeviceGet\0").ok()?;
        let name_of = driver.get::<Name>(b"cuDeviceGetName\0").ok()?;
        let mut handle = 0;
        [
            start(0),
            device(&raw mut handle, c_int::try_from(index).ok()?),
            name_of(name.as_mut_ptr(), name.len() as c_int, handle),
        ]
    };
    // SAFETY: the driver ends the name with a zero byte, and the buffer ends with one.
    (codes == [0; 3])
        .then(|| unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

/// Whether products of 32 bits on CUDA, those of recurrent layers included, may round their factors
/// to TF32 (10 bits of mantissa). Changes nothing on the CPU.
///
/// # Errors
/// If libtorch rejects the setting.
pub fn allow_tf32(allowed: bool) -> Result<()> {
    // SAFETY: a plain call with a number.
    check(unsafe { docre_gpu_products(c_int::from(allowed)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cuda_half_is_looked_for_beside_the_cpu_half() {
        let folder = tempfile::tempdir().unwrap();
        let loaded = folder.path().join("with a space").join(CPU_HALF);
        fs_err::create_dir(loaded.parent().unwrap()).unwrap();
        let maps = format!(
            "7f00-7f01 r--p 00000000 00:00 0 \n7f01-7f02 r-xp 00000000 fe:01 17    {}\n",
            loaded.display()
        );
        let error = half_beside(&maps).unwrap_err();
        assert!(error.to_string().ends_with("is a build for CPUs, without libtorch_cuda.so"));
        assert!(error.hint().unwrap().contains("LD_LIBRARY_PATH"));
        let half = loaded.with_file_name(CUDA_HALF);
        fs_err::write(&half, "not a library").unwrap();
        assert_eq!(half_beside(&maps).unwrap(), half);
        let error = open_library(&half).unwrap_err().to_string();
        assert!(error.contains("cannot be loaded (") && error.contains("with a space"), "{error}");
        // Where nothing is mapped, the loader searches.
        assert_eq!(half_beside("").unwrap(), Path::new(CUDA_HALF));
    }

    #[test]
    fn this_process_has_mapped_libtorch() {
        assert!(tch::get_num_threads() > 0);
        let maps = fs_err::read_to_string("/proc/self/maps").unwrap();
        assert!(maps.lines().any(|line| line.ends_with("/libtorch_cpu.so")), "{maps}");
    }

    #[test]
    fn the_allocator_s_setting_is_the_user_s_where_there_is_one() {
        let set = |names: &'static [&'static str]| {
            allocator_setting(move |name| names.contains(&name).then(OsString::new))
        };
        assert_eq!(set(&[]), Some(("PYTORCH_ALLOC_CONF", "expandable_segments:True")));
        assert_eq!(set(&["PYTORCH_ALLOC_CONF"]), None);
        assert_eq!(set(&["PYTORCH_CUDA_ALLOC_CONF"]), None);
    }

    #[test]
    fn errors_of_the_runtime_have_a_way_out() {
        assert!(advice(35).contains("580"));
        assert!(advice(NO_DEVICE).contains("--gpus"));
        assert!(advice(802).contains("fabricmanager"));
        assert!(advice(999).contains("nvidia-smi"));
    }

    #[test]
    fn tf32_can_be_allowed_and_refused() {
        allow_tf32(true).unwrap();
        allow_tf32(false).unwrap();
    }
}
