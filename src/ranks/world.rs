//! The world of ranks as the program sees it: start it, share what rank 0 does, agree on errors,
//! end together.
//!
//! Not for sending bytes: the [`Communicator`] does that.

use std::panic::PanicHookInfo;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Kind, Tensor};

use super::failure::{Recorder, Verdict, Watchdog, end, name_run};
use super::rendezvous::Way;
use super::watched::Watched;
use super::{
    C10dCommunicator, CommunicationStream, Communicator, GradientReducer, Launched, Launcher,
    NcclCommunicator, NcclLibrary, SingleProcess, gpu, handshake,
};
use crate::base::{caught, panics, say};
use crate::{Error, Result, exit_code};

/// The usual limit of a section.
const HANG: Duration = Duration::from_secs(60);

/// How long the ranks may take to meet, and then to get to their run folder.
pub const MEETING: Duration = Duration::from_secs(10 * 60);

/// How long a rank with an error waits for the others to end too, before it counts as the only one
/// and ends them.
const COMMON_END: Duration = Duration::from_secs(8);

/// Rank 0: reads recipes, prepares shards, writes reports.
const ROOT: usize = 0;

/// All ranks, seen from this one. Made once, at the start of the program; given back to
/// [`close`](Self::close) at its end.
pub struct World {
    /// The communicator, watched.
    comm: Arc<dyn Communicator>,
    /// The same, not watched.
    bare: Arc<dyn Communicator>,
    watchdog: Watchdog,
    launched: Launched,
}

impl World {
    /// Joins the world that the launcher has made, over MPI or c10d. Without a launcher it is this
    /// process alone, and neither is used. In a world of several ranks, from now on a panic in any
    /// thread ends all of them with exit code 71.
    ///
    /// # Errors
    /// A recipe error (64) if the launcher's world cannot be joined or has another size, a lost
    /// rank (71) if the ranks do not meet.
    pub fn start() -> Result<Self> {
        let launched = Launcher::detect()?;
        if launched.world_size == 1 {
            let comm: Arc<dyn Communicator> = Arc::new(SingleProcess);
            // There is no rank to wait for: it only gives signs of life.
            let watchdog = Watchdog::over(&comm, Duration::MAX)?;
            return Ok(Self::watched(comm, watchdog, launched));
        }
        let way = Way::choose(&launched, cfg!(feature = "mpi"))?;
        let _ = JOINED.set(launched.rank);
        let comm = join(&launched, &way)?;
        let watchdog = Watchdog::over(&comm, HANG)?;
        install_panic_hook(&comm, &watchdog);
        Ok(Self::watched(comm, watchdog, launched))
    }

    fn watched(bare: Arc<dyn Communicator>, watchdog: Watchdog, launched: Launched) -> Self {
        let comm = Arc::new(Watched { inner: bare.clone(), watchdog: watchdog.clone() });
        Self { comm, bare, watchdog, launched }
    }

    /// A world over a ready communicator, without panic hook and watchdog.
    #[cfg(test)]
    pub(crate) fn of(comm: Arc<dyn Communicator>) -> Self {
        let (world_size, rank) = (comm.size(), comm.rank());
        Self::watched(
            comm,
            Watchdog::asleep(),
            Launched { world_size, rank, local_rank: rank, kind: Launcher::None },
        )
    }

    /// Sends CUDA tensors through NCCL from now on, and everything else as before. Every rank calls
    /// it, with its own device set. `stream` belongs to that device.
    ///
    /// # Errors
    /// On every rank, if NCCL is missing or unsuitable on any of them, or if two of them have the
    /// same GPU (64); a lost rank (71) if it fails.
    pub fn use_nccl(&mut self, stream: Arc<dyn CommunicationStream>) -> Result<()> {
        let library = self.agree(NcclLibrary::open())?;
        self.same(&[("the version of NCCL", library.version())])?;
        gpu::all_differ(&self.gather(&gpu::own())?)?;
        let section = self.watchdog.section_within("connecting NCCL", MEETING);
        let comm: Arc<dyn Communicator> =
            Arc::new(NcclCommunicator::connect(self.bare.clone(), library, stream)?);
        drop(section);
        self.watchdog.watch(&comm);
        if comm.size() > 1 {
            install_panic_hook(&comm, &self.watchdog);
        }
        self.comm = Arc::new(Watched { inner: comm.clone(), watchdog: self.watchdog.clone() });
        self.bare = comm;
        Ok(())
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        self.comm.rank()
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        self.comm.size()
    }

    /// This rank among those of its machine: the index of its GPU.
    pub fn local_rank(&self) -> usize {
        self.launched.local_rank
    }

    /// Whether this is rank 0.
    pub fn is_root(&self) -> bool {
        self.rank() == ROOT
    }

    /// The communicator.
    pub fn communicator(&self) -> &Arc<dyn Communicator> {
        &self.comm
    }

    /// The watchdog, which opens sections.
    pub fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    /// Starts this rank's recorder in the run folder; from now on the watchdog and the keeper can
    /// read those of all ranks. Every rank calls it.
    ///
    /// # Errors
    /// I/O errors, on every rank if on any.
    pub fn record(&self, run: &Path) -> Result<()> {
        if self.is_root() {
            Verdict::forget(run);
            Recorder::put_aside(run, self.size());
        }
        let recorder = self.agree(Recorder::create(run, self.rank(), self.size()))?;
        name_run(run);
        self.watchdog.attach(recorder);
        Ok(())
    }

    /// Compares what must be the same on all ranks, by name; every rank calls it with the same
    /// names.
    ///
    /// # Errors
    /// On every rank a recipe error (64) naming the first value that differs, and the ranks that
    /// differ from the most frequent value.
    pub fn same(&self, values: &[(&str, String)]) -> Result<()> {
        if self.size() == 1 {
            return Ok(());
        }
        let values: Vec<(String, String)> =
            values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        handshake::compare(&self.gather(&values)?)
    }

    /// Returns the value of every rank, by rank, sent as JSON.
    ///
    /// # Errors
    /// A lost rank (71).
    pub fn gather<T: Serialize + DeserializeOwned>(&self, value: &T) -> Result<Vec<T>> {
        let bug = |error: serde_json::Error| Error::Bug(format!("a gathered value: {error}"));
        let all = self.comm.all_gather(&serde_json::to_vec(value).map_err(bug)?)?;
        all.iter().map(|json| serde_json::from_slice(json).map_err(bug)).collect()
    }

    /// A reducer of gradient buckets over this world; see [`GradientReducer::new`].
    pub fn gradient_reducer(
        &self,
        buckets: Vec<Tensor>,
        owner: Vec<usize>,
        wire: Kind,
    ) -> Result<GradientReducer> {
        // Its own sections name the buckets.
        GradientReducer::new(&self.bare, &self.watchdog, buckets, owner, wire)
    }

    /// Runs `f` on rank 0, however long it takes, and returns its value on every rank. The value is
    /// sent as JSON, so its numbers must be finite.
    ///
    /// # Errors
    /// The error of `f` on rank 0, [`Error::Elsewhere`] with the same exit code on the others.
    pub fn on_root<T: Serialize + DeserializeOwned>(
        &self,
        f: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if self.size() == 1 {
            return f();
        }
        let (mut message, error) =
            if self.is_root() { encode(caught(f)) } else { (Vec::new(), None) };
        self.comm.patient_barrier()?;
        self.comm.broadcast(ROOT, &mut message)?;
        match (error, message.split_first()) {
            (Some(error), _) => Err(error),
            // Rank 0 reads its own message too, so that a float that JSON rounds is rounded on
            // every rank.
            (None, Some((0, json))) => serde_json::from_slice(json)
                .map_err(|error| Error::Bug(format!("a shared value: {error}"))),
            (None, Some((&code, _))) => Err(Error::Elsewhere { rank: ROOT, code }),
            (None, None) => Err(Error::Bug("rank 0 shared an empty message".into())),
        }
    }

    /// Returns `local` if every rank's is a success. Otherwise every rank gets an error: the lowest
    /// rank that failed its own (with its number, unless it is 0), every other rank
    /// [`Error::Elsewhere`] with that rank and its code. Waits for the slowest rank without
    /// spinning.
    pub fn agree<T>(&self, local: Result<T>) -> Result<T> {
        let code = match &local {
            Ok(_) => 0,
            // The others cannot be reached or are not in step: only `close` can end this.
            Err(Error::RankLost { .. }) => return local,
            Err(error) => error.exit_code(),
        };
        self.comm.patient_barrier()?;
        let codes = self.comm.all_gather(&[code])?;
        let failed = codes
            .iter()
            .enumerate()
            .find_map(|(rank, code)| Some((rank, *code.first()?)).filter(|(_, code)| *code != 0));
        match (local, failed) {
            // Agreed on before.
            (Err(error @ (Error::OfRank { .. } | Error::Elsewhere { .. })), _) => Err(error),
            (Err(error), Some((ROOT, _))) if self.is_root() => Err(error),
            (Err(error), Some((rank, _))) if rank == self.rank() => {
                Err(Error::OfRank { rank, error: Box::new(error) })
            }
            (_, Some((rank, code))) => Err(Error::Elsewhere { rank, code }),
            (local, None) => local,
        }
    }

    /// Ends the world with exit code 71 because of an error that only this rank has, and prints the
    /// verdict.
    pub fn fail(&self, error: &Error) -> ! {
        let verdict = self.watchdog.verdict(&format!("stopped with `{error}`"));
        // A rank that lost its peers has nothing to add to what is known of one.
        if verdict.is_none() && self.watchdog.is_judged() && is_of_another(error) {
            end(self.comm.as_ref(), None);
        }
        let mut line = verdict.map_or_else(
            || format!("rank {}: {error}", self.rank()),
            |verdict| verdict.to_string(),
        );
        if let Some(hint) = error.hint() {
            line += &format!("\nhint: {hint}");
        }
        end(self.comm.as_ref(), Some(&line))
    }

    /// Ends the program's work with all ranks together and returns the outcome. If the other ranks
    /// do not end within some seconds, an error is this rank's alone: see [`fail`](Self::fail).
    pub fn close<T>(self, outcome: Result<T>) -> Result<T> {
        let patience = outcome.is_err().then_some(COMMON_END);
        self.watchdog.ended(outcome.as_ref().err().map_or(0, Error::exit_code));
        match outcome {
            Err(error) if !self.comm.close(patience) => self.fail(&error),
            Ok(value) if !self.comm.close(patience) => {
                let cause = "the ranks could not end together".to_owned();
                drop(value);
                self.fail(&Error::RankLost { rank: self.rank(), operation: "close".into(), cause })
            }
            outcome => outcome,
        }
    }
}

/// This process's number in a world of several.
static JOINED: OnceLock<usize> = OnceLock::new();

/// The number of this process, once it has become one of several ranks, which meet the same errors.
pub fn joined_rank() -> Option<usize> {
    JOINED.get().copied()
}

/// Ends this process unless the sender that is returned is dropped within `limit`: MPI itself waits
/// for its ranks for ever.
fn end_after(limit: Duration, rank: usize) -> Result<std::sync::mpsc::Sender<()>> {
    let (met, meeting) = std::sync::mpsc::channel::<()>();
    let wait = move || {
        if meeting.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            say(format!(
                "rank {rank}: the ranks have not met within {} s: one did not start, hangs, or \
                 cannot be reached",
                limit.as_secs()
            ));
            // SAFETY: a plain call; whatever this process does elsewhere cannot be waited for.
            unsafe { libc::_exit(exit_code::RANK_LOST.into()) }
        }
    };
    std::thread::Builder::new().name("meeting".into()).spawn(wait).map_err(Error::Io)?;
    Ok(met)
}

/// How long ranks may take to meet: what `DOCRE_MEETING_S` says, otherwise [`MEETING`].
fn meeting_limit() -> Result<Duration> {
    const NAME: &str = "DOCRE_MEETING_S";
    let Ok(text) = std::env::var(NAME) else { return Ok(MEETING) };
    let seconds = text.trim().parse().ok().filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| {
        Error::recipe(format!("environment variable {NAME} is `{text}`"))
            .with_hint("set it to a number of seconds, or unset it")
    })
}

fn join(launched: &Launched, way: &Way) -> Result<Arc<dyn Communicator>> {
    let limit = meeting_limit()?;
    match way {
        Way::Mpi => {
            let meeting = end_after(limit, launched.rank)?;
            let comm = join_mpi(launched)?;
            drop(meeting);
            Ok(comm)
        }
        Way::C10d(at) => {
            // It keeps the limit itself and knows more; this is for a library that hangs.
            let meeting = end_after(limit.saturating_mul(3), launched.rank)?;
            let comm = C10dCommunicator::connect(launched, at, limit)?;
            drop(meeting);
            Ok(Arc::new(comm))
        }
    }
}

#[cfg(feature = "mpi")]
fn join_mpi(launched: &Launched) -> Result<Arc<dyn Communicator>> {
    let comm = super::MpiCommunicator::connect()?;
    if let Err(error) = launched.assert_world_size(comm.size()) {
        comm.close(None);
        return Err(error);
    }
    Ok(Arc::new(comm))
}

#[cfg(not(feature = "mpi"))]
fn join_mpi(_: &Launched) -> Result<Arc<dyn Communicator>> {
    Err(Error::Bug("MPI was chosen in a build without it".into()))
}

/// Whether an error only shows that another rank is gone.
fn is_of_another(error: &Error) -> bool {
    matches!(error, Error::RankLost { .. } | Error::Elsewhere { .. })
}

/// The message of rank 0: an exit code, 0 for none, and then the value as JSON.
fn encode<T: Serialize>(outcome: Result<T>) -> (Vec<u8>, Option<Error>) {
    let json = outcome.and_then(|value| {
        serde_json::to_vec(&value).map_err(|error| Error::Bug(format!("a shared value: {error}")))
    });
    match json {
        Ok(json) => ([vec![0], json].concat(), None),
        Err(error) => (vec![error.exit_code()], Some(error)),
    }
}

/// Lets a panic in any thread end the world: the other ranks would wait for this one for ever.
fn install_panic_hook(comm: &Arc<dyn Communicator>, watchdog: &Watchdog) {
    let (comm, watchdog) = (Arc::downgrade(comm), watchdog.clone());
    std::panic::set_hook(Box::new(move |panic| {
        if panics::is_expected() {
            return;
        }
        let (fate, trace) = describe(panic);
        let Some(comm) = comm.upgrade() else { return say(fate + &trace) };
        let told = watchdog
            .verdict(&fate)
            .map_or_else(|| format!("rank {} {fate}", comm.rank()), |verdict| verdict.to_string());
        end(comm.as_ref(), Some(&(told + &trace)))
    }));
}

/// What became of a thread, and the backtrace on lines of its own, if one was asked for.
fn describe(panic: &PanicHookInfo<'_>) -> (String, String) {
    let text = panics::message(panic.payload()).unwrap_or("without a message");
    let place = panic
        .location()
        .map_or_else(String::new, |place| format!(" at {}:{}", place.file(), place.line()));
    let trace = std::backtrace::Backtrace::capture();
    let trace = if trace.status() == std::backtrace::BacktraceStatus::Captured {
        format!("\n{trace}")
    } else {
        String::new()
    };
    (format!("panicked{place}: {text}"), trace)
}

#[cfg(test)]
mod tests {
    use super::super::simulated_world;
    use super::*;
    use crate::DataError;

    fn each<T: Send>(size: usize, f: impl Fn(&World) -> T + Sync) -> Vec<T> {
        let f = &f;
        std::thread::scope(|scope| {
            let start = |comm| scope.spawn(move || f(&World::of(Arc::new(comm))));
            let ranks: Vec<_> = simulated_world(size).into_iter().map(start).collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn the_roots_value_reaches_everyone() {
        let values = each(3, |world| {
            world.on_root(|| {
                assert!(world.is_root(), "only rank 0 works");
                Ok((world.rank(), vec!["é".to_owned(), String::new()], 0.1f64))
            })
        });
        for value in values {
            assert_eq!(value.unwrap(), (0, vec!["é".to_owned(), String::new()], 0.1));
        }
    }

    #[test]
    fn the_roots_error_ends_everyone_with_its_code() {
        let errors = each(3, |world| {
            world.on_root::<()>(|| Err(DataError::new("a.json", "cut off").into())).unwrap_err()
        });
        assert_eq!(errors[0].to_string(), "a.json: cut off");
        assert!(errors.iter().all(|error| error.exit_code() == 65));
        assert!(matches!(errors[2], Error::Elsewhere { rank: 0, code: 65 }));
    }

    #[test]
    fn a_value_that_json_cannot_carry_is_an_error_everywhere() {
        let codes = each(2, |world| world.on_root(|| Ok(f64::NAN)).unwrap_err().exit_code());
        assert_eq!(codes, [70, 70]);
    }

    #[test]
    fn ranks_agree_on_success_and_on_errors() {
        assert!(each(3, |world| world.agree(Ok(world.rank())).unwrap()).into_iter().eq(0..3));
        let errors = each(4, |world| {
            let local = if world.rank() < 2 {
                Ok(())
            } else {
                Err(Error::recipe(format!("bad {}", world.rank())))
            };
            world.agree(local).unwrap_err()
        });
        assert_eq!(errors[0].to_string(), "rank 2 stopped with exit code 64");
        assert_eq!(errors[2].to_string(), "rank 2: bad 2");
        assert_eq!(errors[3].to_string(), "rank 2 stopped with exit code 64");
    }

    #[test]
    fn one_process_needs_nobody() {
        let world = World::of(Arc::new(SingleProcess));
        assert_eq!(world.on_root(|| Ok(7)).unwrap(), 7);
        assert_eq!(world.agree::<()>(Err(Error::recipe("bad"))).unwrap_err().exit_code(), 64);
        assert_eq!(world.close::<()>(Err(Error::recipe("bad"))).unwrap_err().exit_code(), 64);
    }
}
