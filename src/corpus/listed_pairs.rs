//! Pairs that a corpus lists with a label each, as CDR, GDA and BioRED do in edge-oriented-graph's
//! table. "No relation" and "filtered out" are different labels.
//!
//! Not for: candidates, which say no more than which pairs are asked about (`document`).

/// The label of a listed pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PairLabel {
    /// A relation holds, such as `CID`.
    Relation(String),
    /// No relation holds (`NR`).
    NoRelation,
    /// The pair was filtered out: neither trained on nor scored (`not_include`).
    NotIncluded,
}

/// A listed pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledPair {
    /// Index of the head entity.
    pub head: usize,
    /// Index of the tail entity.
    pub tail: usize,
    /// The label.
    pub label: PairLabel,
    /// Whether no two mentions of the arguments share a sentence (`CROSS`).
    pub crosses_sentences: bool,
}
