//! A communicator whose every collective is a section of the watchdog: numbered, recorded, and
//! bounded in time.
//!
//! Not for sending anything: the communicator that it wraps does.

use std::sync::Arc;
use std::time::Duration;

use tch::Tensor;

use super::failure::{Section, Watchdog};
use super::{Communicator, ReduceOp};
use crate::Result;

/// The limit of collectives outside of steps, as a multiple of that of a section: they may wait for
/// work that is divided unevenly, such as scoring.
const UNEVEN: u32 = 30;

/// Any communicator under watch.
pub(super) struct Watched {
    pub(super) inner: Arc<dyn Communicator>,
    pub(super) watchdog: Watchdog,
}

impl Watched {
    fn section(&self, name: &str, bytes: usize) -> Section {
        self.watchdog.collective(name, bytes, None, self.watchdog.limit().saturating_mul(UNEVEN))
    }
}

fn bytes_of(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}

impl Communicator for Watched {
    /// The reducer, which enqueues gradient buckets, opens their sections itself and names them.
    fn beneath(&self) -> Option<&dyn Communicator> {
        Some(self.inner.as_ref())
    }

    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn barrier(&self) -> Result<()> {
        let _section = self.section("barrier", 0);
        self.inner.barrier()
    }

    fn patient_barrier(&self) -> Result<()> {
        let _section = self.watchdog.collective("barrier", 0, None, Duration::MAX);
        self.inner.patient_barrier()
    }

    fn all_reduce_f64(&self, values: &mut [f64], op: ReduceOp) -> Result<()> {
        let _section = self.section("all-reduce", size_of_val(values));
        self.inner.all_reduce_f64(values, op)
    }

    fn all_reduce_tensor(&self, tensor: &Tensor) -> Result<()> {
        let _section = self.section("all-reduce", bytes_of(tensor));
        self.inner.all_reduce_tensor(tensor)
    }

    fn broadcast(&self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let _section = self.section("broadcast", bytes.len());
        self.inner.broadcast(root, bytes)
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let _section = self.section("all-gather", bytes.len());
        self.inner.all_gather(bytes)
    }

    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let _section = self.section("gather", bytes.len());
        self.inner.gather(bytes)
    }

    fn abort(&self, code: u8) -> ! {
        self.inner.abort(code)
    }
}
