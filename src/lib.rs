//! Pre-training for document-level relation extraction: documents in, a denoised pre-trained
//! encoder and a fine-tuned extractor out.
//!
//! The rooms stand below in the order in which they may use each other: a room uses only rooms
//! above it. `tests/house.rs` reads the imports and keeps it so. `docs/design.md` tells the whole
//! story.

mod error;

pub mod base;

pub mod corpus;

pub mod text;

pub mod shards;

pub mod sampling;

pub mod torch;

pub mod encoders;

pub mod ranks;

pub mod eval;

pub mod train;

pub mod parity;

pub mod systems;

pub mod recipe;

pub mod report;

pub mod pipeline;

pub mod questions;

pub mod bench;

pub mod cli;

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

pub use error::{DataError, Error, Result, exit_code};
