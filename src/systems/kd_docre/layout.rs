//! The host half of KD-DocRE: documents as ATLOP reads them, and all pairs of their entities as
//! grids.

use ahash::AHashSet;
use rand::{RngExt, SeedableRng};

use super::grid::PairGrids;
use super::settings::{KdDocreSettings, KdDocreStage};
use crate::sampling::Stream;
use crate::systems::reading::{ReadingLayout, ReadingTables};
use crate::systems::{Classes, Example, Layout, Pair, Tables, tables};
use crate::text::TokenizedDocument;
use crate::{DataError, Result};

/// The host half.
pub struct KdDocreLayout {
    pub(super) reading: ReadingLayout,
    pub(super) classes: Classes,
    pub(super) settings: KdDocreSettings,
    pub(super) seed: u64,
}

/// A batch of documents.
pub struct KdDocreTables {
    /// Documents and mentions. Its pairs, whose contexts are computed, are those with head ≤ tail:
    /// a context does not depend on the direction.
    pub reading: ReadingTables,
    /// Head and tail entity row of all N² pairs of each document, row by row; `[Q]` each.
    pub ends: [Vec<i64>; 2],
    /// Context of each of them; `[Q]`.
    pub contexts: Vec<i64>,
    /// The same pairs as grids.
    pub grids: PairGrids,
    /// Which of them the rest of the program asks about; `[P]`.
    pub asked: Vec<i64>,
    /// Pairs of an entity with itself.
    pub diagonal: usize,
    /// 0 for pairs whose features are dropped; `None`: none are; `[Q]`.
    pub kept: Option<Vec<f32>>,
}

/// The pairs of `entities` entities with head ≤ tail, row by row.
fn upper_triangle(entities: u32) -> Vec<Pair> {
    (0..entities).flat_map(|head| (head..entities).map(move |tail| (head, tail))).collect()
}

/// Place of a pair among those of [`upper_triangle`], in either direction.
fn triangle_place(entities: usize, a: usize, b: usize) -> usize {
    let (head, tail) = (a.min(b), a.max(b));
    head * entities - head * head.saturating_sub(1) / 2 + tail - head
}

impl KdDocreLayout {
    fn check_size(&self, document: &TokenizedDocument) -> Result<()> {
        let (entities, side) = (document.entities.len(), self.settings.grid_size);
        if side == 0 || entities <= side {
            return Ok(());
        }
        let problem = format!("{entities} entities, but `kd-docre.grid_size` is {side}");
        let hint = "set it to 0 for a grid as large as each document needs";
        Err(DataError::new("shards", problem).title(&document.title).hint(hint).into())
    }

    /// 0 for a share of the unlabelled pairs, the same at every visit.
    fn kept(&self, document: &TokenizedDocument, train: bool) -> Vec<f32> {
        let entities = document.entities.len() as u32;
        let labelled: AHashSet<Pair> =
            document.facts.iter().map(|fact| (fact.head, fact.tail)).collect();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(document.title.as_bytes());
        let mut stream = Stream::from_seed(*hasher.finalize().as_bytes());
        let pairs = (0..entities).flat_map(|head| (0..entities).map(move |tail| (head, tail)));
        pairs
            .map(|pair| {
                let drawn = stream.random_bool(self.settings.drop_unlabelled);
                f32::from(u8::from(!(train && drawn && !labelled.contains(&pair))))
            })
            .collect()
    }
}

impl Layout for KdDocreLayout {
    /// All cells pass through the axial layers.
    fn cost(&self, document: &TokenizedDocument, _pairs: usize) -> usize {
        let mentions: usize = document.entities.iter().map(|entity| entity.mentions.len()).sum();
        let side = self.settings.grid_size.max(document.entities.len());
        document.pieces.len() + 2 * mentions + 2 + side * side
    }

    fn tables(&self, examples: &[Example]) -> Result<Tables> {
        examples.iter().try_for_each(|example| self.check_size(&example.document))?;
        let halves: Vec<Example> = examples
            .iter()
            .map(|example| {
                let pairs = upper_triangle(example.document.entities.len() as u32);
                Example { pairs, ..example.clone() }
            })
            .collect();
        let entities: Vec<usize> =
            examples.iter().map(|example| example.document.entities.len()).collect();
        let mut laid = KdDocreTables {
            reading: self.reading.read(&halves)?,
            ends: [Vec::new(), Vec::new()],
            contexts: Vec::new(),
            grids: PairGrids::new(&entities, self.settings.grid_size),
            asked: Vec::new(),
            diagonal: entities.iter().sum(),
            kept: (self.settings.drop_unlabelled > 0.0).then(Vec::new),
        };
        let (mut entity, mut context) = (0, 0);
        for (example, &count) in examples.iter().zip(&entities) {
            let first = laid.contexts.len();
            for (head, tail) in (0..count).flat_map(|head| (0..count).map(move |t| (head, t))) {
                laid.ends[0].push((entity + head) as i64);
                laid.ends[1].push((entity + tail) as i64);
                laid.contexts.push((context + triangle_place(count, head, tail)) as i64);
            }
            let place = |pair: &Pair| (first + pair.0 as usize * count + pair.1 as usize) as i64;
            laid.asked.extend(example.pairs.iter().map(place));
            if let Some(kept) = &mut laid.kept {
                kept.extend(self.kept(&example.document, example.train));
            }
            entity += count;
            context += count * (count + 1) / 2;
        }
        Ok(Box::new(laid))
    }

    fn counts(&self, laid: &Tables, _targets: &[f32]) -> Option<Vec<f64>> {
        let laid: &KdDocreTables = tables(laid).ok()?;
        let diagonal = if self.settings.count_diagonal { laid.diagonal } else { 0 };
        let pairs = (laid.asked.len() + diagonal) as f64;
        Some(match self.settings.stage {
            KdDocreStage::Distil => vec![pairs, pairs * self.classes.count() as f64],
            KdDocreStage::Teacher | KdDocreStage::Continue => vec![pairs],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_of_a_pair_share_a_context() {
        for entities in 0..6usize {
            let pairs = upper_triangle(entities as u32);
            for (place, &(head, tail)) in pairs.iter().enumerate() {
                let (head, tail) = (head as usize, tail as usize);
                assert_eq!(triangle_place(entities, head, tail), place);
                assert_eq!(triangle_place(entities, tail, head), place);
            }
        }
    }
}
