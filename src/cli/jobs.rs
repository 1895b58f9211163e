//! `run`: the whole pipeline from one recipe.

use std::path::PathBuf;

use clap::Args;

use crate::Result;
use crate::recipe::Recipe;
use crate::stages::{self, Session};

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
}

impl Run {
    /// Runs it.
    ///
    /// # Errors
    /// What any stage meets.
    pub fn run(self) -> Result<()> {
        let recipe = Recipe::load(&self.recipe, &self.settings)?;
        let session = Session::start(&recipe.device, recipe.threads)?;
        let folder = self.run_dir.unwrap_or_else(|| recipe.default_run_dir());
        session.run(|session| stages::run(&recipe, &folder, self.resume, session))
    }
}
