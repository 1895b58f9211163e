//! Scores: from predictions and gold facts to numbers with a definition, and their break-downs.
//!
//! Everything here works on documents, indices and scores in memory; nothing knows tensors, ranks or models. Scores are fractions in
//! [0, 1]; only what is printed for people is in per cent. Not for: drawing (`report`), reading corpora (`corpus`).

mod block;
mod breakdown;
mod curve;
mod docred;
mod factset;
mod files;
mod gold;
mod infer;
mod list;
mod predictions;
mod ranker;
mod scores;
mod statistics;
#[cfg(test)]
mod testing;
mod threshold;

pub use block::Block;
pub use breakdown::{Breakdown, BreakdownOptions, EvidenceRecall, NamedBlock, breakdown};
pub use curve::{CurvePoint, precision_recall};
pub use docred::{Counts, FactSets, IgnScores, OfficialScores, Scorer, per_document, score};
pub use factset::FactSet;
pub use files::write_atomic;
pub use gold::{FactKey, Gold};
pub use infer::{InferScores, infer_scores};
pub use predictions::{Prediction, read_predictions, write_predictions, write_zip};
pub use ranker::{Keep, RankedDocument, RankedFact, RecallAt, Share, recall_at};
pub use scores::{EvaluateOptions, Scores, evaluate};
pub use statistics::{Bootstrap, DocumentCounts, MeanSd, mean_sd, paired_bootstrap};
pub use threshold::{AtTheta, BestPrefix, ScoredFact, at_theta, best_prefix};
