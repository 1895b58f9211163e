//! The communicator over MPI: one process for each rank, under `mpirun` or `srun`.
//!
//! Not for GPUs that can communicate directly:
//! [`NcclCommunicator`](super::NcclCommunicator) carries their tensors and uses this one for
//! everything else. A CUDA tensor given to this one goes through host memory.
//!
//! Order of summation: for a given world size and length, Open MPI always chooses the same
//! algorithm, whose order does not depend on timing. So runs repeat bit for bit, and every rank
//! gets the same bits. Different world sizes add in different orders.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ::mpi::environment::Universe;
use ::mpi::{Threading, ffi};
use tch::Tensor;

use super::host_slice::{HostSlice, on_host};
use super::unequal::gather_unequal;
use super::{Communicator, ReduceOp};
use crate::base::lock;
use crate::{Error, Result};

/// MPI counts are `int`: longer buffers travel in pieces of this many values.
const MAX_COUNT: usize = 1 << 30;

/// Size of an error text; the standard's constant is 256 in Open MPI and 512 in MPICH.
const ERROR_TEXT: usize = 1024;

/// The first nap of a patient barrier; each is twice as long as the previous one.
const SHORTEST_NAP: Duration = Duration::from_micros(50);

/// The longest nap of a patient barrier.
const LONGEST_NAP: Duration = Duration::from_millis(20);

unsafe extern "C" {
    fn docre_mpi_in_place() -> *mut c_void;
}

/// An MPI communicator handle: a pointer or a number that MPI lets every thread use.
#[derive(Clone, Copy)]
struct Handle(ffi::MPI_Comm);

// SAFETY: handles are names of objects inside MPI; `connect` asks MPI for the thread level that
// allows their use.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// The MPI world, with one duplicate for small host data, one for tensors and one for the end, so
/// that these cannot mix.
pub struct MpiCommunicator {
    /// MPI's lifetime; `None` once closed.
    universe: Mutex<Option<ManuallyDrop<Universe>>>,
    control: Handle,
    tensors: Handle,
    farewell: Handle,
    rank: usize,
    size: usize,
    concurrent: bool,
}

impl MpiCommunicator {
    /// Initialises MPI. The thread that calls this should call [`close`](Communicator::close) too.
    ///
    /// # Errors
    /// A bug (70) if MPI was initialised before or offers no thread support at all, a lost rank
    /// (71) if MPI fails.
    pub fn connect() -> Result<Self> {
        let (universe, level) = ::mpi::initialize_with_threading(Threading::Multiple)
            .ok_or_else(|| Error::Bug("MPI was initialised twice in one process".into()))?;
        if level < Threading::Serialized {
            return Err(Error::Bug(format!(
                "this MPI library offers thread level {level:?}, but Serialized is needed"
            )));
        }
        // SAFETY: reads a constant of the MPI library.
        let world = Handle(unsafe { ffi::RSMPI_COMM_WORLD });
        let (mut rank, mut size) = (0, 0);
        // SAFETY: MPI is initialised; both calls write one int.
        unsafe {
            checked(
                0,
                "MPI_Comm_set_errhandler",
                ffi::MPI_Comm_set_errhandler(world.0, ffi::RSMPI_ERRORS_RETURN),
            )?;
            checked(0, "MPI_Comm_rank", ffi::MPI_Comm_rank(world.0, &raw mut rank))?;
            checked(0, "MPI_Comm_size", ffi::MPI_Comm_size(world.0, &raw mut size))?;
        }
        let (rank, size) = (count(rank)?, count(size)?);
        let [control, tensors, farewell] =
            [duplicate(rank, world)?, duplicate(rank, world)?, duplicate(rank, world)?];
        let universe = Mutex::new(Some(ManuallyDrop::new(universe)));
        Ok(Self {
            universe,
            control,
            tensors,
            farewell,
            rank,
            size,
            concurrent: level >= Threading::Multiple,
        })
    }

    fn checked(&self, operation: &str, code: c_int) -> Result<()> {
        checked(self.rank, operation, code)
    }

    /// Reduces `values` in place over the ranks of `lane`.
    fn all_reduce<T>(
        &self,
        lane: Handle,
        values: &mut [T],
        kind: ffi::MPI_Datatype,
        op: ffi::MPI_Op,
    ) -> Result<()> {
        for piece in values.chunks_mut(MAX_COUNT) {
            let length = int(piece.len())?;
            // SAFETY: `piece` holds `length` values of the C type that `kind` names, and nobody
            // else uses them now.
            let code = unsafe {
                ffi::MPI_Allreduce(
                    docre_mpi_in_place(),
                    piece.as_mut_ptr().cast(),
                    length,
                    kind,
                    op,
                    lane.0,
                )
            };
            self.checked("all-reduce", code)?;
        }
        Ok(())
    }

    /// A barrier on `lane` that sleeps between looks; false if it is not over after `patience`.
    fn sleep_until_all(&self, lane: Handle, patience: Option<Duration>) -> Result<bool> {
        let start = Instant::now();
        // SAFETY: reads a constant of the MPI library.
        let mut request = unsafe { ffi::RSMPI_REQUEST_NULL };
        // SAFETY: MPI keeps the request itself; `request` is its name.
        self.checked("barrier", unsafe { ffi::MPI_Ibarrier(lane.0, &raw mut request) })?;
        let mut nap = SHORTEST_NAP;
        loop {
            let mut done = 0;
            // SAFETY: `request` is live; the status is ignored by the library's own constant.
            self.checked("barrier", unsafe {
                ffi::MPI_Test(&raw mut request, &raw mut done, ffi::RSMPI_STATUS_IGNORE)
            })?;
            if done != 0 || patience.is_some_and(|patience| start.elapsed() > patience) {
                return Ok(done != 0);
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(LONGEST_NAP);
        }
    }

    fn broadcast_bytes(&self, root: usize, bytes: &mut [u8]) -> Result<()> {
        for piece in bytes.chunks_mut(MAX_COUNT) {
            let (length, root) = (int(piece.len())?, int(root)?);
            // SAFETY: `piece` is `length` bytes of ours.
            let code = unsafe {
                ffi::MPI_Bcast(
                    piece.as_mut_ptr().cast(),
                    length,
                    ffi::RSMPI_UINT8_T,
                    root,
                    self.control.0,
                )
            };
            self.checked("broadcast", code)?;
        }
        Ok(())
    }

    /// Gathers equally long pieces; [size × piece.len()].
    fn gather_equal(&self, piece: &[u8]) -> Result<Vec<u8>> {
        let mut all = vec![0u8; piece.len() * self.size];
        let length = int(piece.len())?;
        // SAFETY: reads a constant of the MPI library.
        let byte = unsafe { ffi::RSMPI_UINT8_T };
        // SAFETY: `all` has room for `length` bytes of every rank.
        let code = unsafe {
            ffi::MPI_Allgather(
                piece.as_ptr().cast(),
                length,
                byte,
                all.as_mut_ptr().cast(),
                length,
                byte,
                self.control.0,
            )
        };
        self.checked("all-gather", code)?;
        Ok(all)
    }

    /// [`Self::gather_equal`] for rank 0; the others get nothing.
    fn gather_equal_at_root(&self, piece: &[u8]) -> Result<Vec<u8>> {
        let ranks = if self.rank == 0 { self.size } else { 0 };
        let mut all = vec![0u8; piece.len() * ranks];
        let length = int(piece.len())?;
        // SAFETY: reads a constant of the MPI library.
        let byte = unsafe { ffi::RSMPI_UINT8_T };
        // SAFETY: on rank 0, `all` has room for `length` bytes of every rank; on the others it is
        // not used.
        let code = unsafe {
            ffi::MPI_Gather(
                piece.as_ptr().cast(),
                length,
                byte,
                all.as_mut_ptr().cast(),
                length,
                byte,
                0,
                self.control.0,
            )
        };
        self.checked("gather", code)?;
        Ok(all)
    }
}

impl Communicator for MpiCommunicator {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn barrier(&self) -> Result<()> {
        // SAFETY: plain call on a live communicator.
        self.checked("barrier", unsafe { ffi::MPI_Barrier(self.control.0) })
    }

    fn patient_barrier(&self) -> Result<()> {
        self.sleep_until_all(self.control, None).map(drop)
    }

    fn all_reduce_f64(&self, values: &mut [f64], op: ReduceOp) -> Result<()> {
        // SAFETY: reads constants of the MPI library.
        let (kind, op) = unsafe {
            let op = match op {
                ReduceOp::Sum => ffi::RSMPI_SUM,
                ReduceOp::Max => ffi::RSMPI_MAX,
                ReduceOp::Min => ffi::RSMPI_MIN,
            };
            (ffi::RSMPI_DOUBLE, op)
        };
        self.all_reduce(self.control, values, kind, op)
    }

    fn all_reduce_tensor(&self, tensor: &Tensor) -> Result<()> {
        // SAFETY: reads constants of the MPI library.
        let (float, double, sum) = unsafe { (ffi::RSMPI_FLOAT, ffi::RSMPI_DOUBLE, ffi::RSMPI_SUM) };
        on_host(tensor, |values| match values {
            HostSlice::F32(values) => self.all_reduce(self.tensors, values, float, sum),
            HostSlice::F64(values) => self.all_reduce(self.tensors, values, double, sum),
        })
    }

    fn broadcast(&self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let mut length = (bytes.len() as u64).to_ne_bytes();
        self.broadcast_bytes(root, &mut length)?;
        bytes.resize(
            usize::try_from(u64::from_ne_bytes(length))
                .map_err(|error| Error::Bug(error.to_string()))?,
            0,
        );
        self.broadcast_bytes(root, bytes)
    }

    fn library(&self) -> &'static str {
        "MPI"
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let gather = |piece: &[u8]| self.gather_equal(piece);
        gather_unequal(bytes, self.size, gather, gather)
    }

    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let all = |piece: &[u8]| self.gather_equal(piece);
        let at_root = |piece: &[u8]| self.gather_equal_at_root(piece);
        let gathered = gather_unequal(bytes, self.size, all, at_root)?;
        Ok(if self.rank == 0 { gathered } else { Vec::new() })
    }

    fn concurrent(&self) -> bool {
        self.concurrent
    }

    fn close(&self, patience: Option<Duration>) -> bool {
        if !self.sleep_until_all(self.farewell, patience).unwrap_or(false) {
            return false;
        }
        if let Some(universe) = lock(&self.universe).take() {
            drop(ManuallyDrop::into_inner(universe));
        }
        true
    }

    fn abort(&self, code: u8) -> ! {
        if lock(&self.universe).is_some() {
            // SAFETY: MPI is initialised and not finalised; the call does not come back.
            unsafe { ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, c_int::from(code)) };
        }
        // SAFETY: a plain call. Destructors could wait for what hangs, so none runs.
        unsafe { libc::_exit(code.into()) }
    }
}

fn duplicate(rank: usize, of: Handle) -> Result<Handle> {
    // SAFETY: reads a constant of the MPI library.
    let mut copy = unsafe { ffi::RSMPI_COMM_NULL };
    // SAFETY: writes one handle.
    checked(rank, "MPI_Comm_dup", unsafe { ffi::MPI_Comm_dup(of.0, &raw mut copy) })?;
    Ok(Handle(copy))
}

/// MPI's return code as a result.
fn checked(rank: usize, operation: &str, code: c_int) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    let mut text: [c_char; ERROR_TEXT] = [0; ERROR_TEXT];
    let mut length = 0;
    // SAFETY: the buffer is longer than any implementation's longest text, and stays
    // zero-terminated.
    let cause = unsafe {
        ffi::MPI_Error_string(code, text.as_mut_ptr(), &raw mut length);
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    };
    Err(Error::RankLost { rank, operation: operation.to_owned(), cause })
}

fn int(count: usize) -> Result<c_int> {
    c_int::try_from(count)
        .map_err(|_| Error::Bug(format!("a count of {count} does not fit MPI's int")))
}

fn count(value: c_int) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::Bug(format!("MPI counts {value} ranks")))
}
