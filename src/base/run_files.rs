//! Names of the files and folders in a run folder, relative to it.
//!
//! Not for what is in them: the room that writes a file knows its format. The other files
//! of a checkpoint belong to `train::checkpoint`.

/// The resolved recipe.
pub const RECIPE: &str = "recipe.toml";

/// Who and what made the run.
pub const IDENTITY: &str = "run.json";

/// Held by the process that writes to the folder.
pub const LOCK: &str = "lock";

/// Asks the run to stop at the next step.
pub const STOP: &str = "STOP";

/// Asks the run for a checkpoint at the next step.
pub const SAVE: &str = "SAVE";

/// One JSON line a step.
pub const METRICS: &str = "metrics.jsonl";

/// Checkpoints, by stage.
pub const CHECKPOINTS: &str = "checkpoints";

/// In the folder of a checkpoint: hashes of its files, written last.
pub const CHECKPOINT_SEAL: &str = "MANIFEST.json";

/// In an export: its description for people, who may edit it.
pub const CARD: &str = "README.md";

/// In an export: the folder of the ranker that it needs, which is an export of its own.
pub const RANKER: &str = "ranker";

/// In an export: the folder of the documents that it is checked with, and of what it made of them.
pub const SELF_TEST: &str = "self-test";

/// What the stages read.
pub const DATA: &str = "data";

/// Shards as `prepare` wrote them, by role.
pub const SHARDS: &str = "data/shards";

/// Shards with the scores of the ranker, by role.
pub const SCORED: &str = "data/scored";

/// Distant shards with what a teacher says, by the variant that teaches.
pub const TAUGHT: &str = "data/taught";

/// Predictions, by variant and role.
pub const PREDICTIONS: &str = "predictions";

/// All scores of a run.
pub const SCORES: &str = "scores.json";

/// The report as a web page.
pub const REPORT: &str = "report.html";

/// One row for every distant label.
pub const LABELS: &str = "labels.parquet";

/// Everything about failures, and the output of batch jobs.
pub const LOG: &str = "log";

/// Recorders, one a rank.
pub const RECORDERS: &str = "log/recorder";

/// The verdict on the last failure.
pub const VERDICT: &str = "log/verdict.txt";

/// Steps whose loss or gradient was not finite.
pub const NON_FINITE: &str = "log/non-finite.jsonl";
