//! Distant labels beside what a model says of the same pairs: which labels are replaced.
//!
//! Pure functions over numbers. Not for: making distant labels (`corpus::label`), nor for how a
//! model comes to its numbers (`systems`).

mod calibration;
mod cross_fit;
mod rules;
mod settings;
mod thresholds;
mod uncertainty;

pub use calibration::{Calibration, Observation, ObservationBins};
pub use cross_fit::{ByRelation, CalibrationFit, CrossFit, FOLDS};
pub use rules::{LabelAction, LabelDecision, LabelRule, LabelRules, PairDecisions};
pub use settings::{DistantSettings, KEYS_OF_STUDENTS};
pub use thresholds::{JudgedLabel, RuleThresholds};
pub use uncertainty::{
    ClassThresholds, PassStatistics, PseudoLabel, ThresholdSums, UncertaintyIndex, pseudo_labels,
    relabelled,
};
