//! The stages of the pipeline, each a function from files to files, and `run`, which chains them from a recipe.
//!
//! Not for: parsing the command line (`cli`) or computing losses (`systems`).

mod batches;
mod bench;
mod blame;
mod check;
mod convert;
mod cost;
mod data;
mod dev;
mod evaluate;
mod evidence;
mod explain;
mod export;
mod finetune;
mod input;
mod ledger;
mod model;
mod parting;
mod plan;
mod predict;
mod pretrain;
mod probe;
mod rank;
mod run;
mod score;
mod session;
mod summary;
mod systems;
mod training;
mod verify;
mod why;

pub use batches::{StepContents, StepItem, describe_batches};
pub use bench::{BenchOptions, SystemRow, SystemTable, SystemsBench, bench, compare_systems, enter, not_learnt};
pub use blame::{Blame, Repeated, Spike, blame};
pub use check::survey_files;
pub use convert::{ConvertReport, Form, convert};
pub use data::{PrepareJob, Role, RunData, prepare_data, relations_in};
pub use evaluate::{EvaluateTask, Evaluation, GoldFormat, evaluate, gold_of};
pub use evidence::{
    EvidenceThreshold, ScoredSentence, add_evidence, best_threshold, evidence, f1_at, fill as fill_evidence, rank_sentences, sentences_of,
};
pub use explain::{KeyDescription, explain};
pub use export::export;
pub use finetune::{FinetuneOutcome, FinetuneTask, finetune};
pub use input::Input;
pub use ledger::{Ledger, LedgerSource, ledger, write_ledger};
pub use model::{Description, EncoderStart, LoadedModel};
pub use parting::{Parting, StageParting, parting};
pub use plan::{PlanOptions, RunEstimate, StageEstimate, Took, plan};
pub use predict::{PREDICT_TOKENS, PredictOptions, PredictReport, Predictor, predict_file};
pub use pretrain::{PretrainTask, pretrain};
pub use probe::probe;
pub use rank::{RankTask, rank};
pub use run::run;
pub use score::{Keep, ScoreReport, ScoreTask, score};
pub use session::Session;
pub use systems::{SettingDescription, SystemDescription, describe_system, list_systems};
pub use verify::{VerifyOutcome, verify_all, verify_case};
pub use why::{Explanation, WhyQuery, why};
