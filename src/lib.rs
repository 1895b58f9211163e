//! Pre-training for document-level relation extraction: documents in, a denoised pre-trained encoder and a fine-tuned extractor out.
//!
//! The rooms follow the way of the data: [`corpus`] → [`shards`] → [`text`] → [`sampling`] → [`systems`] → [`train`] → [`eval`] →
//! [`report`]; [`stages`] chains them, [`cli`] starts them. `docs/design.md` tells the whole story.

#[cfg(test)]
mod bad_disk;
pub mod cli;
pub mod corpus;
pub mod dist;
mod error;
pub mod eval;
#[cfg(test)]
#[cfg(feature = "cloud")]
mod fake_bucket;
pub mod recipe;
pub mod report;
pub mod sampling;
pub mod shards;
pub mod stages;
pub mod systems;
pub mod text;
pub mod torch;
pub mod train;

pub use error::{DataError, Error, Result};
