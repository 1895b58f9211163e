//! Distant labels beside what a model says of the same pairs: which labels are replaced.
//!
//! Pure functions over numbers. Not for: making distant labels (`corpus::label`), nor for how a
//! model comes to its numbers (`systems`).

mod uncertainty;

pub use uncertainty::{
    ClassThresholds, PassStatistics, PseudoLabel, ThresholdSums, UncertaintyIndex, pseudo_labels,
    relabelled,
};
