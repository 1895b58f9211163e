//! NCCL opened at run time: building does not need CUDA, and the library is not looked for until
//! GPUs are used.
//!
//! Not for communicating: [`NcclCommunicator`](super::NcclCommunicator) does that. Signatures and
//! numbers are those of `nccl.h`.

use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::RangeInclusive;

use libloading::Library;
use tch::Kind;

use crate::{Error, Result};

/// The name of every NCCL 2; PyTorch's CUDA libraries include it.
const LIBRARY: &str = "libnccl.so.2";

/// NCCL 2.28.3 to 2.28.8, which NVIDIA's resiliency extension says to avoid.
const UNSUITABLE: RangeInclusive<c_int> = 22803..=22808;

/// `ncclUniqueId`: what every rank needs to find the others.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct UniqueId(pub(super) [u8; 128]);

/// `ncclComm_t`.
pub(super) type RawComm = *mut c_void;

type GetVersion = unsafe extern "C" fn(*mut c_int) -> c_int;
type GetUniqueId = unsafe extern "C" fn(*mut UniqueId) -> c_int;
type CommInitRank = unsafe extern "C" fn(*mut RawComm, c_int, UniqueId, c_int) -> c_int;
type AllReduce = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    c_int,
    c_int,
    RawComm,
    *mut c_void,
) -> c_int;
type OnComm = unsafe extern "C" fn(RawComm) -> c_int;
type GetAsyncError = unsafe extern "C" fn(RawComm, *mut c_int) -> c_int;
type GetErrorString = unsafe extern "C" fn(c_int) -> *const c_char;

/// The functions that this program uses, looked up once.
pub struct NcclLibrary {
    pub(super) version: c_int,
    pub(super) get_unique_id: GetUniqueId,
    pub(super) comm_init_rank: CommInitRank,
    pub(super) all_reduce: AllReduce,
    pub(super) comm_destroy: OnComm,
    pub(super) comm_abort: OnComm,
    pub(super) comm_get_async_error: GetAsyncError,
    pub(super) get_error_string: GetErrorString,
    /// Keeps the functions alive; absent if they are part of the program.
    pub(super) _library: Option<Library>,
}

impl NcclLibrary {
    /// Opens `libnccl.so.2`. After libtorch's CUDA part is loaded this is the copy it uses.
    ///
    /// # Errors
    /// A recipe error (64) if it is missing, or its version should not be used.
    pub fn open() -> Result<Self> {
        Self::open_named(LIBRARY)
    }

    fn open_named(name: &str) -> Result<Self> {
        let missing = |error: libloading::Error| {
            let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            Error::recipe(format!("NCCL could not be opened: {cause}")).with_hint(
                "add the folder of libnccl.so.2 (PyTorch's CUDA wheels contain it) to \
                 LD_LIBRARY_PATH, or train on the CPU",
            )
        };
        // SAFETY: NCCL's initialisers have no preconditions.
        let library = unsafe { Library::new(name) }.map_err(missing)?;
        // SAFETY: the types above are those of nccl.h for these names.
        let found = unsafe {
            let get_version: GetVersion = *library.get(b"ncclGetVersion\0").map_err(missing)?;
            let mut version = 0;
            get_version(&raw mut version);
            Self {
                version,
                get_unique_id: *library.get(b"ncclGetUniqueId\0").map_err(missing)?,
                comm_init_rank: *library.get(b"ncclCommInitRank\0").map_err(missing)?,
                all_reduce: *library.get(b"ncclAllReduce\0").map_err(missing)?,
                comm_destroy: *library.get(b"ncclCommDestroy\0").map_err(missing)?,
                comm_abort: *library.get(b"ncclCommAbort\0").map_err(missing)?,
                comm_get_async_error: *library.get(b"ncclCommGetAsyncError\0").map_err(missing)?,
                get_error_string: *library.get(b"ncclGetErrorString\0").map_err(missing)?,
                _library: Some(library),
            }
        };
        suitable(found.version)?;
        Ok(found)
    }

    /// The version, as `2.28.9`.
    pub fn version(&self) -> String {
        dotted(self.version)
    }

    /// The meaning of a return code.
    pub(super) fn text(&self, code: c_int) -> String {
        // SAFETY: NCCL gives a static text for every code.
        unsafe { CStr::from_ptr((self.get_error_string)(code)) }.to_string_lossy().into_owned()
    }
}

/// `ncclDataType_t` of a tensor kind.
pub(super) fn data_type(kind: Kind) -> Result<c_int> {
    match kind {
        Kind::Half => Ok(6),
        Kind::Float => Ok(7),
        Kind::Double => Ok(8),
        Kind::BFloat16 => Ok(9),
        other => Err(Error::Bug(format!("all-reduce of a tensor of kind {other:?}"))),
    }
}

fn suitable(version: c_int) -> Result<()> {
    if UNSUITABLE.contains(&version) {
        let (first, last) = (dotted(*UNSUITABLE.start()), dotted(*UNSUITABLE.end()));
        let message = format!(
            "NCCL {} is one of {first} to {last}, which lose or hang ranks",
            dotted(version)
        );
        return Err(Error::recipe(message)
            .with_hint("use NCCL 2.28.9 or later, which PyTorch 2.11 contains"));
    }
    Ok(())
}

/// NCCL 2.9 and later write 2.28.9 as 22809.
fn dotted(version: c_int) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsuitable_versions_are_refused_by_name() {
        for version in [22803, 22808] {
            assert_eq!(suitable(version).unwrap_err().exit_code(), 64);
        }
        let text = suitable(22805).unwrap_err().to_string();
        assert!(text.starts_with("NCCL 2.28.5 is one of 2.28.3 to 2.28.8"), "{text}");
        for version in [21805, 22802, 22809, 22900] {
            assert!(suitable(version).is_ok(), "{version}");
        }
    }

    #[test]
    fn a_missing_library_is_told_with_a_way_out() {
        let error = NcclLibrary::open_named("libnccl-that-is-not-there.so").err().unwrap();
        assert_eq!(error.exit_code(), 64);
        assert!(error.to_string().contains("libnccl-that-is-not-there.so"), "{error}");
        assert!(error.hint().unwrap().contains("LD_LIBRARY_PATH"));
    }

    #[test]
    fn data_types_follow_the_header() {
        assert_eq!(
            [Kind::Half, Kind::Float, Kind::Double, Kind::BFloat16]
                .map(|kind| data_type(kind).unwrap()),
            [6, 7, 8, 9]
        );
        assert_eq!(data_type(Kind::Int64).unwrap_err().exit_code(), 70);
    }
}
