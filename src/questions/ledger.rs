//! The label ledger of a run that is there, or of a folder of shards.
//!
//! Not for: what a row of it says (`pipeline::ledger`).

use std::path::{Path, PathBuf};

use super::why::truth_of;
use crate::base::run_files;
use crate::pipeline::{Ledger, LedgerSource, Role, write_ledger};
use crate::recipe::Recipe;
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::dsdocre::DsdocreSettings;
use crate::{Error, Result};

/// Writes the ledger of `path`, a run folder or a folder of shards, to `output` (for a run:
/// `labels.parquet` in it), and says where. `keep` takes the place of `dsdocre.k_pretrain`.
///
/// # Errors
/// A folder that is neither; shards of a run that are not there yet; the disk.
pub fn ledger(
    path: &Path,
    output: Option<&Path>,
    keep: Option<usize>,
) -> Result<(PathBuf, Ledger)> {
    let is_run = path.join(run_files::RECIPE).exists();
    let mut settings = if is_run {
        Recipe::load(&path.join(run_files::RECIPE), &[])?.settings_of::<DsdocreSettings>()?.clone()
    } else {
        DsdocreSettings::default()
    };
    settings.k_pretrain = keep.unwrap_or(settings.k_pretrain);
    let scored = path.join(run_files::SCORED).join(Role::Distant.name());
    let store = DocumentStore::open(if is_run { &scored } else { path }, StoreOptions::default())?;
    let truth = truth_of(path)?;
    let output = match output {
        Some(output) => output.to_owned(),
        None if is_run => path.join(run_files::LABELS),
        None => {
            return Err(Error::recipe("a ledger of shards needs --output")
                .with_hint("only a run folder has a place for it"));
        }
    };
    let ledger = write_ledger(
        &LedgerSource { store: &store, settings: &settings, truth: truth.as_ref() },
        &output,
    )?;
    Ok((output, ledger))
}
