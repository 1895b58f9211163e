//! What every room needs and no room owns: files that appear whole, text that may be compressed,
//! workers that keep the order of their input, and lines for the person at the terminal.
//!
//! Not for: anything that knows a document, a tensor or a rank.

pub mod console;
pub mod files;
pub mod host;
pub mod json_stream;
pub mod ordered;
pub mod panics;
pub mod records;
pub mod run_files;
pub mod text_file;

pub use console::{Progress, say};
pub use files::{write_atomic, write_whole};
pub use host::host_name;
pub use panics::catch_panic;
