//! The stages of the pipeline, each a function from files to files, and `run`, which chains them
//! from a recipe.
//!
//! Not for: parsing the command line (`cli`), computing losses (`systems`), or looking into a run
//! that is there (`questions`).

mod audit;
mod boundary;
mod calibrate;
mod check;
mod convert;
mod data;
mod evaluate;
mod evidence;
mod export;
mod finetune;
mod fusion;
mod ledger;
mod model;
mod predict;
mod predictor;
mod pretrain;
mod rank;
mod remarks;
mod review;
mod run;
mod score;
mod session;
mod sources;
mod summary;
mod training;

pub use audit::{AuditTask, audit};
pub use check::{WHOLE_FILE, survey_files};
pub use convert::{DocumentForm, convert};
pub use data::{InputFile, PrepareJob, Role, RunData, named_tokenizer, prepare_data, relations_in};
pub use evaluate::{EvaluateTask, Evaluation, document_of, evaluate, gold_of, known_facts};
pub use evidence::facts_of;
pub use export::export;
pub use finetune::{FinetuneTask, finetune, finetune_in_stages};
pub use ledger::{Ledger, LedgerSource, write_ledger};
pub use model::{Description, Loaded, LoadedEvidence, LoadedExtractor, LoadedModel, NewModel};
pub use predict::{PredictOptions, predict_file};
pub use predictor::{Decider, PREDICT_TOKENS, Predictor, predictions};
pub use pretrain::{Pretraining, pretrain, pretrain_steps, sampler};
pub use rank::rank;
pub use run::{Milestone, run, run_until, same_recipe, stages_of};
pub use score::{LoadedRanker, ScoreTask, score};
pub use session::Session;
pub use sources::check_files;
pub use training::{ActiveRun, claim, total_steps, without_work};
