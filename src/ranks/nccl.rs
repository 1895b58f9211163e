//! The communicator for GPUs: NCCL carries CUDA tensors, a control communicator everything else.
//!
//! NCCL does not accept two ranks on one GPU. Half-precision tensors are added in half precision,
//! so only f32 buckets give the same losses for every number of ranks. Not for choosing devices or
//! making streams: `torch` does that.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tch::Tensor;

use super::nccl_library::{NcclLibrary, RawComm, UniqueId, data_type};
use super::{Communicator, ReduceOp};
use crate::base::lock;
use crate::{Error, Result};

/// `ncclSum`.
const SUM: c_int = 0;

/// `ncclInProgress`: no error.
const IN_PROGRESS: c_int = 7;

/// How long a lost NCCL communicator may take to end before the process ends without it.
const ABORT_PATIENCE: Duration = Duration::from_secs(2);

/// A CUDA stream beside the one that computes. All methods may be called from any thread.
pub trait CommunicationStream: Send + Sync {
    /// The `cudaStream_t`.
    fn handle(&self) -> *mut c_void;

    /// Whether it can work on this tensor: one of its own device.
    fn serves(&self, tensor: &Tensor) -> bool;

    /// Work given to this stream from now on starts after what the compute stream holds now.
    fn wait_for_compute(&self) -> Result<()>;

    /// Work given to the compute stream from now on starts after what this stream holds now.
    fn compute_waits(&self) -> Result<()>;
}

/// One GPU a rank. CUDA tensors must stay alive until [`join`](Communicator::join).
pub struct NcclCommunicator {
    control: Arc<dyn Communicator>,
    library: NcclLibrary,
    stream: Arc<dyn CommunicationStream>,
    /// Null once it is closed or aborted.
    handle: AtomicPtr<c_void>,
    /// Held while another thread asks NCCL about the communicator, so that it is not destroyed
    /// meanwhile.
    looking: Mutex<()>,
}

impl NcclCommunicator {
    /// Connects the ranks of `control`, each with the calling thread's current CUDA device. Rank
    /// 0's unique id reaches the others through `control`.
    ///
    /// # Errors
    /// A lost rank (71) if NCCL fails.
    pub fn connect(
        control: Arc<dyn Communicator>,
        library: NcclLibrary,
        stream: Arc<dyn CommunicationStream>,
    ) -> Result<Self> {
        let id = share_unique_id(control.as_ref(), &library)?;
        let comm = Self {
            control,
            library,
            stream,
            handle: AtomicPtr::default(),
            looking: Mutex::new(()),
        };
        let int = |value: usize| {
            c_int::try_from(value)
                .map_err(|_| Error::Bug(format!("{value} ranks do not fit NCCL's int")))
        };
        let (rank, size) = (int(comm.rank())?, int(comm.size())?);
        let mut handle: RawComm = std::ptr::null_mut();
        // SAFETY: `handle` receives the communicator; every rank calls this with the same id and
        // size.
        comm.checked("connecting NCCL", unsafe {
            (comm.library.comm_init_rank)(&raw mut handle, size, id, rank)
        })?;
        comm.handle.store(handle, Ordering::Release);
        Ok(comm)
    }

    fn checked(&self, operation: &str, code: c_int) -> Result<()> {
        checked(&self.library, self.rank(), operation, code)
    }

    pub(super) fn raw(&self) -> Result<RawComm> {
        let handle = self.handle.load(Ordering::Acquire);
        if handle.is_null() {
            Err(Error::Bug("NCCL was used after it was closed".into()))
        } else {
            Ok(handle)
        }
    }

    fn take(&self) -> Option<RawComm> {
        Some(self.handle.swap(std::ptr::null_mut(), Ordering::AcqRel))
            .filter(|handle| !handle.is_null())
    }
}

impl Communicator for NcclCommunicator {
    fn beneath(&self) -> Option<&dyn Communicator> {
        Some(self.control.as_ref())
    }

    fn rank(&self) -> usize {
        self.control.rank()
    }

    fn size(&self) -> usize {
        self.control.size()
    }

    fn barrier(&self) -> Result<()> {
        self.control.barrier()
    }

    fn all_reduce_f64(&self, values: &mut [f64], op: ReduceOp) -> Result<()> {
        self.control.all_reduce_f64(values, op)
    }

    fn all_reduce_tensor(&self, tensor: &Tensor) -> Result<()> {
        self.enqueue_all_reduce(tensor)?;
        self.join()
    }

    fn enqueue_all_reduce(&self, tensor: &Tensor) -> Result<()> {
        if !self.stream.serves(tensor) {
            return self.control.enqueue_all_reduce(tensor);
        }
        let kind = data_type(tensor.f_kind()?)?;
        if !tensor.is_contiguous() {
            return Err(Error::Bug(format!(
                "all-reduce of a tensor that is not contiguous, of shape {:?}",
                tensor.size()
            )));
        }
        let (comm, values) = (self.raw()?, tensor.data_ptr());
        self.stream.wait_for_compute()?;
        // SAFETY: `values` are `numel` values of this kind on this communicator's device, alive
        // until `join`.
        let code = unsafe {
            (self.library.all_reduce)(
                values,
                values,
                tensor.numel(),
                kind,
                SUM,
                comm,
                self.stream.handle(),
            )
        };
        self.checked("NCCL all-reduce", code)
    }

    fn join(&self) -> Result<()> {
        self.control.join()?;
        self.check()?;
        self.stream.compute_waits()
    }

    fn broadcast(&self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        self.control.broadcast(root, bytes)
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.control.all_gather(bytes)
    }

    fn carries(&self) -> bool {
        true
    }

    /// Only CUDA tensors are reduced beside other work, and they do not touch the control.
    fn concurrent(&self) -> bool {
        true
    }

    fn library(&self) -> &'static str {
        "NCCL"
    }

    fn check(&self) -> Result<()> {
        self.control.check()?;
        // If another thread is looking already, it finds any error.
        let Ok(_looking) = self.looking.try_lock() else { return Ok(()) };
        let Ok(comm) = self.raw() else { return Ok(()) };
        let mut state = 0;
        // SAFETY: NCCL allows this call beside any other on the communicator, which is not
        // destroyed while the lock is held.
        self.checked("NCCL", unsafe { (self.library.comm_get_async_error)(comm, &raw mut state) })?;
        self.checked("an NCCL collective", state)
    }

    fn close(&self, patience: Option<Duration>) -> bool {
        if !self.control.close(patience) {
            return false;
        }
        if let Some(comm) = self.take() {
            let _looking = lock(&self.looking);
            // SAFETY: the handle was taken and nobody looks at it, so nobody uses it after this.
            unsafe { (self.library.comm_destroy)(comm) };
        }
        true
    }

    fn abort(&self, code: u8) -> ! {
        if let Some(comm) = self.take() {
            let (abort, comm) = (self.library.comm_abort, AtomicPtr::new(comm));
            let (done, ended) = channel();
            // On a thread, because it may hang with the peers it leaves.
            let run = move || {
                // SAFETY: the handle was taken, so only calls already under way use it; this call
                // ends them.
                unsafe { abort(comm.load(Ordering::Acquire)) };
                let _ = done.send(());
            };
            if thread::Builder::new().spawn(run).is_ok() {
                let _ = ended.recv_timeout(ABORT_PATIENCE);
            }
        }
        self.control.abort(code)
    }
}

/// Rank 0 makes the id; an empty message means that it could not.
fn share_unique_id(control: &dyn Communicator, library: &NcclLibrary) -> Result<UniqueId> {
    let mut id = UniqueId([0; 128]);
    let mut message = Vec::new();
    let mut outcome = Ok(());
    if control.rank() == 0 {
        // SAFETY: writes one id.
        outcome = checked(library, 0, "making NCCL's unique id", unsafe {
            (library.get_unique_id)(&raw mut id)
        });
        message = if outcome.is_ok() { id.0.to_vec() } else { Vec::new() };
    }
    control.broadcast(0, &mut message)?;
    outcome?;
    let cause = || "it could not make NCCL's unique id".to_owned();
    let lost = |_| Error::RankLost { rank: 0, operation: "connecting NCCL".into(), cause: cause() };
    message.try_into().map(UniqueId).map_err(lost)
}

fn checked(library: &NcclLibrary, rank: usize, operation: &str, code: c_int) -> Result<()> {
    if code == 0 || code == IN_PROGRESS {
        return Ok(());
    }
    Err(Error::RankLost { rank, operation: operation.to_owned(), cause: library.text(code) })
}
