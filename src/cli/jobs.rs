//! `run`: the whole pipeline from one recipe; `plan`: what it will take.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::shared::{Clock, print_all, write_json};
use crate::pipeline;
use crate::pipeline::Session;
use crate::questions;
use crate::questions::PlanOptions;
use crate::recipe::Recipe;
use crate::{DataError, Result};

/// `run RECIPE.toml`.
#[derive(Debug, Args)]
pub struct Run {
    /// The recipe (TOML)
    recipe: PathBuf,
    /// The run folder (default: runs/NAME)
    #[arg(long, value_name = "R")]
    run_dir: Option<PathBuf>,
    /// Go on inside an unfinished stage; finished stages are always skipped
    #[arg(long)]
    resume: bool,
    /// Override a key of the recipe, such as pretrain.learning_rate=1e-4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Write the scores of all variants as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What a run has come to.
#[derive(Debug, Serialize)]
struct Finished {
    /// As `scores.json` has them.
    scores: serde_json::Value,
}

impl Finished {
    fn of(run: &Path) -> Result<Self> {
        let path = run.join("scores.json");
        let scores = serde_json::from_slice(&fs_err::read(&path)?);
        Ok(Self { scores: scores.map_err(|error| DataError::new(&path, error.to_string()))? })
    }
}

impl Run {
    /// Runs it.
    ///
    /// # Errors
    /// What any stage meets.
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let recipe = Recipe::load(&self.recipe, &self.settings);
        let (session, recipe) =
            Session::start_with(recipe, |recipe| (recipe.device.clone(), recipe.threads))?;
        let folder = self.run_dir.unwrap_or_else(|| recipe.default_run_dir());
        session.run(|session| {
            pipeline::run(&recipe, &folder, self.resume, session)?;
            session.world.on_root(|| {
                clock.write(self.json.as_deref(), &folder, None, &Finished::of(&folder)?)
            })
        })
    }
}

/// `plan RECIPE.toml`.
#[derive(Debug, Args)]
pub struct Plan {
    /// The recipe (TOML)
    recipe: PathBuf,
    /// The run folder, whose documents are counted if they are prepared (default: runs/NAME)
    #[arg(long, value_name = "R")]
    run_dir: Option<PathBuf>,
    /// Machines
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: usize,
    /// GPUs a machine, one rank each
    #[arg(long, value_name = "G", default_value_t = 1)]
    gpus: usize,
    /// Matrix products of one GPU in TFLOP/s, in the precision of the recipe (default: measured on
    /// this machine's CPU)
    #[arg(long, value_name = "T")]
    tflops: Option<f64>,
    /// Share of that rate that is reached
    #[arg(long, value_name = "S", default_value_t = 0.4)]
    share: f64,
    /// Override a key of the recipe
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Write the estimate as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Plan {
    /// Prints steps, work, time, memory, disk and traffic of each stage.
    ///
    /// # Errors
    /// As [`questions::plan`].
    pub fn run(self) -> Result<()> {
        let recipe = Recipe::load(&self.recipe, &self.settings)?;
        let folder = self.run_dir.unwrap_or_else(|| recipe.default_run_dir());
        let options = PlanOptions {
            nodes: self.nodes,
            ranks_per_node: self.gpus,
            tflops: self.tflops,
            share: self.share,
        };
        let estimate = questions::plan(&recipe, &folder, options)?;
        write_json(self.json.as_deref(), &estimate)?;
        print_all(format!("{estimate}\n").as_bytes())
    }
}
