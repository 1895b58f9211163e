//! Stores and process groups of c10d, libtorch's library for several processes.
//!
//! A store is a table of keys that one process serves over TCP and all see; a group carries
//! collectives over TCP, with Gloo. Not for: what ranks say to each other, or what becomes of a
//! lost one (`ranks`). Errors are libtorch's texts.

use std::ffi::{CString, c_int, c_void};
use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::sync::Once;
use std::time::Duration;

use super::shim::c10d::{
    CGlooGroup, CKeyStore, docre_group_barrier, docre_group_broadcast, docre_group_free,
    docre_group_gather, docre_group_new, docre_group_sum, docre_store_add, docre_store_free,
    docre_store_get, docre_store_has, docre_store_new, docre_store_set,
};
use super::shim::check;
use crate::{Error, Result};

/// Sizes the recorder in which c10d keeps the latest collectives.
const RECORDER: &str = "TORCH_FR_BUFFER_SIZE";

/// Turns off c10d's recorder of collectives. It enters each group into a table at the group's first
/// operation, without a lock, so two groups in two threads break it. To be called before threads
/// start; groups call it too, for tests.
pub fn disable_recorder() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os(RECORDER).is_none_or(|size| size != "0") {
            // SAFETY: the program calls this when it has one thread.
            unsafe { std::env::set_var(RECORDER, "0") };
        }
    });
}

/// A connection to a store of keys. All methods may be called from any thread; one waits for the
/// other.
pub struct KeyStore(*mut CKeyStore);

// SAFETY: c10d locks the connection in each call.
unsafe impl Send for KeyStore {}
// SAFETY: as above.
unsafe impl Sync for KeyStore {}

impl KeyStore {
    /// Serves a store on a socket that listens, and uses it. All keys begin with `prefix`.
    ///
    /// # Errors
    /// What the socket cannot tell of itself; libtorch's.
    pub fn serve(listener: TcpListener, prefix: &str, timeout: Duration) -> Result<Self> {
        let address = listener.local_addr()?;
        // A socket that listens on all addresses is reached on the machine's own.
        let host = match address.ip() {
            ip if !ip.is_unspecified() => ip.to_string(),
            ip if ip.is_ipv4() => "127.0.0.1".to_owned(),
            _ => "::1".to_owned(),
        };
        Self::open(&host, address.port(), listener.into_raw_fd(), prefix, timeout)
    }

    /// Uses the store at an address; a failing attempt is repeated until `timeout` is over.
    ///
    /// # Errors
    /// libtorch's, if nobody serves a store there.
    pub fn connect(host: &str, port: u16, prefix: &str, timeout: Duration) -> Result<Self> {
        Self::open(host, port, -1, prefix, timeout)
    }

    fn open(
        host: &str,
        port: u16,
        listener: c_int,
        prefix: &str,
        timeout: Duration,
    ) -> Result<Self> {
        let (host, prefix) = (text(host)?, text(prefix)?);
        let mut store = std::ptr::null_mut();
        // SAFETY: both texts live through the call, which writes one pointer; nobody else owns the
        // socket any more.
        check(unsafe {
            docre_store_new(
                host.as_ptr(),
                port,
                listener,
                prefix.as_ptr(),
                milliseconds(timeout),
                &raw mut store,
            )
        })?;
        Ok(Self(store))
    }

    /// Sets a key.
    ///
    /// # Errors
    /// libtorch's, if the store is gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = text(key)?;
        // SAFETY: the store lives as long as this; the rest lives through the call.
        check(unsafe { docre_store_set(self.0, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// Adds to a counter and returns its new value; a new one starts at 0.
    ///
    /// # Errors
    /// libtorch's, if the store is gone.
    pub fn add(&self, key: &str, value: i64) -> Result<i64> {
        let (key, mut sum) = (text(key)?, 0);
        // SAFETY: as in `set`; writes one number.
        check(unsafe { docre_store_add(self.0, key.as_ptr(), value, &raw mut sum) })?;
        Ok(sum)
    }

    /// Whether a key is set.
    ///
    /// # Errors
    /// libtorch's, if the store is gone.
    pub fn has(&self, key: &str) -> Result<bool> {
        let (key, mut found) = (text(key)?, 0);
        // SAFETY: as in `set`; writes one number.
        check(unsafe { docre_store_has(self.0, key.as_ptr(), &raw mut found) })?;
        Ok(found != 0)
    }

    /// Waits until a key is set and returns its value. Other threads' calls wait meanwhile.
    ///
    /// # Errors
    /// libtorch's, if it is not set within `timeout` or the store is gone.
    pub fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>> {
        extern "C" fn take(taker: *mut c_void, data: *const u8, count: usize) {
            if count > 0 {
                // SAFETY: `taker` is the vector below; the shim hands over `count` bytes.
                unsafe {
                    (*taker.cast::<Vec<u8>>())
                        .extend_from_slice(std::slice::from_raw_parts(data, count));
                }
            }
        }
        let (key, mut value) = (text(key)?, Vec::<u8>::new());
        let taker = (&raw mut value).cast();
        // SAFETY: as in `set`; `take` is called with `taker` during the call only.
        check(unsafe {
            docre_store_get(self.0, key.as_ptr(), milliseconds(timeout), take, taker)
        })?;
        Ok(value)
    }
}

impl Drop for KeyStore {
    fn drop(&mut self) {
        // SAFETY: made by `open`, and freed once.
        unsafe { docre_store_free(self.0) };
    }
}

/// Processes that carry out collectives together, in the same order and with equal lengths. One
/// thread uses a group at a time; different groups are independent of each other.
pub struct GlooGroup(*mut CGlooGroup);

// SAFETY: a group may be used by any thread, one at a time; `ranks` gives each lane one.
unsafe impl Send for GlooGroup {}
// SAFETY: as above.
unsafe impl Sync for GlooGroup {}

impl GlooGroup {
    /// Connects `size` processes, which meet under `name` in the store. Connections come in at
    /// `address`, an address of this machine, unless GLOO_SOCKET_IFNAME names interfaces.
    /// `connect` bounds that, `timeout` each later operation.
    ///
    /// # Errors
    /// libtorch's, if the others do not come or cannot be reached.
    pub fn connect(
        store: &KeyStore,
        name: &str,
        [rank, size]: [usize; 2],
        address: &str,
        connect: Duration,
        timeout: Duration,
    ) -> Result<Self> {
        disable_recorder();
        let (name, address) = (text(&format!("{name}/"))?, text(address)?);
        let mut group = std::ptr::null_mut();
        // SAFETY: the store and the texts live through the call, which writes one pointer.
        check(unsafe {
            docre_group_new(
                store.0,
                name.as_ptr(),
                int(rank)?,
                int(size)?,
                address.as_ptr(),
                milliseconds(connect),
                milliseconds(timeout),
                &raw mut group,
            )
        })?;
        Ok(Self(group))
    }

    /// Sums numbers over all processes, in place.
    ///
    /// # Errors
    /// libtorch's, if a process is gone.
    pub fn sum_f32(&self, values: &mut [f32]) -> Result<()> {
        self.sum(values.as_mut_ptr().cast(), values.len(), 0)
    }

    /// Sums numbers over all processes, in place.
    ///
    /// # Errors
    /// libtorch's, if a process is gone.
    pub fn sum_f64(&self, values: &mut [f64]) -> Result<()> {
        self.sum(values.as_mut_ptr().cast(), values.len(), 1)
    }

    fn sum(&self, values: *mut c_void, count: usize, wide: c_int) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        // SAFETY: the callers hold `count` values of that width for themselves.
        check(unsafe { docre_group_sum(self.0, values, count as i64, wide) })
    }

    /// Returns once every process has called it; sleeps meanwhile.
    ///
    /// # Errors
    /// libtorch's, if a process is gone.
    pub fn barrier(&self) -> Result<()> {
        // SAFETY: the group lives as long as this.
        check(unsafe { docre_group_barrier(self.0) })
    }

    /// Replaces the bytes of every process by those of `root`.
    ///
    /// # Errors
    /// libtorch's, if a process is gone.
    pub fn broadcast(&self, root: usize, bytes: &mut [u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: the bytes are the caller's during the call.
        check(unsafe {
            docre_group_broadcast(self.0, bytes.as_mut_ptr(), bytes.len() as i64, int(root)?)
        })
    }

    /// Gathers the bytes of every process into `all` [processes × own.len()], by rank.
    ///
    /// # Errors
    /// A bug (70) if `all` is not a multiple of `own`; libtorch's, if a process is gone.
    pub fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        if own.is_empty() {
            return Ok(());
        }
        if !all.len().is_multiple_of(own.len()) {
            return Err(Error::Bug(format!("{} bytes gathered into {}", own.len(), all.len())));
        }
        // SAFETY: `all` has room for the bytes of every process; the caller made it for its world.
        check(unsafe {
            docre_group_gather(self.0, own.as_ptr(), own.len() as i64, all.as_mut_ptr())
        })
    }
}

impl Drop for GlooGroup {
    fn drop(&mut self) {
        // SAFETY: made by `connect`, and freed once.
        unsafe { docre_group_free(self.0) };
    }
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::recipe(format!("{text:?} holds a zero byte")))
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn int(number: usize) -> Result<c_int> {
    c_int::try_from(number)
        .map_err(|_| Error::Bug(format!("{number} ranks do not fit the group's int")))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const SHORT: Duration = Duration::from_secs(20);

    fn served() -> (KeyStore, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (KeyStore::serve(listener, "t/", SHORT).unwrap(), port)
    }

    #[test]
    fn keys_are_seen_by_others_and_waited_for() {
        let (store, port) = served();
        let other = KeyStore::connect("127.0.0.1", port, "t/", SHORT).unwrap();
        let elsewhere = KeyStore::connect("127.0.0.1", port, "u/", SHORT).unwrap();
        assert!(!other.has("a").unwrap());
        store.set("a", b"").unwrap();
        store.set("b", &[0, 7, 255]).unwrap();
        assert!(other.has("a").unwrap() && !elsewhere.has("a").unwrap());
        assert_eq!(other.get("a", SHORT).unwrap(), b"");
        assert_eq!(other.get("b", SHORT).unwrap(), [0, 7, 255]);
        assert_eq!((store.add("n", 2).unwrap(), other.add("n", 3).unwrap()), (2, 5));
        let error = other.get("never", Duration::from_millis(50)).unwrap_err().to_string();
        assert!(error.contains("timeout") || error.contains("timed out"), "{error}");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| other.get("late", SHORT).unwrap());
            store.set("late", b"now").unwrap();
            assert_eq!(waiting.join().unwrap(), b"now");
        });
    }

    #[test]
    fn a_group_of_threads_carries_out_collectives() {
        let (store, port) = served();
        let rank = |rank: usize| {
            let store = KeyStore::connect("127.0.0.1", port, "t/", SHORT).unwrap();
            let group =
                GlooGroup::connect(&store, "g", [rank, 3], "127.0.0.1", SHORT, SHORT).unwrap();
            let mut floats: Vec<f32> = (0..1000).map(|at| (at * (rank + 1)) as f32).collect();
            group.sum_f32(&mut floats).unwrap();
            assert!(floats.iter().enumerate().all(|(at, sum)| *sum == (6 * at) as f32));
            let mut doubles = [rank as f64, 0.5];
            group.sum_f64(&mut doubles).unwrap();
            assert_eq!(doubles, [3.0, 1.5]);
            let mut bytes = [rank as u8; 5];
            group.broadcast(2, &mut bytes).unwrap();
            assert_eq!(bytes, [2; 5]);
            let mut all = [9; 6];
            group.gather(&[rank as u8, 1], &mut all).unwrap();
            assert_eq!(all, [0, 1, 1, 1, 2, 1]);
            group.barrier().unwrap();
            // Empty messages are no messages.
            group.sum_f32(&mut []).unwrap();
            group.gather(&[], &mut []).unwrap();
        };
        thread::scope(|scope| (0..3).for_each(|number| drop(scope.spawn(move || rank(number)))));
        drop(store);
    }
}
