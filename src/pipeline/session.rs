//! What all stages share in one process: the ranks, the device, the signals.

use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Tensor};

use crate::base::{caught, say};
use crate::corpus::formats::GoingOn;
use crate::ranks::{CommunicationStream, MEETING, World};
use crate::recipe::Recipe;
use crate::shards::DocumentStore;
use crate::torch::device::{self, described};
use crate::torch::{DeviceChoice, Precision, SideStream};
use crate::train::{PrecisionChoice, RunFolder, Schedule, Signals};
use crate::{Error, Result};

/// One process of the program at work.
pub struct Session {
    /// The ranks.
    pub world: World,
    /// Where tensors live.
    pub device: Device,
    /// Stop and save requests.
    pub signals: Signals,
    /// The run folder, once there is one.
    run: OnceLock<PathBuf>,
}

impl Session {
    /// Joins the world that the launcher made, opens the device and sets the number of threads (0:
    /// this rank's share of the cores).
    ///
    /// # Errors
    /// If the launcher does not fit this build or the device is missing, on every rank if on any.
    pub fn start(device_name: &str, threads: usize) -> Result<Self> {
        Ok(Self::join(Ok(()), |()| (device_name.to_owned(), threads), Signals::default())?.0)
    }

    /// As [`start`](Self::start), for training: signals are requests from the first moment on, and
    /// an error in `told`, which names the device and the threads, ends all ranks.
    ///
    /// # Errors
    /// As [`start`](Self::start), and the error in `told`.
    pub fn start_with<T>(
        told: Result<T>,
        machine: impl FnOnce(&T) -> (String, usize),
    ) -> Result<(Self, T)> {
        let signals = Signals::default();
        signals.arm()?;
        Self::join(told, machine, signals)
    }

    fn join<T>(
        told: Result<T>,
        machine: impl FnOnce(&T) -> (String, usize),
        signals: Signals,
    ) -> Result<(Self, T)> {
        let mut world = World::start()?;
        match prepare(&mut world, told, machine) {
            Ok((device, told)) => Ok((Self { world, device, signals, run: OnceLock::new() }, told)),
            Err(error) => world.close(Err(error)),
        }
    }

    /// What every rank does once it has a run folder: the recipes are compared, the limit of the
    /// watchdog is set, and the recorder starts.
    ///
    /// # Errors
    /// If the recipe differs between ranks; I/O errors.
    pub fn enter(&self, run: &RunFolder, recipe: &Recipe) -> Result<()> {
        let _start = self.world.watchdog().section_within("the start of all ranks", MEETING);
        self.world.same(&[
            ("the recipe", recipe.to_toml()?),
            ("the run folder (do all machines see the same one?)", run.identity()),
        ])?;
        self.world.watchdog().set_limit(Duration::from_secs(recipe.hang_limit_s));
        self.run.get_or_init(|| run.path().to_owned());
        if self.is_root() {
            say(format!("computing on {}, in {}", described(self.device), self.precisions(recipe)));
        }
        self.world.record(run.path())
    }

    /// For loops outside of training, which saves a checkpoint first: an error once this rank was
    /// asked to stop. `place` says where, such as `while predicting dev`. Other ranks must learn of
    /// the error, as [`World::agree`] tells them.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn going_on(&self, place: &str) -> Result<()> {
        going_on(&self.signals, self.run.get(), place)
    }

    /// As [`going_on`](Self::going_on), for work that does not know a session.
    pub fn asked_while(&self, place: &'static str) -> GoingOn {
        let (signals, run) = (self.signals.clone(), self.run.get().cloned());
        GoingOn::while_it(move || going_on(&signals, run.as_ref(), place))
    }

    /// Makes sure that all ranks read the same shards.
    ///
    /// # Errors
    /// If the manifest differs between ranks.
    pub fn same_shards(&self, store: &DocumentStore) -> Result<()> {
        let manifest = serde_json::to_string_pretty(store.manifest())
            .map_err(|error| Error::Bug(error.to_string()))?;
        self.world.same(&[(&format!("the manifest of {}", store.folder().display()), manifest)])
    }

    /// The precision on this device.
    pub fn precision(&self, choice: PrecisionChoice) -> Precision {
        match choice {
            PrecisionChoice::Bf16 => Precision::Bf16,
            PrecisionChoice::Auto if self.device.is_cuda() => Precision::Bf16,
            PrecisionChoice::Auto | PrecisionChoice::Fp32 => Precision::Fp32,
        }
    }

    /// The precisions of a recipe's stages, for people.
    fn precisions(&self, recipe: &Recipe) -> String {
        let stages = [&recipe.rank, &recipe.pretrain, &recipe.finetune];
        let name = |stage: &&Schedule| match self.precision(stage.precision) {
            Precision::Fp32 => "fp32",
            Precision::Bf16 => "bf16",
        };
        let mut names: Vec<&str> = stages.iter().map(name).collect();
        names.dedup();
        names.join(", then ")
    }

    /// This rank's share of a list: every item whose place is its rank, modulo the number of ranks.
    pub fn share<I: IntoIterator>(&self, items: I) -> impl Iterator<Item = I::Item> {
        items.into_iter().skip(self.world.rank()).step_by(self.world.size())
    }

    /// Gathers on rank 0 what the ranks have, by rank; the others get nothing.
    ///
    /// # Errors
    /// Those of any rank, on all ranks.
    pub fn gather<T: Serialize + DeserializeOwned>(&self, mine: Result<T>) -> Result<Vec<T>> {
        if self.world.size() == 1 {
            return Ok(vec![mine?]);
        }
        let mine = self.world.agree(mine)?;
        let bug = |error: serde_json::Error| Error::Bug(format!("the share of a rank: {error}"));
        let all = self.world.communicator().gather(&serde_json::to_vec(&mine).map_err(bug)?)?;
        all.iter().map(|bytes| serde_json::from_slice(bytes).map_err(bug)).collect()
    }

    /// Whether this rank writes files and prints.
    pub fn is_root(&self) -> bool {
        self.world.rank() == 0
    }

    /// Does the program's work on all ranks and ends them together with the outcome.
    ///
    /// # Errors
    /// Errors of the work.
    pub fn run<T>(self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let outcome = caught(|| work(&self));
        self.world.close(outcome)
    }
}

fn going_on(signals: &Signals, run: Option<&PathBuf>, place: &str) -> Result<()> {
    match signals.stopped() || run.is_some_and(|run| signals.stop_requested(run)) {
        true => Err(Error::Stopped { place: place.to_owned() }),
        false => Ok(()),
    }
}

/// What every rank does first, in step with the others even after an error.
fn prepare<T>(
    world: &mut World,
    told: Result<T>,
    machine: impl FnOnce(&T) -> (String, usize),
) -> Result<(Device, T)> {
    let _start = world.watchdog().section_within("the start of all ranks", MEETING);
    let told = world.agree(told)?;
    let (device, threads) = machine(&told);
    let device = world.agree(
        device.parse::<DeviceChoice>().and_then(|choice| choice.resolve(world.local_rank())),
    )?;
    world.same(&[(
        "the kind of device",
        if device.is_cuda() { "a GPU" } else { "the CPU" }.to_owned(),
    )])?;
    if let Device::Cuda(index) = device {
        let stream = world.agree(GradientStream::new(index))?;
        match world.use_nccl(Arc::new(stream)) {
            // One GPU uses NCCL like several, but does not need it.
            Err(error) if world.size() == 1 => say(format!("training without NCCL: {error}")),
            outcome => outcome?,
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let neighbours = neighbours(world)?;
    let threads = if threads > 0 { threads } else { (cores / neighbours).max(1) };
    device::set_threads(threads)?;
    device::keep_freed_memory();
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().ok();
    same_program(world)?;
    Ok((device, told))
}

/// Makes sure that all ranks run the same program with the same libtorch.
fn same_program(world: &World) -> Result<()> {
    if world.size() == 1 {
        return Ok(());
    }
    let mut hasher = blake3::Hasher::new();
    // The file that runs, even if it has been replaced meanwhile.
    let read = fs_err::File::open("/proc/self/exe")
        .and_then(|mut file| std::io::copy(&mut file, &mut hasher));
    let build = world
        .agree(read.map_err(Error::Io).map(|_| hasher.finalize().to_hex()[..16].to_owned()))?;
    world.same(&[
        ("the version of docre-pretrain", env!("CARGO_PKG_VERSION").to_owned()),
        ("the build of docre-pretrain", build),
        ("the version of libtorch", env!("DOCRE_LIBTORCH").to_owned()),
    ])
}

/// The stream that sends gradients while the backward pass goes on.
struct GradientStream {
    stream: SideStream,
    handle: *mut c_void,
}

// SAFETY: the handle is a value that CUDA lets any thread use.
unsafe impl Send for GradientStream {}
// SAFETY: as above; nothing here changes.
unsafe impl Sync for GradientStream {}

impl GradientStream {
    fn new(index: usize) -> Result<Self> {
        let stream = SideStream::new(index)?;
        Ok(Self { handle: stream.handle()?, stream })
    }
}

impl CommunicationStream for GradientStream {
    fn handle(&self) -> *mut c_void {
        self.handle
    }

    fn serves(&self, tensor: &Tensor) -> bool {
        tensor.device().is_cuda()
    }

    // Training computes on the device's default stream, which is every thread's current one unless
    // it chooses another.
    fn wait_for_compute(&self) -> Result<()> {
        self.stream.wait_current()
    }

    fn compute_waits(&self) -> Result<()> {
        self.stream.current_waits()
    }
}

/// Number of ranks that share this rank's cores, including this one: those of the same machine that
/// the launcher has bound to the same cores.
fn neighbours(world: &World) -> Result<usize> {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let bound =
        status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap_or_default();
    let own = format!("{} {bound}", crate::base::host_name());
    let all = world.communicator().all_gather(own.as_bytes())?;
    Ok(all.iter().filter(|name| name.as_slice() == own.as_bytes()).count().max(1))
}
