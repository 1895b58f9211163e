//! A cluster: `systems` and `plan`.

use std::path::PathBuf;

use clap::Args;

use super::shared::{Overrides, print_all, show, write_json};
use crate::Result;
use crate::questions::{self, PlanOptions, ScalingOptions};
use crate::systems::{SystemInfo, systems};

/// List the systems, or describe one: layers, settings and parameter counts
#[derive(Debug, Args)]
pub struct SystemsVerb {
    /// System to describe [default: list all]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Encoder for the parameter counts: tiny, mini, base, bilstm, or a Hugging Face folder or
    /// repository (ORG/NAME)
    #[arg(long, value_name = "E", default_value = "base")]
    encoder: String,
    /// Write the list or the description as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl SystemsVerb {
    pub fn run(self) -> Result<()> {
        let json = self.json.as_deref();
        let Some(name) = &self.name else {
            let systems: Vec<SystemInfo> = systems().iter().map(|system| system.info()).collect();
            write_json(json, &systems)?;
            return print_all((questions::list_systems() + "\n").as_bytes());
        };
        let description = questions::describe_system(name, &self.encoder)?;
        write_json(json, &description)?;
        print_all(description.to_string().as_bytes())
    }
}

/// Estimate steps, time, memory, disk, traffic and scaling of a recipe on a cluster
#[derive(Debug, Args)]
pub struct PlanVerb {
    /// Recipe (TOML)
    recipe: PathBuf,
    /// Run folder, whose documents are counted if they are prepared [default: runs/NAME]
    #[arg(long, value_name = "R")]
    run_dir: Option<PathBuf>,
    #[command(flatten)]
    options: PlanOptions,
    #[command(flatten)]
    scaling: ScalingOptions,
    #[command(flatten)]
    overrides: Overrides,
    /// Write the estimate as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl PlanVerb {
    pub fn run(self) -> Result<()> {
        let recipe = self.overrides.load::<Self>(Some(&self.recipe), &[])?;
        let folder = self.run_dir.unwrap_or_else(|| recipe.default_run_dir());
        let mut estimate = questions::plan(&recipe, &folder, self.options)?;
        if self.scaling.scaling {
            estimate.add_scaling(&self.scaling)?;
        }
        show(&estimate, self.json.as_deref())
    }
}
