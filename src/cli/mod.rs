//! The command line.
use std::process::ExitCode;
/// Entry point.
pub fn main() -> ExitCode { ExitCode::SUCCESS }
