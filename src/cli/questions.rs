//! Questions about a run, and about recipes: `batch`, `blame`, `why`, `ledger`, `autopsy`,
//! `explain`.
//!
//! Not for: what a checkpoint or a folder is (`inspect`), or where a live run stands (`watch`).

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::inspect::show;
use super::shared::{Clock, print_all, write_json};
use crate::questions;
use crate::questions::{KeyDescription, WhyQuery};
use crate::ranks::failure::autopsy;
use crate::recipe::Recipe;
use crate::train::SPIKE;
use crate::{Error, Result};

/// `batch RUN --stage S --step N`.
#[derive(Debug, Args)]
pub struct Batch {
    /// The run folder
    run: PathBuf,
    /// rank, pretrain or finetune
    #[arg(long, default_value = "pretrain")]
    stage: String,
    /// The step, from 1
    #[arg(long)]
    step: u64,
    /// Shards of the stage, where they are not in the run folder (runs of the verbs rank, pretrain,
    /// finetune)
    #[arg(long, value_name = "SHARDS")]
    shards: Option<PathBuf>,
    /// Write them as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Batch {
    /// Prints titles and instances.
    ///
    /// # Errors
    /// A folder that is no run; an unknown stage.
    pub fn run(self) -> Result<()> {
        let recipe = Recipe::load(&self.run.join("recipe.toml"), &[])?;
        if self.step == 0 {
            return Err(Error::recipe("--step counts from 1"));
        }
        let steps = questions::describe_batches(
            &recipe,
            &self.run,
            self.shards.as_deref(),
            &self.stage,
            &[self.step],
        )?;
        steps.iter().try_for_each(|contents| show(contents, self.json.as_deref()))
    }
}

/// `blame RUN`.
#[derive(Debug, Args)]
pub struct Blame {
    /// The run folder
    run: PathBuf,
    /// Standard deviations above the losses before it from which a step counts
    #[arg(long, value_name = "Z", default_value_t = SPIKE)]
    above: f64,
    /// Most steps to describe
    #[arg(long, value_name = "N", default_value_t = 10)]
    most: usize,
    /// Shards of the stage, where they are not in the run folder (runs of the verbs rank, pretrain,
    /// finetune)
    #[arg(long, value_name = "SHARDS")]
    shards: Option<PathBuf>,
    /// Write the findings as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Blame {
    /// Prints steps and documents.
    ///
    /// # Errors
    /// A folder that is no run, or has no steps.
    pub fn run(self) -> Result<()> {
        show(
            &questions::blame(&self.run, self.shards.as_deref(), self.above, self.most)?,
            self.json.as_deref(),
        )
    }
}

/// `ledger RUN`.
#[derive(Debug, Args)]
pub struct Ledger {
    /// The run folder, or a folder of shards that `score` wrote
    path: PathBuf,
    /// The Parquet file (default: labels.parquet in the run folder)
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Pairs that count as kept in a document, best first (default: dsdocre.k_pretrain of the run;
    /// 0: all)
    #[arg(long, value_name = "K")]
    keep: Option<usize>,
    /// Write output, counts by relation and seconds as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Ledger {
    /// Writes a row for every distant label, and prints what is kept of each relation.
    ///
    /// # Errors
    /// A folder that is neither; the disk.
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let (output, ledger) = questions::ledger(&self.path, self.output.as_deref(), self.keep)?;
        print_all(format!("{ledger}\n").as_bytes())?;
        clock.write(self.json.as_deref(), &output, None, &ledger)
    }
}

/// `explain KEY`.
#[derive(Debug, Args)]
pub struct Explain {
    /// A key such as pretrain.batch, the name of a table or of a key in any table, or a word; all
    /// keys without it
    key: Option<String>,
    /// Say what the key is in this recipe, too
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Override a key of the recipe
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Write the explanations as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What was asked, for machines.
#[derive(Debug, Serialize)]
struct Explained {
    keys: Vec<KeyDescription>,
}

impl Explain {
    /// Prints meaning, words and values.
    ///
    /// # Errors
    /// A key that there is not; a bad recipe.
    pub fn run(self) -> Result<()> {
        let recipe = match &self.recipe {
            Some(path) => Some(Recipe::load(path, &self.settings)?),
            None if self.settings.is_empty() => None,
            None => Some(Recipe::parse("", "the command line", &self.settings)?),
        };
        let keys = questions::explain(self.key.as_deref(), recipe.as_ref())?;
        let text: String = keys.iter().map(|key| format!("{key}\n")).collect();
        write_json(self.json.as_deref(), &Explained { keys })?;
        print_all(format!("values: fixed | paper | code (one where all agree)\n{text}").as_bytes())
    }
}

/// `why RUN --title T`.
#[derive(Debug, Args)]
pub struct Why {
    /// The run folder
    run: PathBuf,
    /// Title of the document
    #[arg(long, value_name = "T")]
    title: String,
    /// Head entity: its number, or one of its names
    #[arg(long, value_name = "H")]
    head: Option<String>,
    /// Tail entity, likewise; with --head, the sentences that name one of the two are shown
    #[arg(long, value_name = "T")]
    tail: Option<String>,
    /// Identifier or name of a relation
    #[arg(long, value_name = "R")]
    relation: Option<String>,
    /// Write the explanation as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Why {
    /// Prints labels, ranks and predictions of the document's pairs.
    ///
    /// # Errors
    /// A folder that is no run; a title, an entity or a relation that it does not know.
    pub fn run(self) -> Result<()> {
        let Self { run, title, head, tail, relation, json } = self;
        let found = questions::why(&run, &WhyQuery { title, head, tail, relation })?;
        show(&found, json.as_deref())
    }
}

/// `autopsy RUN`.
#[derive(Debug, Args)]
pub struct Autopsy {
    /// The run folder
    run: PathBuf,
    /// How many of the last events to print
    #[arg(long, value_name = "N", default_value_t = 40)]
    events: usize,
    /// Write the findings as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Autopsy {
    /// Prints what the recorders tell.
    ///
    /// # Errors
    /// A folder without recorders.
    pub fn run(self) -> Result<()> {
        show(&autopsy(&self.run, self.events)?, self.json.as_deref())
    }
}
