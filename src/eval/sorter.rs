//! Putting more scored facts in order than should be in memory: sorted runs go to temporary files
//! and are merged. Equal scores keep the order in which they came. Not for: what is computed from
//! them (`threshold`, `curve`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};

use super::ScoredFact;
use crate::Result;

/// Facts of a run: 8 bytes each, and half as many again while they are sorted.
const RUN: usize = 1 << 22;
/// Bytes of a fact on disk: the score, then the flags.
const BYTES: usize = 5;

/// A scored fact with the group in which its threshold can be tuned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupedFact {
    /// Score, and whether it is right and known.
    pub fact: ScoredFact,
    /// Whether head and tail share a sentence.
    pub intra: bool,
}

/// Takes facts in any order and gives them back by falling score.
#[derive(Debug)]
pub struct Sorter {
    limit: usize,
    run: Vec<u64>,
    files: Vec<File>,
}

impl Default for Sorter {
    fn default() -> Self {
        Self::new(RUN)
    }
}

impl Sorter {
    /// A sorter that holds `limit` facts in memory.
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), run: Vec::new(), files: Vec::new() }
    }

    /// Takes a fact, whose score is a number.
    ///
    /// # Errors
    /// The disk.
    pub fn push(&mut self, entry: GroupedFact) -> Result<()> {
        if self.run.len() == self.limit {
            self.spill()?;
        }
        self.run.push(pack(entry));
        Ok(())
    }

    fn spill(&mut self) -> Result<()> {
        self.run.sort_by_key(|record| record >> 8);
        let place = |error: std::io::Error| {
            std::io::Error::new(
                error.kind(),
                format!("sorting scores in `{}`: {error}", std::env::temp_dir().display()),
            )
        };
        let mut writer = BufWriter::new(tempfile::tempfile().map_err(place)?);
        for record in self.run.drain(..) {
            writer.write_all(&record.to_le_bytes()[..BYTES]).map_err(place)?;
        }
        let mut file = writer.into_inner().map_err(|error| place(error.into_error()))?;
        file.rewind().map_err(place)?;
        self.files.push(file);
        Ok(())
    }

    /// Hands out all facts by falling score.
    ///
    /// # Errors
    /// The disk.
    pub fn finish(mut self, each: &mut dyn FnMut(GroupedFact)) -> Result<()> {
        self.run.sort_by_key(|record| record >> 8);
        // The run in memory is the last one: its facts came after those on disk.
        let files = self.files.into_iter().map(|file| SortedRun::File(BufReader::new(file)));
        let mut runs: Vec<SortedRun> =
            files.chain([SortedRun::Memory(self.run.into_iter())]).collect();
        let mut heads = BinaryHeap::new();
        for (number, run) in runs.iter_mut().enumerate() {
            heads.extend(run.next()?.map(|record| head(record, number)));
        }
        while let Some(Reverse((_, number, record))) = heads.pop() {
            each(unpack(record));
            heads.extend(runs[number].next()?.map(|record| head(record, number)));
        }
        Ok(())
    }
}

fn head(record: u64, run: usize) -> Reverse<(u64, usize, u64)> {
    Reverse((record >> 8, run, record))
}

/// A sorted run.
enum SortedRun {
    File(BufReader<File>),
    Memory(std::vec::IntoIter<u64>),
}

impl SortedRun {
    fn next(&mut self) -> Result<Option<u64>> {
        let file = match self {
            Self::Memory(records) => return Ok(records.next()),
            Self::File(file) => file,
        };
        let mut bytes = [0; 8];
        match file.read_exact(&mut bytes[..BYTES]) {
            Ok(()) => Ok(Some(u64::from_le_bytes(bytes))),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Rising with falling score: the bits of an IEEE number, turned so that they compare like the
/// number.
fn pack(entry: GroupedFact) -> u64 {
    let bits = entry.fact.score.to_bits();
    let rising = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    let flags = u64::from(entry.fact.correct)
        | u64::from(entry.fact.in_train) << 1
        | u64::from(entry.intra) << 2;
    u64::from(!rising) << 8 | flags
}

fn unpack(record: u64) -> GroupedFact {
    let rising = !((record >> 8) as u32);
    let bits = if rising >> 31 == 1 { rising & !(1 << 31) } else { !rising };
    let flag = |bit: u32| record >> bit & 1 == 1;
    GroupedFact {
        fact: ScoredFact { score: f32::from_bits(bits), correct: flag(0), in_train: flag(1) },
        intra: flag(2),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::threshold::sorted;
    use super::*;

    proptest! {
        #[test]
        fn as_a_stable_sort_in_memory(
            entries in proptest::collection::vec((-3i8..4, any::<[bool; 3]>()), 0..200),
            limit in 1usize..40,
        ) {
            let entry = |&(score, [correct, in_train, intra]): &(i8, [bool; 3])| GroupedFact {
                fact: ScoredFact { score: f32::from(score) / 3.0, correct, in_train },
                intra,
            };
            let entries: Vec<_> = entries.iter().map(entry).collect();
            let mut sorter = Sorter::new(limit);
            for &entry in &entries {
                sorter.push(entry).unwrap();
            }
            let mut merged = Vec::new();
            sorter.finish(&mut |entry| merged.push(entry)).unwrap();
            let facts: Vec<_> = merged.iter().map(|entry| entry.fact).collect();
            prop_assert_eq!(
                facts,
                sorted(&entries.iter().map(|entry| entry.fact).collect::<Vec<_>>())
            );
            prop_assert_eq!(
                merged.iter().filter(|entry| entry.intra).count(),
                entries.iter().filter(|entry| entry.intra).count()
            );
        }
    }

    #[test]
    fn every_number_survives_packing() {
        for score in [
            0.0,
            -0.0,
            1.5,
            -1.5,
            f32::MIN,
            f32::MAX,
            f32::MIN_POSITIVE,
            f32::INFINITY,
            f32::NEG_INFINITY,
        ] {
            let entry = GroupedFact {
                fact: ScoredFact { score, correct: true, in_train: false },
                intra: true,
            };
            assert_eq!(unpack(pack(entry)).fact.score.to_bits(), score.to_bits());
        }
    }
}
