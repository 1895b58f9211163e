//! What every stage shares in one process: the ranks, the device, the signals.

use std::ffi::c_void;
use std::sync::Arc;

use tch::Device;

use crate::Result;
use crate::dist::{CommunicationStream, World};
use crate::torch::{DeviceChoice, Precision, SideStream, device};
use crate::train::Signals;

/// One process of the program at work.
pub struct Session {
    /// The ranks.
    pub world: World,
    /// Where tensors live.
    pub device: Device,
    /// Stop and save requests.
    pub signals: Signals,
}

impl Session {
    /// Joins the world the launcher made, opens the device and sets the number of threads.
    ///
    /// # Errors
    /// A launcher that does not fit this build, a device that is not there.
    pub fn start(device_name: &str, threads: usize) -> Result<Self> {
        let mut world = World::start()?;
        let device = device_name.parse::<DeviceChoice>()?.resolve(world.local_rank())?;
        if let (Device::Cuda(index), true) = (device, world.size() > 1) {
            world.use_nccl(Arc::new(Lane::new(index)?))?;
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if threads > 0 { threads } else { (cores / neighbours(&world)?).max(1) };
        device::set_threads(threads)?;
        device::keep_freed_memory();
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().ok();
        Ok(Self { world, device, signals: Signals::default() })
    }

    /// The precision that a plan asks for on this device.
    pub fn precision(&self, name: &str) -> Precision {
        match name {
            "bf16" => Precision::Bf16,
            "auto" if self.device.is_cuda() => Precision::Bf16,
            _ => Precision::Fp32,
        }
    }

    /// Whether this rank writes files and speaks.
    pub fn is_root(&self) -> bool {
        self.world.rank() == 0
    }

    /// Does the program's work on all ranks and ends them together, with the outcome.
    ///
    /// # Errors
    /// The work's own.
    pub fn run<T>(self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let outcome = work(&self);
        self.world.close(outcome)
    }
}

/// The stream that gradients travel on while the backward pass goes on.
struct Lane {
    stream: SideStream,
    handle: *mut c_void,
}

// SAFETY: the handle is a value that CUDA lets any thread use.
unsafe impl Send for Lane {}
// SAFETY: as above; nothing here changes.
unsafe impl Sync for Lane {}

impl Lane {
    fn new(index: usize) -> Result<Self> {
        let stream = SideStream::new(index)?;
        Ok(Self { handle: stream.handle()?, stream })
    }
}

impl CommunicationStream for Lane {
    fn handle(&self) -> *mut c_void {
        self.handle
    }

    // Training computes on the device's default stream, which is every thread's current one unless it chooses another.
    fn wait_for_compute(&self) -> Result<()> {
        self.stream.wait_current()
    }

    fn compute_waits(&self) -> Result<()> {
        self.stream.current_waits()
    }
}

/// Number of ranks on this machine, this one included.
fn neighbours(world: &World) -> Result<usize> {
    let own = crate::train::host_name();
    let all = world.communicator().all_gather(own.as_bytes())?;
    Ok(all.iter().filter(|name| name.as_slice() == own.as_bytes()).count().max(1))
}
