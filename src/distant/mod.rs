//! Distant labels beside what a model says of the same pairs: which labels are replaced.
//!
//! Pure functions over numbers. Not for: making distant labels (`corpus::label`), nor for how a
//! model comes to its numbers (`systems`).

mod calibration;
mod rules;
mod uncertainty;

pub use calibration::{Calibration, Observation, ObservationBins};
pub use rules::{JudgedLabel, LabelAction, LabelDecision, LabelRules, RuleMode, RuleThresholds};
pub use uncertainty::{
    ClassThresholds, PassStatistics, PseudoLabel, ThresholdSums, UncertaintyIndex, pseudo_labels,
    relabelled,
};
