//! From a table file to tasks: a recipe for every row and seed. Not for: running them (`work`).

use std::path::{Path, PathBuf};

use serde_json::json;

use super::file::{RowSpec, TableFile};
use super::needs::check_files;
use super::smoke::{CutFile, smoke_recipe};
use crate::recipe::{Recipe, settings_of_table};
use crate::systems::Variant;
use crate::{Error, Result};

/// What of a table is run.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Names of rows; empty: all.
    pub rows: Vec<String>,
    /// Seeds; empty: those of the file, in a smoke test the first of them.
    pub seeds: Vec<u64>,
    /// A few documents and steps.
    pub smoke: bool,
}

/// A row with a seed.
#[derive(Clone, Debug)]
pub struct TableTask {
    /// Its number among those that were selected, from 1.
    pub number: usize,
    /// Place of the row in the file.
    pub row: usize,
    /// What is run.
    pub variant: Variant,
    /// The seed.
    pub seed: u64,
    /// The recipe.
    pub recipe: Recipe,
    /// Its run folder.
    pub folder: PathBuf,
    /// Files that must be cut out of others before it is run.
    pub cuts: Vec<CutFile>,
}

/// All tasks of a table.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The table.
    pub file: TableFile,
    /// Where everything lies.
    pub root: PathBuf,
    /// The tasks that were selected, in the order of rows and seeds.
    pub tasks: Vec<TableTask>,
    /// The other tasks of the table, which may have been run before.
    pub others: Vec<TableTask>,
    /// What a reader should know: how many rows cannot be run yet, what a smoke test reads.
    pub remarks: Vec<String>,
}

impl Plan {
    /// Reads a table and makes the recipes of the selected rows.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a bad file or row, an unknown selection, and missing data.
    pub fn new(path: &Path, root: Option<PathBuf>, selection: &Selection) -> Result<Self> {
        let file = TableFile::load(path)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let ending = if selection.smoke { "-smoke" } else { "" };
        let root = root.unwrap_or_else(|| Path::new("runs").join(format!("{stem}{ending}")));
        for name in &selection.rows {
            check_selected(&file, name)?;
        }
        let usual = &file.seeds[..if selection.smoke { 1 } else { file.seeds.len() }];
        let seeds = if selection.seeds.is_empty() { usual } else { &selection.seeds[..] };
        let mut all_seeds = usual.to_vec();
        all_seeds.extend(seeds.iter().filter(|seed| !usual.contains(seed)));
        let waiting = file.rows.iter().filter(|row| row.status.is_some()).count();
        let remark = match waiting {
            0 => None,
            1 => Some("1 row is skipped, because it cannot be run yet".to_owned()),
            count => Some(format!("{count} rows are skipped, because they cannot be run yet")),
        };
        let (tasks, others, remarks) = (Vec::new(), Vec::new(), remark.into_iter().collect());
        let mut plan = Self { file: file.clone(), root, tasks, others, remarks };
        for (place, row) in file.rows.iter().enumerate() {
            let Some(variant) = row.runs() else { continue };
            for &seed in &all_seeds {
                let recipe = recipe_of(&file, row, variant, seed, path)?;
                let folder = plan.root.join(format!("rows/{}/seed-{seed}", row.folder()));
                let (number, cuts) = (plan.tasks.len() + 1, Vec::new());
                let task = TableTask { number, row: place, variant, seed, recipe, folder, cuts };
                let wanted = selection.rows.is_empty() || selection.rows.contains(&row.name);
                let list = match wanted && seeds.contains(&seed) {
                    true => &mut plan.tasks,
                    false => &mut plan.others,
                };
                list.push(task);
            }
        }
        if selection.smoke {
            plan.shrink()?;
        }
        Ok(plan)
    }

    /// Refuses missing data.
    ///
    /// # Errors
    /// [`Error::Recipe`] that lists what to bring.
    pub fn check_data(&self, path: &Path) -> Result<()> {
        check_files(&self.file, self.tasks.iter().map(|task| &task.recipe), path)
    }

    /// Device and threads of the first task, with which all are run.
    pub fn machine(&self) -> (String, usize) {
        let first = self.tasks.first().map(|task| &task.recipe);
        first.map_or_else(|| ("auto".into(), 0), |recipe| (recipe.device.clone(), recipe.threads))
    }

    /// The tasks for machines.
    pub fn tasks(&self) -> Vec<serde_json::Value> {
        let told = |task: &TableTask| {
            let (row, variant) = (&self.file.rows[task.row].name, task.variant.name());
            let (number, seed, folder) = (task.number, task.seed, &task.folder);
            json!({
                "task": number, "row": row, "variant": variant, "seed": seed, "folder": folder
            })
        };
        self.tasks.iter().map(told).collect()
    }

    /// All tasks, selected or not.
    pub fn all(&self) -> impl Iterator<Item = &TableTask> {
        self.tasks.iter().chain(&self.others)
    }

    /// The task of a number.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a number that no task has.
    pub fn task(&self, number: usize) -> Result<&TableTask> {
        self.tasks.iter().find(|task| task.number == number).ok_or_else(|| {
            Error::recipe(format!("--task {number}, but the tasks are 1 to {}", self.tasks.len()))
                .with_hint("--list prints them")
        })
    }

    /// The tasks as `--list` prints them.
    pub fn listed(&self) -> String {
        let line = |task: &TableTask| {
            let name = &self.file.rows[task.row].name;
            format!(
                "{:>4}  seed {:<6} {:<12} {name}\n",
                task.number,
                task.seed,
                task.variant.name()
            )
        };
        self.tasks.iter().map(line).collect()
    }

    /// The rows that cannot be run yet, with the reason, one a line.
    pub fn waiting(&self) -> Vec<String> {
        let rows = self.file.rows.iter().filter_map(|row| Some((row, row.status.as_ref()?)));
        rows.map(|(row, status)| format!("row `{}` is skipped: {status}", row.name)).collect()
    }

    /// Replaces every recipe by a small one.
    fn shrink(&mut self) -> Result<()> {
        let mut sources = Vec::new();
        for task in self.tasks.iter_mut().chain(&mut self.others) {
            let small = smoke_recipe(&task.recipe, &self.file.generated, &self.root)?;
            if !sources.contains(&small.source) {
                sources.push(small.source);
            }
            task.recipe = small.recipe;
            task.cuts = small.cuts;
        }
        let told = sources
            .into_iter()
            .map(|source| format!("smoke test on {source}: its numbers mean nothing"));
        self.remarks.extend(told);
        Ok(())
    }
}

/// Refuses a name that no row has, and a row that is not run.
fn check_selected(file: &TableFile, name: &str) -> Result<()> {
    let Some(row) = file.rows.iter().find(|row| row.name == name) else {
        let names: Vec<&str> = file.rows.iter().map(|row| row.name.as_str()).collect();
        return Err(Error::recipe(format!("--rows {name}: there is no such row"))
            .with_hint(format!("the rows are {}", names.join(", "))));
    };
    match (&row.status, row.variant) {
        (Some(status), _) => Err(Error::recipe(format!("--rows {name}: {status}"))),
        (None, None) => Err(Error::recipe(format!("--rows {name}: the row is only printed"))),
        _ => Ok(()),
    }
}

/// The recipe of a row: the base, what the table sets, what the row sets, variant and seed.
///
/// # Errors
/// [`Error::Recipe`] that names table and row.
pub fn recipe_of(
    file: &TableFile,
    row: &RowSpec,
    variant: Variant,
    seed: u64,
    path: &Path,
) -> Result<Recipe> {
    let base = row.base.as_ref().unwrap_or(&file.base);
    let base = path.parent().unwrap_or(Path::new("")).join(base);
    let mut settings = settings_of_table(&file.set);
    settings.extend(settings_of_table(&row.set));
    settings.push(format!("variants=[\"{}\"]", variant.name()));
    settings.push(format!("seed={seed}"));
    let place = format!("{}: row `{}`", path.display(), row.name);
    let recipe = Recipe::load(&base, &settings).map_err(|error| error.in_place(&place))?;
    if recipe.checkpoint_mirror.is_some() {
        return Err(Error::recipe(format!("{place}: checkpoint_mirror is set"))
            .with_hint("leave it out: the rows would write to one place"));
    }
    Ok(recipe)
}
