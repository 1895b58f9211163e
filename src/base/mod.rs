//! What every room needs and no room owns: atomic files, hashes, compressed text, files of many
//! records parsed on all cores, expected panics, the host name, memory in use, and lines on
//! standard error.
//!
//! Not for: anything that knows a document, a tensor or a rank.

mod blocks;
pub mod console;
mod file_lock;
pub mod files;
pub mod foreign;
mod hash;
pub mod host;
pub mod json;
pub mod json_stream;
mod memory;
pub mod ordered;
pub mod panics;
pub mod records;
pub mod run_files;
pub mod text_file;

pub use console::{Progress, brief, say};
pub use file_lock::FileLock;
pub use files::{entries, folder_of, write_atomic, write_whole};
pub use hash::{fingerprint, hash_number};
pub use host::{give_back_memory, host_name};
pub use json::{read_json, to_json, to_pretty_json};
pub use memory::MemoryUse;
pub use panics::{catch_panic, caught, lock, raise};
