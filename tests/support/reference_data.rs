//! Where the reference data lies: documents, weights and outputs of other programs.
//!
//! Tests that need it are ignored, with that reason, where it is missing when they are built
//! (`declare_conditions` in build.rs).

use std::path::PathBuf;

/// The folder that `DOCRE_SHARED` names.
pub fn reference_data() -> PathBuf {
    PathBuf::from(std::env::var_os("DOCRE_SHARED").expect("DOCRE_SHARED names the reference data"))
}
