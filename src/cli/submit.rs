//! `submit`: a Slurm job made from a recipe and one of the templates of `jobs/slurm`, handed to
//! sbatch.
//!
//! Not for the job itself: the template holds that, to be read and changed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::shared::{print_all, write_json};
use crate::recipe::Recipe;
use crate::{Error, Result};

/// The templates.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Template {
    /// One machine
    SingleNode,
    /// Several machines
    MultiNode,
    /// The same recipe with several seeds
    ArrayOfSeeds,
    /// Fine-tuning after another job has pre-trained
    FinetuneAfterPretrain,
}

impl Template {
    fn text(self) -> &'static str {
        match self {
            Self::SingleNode => include_str!("../../jobs/slurm/single-node.sbatch"),
            Self::MultiNode => include_str!("../../jobs/slurm/multi-node.sbatch"),
            Self::ArrayOfSeeds => include_str!("../../jobs/slurm/array-of-seeds.sbatch"),
            Self::FinetuneAfterPretrain => {
                include_str!("../../jobs/slurm/finetune-after-pretrain.sbatch")
            }
        }
    }
}

/// `submit RECIPE.toml`.
#[derive(Debug, Args)]
pub struct Submit {
    /// The recipe (TOML)
    recipe: PathBuf,
    /// Which job script
    #[arg(long, value_enum, default_value = "single-node")]
    template: Template,
    /// The run folder (default: runs/NAME)
    #[arg(long, value_name = "R")]
    run_dir: Option<PathBuf>,
    /// Machines
    #[arg(long, default_value_t = 1)]
    nodes: u32,
    /// Ranks a machine
    #[arg(long, default_value_t = 1)]
    tasks: u32,
    /// Cores a rank
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// GPUs a machine (0: none asked for)
    #[arg(long, default_value_t = 0)]
    gpus: u32,
    /// Slurm's partition
    #[arg(long)]
    partition: Option<String>,
    /// Time limit; the job goes back into the queue when it is over
    #[arg(long, default_value = "24:00:00")]
    time: String,
    /// Seconds before the limit at which the run is asked to save and stop
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    grace: u32,
    /// New starts after a lost rank
    #[arg(long, default_value_t = 5)]
    restarts: u32,
    /// Seeds of array-of-seeds, as Slurm writes arrays
    #[arg(long, default_value = "1-3")]
    seeds: String,
    /// The job that finetune-after-pretrain waits for
    #[arg(long, value_name = "JOB")]
    after: Option<String>,
    /// The system that finetune-after-pretrain trains (default: the recipe's)
    #[arg(long, value_name = "NAME")]
    system: Option<String>,
    /// Override a key of the recipe
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// The program as the compute nodes see it (default: this one)
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// The job's log, with Slurm's %-signs (default: log/%x-%A.log in the run folder, for arrays
    /// log/%x-%A_%a.log)
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Print the script instead of submitting it
    #[arg(long)]
    dry_run: bool,
    /// Write the script and Slurm's answer as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What was handed to Slurm.
#[derive(Debug, Serialize)]
struct Submitted {
    run_dir: PathBuf,
    script: String,
    /// What sbatch said; null where it was not asked.
    answer: Option<String>,
    /// The job's number in that answer.
    job: Option<u64>,
}

impl Submitted {
    fn new(run_dir: PathBuf, script: String, answer: Option<String>) -> Self {
        let job = answer
            .as_deref()
            .and_then(|answer| answer.split_whitespace().find_map(|word| word.parse().ok()));
        Self { run_dir, script, answer, job }
    }
}

impl Submit {
    /// Fills the template and calls sbatch, whose answer is printed.
    ///
    /// # Errors
    /// A bad recipe; no sbatch, or one that refuses the job.
    pub fn run(self) -> Result<()> {
        // Checked here, where somebody is looking, instead of in the job.
        let recipe = Recipe::load(&self.recipe, &self.settings)?;
        let script = self.fill(&recipe)?;
        let run_dir = self.folder(&recipe)?;
        if !self.dry_run {
            fs_err::create_dir_all(run_dir.join("log"))?;
        }
        let answer = if self.dry_run {
            None
        } else {
            Some(String::from_utf8_lossy(&sbatch(&script)?).into_owned())
        };
        let submitted = Submitted::new(run_dir, script, answer);
        write_json(self.json.as_deref(), &submitted)?;
        print_all(submitted.answer.as_ref().unwrap_or(&submitted.script).as_bytes())
    }

    fn folder(&self, recipe: &Recipe) -> Result<PathBuf> {
        Ok(std::path::absolute(self.run_dir.clone().unwrap_or_else(|| recipe.default_run_dir()))?)
    }

    fn fill(&self, recipe: &Recipe) -> Result<String> {
        let after = match (self.template, &self.after) {
            (Template::FinetuneAfterPretrain, None) => {
                return Err(Error::recipe("finetune-after-pretrain needs --after JOB")
                    .with_hint("JOB is the number that `submit` printed"));
            }
            (_, after) => after.clone().unwrap_or_default(),
        };
        let program = self.program.clone().map_or_else(std::env::current_exe, Ok)?;
        let run = self.folder(recipe)?;
        let name = if matches!(self.template, Template::ArrayOfSeeds) {
            "log/%x-%A_%a.log"
        } else {
            "log/%x-%A.log"
        };
        let log = self.log.clone().unwrap_or_else(|| run.join(name));
        let settings: String =
            self.settings.iter().map(|setting| format!(" --set {}", quoted(setting))).collect();
        let values = [
            ("NAME", plain("name", &recipe.name)?),
            ("NODES", self.nodes.to_string()),
            ("TASKS", self.tasks.to_string()),
            ("CPUS", self.cpus.to_string()),
            ("TIME", plain("--time", &self.time)?),
            ("GRACE", self.grace.to_string()),
            ("RESTARTS", self.restarts.to_string()),
            ("SEEDS", plain("--seeds", &self.seeds)?),
            ("AFTER", plain("--after", &after)?),
            ("SYSTEM", plain("--system", self.system.as_ref().unwrap_or(&recipe.system))?),
            ("PROGRAM", path_text(&std::path::absolute(program)?)?),
            ("RECIPE", path_text(&std::path::absolute(&self.recipe)?)?),
            ("RUN", path_text(&run)?),
            ("LOG", path_text(&log)?),
            ("SETTINGS", settings),
        ];
        let script = values.iter().fold(self.template.text().to_owned(), |text, (name, value)| {
            text.replace(&format!("@{name}@"), value)
        });
        self.with_resources(&script)
    }

    /// Adds what only some clusters want after the first line.
    fn with_resources(&self, script: &str) -> Result<String> {
        let mut lines = String::new();
        if self.gpus > 0 {
            lines += &format!("#SBATCH --gpus-per-node={}\n", self.gpus);
        }
        if let Some(partition) = &self.partition {
            lines += &format!("#SBATCH --partition={}\n", plain("--partition", partition)?);
        }
        Ok(script.replacen('\n', &format!("\n{lines}"), 1))
    }
}

/// Hands a script to sbatch and gives its answer.
fn sbatch(script: &str) -> Result<Vec<u8>> {
    let missing = |error: std::io::Error| {
        Error::recipe(format!("sbatch cannot be started: {error}"))
            .with_hint("submit from a machine of the cluster, or use --dry-run")
    };
    let mut child = Command::new("sbatch")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Error::recipe(format!("sbatch refused the job ({})", output.status)))
    }
}

/// A word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A value that goes into a comment line of sbatch or between double quotes, as it is.
fn plain(name: &str, text: &str) -> Result<String> {
    let odd = |letter: char| !(letter.is_alphanumeric() || "-_.,:/%@+=".contains(letter));
    match text.chars().find(|&letter| odd(letter)) {
        Some(letter) => Err(Error::recipe(format!(
            "{name} is `{text}`, but {letter:?} cannot stand in a job script"
        ))),
        None => Ok(text.to_owned()),
    }
}

fn path_text(path: &Path) -> Result<String> {
    plain("a path", &path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        submit: Submit,
    }

    fn script(line: &str) -> Result<String> {
        let words = ["submit", "jobs/smoke.toml"].into_iter().chain(line.split_whitespace());
        let submit = Line::try_parse_from(words).unwrap().submit;
        submit.fill(&Recipe::parse("name = \"smoke\"", "test", &submit.settings)?)
    }

    #[test]
    fn every_template_is_filled_to_the_last_place() {
        for template in [
            "single-node",
            "multi-node --nodes 4",
            "array-of-seeds --seeds 1-9",
            "finetune-after-pretrain --after 17",
        ] {
            let text =
                script(&format!("--template {template} --tasks 8 --run-dir /data/r")).unwrap();
            let left = text.lines().skip(4).find(|line| line.matches('@').count() > 1);
            assert_eq!(left, None, "{template}");
            assert!(
                text.starts_with("#!/bin/bash\n")
                    && text.contains("--ntasks-per-node=8\n")
                    && text.contains("/data/r"),
                "{text}"
            );
            assert!(
                text.contains("--signal=B:USR1@120\n") && text.contains("scontrol requeue"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_scripts_are_shell() {
        for template in
            ["single-node", "multi-node", "array-of-seeds", "finetune-after-pretrain --after 17"]
        {
            let text = script(&format!(
                "--template {template} --gpus 2 --partition long --set rank.steps=3"
            ))
            .unwrap();
            assert!(
                text.contains("#SBATCH --gpus-per-node=2\n#SBATCH --partition=long\n")
                    && text.contains(" --set 'rank.steps=3')"),
                "{text}"
            );
            let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
            bash.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            assert!(bash.wait().unwrap().success(), "{template}");
        }
    }

    #[test]
    fn the_number_of_a_job_is_found() {
        let job =
            |answer: &str| Submitted::new(PathBuf::new(), String::new(), Some(answer.into())).job;
        assert_eq!(
            (
                job("Submitted batch job 17\n"),
                job("Submitted batch job 8 on cluster c1\n"),
                job("")
            ),
            (Some(17), Some(8), None)
        );
    }

    #[test]
    fn what_a_script_cannot_hold_is_refused() {
        assert!(
            script("--template finetune-after-pretrain")
                .unwrap_err()
                .to_string()
                .contains("--after JOB")
        );
        assert!(script("--run-dir $HOME/r").unwrap_err().to_string().contains("'$'"));
        assert_eq!(quoted("a='b'"), r"'a='\''b'\'''");
    }
}
