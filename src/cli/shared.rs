//! Flags that several verbs share, and small output helpers.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::base::write_whole;
use crate::pipeline::Session;
use crate::recipe::Recipe;
use crate::train::RunFolder;
use crate::train::RunRecipe;
use crate::{Error, Result};

/// Machine and seed.
#[derive(Debug, Args)]
pub struct Machine {
    /// Where tensors live: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Threads a rank (0: divide the cores among the ranks of this host)
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

impl Machine {
    /// Joins the world and opens the device.
    ///
    /// # Errors
    /// As [`Session::start`].
    pub fn session(&self) -> Result<Session> {
        Session::start(&self.device, self.threads)
    }

    /// As [`Self::session`], for work that was read from flags and files on every rank.
    ///
    /// # Errors
    /// As [`Session::start_with`].
    pub fn session_for<T>(&self, told: Result<T>) -> Result<(Session, T)> {
        Session::start_with(told, |_| (self.device.clone(), self.threads))
    }
}

/// What every training stage takes beside its data.
#[derive(Debug, Args)]
pub struct StageFlags {
    /// tiny, mini, base, bilstm, or a Hugging Face folder
    #[arg(long, value_name = "E")]
    pub encoder: String,
    /// The run folder
    #[arg(long, value_name = "R")]
    pub run_dir: PathBuf,
    /// Recipe with schedule and settings (defaults otherwise)
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Override a key of the recipe, such as finetune.epochs=10
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Go on from the last checkpoint of the run folder
    #[arg(long)]
    pub resume: bool,
    /// Write the checkpoint that came out, its steps, scores and seconds as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub machine: Machine,
}

impl StageFlags {
    /// The recipe with the encoder of the command line.
    ///
    /// # Errors
    /// A bad recipe or setting.
    pub fn recipe(&self) -> Result<Recipe> {
        self.recipe_with(&[])
    }

    /// As [`Self::recipe`], with settings that win over the recipe but not over `--set`.
    ///
    /// # Errors
    /// As [`Self::recipe`].
    pub fn recipe_with(&self, settings: &[String]) -> Result<Recipe> {
        let settings = [settings, &self.settings].concat();
        let mut recipe = match &self.recipe {
            Some(path) => Recipe::load(path, &settings)?,
            None => Recipe::parse("", "the command line", &settings)?,
        };
        recipe.encoder.name.clone_from(&self.encoder);
        Ok(recipe)
    }

    /// Claims the run folder on rank 0 and writes the resolved recipe into it.
    ///
    /// # Errors
    /// A folder in use; the disk.
    pub fn claim(&self, recipe: &Recipe, session: &Session) -> Result<RunFolder> {
        let claim = || {
            let run = RunFolder::claim(&self.run_dir)?;
            write_whole(&self.run_dir.join("recipe.toml"), recipe.to_toml()?.as_bytes())?;
            run.identify(session.world.size(), recipe.seed)?;
            let own = RunRecipe {
                text: &recipe.to_toml()?,
                same: &|other| recipe.asks_for_the_same(other),
            };
            let run = run.mirrored(recipe.checkpoint_mirror.as_deref(), &own, self.resume)?;
            fs_err::remove_file(self.run_dir.join("STOP")).ok();
            Ok(run)
        };
        let run = session.world.agree(if session.is_root() {
            claim()
        } else {
            Ok(RunFolder::shared(&self.run_dir))
        })?;
        session.enter(&run, recipe)?;
        Ok(run)
    }
}

/// Writes a result for machines, where asked for.
///
/// # Errors
/// The disk.
pub fn write_json<T: Serialize>(path: Option<&Path>, value: &T) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| Error::Bug(error.to_string()))?;
    write_whole(path, &bytes)
}

/// What a verb did, for machines: where the result lies, the result's own fields, and the time it
/// took.
#[derive(Debug, Serialize)]
struct Done<'a, T> {
    output: &'a Path,
    #[serde(flatten)]
    result: &'a T,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    documents_per_s: Option<f64>,
}

/// Measures a verb from its start, and writes what it did where `--json` says.
#[derive(Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Writes the summary of a verb that made `output`, of so many documents where it is documents
    /// that take the time. `result` is a structure, whose fields stand beside those of the summary.
    ///
    /// # Errors
    /// The disk.
    pub fn write<T: Serialize>(
        &self,
        json: Option<&Path>,
        output: &Path,
        documents: Option<usize>,
        result: &T,
    ) -> Result<()> {
        let seconds = self.0.elapsed().as_secs_f64();
        let documents_per_s = documents.map(|count| count as f64 / seconds.max(f64::MIN_POSITIVE));
        write_json(json, &Done { output, result, seconds, documents_per_s })
    }
}

/// Prints bytes; a reader that has gone away is no error.
///
/// # Errors
/// Other I/O errors.
pub fn print_all(bytes: &[u8]) -> Result<()> {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// `completions SHELL`.
#[derive(Debug, Args)]
pub struct Completions {
    /// bash, zsh, fish, elvish or powershell
    shell: clap_complete::Shell,
}

impl Completions {
    /// Prints the script.
    ///
    /// # Errors
    /// None.
    pub fn run(self, command: &mut clap::Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, "docre-pretrain", &mut script);
        print_all(&script)
    }
}
