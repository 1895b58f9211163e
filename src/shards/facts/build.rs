//! Building the index while documents stream by, in bounded memory.
//!
//! Facts of different relations never share a key, so each goes to one of 64 temporary files by its
//! relation, and every file is indexed by itself: its postings, (hash of head name, tail name and
//! relation; instance), are sorted, and instances with equal hashes are joined. Keys carry the
//! number of their file in front, so the files one after another are the index in order.

use std::fs::File;
use std::io::{BufWriter, IntoInnerError, Read, Seek, Write};
use std::path::Path;

use super::{FactCounts, FactInstance, table};
use crate::base::hash_number;
use crate::shards::FileEntry;
use crate::text::{TokenizedDocument, TokenizedEntity};
use crate::{Error, Result};

/// Bits of a key that name its file.
const PART_BITS: u32 = 6;
const PARTS: usize = 1 << PART_BITS;
/// Facts gathered for a file before they are written.
const SPILL_BYTES: usize = 1 << 14;
/// Names of an entity that take part; DocRED's longest entity has 23 mentions. It bounds the
/// postings of a fact by the square of it.
const MAX_NAMES: usize = 32;
/// A key may have so many times the instances of its most frequent pair of names.
const MAX_CHAIN: usize = 8;

/// The facts of a run of documents, by file.
#[derive(Debug)]
pub(in crate::shards) struct GroupFacts {
    parts: Vec<Vec<u64>>,
}

impl GroupFacts {
    /// The facts of labelled documents, the first of which is row `first_row`.
    pub(in crate::shards) fn of(documents: &[TokenizedDocument], first_row: usize) -> Self {
        let mut facts = Self { parts: vec![Vec::new(); PARTS] };
        for (row, document) in
            (first_row..).zip(documents).filter(|(_, document)| document.labelled)
        {
            facts.add(row, document);
        }
        facts
    }

    fn add(&mut self, row: usize, document: &TokenizedDocument) {
        let instance = |fact: &crate::text::TokenizedFact| FactInstance {
            row: row as u32,
            head: fact.head,
            tail: fact.tail,
            relation: fact.relation,
        };
        let mut instances: Vec<FactInstance> = document.facts.iter().map(instance).collect();
        // A fact that a document lists twice is one instance.
        instances.sort_unstable();
        instances.dedup();
        let mut names: Vec<Option<Vec<u64>>> = vec![None; document.entities.len()];
        for instance in instances {
            let [head, tail] = [instance.head, instance.tail].map(|entity| {
                let entity = entity as usize;
                names[entity].get_or_insert_with(|| name_hashes(&document.entities[entity])).clone()
            });
            let FactInstance { row, head: from, tail: to, relation } = instance;
            let part = &mut self.parts[relation as usize % PARTS];
            part.extend(
                [[row, from], [to, relation], [head.len() as u32, tail.len() as u32]].map(packed),
            );
            part.extend(head.iter().chain(&tail));
        }
    }
}

/// Hashes of an entity's names without regard to case, each once.
fn name_hashes(entity: &TokenizedEntity) -> Vec<u64> {
    let mut hashes: Vec<u64> = Vec::new();
    for mention in &entity.mentions {
        let hash = hash_number(&blake3::hash(mention.name.to_lowercase().as_bytes()));
        if hashes.len() < MAX_NAMES && !hashes.contains(&hash) {
            hashes.push(hash);
        }
    }
    hashes
}

/// The hash of a fact between two names: SplitMix64's finaliser, applied to one part after another.
fn posting(head: u64, tail: u64, relation: u32) -> u64 {
    [head, tail, u64::from(relation)].into_iter().fold(0x9e37_79b9_7f4a_7c15, |state: u64, part| {
        let mut x = state.wrapping_add(part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    })
}

/// Two numbers in one, as the temporary files hold them.
fn packed([first, second]: [u32; 2]) -> u64 {
    u64::from(first) << 32 | u64::from(second)
}

fn unpacked(both: u64) -> [u32; 2] {
    [(both >> 32) as u32, both as u32]
}

/// The temporary files.
#[derive(Debug)]
pub(in crate::shards) struct FactSpill {
    files: Vec<BufWriter<File>>,
}

impl FactSpill {
    /// Makes the files, nameless, on the disk of `folder`.
    pub(in crate::shards) fn new(folder: &Path) -> Result<Self> {
        let file = |_| Ok(BufWriter::with_capacity(SPILL_BYTES, tempfile::tempfile_in(folder)?));
        Ok(Self { files: (0..PARTS).map(file).collect::<Result<_>>()? })
    }

    /// Adds the facts of some documents; the order does not matter.
    pub(in crate::shards) fn push(&mut self, facts: &GroupFacts) -> Result<()> {
        for (file, part) in
            self.files.iter_mut().zip(&facts.parts).filter(|(_, part)| !part.is_empty())
        {
            file.write_all(bytemuck::cast_slice(part))?;
        }
        Ok(())
    }

    /// Writes the index into `folder`.
    pub(in crate::shards) fn finish(self, folder: &Path) -> Result<(FileEntry, FactCounts)> {
        let mut table = table::Writer::create(folder)?;
        let mut counts = FactCounts::default();
        for (part, file) in (0..).zip(self.files) {
            let mut file = file.into_inner().map_err(IntoInnerError::into_error)?;
            let mut numbers = vec![0_u64; file.stream_position()? as usize / size_of::<u64>()];
            file.rewind()?;
            file.read_exact(bytemuck::cast_slice_mut(&mut numbers))?;
            let rows = FactPart::parse(&numbers)?.keyed(part);
            drop(numbers);
            for key in rows.chunk_by(|a, b| a.0 == b.0).filter(|key| super::gives_pairs(key)) {
                counts.add(key.len());
                table.push(key)?;
            }
        }
        Ok((table.finish()?, counts))
    }
}

/// The facts of one file.
#[derive(Default)]
struct FactPart {
    instances: Vec<FactInstance>,
    /// (hash, instance), for every head name × tail name.
    postings: Vec<(u64, u32)>,
}

impl FactPart {
    /// Reads facts. Each is three packed pairs (row and head, tail and relation, numbers of names)
    /// and the hashes of the names of head and tail.
    fn parse(mut numbers: &[u64]) -> Result<Self> {
        let cut = || Error::Bug("a temporary file of facts is cut off".into());
        let mut part = Self::default();
        while !numbers.is_empty() {
            let (front, rest) = numbers.split_first_chunk::<3>().ok_or_else(cut)?;
            let [[row, head], [tail, relation], [heads, tails]] = front.map(unpacked);
            let (names, rest) =
                rest.split_at_checked(heads as usize + tails as usize).ok_or_else(cut)?;
            let (heads, tails) = names.split_at(heads as usize);
            let number = part.instances.len() as u32;
            for &head_name in heads {
                let hash = |&tail_name: &u64| (posting(head_name, tail_name, relation), number);
                part.postings.extend(tails.iter().map(hash));
            }
            part.instances.push(FactInstance { row, head, tail, relation });
            numbers = rest;
        }
        Ok(part)
    }

    /// All (key, instance), sorted.
    fn keyed(mut self, part: u64) -> Vec<(u64, FactInstance)> {
        self.postings.sort_unstable();
        let mut groups = self.joined();
        let best = self.most_shared();
        let mut keys = vec![Joined::default(); self.instances.len()];
        for (instance, names) in (0..).zip(&best) {
            keys[groups.root(instance) as usize].add(*names);
        }
        for &(hash, instance) in &self.postings {
            let key = &mut keys[groups.root(instance) as usize];
            key.least = key.least.min(hash);
        }
        let rows =
            (0..).zip(self.instances.iter().zip(&best)).map(|(number, (&instance, names))| {
                let key = &keys[groups.root(number) as usize];
                let hash = if key.is_chain() { names.hash } else { key.least };
                ((part << (64 - PART_BITS)) | (hash >> PART_BITS), instance)
            });
        let mut rows: Vec<(u64, FactInstance)> = rows.collect();
        rows.sort_unstable();
        rows
    }

    /// Instances that share a hash directly or through others.
    fn joined(&self) -> Groups {
        let mut groups = Groups::new(self.instances.len());
        for pair in self.postings.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            groups.join(pair[0].1, pair[1].1);
        }
        groups
    }

    /// For each instance the pair of names that most instances share, the least hash among equals.
    fn most_shared(&self) -> Vec<Names> {
        let mut best = vec![Names::default(); self.instances.len()];
        for run in self.postings.chunk_by(|a, b| a.0 == b.0) {
            for &(hash, instance) in run {
                // Hashes rise, so the first of equals is the least.
                if run.len() > best[instance as usize].instances {
                    best[instance as usize] = Names { hash, instances: run.len() };
                }
            }
        }
        best
    }
}

/// A pair of names in a relation, and how many instances bear it.
#[derive(Clone, Copy, Debug, Default)]
struct Names {
    hash: u64,
    instances: usize,
}

/// Instances joined through their names.
#[derive(Clone, Copy, Debug)]
struct Joined {
    least: u64,
    instances: usize,
    /// Instances of its most frequent pair of names.
    most: usize,
}

impl Default for Joined {
    fn default() -> Self {
        Self { least: u64::MAX, instances: 0, most: 0 }
    }
}

impl Joined {
    fn add(&mut self, names: Names) {
        self.instances += 1;
        self.most = self.most.max(names.instances);
    }

    /// Ambiguous names can join one fact to the next without end. What is much larger than any pair
    /// of names in it is no fact any more, and each of its instances then goes by the pair of names
    /// that it shares with most others.
    fn is_chain(&self) -> bool {
        self.instances > MAX_CHAIN * self.most
    }
}

/// Union-find over instances.
struct Groups {
    parents: Vec<u32>,
}

impl Groups {
    fn new(count: usize) -> Self {
        Self { parents: (0..count as u32).collect() }
    }

    fn root(&mut self, mut at: u32) -> u32 {
        while self.parents[at as usize] != at {
            self.parents[at as usize] = self.parents[self.parents[at as usize] as usize];
            at = self.parents[at as usize];
        }
        at
    }

    /// The smaller root wins.
    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b) as usize] = a.min(b);
    }
}
