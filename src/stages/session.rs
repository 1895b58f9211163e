//! What every stage shares in one process: the ranks, the device, the signals.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::Duration;

use tch::Device;

use crate::dist::{CommunicationStream, World};
use crate::recipe::Recipe;
use crate::shards::DocumentStore;
use crate::torch::{DeviceChoice, Precision, SideStream, device};
use crate::train::{RunFolder, Signals};
use crate::{Error, Result};

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
        same_program(&world)?;
        Ok(Self { world, device, signals: Signals::default() })
    }

    /// What every rank does once it has a run folder: the recipes are compared, the limit of the watchdog is set, the flight recorder starts,
    /// and signals become requests.
    ///
    /// # Errors
    /// A recipe that differs between ranks; I/O errors.
    pub fn enter(&self, run: &RunFolder, recipe: &Recipe) -> Result<()> {
        self.world.same(&[("the recipe", recipe.to_toml()?)])?;
        self.world.watchdog().set_limit(Duration::from_secs(recipe.hang_limit_s));
        crate::train::record(run, &self.world)?;
        self.signals.arm()
    }

    /// Makes sure that all ranks read the same shards.
    ///
    /// # Errors
    /// A manifest that differs.
    pub fn same_shards(&self, store: &DocumentStore) -> Result<()> {
        let manifest = serde_json::to_string_pretty(store.manifest()).map_err(|error| Error::Bug(error.to_string()))?;
        self.world.same(&[(&format!("the manifest of {}", store.folder().display()), manifest)])
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

/// Makes sure that all ranks run the same program with the same libtorch.
fn same_program(world: &World) -> Result<()> {
    if world.size() == 1 {
        return Ok(());
    }
    let mut hasher = blake3::Hasher::new();
    // The file that runs, also where it has been replaced meanwhile.
    let read = fs_err::File::open("/proc/self/exe").and_then(|mut file| std::io::copy(&mut file, &mut hasher));
    let build = world.agree(read.map_err(Error::Io).map(|_| hasher.finalize().to_hex()[..16].to_owned()))?;
    world.same(&[
        ("the version of docre-pretrain", env!("CARGO_PKG_VERSION").to_owned()),
        ("the build of docre-pretrain", build),
        ("the version of libtorch", env!("DOCRE_LIBTORCH").to_owned()),
    ])
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
