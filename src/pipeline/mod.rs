//! The stages of the pipeline, each a function from files to files, and `run`, which chains them
//! from a recipe.
//!
//! Not for: parsing the command line (`cli`), computing losses (`systems`), or looking into a run
//! that is there (`questions`).

mod annotate;
mod asked_types;
mod audit;
mod boundary;
mod calibrate;
mod convert;
mod data;
mod evaluate;
mod evidence;
mod export;
mod finetune;
mod fusion;
mod human_share;
mod ledger;
mod model;
mod needed;
mod predict;
mod predictor;
mod prepare_job;
mod pretrain;
mod rank;
mod relation_names;
mod remarks;
mod review;
mod rules;
mod run;
mod score;
mod self_test;
mod session;
mod sources;
mod summary;
mod survey;
mod teach;
mod training;
mod training_shards;

pub use annotate::{AnnotateReport, AnnotatedForm, annotate};
pub use audit::{AuditTask, audit};
pub use convert::{DocumentForm, convert};
pub use data::{Role, RunData, named_tokenizer, prepare_data, training_shards};
pub use evaluate::{EvaluateTask, Evaluation, document_of, evaluate, gold_of};
pub use evidence::facts_of;
pub use export::{ExportTask, export};
pub use finetune::{FinetuneTask, finetune, finetune_in_stages};
pub use ledger::{Ledger, LedgerSource, write_ledger};
pub use model::{Description, Loaded, LoadedEvidence, LoadedExtractor, LoadedModel, NewModel};
pub use needed::check_roles;
pub use predict::{PredictFiles, PredictOptions, answer_lines, predict_files};
pub use predictor::{Decider, PREDICT_TOKENS, Predictor, predictions};
pub use prepare_job::{InputFile, PrepareJob, relations_in};
pub use pretrain::{Pretraining, pretrain, pretrain_steps, sampler};
pub use rank::rank;
pub use rules::{RuledDocuments, rules_of};
pub use run::{
    Milestone, run, run_until, same_recipe, stage_of, stages_of, student_stage_of, teachers_of,
};
pub use score::{LoadedRanker, ScoreTask, score};
pub use self_test::check_model;
pub use session::Session;
pub use sources::check_files;
pub use survey::{WHOLE_FILE, survey_files};
pub use teach::{TeachTask, teach};
pub use training::{ActiveRun, claim, total_steps, without_work};
pub use training_shards::{OpenShards, TrainingShards};
