//! Blocks in memory, no more than fit: one that is needed is read, and the one that was not used
//! for the longest time makes room.
//!
//! Not for: which blocks are needed when (`sampling`).

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use ahash::{AHashMap, AHashSet};

use super::blocks::Blocks;
use super::columns::ShardColumns;
use crate::Result;
use crate::base::{give_back_memory, lock, raise};

/// Freed memory is given back when it is this part of the limit.
const FREE_SHARE: u64 = 8;

/// Blocks of which some are in memory.
#[derive(Debug)]
pub(super) struct BlockCache {
    blocks: Arc<Blocks>,
    /// Bytes of the largest block.
    largest: u64,
    /// Bytes that blocks may take.
    memory: u64,
    state: Mutex<CacheState>,
    arrived: Condvar,
}

/// What is in memory now.
#[derive(Debug, Default)]
struct CacheState {
    held: AHashMap<usize, HeldBlock>,
    loading: AHashSet<usize>,
    /// Rises with every use.
    clock: u64,
    bytes: u64,
    peak: u64,
    reads: u64,
    /// Bytes that were let go of and may not be back with the machine.
    freed: u64,
}

#[derive(Debug)]
struct HeldBlock {
    columns: Arc<ShardColumns>,
    bytes: u64,
    used: u64,
}

impl BlockCache {
    /// An empty cache.
    pub(super) fn new(blocks: Arc<Blocks>, largest: u64, memory: u64) -> Self {
        let (state, arrived) = (Mutex::default(), Condvar::new());
        Self { blocks, largest, memory, state, arrived }
    }

    /// A block, from memory or from disk. Several threads that need the same one read it once.
    ///
    /// Errors: as [`Blocks::read`].
    pub(super) fn get(&self, block: usize) -> Result<Arc<ShardColumns>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(columns) = state.touch(block) {
                return Ok(columns);
            }
            if !state.loading.contains(&block) {
                break;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.loading.insert(block);
        state.make_room(self.memory, self.largest);
        let much_is_free = state.freed > self.memory / FREE_SHARE;
        if much_is_free {
            state.freed = 0;
        }
        drop(state);
        if much_is_free {
            give_back_memory();
        }
        let read = self.blocks.read(block).map(Arc::new);
        let mut state = lock(&self.state);
        state.loading.remove(&block);
        if let Ok(columns) = &read {
            state.keep(block, columns);
        }
        drop(state);
        self.arrived.notify_all();
        read
    }

    /// Whether a block is in memory.
    fn holds(&self, block: usize) -> bool {
        lock(&self.state).held.contains_key(&block)
    }

    /// Bytes that blocks take now.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.state).bytes
    }

    /// The most bytes that blocks took at a time, and how many were read.
    #[cfg(test)]
    pub(super) fn peak_and_reads(&self) -> (u64, u64) {
        let state = lock(&self.state);
        (state.peak, state.reads)
    }
}

impl CacheState {
    fn touch(&mut self, block: usize) -> Option<Arc<ShardColumns>> {
        self.clock += 1;
        let held = self.held.get_mut(&block)?;
        held.used = self.clock;
        Some(Arc::clone(&held.columns))
    }

    /// Lets blocks go until all that are being read have room.
    fn make_room(&mut self, memory: u64, largest: u64) {
        let wanted = largest * self.loading.len() as u64;
        while self.bytes + wanted > memory {
            let oldest = self.held.iter().min_by_key(|(_, held)| held.used).map(|(&at, _)| at);
            let Some(held) = oldest.and_then(|oldest| self.held.remove(&oldest)) else { break };
            self.bytes -= held.bytes;
            self.freed += held.bytes;
        }
    }

    fn keep(&mut self, block: usize, columns: &Arc<ShardColumns>) {
        self.clock += 1;
        let (columns, bytes, used) =
            (Arc::clone(columns), columns.memory_bytes() as u64, self.clock);
        self.bytes += bytes;
        self.peak = self.peak.max(self.bytes);
        self.reads += 1;
        self.held.insert(block, HeldBlock { columns, bytes, used });
    }
}

/// A thread that reads blocks before they are needed.
#[derive(Debug)]
pub(super) struct ReadAhead {
    /// `None` once the thread is to end.
    wishes: Option<Sender<Vec<usize>>>,
    thread: Option<JoinHandle<()>>,
}

impl ReadAhead {
    /// Starts the thread.
    pub(super) fn start(cache: &Arc<BlockCache>) -> Self {
        let (wishes, received) = channel();
        let cache = Arc::clone(cache);
        let thread = std::thread::spawn(move || read_ahead(&cache, &received));
        Self { wishes: Some(wishes), thread: Some(thread) }
    }

    /// Asks for blocks in this order; what is left of an earlier wish is dropped.
    pub(super) fn wish(&self, blocks: Vec<usize>) {
        // Without the thread, blocks are read when they are needed.
        let _ = self.wishes.as_ref().map(|wishes| wishes.send(blocks));
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.wishes = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn read_ahead(cache: &BlockCache, wishes: &Receiver<Vec<usize>>) {
    let mut next = wishes.recv().ok();
    while let Some(blocks) = next.take() {
        for block in blocks {
            match wishes.try_recv() {
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
            }
            // Whoever needs a block that cannot be read meets the error again.
            if !cache.holds(block) && cache.get(block).is_err() {
                break;
            }
        }
        next = next.or_else(|| wishes.recv().ok());
    }
}

/// The value, or its error [raised](raise).
pub(super) fn or_raise<T>(outcome: Result<T>) -> T {
    outcome.unwrap_or_else(|error| raise(error))
}
