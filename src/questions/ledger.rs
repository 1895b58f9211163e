//! The label ledger of a run that is there, or of a folder of shards.
//!
//! Not for: what a row of it says (`pipeline::ledger`).

use std::path::{Path, PathBuf};

use super::why::truth_of;
use crate::base::run_files;
use crate::distant::{DistantSettings, LabelRule};
use crate::pipeline::{Ledger, LedgerSource, Role, rules_of, write_ledger};
use crate::recipe::Recipe;
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::Variant;
use crate::systems::dsdocre::DsdocreSettings;
use crate::{Error, Result};

/// Writes the ledger of `path`, a run folder or a folder of shards, to `output` (for a run:
/// `labels.parquet` in it), and says where. `keep` takes the place of `dsdocre.k_pretrain`, `rule`
/// that of `distant.rule`.
///
/// # Errors
/// A folder that is neither; shards of a run that are not there yet; the disk.
pub fn ledger(
    path: &Path,
    output: Option<&Path>,
    keep: Option<usize>,
    rule: Option<LabelRule>,
) -> Result<(PathBuf, Ledger)> {
    let recipe = path.join(run_files::RECIPE);
    let is_run = recipe.exists();
    let (mut settings, mut distant) = if is_run {
        let recipe = Recipe::load(&recipe, &[])?;
        (recipe.settings_of::<DsdocreSettings>()?.clone(), recipe.distant)
    } else {
        (DsdocreSettings::default(), DistantSettings::default())
    };
    settings.k_pretrain = keep.unwrap_or(settings.k_pretrain);
    distant.rule = rule.unwrap_or(distant.rule);
    let shards = if is_run { shards_of_run(path) } else { path.to_owned() };
    let store = DocumentStore::open(&shards, StoreOptions::default())?;
    let rules = rules_of(&store, &distant)?;
    if store.manifest().taught.is_some() && store.manifest().scored.is_none() {
        settings = settings.without_ranker();
    }
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
        &LedgerSource {
            store: &store,
            settings: &settings,
            rules: rules.as_ref(),
            truth: truth.as_ref(),
        },
        &output,
    )?;
    Ok((output, ledger))
}

/// The distant shards of a run that a ranker has scored, or else those that a teacher has judged.
fn shards_of_run(run: &Path) -> PathBuf {
    let scored = run.join(run_files::SCORED).join(Role::Distant.name());
    let taught = Variant::ALL.into_iter().filter_map(Variant::teacher);
    let mut taught = taught.map(|teacher| run.join(run_files::TAUGHT).join(teacher.name()));
    let found = taught.find(|folder| !scored.exists() && folder.exists());
    found.unwrap_or(scored)
}
