//! The tables of a pre-training batch in one arena, which reaches a device by one copy.
//!
//! Not for what the rows mean (`rows`).

use super::rows::{AlignmentRows, MatchRows, PairRows};
use crate::systems::{DocumentTables, PackedDocuments};
use crate::torch::kernels::pairs::{TailPlan, TailTables};
use crate::torch::{Arena, Table};

/// The arena of a batch, and where it holds what.
#[derive(Debug, Default)]
pub struct PretrainTables {
    /// All numbers.
    pub arena: Arena,
    /// The documents.
    pub documents: DocumentTables,
    /// Queries and candidates of MenMat.
    pub mention: [[Table; 2]; 2],
    /// Queries and candidates of XMenMat.
    pub cross_mention: [[Table; 2]; 2],
    /// Heads and tails of all pairs of RelDet and XRelDet.
    pub detection: [Table; 2],
    /// How the relation vectors of all pairs of the alignment tasks are computed.
    pub alignment: TailPlan,
    /// Its tables.
    pub alignment_tables: TailTables,
    /// The answers of each slot.
    pub answers: Vec<Table>,
}

impl PretrainTables {
    /// Lays out documents, rows and the answers of all slots.
    pub fn new<'a>(
        documents: &PackedDocuments,
        matching: [&[MatchRows; 2]; 2],
        detection: &[&PairRows],
        alignment: &[&AlignmentRows],
        answers: impl Iterator<Item = &'a [i64]>,
    ) -> Self {
        let mut arena = Arena::default();
        let [mention, cross_mention] = matching.map(|sides| {
            sides.each_ref().map(|rows| [&rows.queries, &rows.candidates].map(|t| arena.add(t)))
        });
        let (heads, tails) = joined(detection);
        let alignment = alignment.iter().flat_map(|rows| [&rows.queries, &rows.candidates]);
        let (alignment_heads, alignment_tails) = joined(&alignment.collect::<Vec<_>>());
        let plan = TailPlan::new(&alignment_heads, &alignment_tails);
        Self {
            documents: documents.lay(&mut arena),
            mention,
            cross_mention,
            detection: [arena.add(&heads), arena.add(&tails)],
            alignment_tables: plan.lay(&mut arena),
            alignment: plan,
            answers: answers.map(|answers| arena.add(answers)).collect(),
            arena,
        }
    }
}

/// Heads and tails of several lists of pairs as one.
fn joined(rows: &[&PairRows]) -> (Vec<i64>, Vec<i64>) {
    let heads = rows.iter().flat_map(|rows| rows.heads.iter().copied()).collect();
    (heads, rows.iter().flat_map(|rows| rows.tails.iter().copied()).collect())
}
