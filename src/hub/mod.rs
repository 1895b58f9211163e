//! Repositories of the Hugging Face Hub: from a name to a folder with the files that are needed.
//!
//! The cache is that of Hugging Face's own library, with the same folders, links and locks, so that
//! files that other programs have fetched are found, and the other way round. A file is checked
//! against the hash that the Hub gives before it gets its name. Not for: what the files mean
//! (`text`, `torch::hf`).

mod cache;
mod client;
mod digest;
mod download;
mod failure;
mod fetch;
mod index;
mod name;
mod settings;
#[cfg(test)]
mod tests;

pub use fetch::{Wanted, fetch, fetched};
pub use index::WeightIndex;
pub use name::RepoName;

/// Where weights are looked for, in this order; an index names the files that hold them.
pub const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];
