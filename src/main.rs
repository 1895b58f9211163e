//! `docre-pretrain`: parse, run, turn an error into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    docre::cli::main()
}
