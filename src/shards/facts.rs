//! The fact index: which documents state the same fact, for drawing pairs of documents (SPEC §3.3 d).
//!
//! A key stands for (head name, tail name, relation). An entity goes by each of its mention names, case-folded, so a fact is filed under
//! every head name × tail name, and keys that share an instance are one. Each key is numbered by a hash of its instances' canonical names,
//! which orders keys the same way on every machine. Keys without two instances in two different documents are dropped: they give no pair.

mod build;
mod table;

use std::path::Path;

use super::{DocumentStore, FileEntry};
use crate::Result;

/// The name of the fact index in its folder.
pub(super) const FILE: &str = "facts.parquet";

/// A place where a fact is stated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// Row of the document in the store.
    pub row: u32,
    /// Index of the head entity.
    pub head: u32,
    /// Index of the tail entity.
    pub tail: u32,
    /// Relation class.
    pub relation: u32,
}

/// Fact keys in rising order, each with its instances in rising order, in contiguous storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactIndex {
    keys: Vec<u64>,
    /// First instance of each key, closed by the number of instances; [keys + 1].
    starts: Vec<usize>,
    instances: Vec<Instance>,
}

impl FactIndex {
    /// Builds the index over the labelled documents of a store.
    pub fn build(store: &DocumentStore) -> Self {
        Self::from_sorted(&build::keyed_instances(store))
    }

    /// Number of keys.
    pub fn num_keys(&self) -> usize {
        self.keys.len()
    }

    /// Number of instances over all keys.
    pub fn num_instances(&self) -> usize {
        self.instances.len()
    }

    /// The key's number: a hash of names, the same for the same corpus.
    pub fn key(&self, index: usize) -> u64 {
        self.keys[index]
    }

    /// The instances of a key, at least two, in at least two documents; `index` must be below [`num_keys`](Self::num_keys).
    pub fn instances(&self, index: usize) -> &[Instance] {
        &self.instances[self.starts[index]..self.starts[index + 1]]
    }

    /// Keeps the instances that `keep` approves (DSDocRE: the "good" ones), then drops keys without two instances in two different
    /// documents.
    pub fn retain(&mut self, mut keep: impl FnMut(&Instance) -> bool) {
        let kept: Vec<(u64, Instance)> = self.iter().filter(|(_, instance)| keep(instance)).collect();
        *self = Self::from_sorted(&kept);
    }

    /// Writes `facts.parquet` into a folder.
    pub(super) fn write(&self, folder: &Path) -> Result<FileEntry> {
        table::write(self, folder)
    }

    /// Reads the index that `entry` names and checks every instance against the rows of `store`.
    ///
    /// Errors: a data error for a damaged file, keys out of order, and instances that the store does not hold.
    pub(super) fn read(folder: &Path, entry: &FileEntry, store: &DocumentStore) -> Result<Self> {
        Ok(Self::from_sorted(&table::read(folder, entry, store)?))
    }

    /// All (key, instance) in order.
    fn iter(&self) -> impl Iterator<Item = (u64, Instance)> + '_ {
        (0..self.num_keys()).flat_map(move |index| self.instances(index).iter().map(move |&instance| (self.keys[index], instance)))
    }

    /// Groups sorted (key, instance) by key and drops keys that give no pair of documents.
    fn from_sorted(pairs: &[(u64, Instance)]) -> Self {
        let mut index = Self { keys: Vec::new(), starts: vec![0], instances: Vec::new() };
        for group in pairs.chunk_by(|a, b| a.0 == b.0) {
            let (key, first) = group[0];
            if group.iter().any(|(_, instance)| instance.row != first.row) {
                index.keys.push(key);
                index.instances.extend(group.iter().map(|&(_, instance)| instance));
                index.starts.push(index.instances.len());
            }
        }
        index
    }
}

#[cfg(test)]
mod tests;
