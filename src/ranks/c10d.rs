//! The communicator over c10d, libtorch's own library for several processes: no MPI is needed.
//!
//! A store of keys over TCP is where ranks meet, say farewell, and tell why the world ends; two
//! Gloo groups carry the two lanes over TCP. Not for GPUs that can communicate directly:
//! [`NcclCommunicator`](super::NcclCommunicator) carries their tensors and uses this one for
//! everything else.
//!
//! Order of summation: numbers of the control lane are added in the tree of
//! [`fixed_tree`](super::fixed_tree), by rank. Tensors go round a ring, whose order depends on the
//! world size and the length alone. So runs repeat bit for bit, and every rank gets the same bits.

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::fixed_tree::sum_in_order;
use super::host_slice::{HostSlice, on_host};
use super::launcher::Launched;
use super::meeting::{
    LONGEST_NAP, SHORTEST_NAP, STORE_TIMEOUT, cause, left, meet, reach, reachable, serve,
};
use super::rendezvous::{Rendezvous, Served};
use super::unequal::gather_unequal;
use super::{Communicator, ReduceOp};
use crate::base::{host_name, lock, say};
use crate::torch::c10d::{GlooGroup, KeyStore};
use crate::{Error, Result};

/// Operations have no limit of their own: the watchdog bounds them. c10d counts milliseconds in an
/// int.
const FOR_EVER: Duration = Duration::from_secs(20 * 24 * 3600);

/// How long a broken connection is not an error of this rank: whoever knows which rank was lost
/// says so first.
const OTHERS_SPEAK: Duration = Duration::from_secs(2);

/// How long rank 0 serves the store for ranks that are about to leave, and how long an abort may
/// take to tell the others.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Set once a rank ends the world: an [`End`].
const END: &str = "end";

/// Counts the ranks that are ready to leave; `all-` is set by the last.
const READY: &str = "ready";

/// Counts the ranks that do not need the store any more; `all-` is set by the last.
const GONE: &str = "gone";

/// Why the world ends, for ranks that do not know yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct End {
    /// The rank that ends it, or that was lost.
    pub(super) rank: usize,
    /// Its exit code.
    pub(super) code: u8,
    /// Its machine, on which the sentence has been printed.
    pub(super) host: String,
    /// The sentence.
    pub(super) sentence: String,
}

/// What the thread that waits for an end has seen.
#[derive(Default)]
struct News {
    end: OnceLock<End>,
    /// When the store was lost.
    lost: OnceLock<Instant>,
    /// The world is closed: nothing is news any more.
    over: AtomicBool,
}

/// Ranks that met at a store. The groups are never freed: that could wait for a collective that
/// hangs, and the process ends soon after the world.
pub struct C10dCommunicator {
    store: Arc<KeyStore>,
    control: ManuallyDrop<GlooGroup>,
    tensors: ManuallyDrop<GlooGroup>,
    rank: usize,
    size: usize,
    /// Where the store is.
    address: String,
    /// Whether this process serves it.
    serves: bool,
    news: Arc<News>,
    /// What this rank says if it ends the world.
    sentence: Mutex<String>,
}

impl C10dCommunicator {
    /// Meets the other ranks, within `limit`.
    ///
    /// # Errors
    /// A recipe error (64) if the port is taken, or two processes have the same rank or world sizes
    /// differ; a lost rank (71) that names the store and the ranks that have not come.
    pub(super) fn connect(launched: &Launched, at: &Rendezvous, limit: Duration) -> Result<Self> {
        let Launched { rank, world_size: size, local_rank, .. } = *launched;
        let deadline = Instant::now() + limit;
        let serves = rank == 0 && at.served != Served::ByLauncher;
        let (store, at, own) = if serves { serve(at)? } else { reach(at, rank, deadline)? };
        let address = at.address();
        let arrivals = meet(&store, &address, [rank, size], own, deadline, limit)?;
        let own = reachable(own, &arrivals).to_string();
        let lost = |error: Error| {
            let operation = format!("connecting the ranks that met at {address}");
            Error::RankLost { rank, operation, cause: cause(&error) }
        };
        let group = |name: &str| {
            GlooGroup::connect(&store, name, [rank, size], &own, left(deadline), FOR_EVER)
                .map_err(lost)
        };
        let [control, tensors] = [group("control")?, group("tensors")?].map(ManuallyDrop::new);
        let news = Arc::<News>::default();
        listen(&at, local_rank == 0, &news).map_err(lost)?;
        let (store, sentence) = (Arc::new(store), Mutex::default());
        Ok(Self { store, control, tensors, rank, size, address, serves, news, sentence })
    }

    /// The outcome of a collective as an error of this rank, after a while in which others may say
    /// what they know.
    fn carried(&self, operation: &str, outcome: Result<()>) -> Result<()> {
        outcome.map_err(|error| match error {
            Error::Torch(_) => {
                thread::sleep(OTHERS_SPEAK);
                let (rank, operation) = (self.rank, operation.to_owned());
                Error::RankLost { rank, operation, cause: cause(&error) }
            }
            other => other,
        })
    }

    /// Gathers equally long pieces; [size × piece.len()].
    fn gather_equal(&self, piece: &[u8]) -> Result<Vec<u8>> {
        let mut all = vec![0; piece.len() * self.size];
        self.carried("all-gather", self.control.gather(piece, &mut all))?;
        Ok(all)
    }

    /// Waits until all ranks have called it with this name; false if they do not within `patience`,
    /// the world ends, or the store is gone.
    fn all_are(&self, name: &str, patience: Option<Duration>) -> bool {
        let (start, mut nap) = (Instant::now(), SHORTEST_NAP);
        if count(&self.store, name, self.size).is_err() {
            return false;
        }
        loop {
            match is_complete(&self.store, name) {
                _ if self.news.end.get().is_some() => return false,
                Ok(true) => return true,
                Err(_) => return false,
                Ok(false) if patience.is_some_and(|patience| start.elapsed() > patience) => {
                    return false;
                }
                Ok(false) => {}
            }
            thread::sleep(nap);
            nap = (nap * 2).min(LONGEST_NAP);
        }
    }
}

impl Communicator for C10dCommunicator {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn barrier(&self) -> Result<()> {
        self.carried("barrier", self.control.barrier())
    }

    fn all_reduce_f64(&self, values: &mut [f64], op: ReduceOp) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let all = self.gather_equal(bytemuck::cast_slice(values))?;
        let rows = all.chunks(size_of_val(values)).map(numbers);
        let reduced = match op {
            ReduceOp::Sum => {
                let rows = rows.map(|row| Ok(Tensor::f_from_slice(&row)?));
                match sum_in_order(rows.collect::<Result<_>>()?)? {
                    Some(sum) => Vec::try_from(&sum)?,
                    None => values.to_vec(),
                }
            }
            ReduceOp::Max => by_element(rows, |a, b| a > b),
            ReduceOp::Min => by_element(rows, |a, b| a < b),
        };
        values.copy_from_slice(&reduced);
        Ok(())
    }

    fn all_reduce_tensor(&self, tensor: &Tensor) -> Result<()> {
        on_host(tensor, |values| {
            let outcome = match values {
                HostSlice::F32(values) => self.tensors.sum_f32(values),
                HostSlice::F64(values) => self.tensors.sum_f64(values),
            };
            self.carried("all-reduce", outcome)
        })
    }

    fn broadcast(&self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let mut length = (bytes.len() as u64).to_ne_bytes();
        self.carried("broadcast", self.control.broadcast(root, &mut length))?;
        let length = usize::try_from(u64::from_ne_bytes(length))
            .map_err(|error| Error::Bug(error.to_string()))?;
        bytes.resize(length, 0);
        self.carried("broadcast", self.control.broadcast(root, bytes))
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let gather = |piece: &[u8]| self.gather_equal(piece);
        gather_unequal(bytes, self.size, gather, gather)
    }

    fn library(&self) -> &'static str {
        "c10d (Gloo)"
    }

    fn check(&self) -> Result<()> {
        if self.news.over.load(Ordering::Acquire) {
            return Ok(());
        }
        if let Some(End { rank, code, .. }) = self.news.end.get() {
            return Err(Error::Elsewhere { rank: *rank, code: *code });
        }
        if self.news.lost.get().is_some_and(|since| since.elapsed() > OTHERS_SPEAK) {
            return Err(Error::RankLost {
                rank: self.rank,
                operation: "the run".into(),
                cause: format!("the store at {} is gone, with what served it", self.address),
            });
        }
        Ok(())
    }

    fn close(&self, patience: Option<Duration>) -> bool {
        if self.news.over.load(Ordering::Acquire) {
            return true;
        }
        if !self.all_are(READY, patience) {
            return false;
        }
        self.news.over.store(true, Ordering::Release);
        if self.serves {
            self.all_are(GONE, Some(LAST_WORDS));
        } else {
            // Whoever serves the store may be gone already.
            let _ = count(&self.store, GONE, self.size);
        }
        true
    }

    fn announce(&self, sentence: &str) {
        sentence.clone_into(&mut lock(&self.sentence));
    }

    fn abort(&self, code: u8) -> ! {
        if self.news.end.get().is_none() && !self.news.over.load(Ordering::Acquire) {
            let sentence = lock(&self.sentence).clone();
            let end = End { rank: self.rank, code, host: host_name(), sentence };
            let (store, (told, done)) = (self.store.clone(), channel());
            // On a thread, because the store may hang.
            let tell = move || {
                let _ = told.send(tell_end(&store, &end));
            };
            if thread::Builder::new().spawn(tell).is_ok() {
                let _ = done.recv_timeout(LAST_WORDS);
            }
        }
        // SAFETY: a plain call. Destructors could wait for what hangs, so none runs.
        unsafe { libc::_exit(code.into()) }
    }
}

/// Tells all ranks of a world that it ends; only the first end counts.
pub(super) fn tell_end(store: &KeyStore, end: &End) -> Result<()> {
    if store.add("ending", 1)? == 1 {
        let json = serde_json::to_vec(end).map_err(|error| Error::Bug(error.to_string()))?;
        store.set(END, &json)?;
    }
    Ok(())
}

/// Waits until every rank of a world has left the store alone; false if they do not within
/// `patience`. For what serves it.
pub(super) fn await_leave(store: &KeyStore, patience: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < patience {
        match is_complete(store, GONE) {
            Ok(true) => return true,
            Ok(false) => thread::sleep(LONGEST_NAP),
            Err(_) => return false,
        }
    }
    false
}

/// Counts this rank under a name; the last of `size` ranks completes it.
fn count(store: &KeyStore, name: &str, size: usize) -> Result<()> {
    if store.add(name, 1)? == size as i64 {
        store.set(&format!("all-{name}"), b"")?;
    }
    Ok(())
}

fn is_complete(store: &KeyStore, name: &str) -> Result<bool> {
    store.has(&format!("all-{name}"))
}

/// The numbers that one rank has sent.
fn numbers(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks::<8>().0.iter().map(|number| f64::from_ne_bytes(*number)).collect()
}

/// Takes the values of the first row, and in their place those of later rows that `wins` prefers. A
/// value that is not a number stays.
fn by_element(rows: impl Iterator<Item = Vec<f64>>, wins: impl Fn(f64, f64) -> bool) -> Vec<f64> {
    let pick = |a: f64, b: f64| if b.is_nan() || wins(b, a) { b } else { a };
    let both = |a: Vec<f64>, b: Vec<f64>| a.into_iter().zip(b).map(|(a, b)| pick(a, b)).collect();
    rows.reduce(both).unwrap_or_default()
}

/// Starts the thread that waits for an end of the world, on a connection of its own.
fn listen(at: &Rendezvous, speaks: bool, news: &Arc<News>) -> Result<()> {
    let store = KeyStore::connect(&at.host, at.port, &at.prefix, STORE_TIMEOUT)?;
    let news = news.clone();
    let run = move || {
        loop {
            match store.get(END, FOR_EVER).map(|json| serde_json::from_slice::<End>(&json)) {
                Ok(Ok(end)) => {
                    if speaks && !end.sentence.is_empty() && end.host != host_name() {
                        say(&end.sentence);
                    }
                    let _ = news.end.set(end);
                    return;
                }
                // Nothing has happened for so long.
                Err(_) if store.has(END).is_ok() => thread::sleep(LONGEST_NAP),
                Ok(Err(_)) | Err(_) => {
                    let _ = news.lost.set(Instant::now());
                    return;
                }
            }
        }
    };
    thread::Builder::new().name("store".into()).spawn(run).map_err(Error::Io)?;
    Ok(())
}
