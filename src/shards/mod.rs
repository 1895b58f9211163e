//! Tokenised documents on disk: Parquet shards, their manifest, the fact index, and the store that
//! holds all rows in memory, or the blocks of them that fit.
//!
//! A shard folder is `train-00000-of-000NN.parquet`, `manifest.json`, `facts.parquet` and
//! `tokenizer/`; it is written under another name and renamed when complete, and every file is
//! named by hash in the manifest. Files are treated as hostile: everything that is read is checked
//! before it is used as an index. Not for: reading corpora (`corpus`) or deciding what is trained
//! on (`sampling`).

mod arrays;
#[cfg(test)]
mod bad_disk_tests;
mod blocks;
mod cache;
mod columns;
mod documents;
mod facts;
mod files;
mod groups;
mod manifest;
mod prepare;
mod reader;
mod remote;
mod rewrite;
pub mod schema;
mod scored;
mod store;
mod taught;
#[cfg(test)]
pub(crate) mod testing;
mod validate;
mod writer;

pub use documents::DocumentTable;
pub use facts::{FactCounts, FactInstance};
pub use manifest::{FORMAT_VERSION, FileEntry, Scored, ShardManifest, Taught, TokenizerEntry};
pub use prepare::{PieceCount, PrepareOptions, PrepareReport, prepare};
pub use reader::StoreOptions;
pub use scored::{RankedPairs, ScoredShards};
pub use store::DocumentStore;
pub use taught::{TaughtDocument, TaughtGroup, TaughtShards};
pub use writer::WriteOptions;
pub(crate) use {reader::catch, writer::WholeTable};
