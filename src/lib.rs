//! Pre-training for document-level relation extraction: documents in, a denoised pre-trained
//! encoder and a fine-tuned extractor out.
//!
//! The rooms stand below in the order in which they may use each other: a room uses only rooms
//! above it. `tests/house.rs` reads the imports and keeps it so. `docs/design.md` tells the whole
//! story. The rooms are private, so that rustc reports what nothing uses. What stands at the end is
//! all that the program, an extension, a test or a benchmark can name.

mod error;

mod base;

mod hub;

mod objects;

mod corpus;

mod text;

mod distant;

mod shards;

mod sampling;

mod torch;

mod encoders;

mod ranks;

mod eval;

mod graph;

mod train;

mod parity;

mod systems;

mod recipe;

mod report;

mod pipeline;

mod questions;

mod tables;

mod bench;

mod cli;

#[cfg(test)]
#[path = "../tests/support/bad_disk.rs"]
mod bad_disk;
#[cfg(test)]
#[path = "../tests/support/reference_data.rs"]
mod reference_data;
#[cfg(test)]
use reference_data::reference_data;
#[cfg(test)]
#[cfg(feature = "cloud")]
#[path = "../tests/support/fake_bucket.rs"]
mod fake_bucket;
#[cfg(test)]
#[path = "../tests/support/fake_hub.rs"]
mod fake_hub;

pub use error::{DataError, Error, Result, exit_code};

// The program.
pub use cli::main;

// For a system that is added from outside: `tests/toy_system.rs` is the example.
pub use encoders::{Encoder, Pass};
pub use systems::{
    Classes, DocumentViews, Example, Extractor, Foundation, Layout, NaClass, PackedDocuments,
    Profile, RelationBatch, System, SystemInfo, SystemSettings, Tables,
    register as register_system, tables,
};
pub use text::{Markers, TokenizedDocument, View, ViewChoices, ViewOptions};
pub use torch::{Init, Parameters, on};
pub use train::{Forward, Schedule};

// For a format that is added from outside: `tests/toy_format.rs` is the example.
pub use base::files::AtomicFile;
pub use corpus::check::OtherRows;
pub use corpus::formats::{
    DocumentFormat, DocumentWriter, Intake, LeftOut, OnError, ReadOptions, ReadSummary,
};
pub use corpus::formats::{LoneDocument, PlainText, WriteSummary, load_relations, read_one};
pub use corpus::{Document, Entity, Fact, Format, Mention, Provenance};

// What can be done with a recipe, step by step.
pub use pipeline::{
    ActiveRun, AnnotateReport, AnnotatedForm, DocumentForm, EvaluateTask, FinetuneTask, InputFile,
    PredictFiles, PredictOptions, PrepareJob, Role, Session, TrainingShards, annotate, convert,
    evaluate, finetune, predict_files, prepare_data, relations_in,
};
pub use questions::{describe_system, list_systems};
pub use recipe::{Recipe, recipe_schema};

// What finds mentions in text.
pub use corpus::mentions::{
    AmbiguousName, Annotator, Dictionary, Findable, FoundMentions, Language,
};

// Files that the program writes and reads.
pub use corpus::{FactBase, MeshTree, label::Matching};
pub use encoders::{EncoderSpec, WordVectors, build as build_encoder};
pub use eval::{FactSet, Prediction, ScoreRow, ScoreWriter};
pub use eval::{read_predictions, read_scores, write_predictions, write_zip};
pub use ranks::failure::Recording;
pub use sampling::OrderHash;
pub use shards::{DocumentStore, ShardManifest, StoreOptions};
pub use text::Tokenizer;
pub use torch::hf::{read_folder, write_folder};
pub use train::{Checkpoint, RunFolder};

/// What `benches/kernels.rs` measures.
#[doc(hidden)]
pub mod measured {
    pub use crate::shards::FactInstance;
    pub use crate::systems::dsdocre::{DsdocreSettings, PretrainSampler};
    pub use crate::text::{ScoredPair, TokenizedEntity, TokenizedFact, TokenizedMention};
    pub use crate::torch::Precision;
    pub use crate::torch::kernels::Segments;
    pub use crate::torch::kernels::attention::varlen_attention;
    pub use crate::torch::kernels::grouped::grouped_bilinear;
    pub use crate::torch::kernels::scores::ScoreTerms;
    pub use crate::torch::nn::{Packing, lstm_layer};
    pub use crate::torch::precision::matmul_rate;
    pub use crate::torch::rng::Generator;
}
