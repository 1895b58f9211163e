//! The stages of the pipeline, each a function from files to files, and `run`, which chains them
//! from a recipe.
//!
//! Not for: parsing the command line (`cli`), computing losses (`systems`), or looking into a run
//! that is there (`questions`).

pub mod boundary;
pub mod check;
pub mod convert;
pub mod data;
pub mod evaluate;
pub mod evidence;
pub mod export;
pub mod finetune;
pub mod ledger;
pub mod model;
pub mod predict;
pub mod predictor;
pub mod pretrain;
pub mod rank;
pub mod run;
pub mod score;
pub mod session;
pub mod summary;
pub mod training;

pub use check::survey_files;
pub use convert::{ConvertReport, DocumentForm, convert};
pub use data::{InputFile, PrepareJob, Role, RunData, prepare_data, relations_in};
pub use evaluate::{EvaluateTask, Evaluation, evaluate, gold_of};
pub use evidence::add_evidence;
pub use export::export;
pub use finetune::{FinetuneTask, finetune};
pub use model::{Description, LoadedModel};
pub use predict::{PredictOptions, PredictReport, predict_file};
pub use predictor::{PREDICT_TOKENS, Predictor};
pub use pretrain::pretrain;
pub use rank::rank;
pub use run::run;
pub use score::{ScoreReport, ScoreTask, score};
pub use session::Session;
pub use training::{ActiveRun, claim};
