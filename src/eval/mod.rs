//! Scores: from predictions and gold facts to numbers with a definition, and their break-downs.
//!
//! Everything here works on documents, indices and scores in memory; nothing knows tensors, ranks
//! or models. Scores are fractions in [0, 1]; only what is printed for people is in per cent. Not
//! for: drawing (`report`), reading corpora (`corpus`).

mod audit;
mod block;
mod breakdown;
mod columns;
mod compare;
mod confusion;
mod curve;
mod docred;
mod factset;
mod gold;
mod infer;
mod pairs;
mod prediction;
mod prediction_table;
mod predictions;
#[cfg(test)]
mod property_tests;
mod ranker;
mod ranking;
mod reliability;
mod score_file;
mod scores;
mod sections;
mod seeds;
mod sorter;
mod statistics;
mod systems;
#[cfg(test)]
mod testing;
mod threshold;

pub use audit::{Audit, AuditedDenoiser, DistantLabels};
pub use block::ScoreBlock;
pub use breakdown::{Breakdown, BreakdownOptions, EvidenceRecall, NamedBlock, breakdown};
pub use compare::{CompareOptions, Comparison, FactRow, compare};
pub use confusion::Confused;
pub use curve::{CurvePoint, precision_recall};
pub use docred::{FactSets, IgnScores, OfficialScores, Scorer, score};
pub use factset::FactSet;
pub use gold::{FactKey, FactKeySet, Gold};
pub use pairs::{
    ListedPairs, PairFact, PairScores, Reach, on_listed_pairs, score_listed, score_pairs,
};
pub use prediction::Prediction;
pub use predictions::{
    PredictionWriter, SubmissionZip, read_predictions, write_predictions, write_zip,
};
pub use ranker::{KEPT_IN_REPORTS, RankedDocument, RankedFact, RecallAt, recall_at};
pub use ranking::{ThresholdScores, decide_scores, rank_scores};
pub use reliability::{Reliability, reliability};
pub use score_file::{ScoreRow, ScoreWriter, read_scores};
pub use scores::{EvaluateOptions, Scores, evaluate};
pub use sections::{ScoreSection, SectionRow, to_csv};
pub use seeds::{OverSeeds, over_seeds};
pub use statistics::{MeanSd, mean_sd};
pub use systems::{SideBySide, SystemFile, SystemScores, check_names, distinct_names, row_of};
pub use threshold::{AtTheta, BestPrefix, ScoredFact, at_theta, best_prefix};
// The report's tests make scores by hand.
#[cfg(test)]
pub use {
    audit::{AuditedRelation, KeptPoint},
    infer::InferScores,
    seeds::SeedRow,
};
