//! What any step of a run reads: the order is arithmetic, so past and future steps can be printed alike.

use std::fmt::Write;
use std::path::Path;

use super::data::Role;
use super::pretrain::sampler;
use crate::recipe::Recipe;
use crate::sampling::BatchOrder;
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::dsdocre::Switches;
use crate::{Error, Result};

/// Titles (and, in pre-training, what is asked about them) of the global batch of `step`, from 1.
///
/// # Errors
/// A run folder without the stage's shards; an unknown stage.
pub fn describe_batch(recipe: &Recipe, run: &Path, stage: &str, step: u64) -> Result<String> {
    let open = |role: Role, scored: bool| {
        let kind = if scored { "scored" } else { "shards" };
        DocumentStore::open(&run.join("data").join(kind).join(role.name()), StoreOptions::default())
    };
    match stage {
        "pretrain" => pretrain(recipe, &open(Role::Distant, true)?, step),
        "rank" => epochwise(&open(Role::Human, false)?, recipe.seed, recipe.rank.batch, step),
        "finetune" => epochwise(&open(Role::Human, false)?, recipe.seed, recipe.finetune.batch, step),
        other => Err(Error::recipe(format!("there is no stage `{other}`")).with_hint("one of rank, pretrain, finetune")),
    }
}

fn epochwise(store: &DocumentStore, seed: u64, batch: usize, step: u64) -> Result<String> {
    let rows: Vec<usize> = (0..store.len()).filter(|&row| !store.get(row).facts.is_empty()).collect();
    let order = BatchOrder::new(rows.len(), seed, batch, false)?;
    let mut text = format!("step {step}, epoch {}", order.epoch(step - 1) + 1);
    for item in order.items(step - 1) {
        let row = rows[item.row];
        write!(text, "\n{:>4}  row {row:>8}  {}", item.item, store.title(row)).map_err(|error| Error::Bug(error.to_string()))?;
    }
    Ok(text)
}

fn pretrain(recipe: &Recipe, store: &DocumentStore, step: u64) -> Result<String> {
    let facts = store.fact_index()?;
    let switches: &Switches = &recipe.switches;
    let sampler = sampler(store, &facts, switches)?;
    let mut text = format!("step {step}");
    for index in 0..recipe.pretrain.batch as u64 {
        let item = sampler.sample(recipe.seed, step - 1, index);
        let kind = if item.same_fact { "same fact" } else { "random" };
        let [first, second] = item.rows.map(|row| store.title(row));
        let rows = (
            item.detection[0].len() + item.detection[1].len(),
            item.mention[0].len() + item.mention[1].len(),
            item.alignment.iter().flatten().count(),
        );
        write!(text, "\n{index:>4}  {kind:<10} {first} + {second}: {} detection, {} mention, {} alignment rows", rows.0, rows.1, rows.2)
            .map_err(|error| Error::Bug(error.to_string()))?;
    }
    Ok(text)
}
