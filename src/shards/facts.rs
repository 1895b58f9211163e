//! The fact index: which documents state the same fact, for drawing pairs of documents
//! (docs/systems.md, D.10).
//!
//! A key stands for (head name, tail name, relation). An entity goes by each of its mention names,
//! case-folded, so a fact is filed under every head name × tail name, and keys that share an
//! instance are one (but for chains, see `build`). Each key is numbered by the least hash among its
//! names, which orders keys the same way on every machine. Keys without two instances in two
//! different documents are dropped: they give no pair.

mod build;
mod table;

use serde::Serialize;

pub(super) use build::{FactSpill, GroupFacts};

/// The name of the fact index in its folder.
pub(super) const FILE: &str = "facts.parquet";

/// A place where a fact is stated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FactInstance {
    /// Row of the document in the store.
    pub row: u32,
    /// Index of the head entity.
    pub head: u32,
    /// Index of the tail entity.
    pub tail: u32,
    /// Relation class.
    pub relation: u32,
}

/// What an index holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FactCounts {
    /// Fact keys with instances in two documents.
    pub keys: usize,
    /// Their instances.
    pub instances: usize,
    /// Instances of the key with the most.
    pub largest_key: usize,
}

impl FactCounts {
    fn add(&mut self, instances: usize) {
        self.keys += 1;
        self.instances += instances;
        self.largest_key = self.largest_key.max(instances);
    }
}

/// Fact keys in rising order, each with its instances in rising order, in contiguous storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactIndex {
    keys: Vec<u64>,
    /// First instance of each key, closed by the number of instances; [keys + 1].
    starts: Vec<usize>,
    instances: Vec<FactInstance>,
}

impl FactIndex {
    /// Number of keys.
    pub fn num_keys(&self) -> usize {
        self.keys.len()
    }

    /// The key's number: a hash of names, the same for the same corpus.
    pub fn key(&self, index: usize) -> u64 {
        self.keys[index]
    }

    /// The instances of a key, at least two, in at least two documents; `index` must be below
    /// [`num_keys`](Self::num_keys).
    pub fn instances(&self, index: usize) -> &[FactInstance] {
        &self.instances[self.starts[index]..self.starts[index + 1]]
    }

    /// Groups sorted (key, instance) by key and drops keys that give no pair of documents.
    fn from_sorted(pairs: &[(u64, FactInstance)]) -> Self {
        let mut index = Self { keys: Vec::new(), starts: vec![0], instances: Vec::new() };
        for group in pairs.chunk_by(|a, b| a.0 == b.0) {
            if gives_pairs(group) {
                index.keys.push(group[0].0);
                index.instances.extend(group.iter().map(|&(_, instance)| instance));
                index.starts.push(index.instances.len());
            }
        }
        index
    }
}

/// Whether the instances of a key lie in two documents at least.
fn gives_pairs(key: &[(u64, FactInstance)]) -> bool {
    key.first().is_some_and(|(_, first)| key.iter().any(|(_, instance)| instance.row != first.row))
}

#[cfg(test)]
mod tests;
