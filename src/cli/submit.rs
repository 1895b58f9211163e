//! The verb `submit`: turns a recipe into a launch file for a cluster, and hands it over.
//!
//! What each scheduler is told stands in its own file. Not for starting ranks: the job does that.

mod kubernetes;
mod launch;
mod places;
mod sky;
mod slurm;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::kubernetes::{ClusterJob, cluster_file};
use self::launch::LaunchJob;
use self::sky::sky_file;
use self::slurm::{JobScript, SlurmRequest, slurm_file};
use super::pipeline::FinetuneVerb;
use super::shared::{Overrides, print_all, write_json};
use crate::base::{run_files, say};
use crate::recipe::Recipe;
use crate::{Error, Result};

/// What runs a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Destination {
    /// Slurm: `sbatch`
    Slurm,
    /// Kubernetes: `kubectl apply`
    Kubernetes,
    /// SkyPilot: `sky launch`
    Sky,
}

/// The launch files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Template {
    /// Slurm: one machine
    SingleNode,
    /// Slurm: several machines
    MultiNode,
    /// Slurm: the same recipe with several seeds
    ArrayOfSeeds,
    /// Slurm: fine-tuning after another job has pre-trained
    FinetuneAfterPretrain,
    /// Kubernetes: an Indexed Job
    IndexedJob,
    /// Kubernetes: a TrainJob of Kubeflow Trainer
    TrainJob,
    /// Kubernetes: an MPIJob of the MPI Operator
    MpiJob,
    /// SkyPilot: a task
    Task,
}

/// A launch file, by who reads it.
#[derive(Clone, Copy, Debug)]
enum LaunchFile {
    Slurm(JobScript),
    Kubernetes(ClusterJob),
    Sky,
}

impl Template {
    fn file(self) -> LaunchFile {
        match self {
            Self::SingleNode => LaunchFile::Slurm(JobScript::SingleNode),
            Self::MultiNode => LaunchFile::Slurm(JobScript::MultiNode),
            Self::ArrayOfSeeds => LaunchFile::Slurm(JobScript::ArrayOfSeeds),
            Self::FinetuneAfterPretrain => LaunchFile::Slurm(JobScript::FinetuneAfterPretrain),
            Self::IndexedJob => LaunchFile::Kubernetes(ClusterJob::Indexed),
            Self::TrainJob => LaunchFile::Kubernetes(ClusterJob::Train),
            Self::MpiJob => LaunchFile::Kubernetes(ClusterJob::Mpi),
            Self::Task => LaunchFile::Sky,
        }
    }

    fn destination(self) -> Destination {
        match self.file() {
            LaunchFile::Slurm(_) => Destination::Slurm,
            LaunchFile::Kubernetes(_) => Destination::Kubernetes,
            LaunchFile::Sky => Destination::Sky,
        }
    }
}

impl Destination {
    /// The launch file that is usual there.
    fn usual(self) -> Template {
        match self {
            Self::Slurm => Template::SingleNode,
            Self::Kubernetes => Template::IndexedJob,
            Self::Sky => Template::Task,
        }
    }
}

/// Turn a recipe into a job of Slurm, Kubernetes or SkyPilot and submit it
#[derive(Debug, Args)]
pub struct SubmitVerb {
    /// Recipe (TOML)
    recipe: PathBuf,
    /// What runs the job
    #[arg(long, value_enum, default_value = "slurm")]
    to: Destination,
    /// Launch file [default: single-node, indexed-job or task]
    #[arg(long, value_enum)]
    template: Option<Template>,
    /// Run folder; with a volume it lies there [default: runs/NAME]
    #[arg(long, value_name = "R")]
    run_dir: Option<PathBuf>,
    /// Number of machines
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    nodes: u32,
    /// Ranks on each machine
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    tasks: u32,
    /// Cores of each rank
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    cpus: u32,
    /// GPUs of each machine; 0 requests none
    #[arg(long, default_value_t = 0)]
    gpus: u32,
    /// GiB of memory of each machine
    #[arg(long, value_name = "GIB")]
    memory: Option<u32>,
    /// Restarts after lost ranks
    #[arg(long, default_value_t = 5)]
    restarts: u32,
    /// Slurm, Kubernetes: seconds between the request to save and stop and the end [default: 120]
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u32>,
    /// Slurm: partition
    #[arg(long)]
    partition: Option<String>,
    /// Slurm: time limit, after which the job is requeued [default: 24:00:00]
    #[arg(long)]
    time: Option<String>,
    /// array-of-seeds: the seeds, written as a Slurm array [default: 1-3]
    #[arg(long)]
    seeds: Option<String>,
    /// finetune-after-pretrain: the job to wait for
    #[arg(long, value_name = "JOB")]
    after: Option<String>,
    /// Kubernetes, SkyPilot: image of the containers
    #[arg(long)]
    image: Option<String>,
    /// Kubernetes: the PersistentVolumeClaim with data and run folders, which becomes /data;
    /// SkyPilot: a volume for both, or the URL of a bucket with data
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    /// SkyPilot: kind of the GPUs, such as H200
    #[arg(long, value_name = "KIND")]
    accelerator: Option<String>,
    /// System to train [default: the recipe's]
    #[arg(long, value_name = "NAME")]
    system: Option<String>,
    #[command(flatten)]
    overrides: Overrides,
    /// Path of the program on the compute nodes [default: this program; in a container the one on
    /// its PATH]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Slurm: log file, with Slurm's patterns [default: log/%x-%A.log in the run folder, for
    /// arrays log/%x-%A_%a.log]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Print the launch file instead of submitting it
    #[arg(long)]
    dry_run: bool,
    /// Write the launch file and the scheduler's answer as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What was submitted.
#[derive(Debug, Serialize)]
struct Submitted {
    run_dir: PathBuf,
    script: String,
    /// What the scheduler answered; null in a dry run.
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

impl SubmitVerb {
    pub fn run(self) -> Result<()> {
        // An error in the recipe should show now rather than when the job starts.
        let recipe = self.overrides.load::<Self>(Some(&self.recipe), &self.system_setting())?;
        let script = self.fill(&recipe)?;
        self.warnings(&recipe).iter().for_each(say);
        let run_dir = self.folder(&recipe)?;
        let answer = if self.dry_run { None } else { Some(self.hand_over(&script, &recipe)?) };
        let submitted = Submitted::new(run_dir, script, answer);
        write_json(self.json.as_deref(), &submitted)?;
        print_all(submitted.answer.as_ref().unwrap_or(&submitted.script).as_bytes())
    }

    /// The launch file.
    fn fill(&self, recipe: &Recipe) -> Result<String> {
        let template = self.template.unwrap_or(self.to.usual());
        if template.destination() != self.to {
            let there = named(&template.destination());
            return Err(Error::recipe(format!(
                "--template {} is not for --to {}",
                named(&template),
                named(&self.to)
            ))
            .with_hint(format!("add --to {there}")));
        }
        self.refuse_flags_of_others()?;
        let job = self.job(template, recipe)?;
        match template.file() {
            LaunchFile::Slurm(script) => {
                let request = self.slurm_request(script, recipe)?;
                slurm_file(script, &job, &request, &self.folder(recipe)?)
            }
            LaunchFile::Kubernetes(kind) => {
                cluster_file(kind, &job, &fs_err::read_to_string(&self.recipe)?)
            }
            LaunchFile::Sky => sky_file(&job),
        }
    }

    /// A flag that the destination does not read would be passed over in silence.
    fn refuse_flags_of_others(&self) -> Result<()> {
        use Destination::{Kubernetes, Sky, Slurm};
        let flags: [(&str, bool, &[Destination]); 9] = [
            ("grace", self.grace.is_some(), &[Slurm, Kubernetes]),
            ("partition", self.partition.is_some(), &[Slurm]),
            ("time", self.time.is_some(), &[Slurm]),
            ("seeds", self.seeds.is_some(), &[Slurm]),
            ("after", self.after.is_some(), &[Slurm]),
            ("log", self.log.is_some(), &[Slurm]),
            ("image", self.image.is_some(), &[Kubernetes, Sky]),
            ("volume", self.volume.is_some(), &[Kubernetes, Sky]),
            ("accelerator", self.accelerator.is_some(), &[Sky]),
        ];
        match flags.iter().find(|(_, given, readers)| *given && !readers.contains(&self.to)) {
            Some((flag, ..)) => {
                Err(Error::recipe(format!("--{flag} means nothing with --to {}", named(&self.to)))
                    .with_hint("leave it out"))
            }
            None => Ok(()),
        }
    }

    fn job(&self, template: Template, recipe: &Recipe) -> Result<LaunchJob> {
        Ok(LaunchJob {
            name: recipe.name.clone(),
            recipe: self.recipe.clone(),
            run: self.run_dir.clone().unwrap_or_else(|| recipe.default_run_dir()),
            settings: self.settings(template)?,
            program: self.program.clone(),
            nodes: self.nodes,
            tasks: self.tasks,
            cpus: self.cpus,
            gpus: self.gpus,
            grace: self.grace.unwrap_or(120),
            restarts: self.restarts,
            image: self.image.clone(),
            volume: self.volume.clone(),
            memory: self.memory,
            accelerator: self.accelerator.clone(),
        })
    }

    fn slurm_request(&self, script: JobScript, recipe: &Recipe) -> Result<SlurmRequest> {
        if script == JobScript::FinetuneAfterPretrain && self.after.is_none() {
            return Err(Error::recipe("finetune-after-pretrain needs --after JOB")
                .with_hint("JOB is the number that `submit` printed for the pre-training job"));
        }
        Ok(SlurmRequest {
            partition: self.partition.clone(),
            time: self.time.clone().unwrap_or_else(|| "24:00:00".into()),
            seeds: self.seeds.clone().unwrap_or_else(|| "1-3".into()),
            after: self.after.clone().unwrap_or_default(),
            log: self.log.clone(),
            system: recipe.system.clone(),
        })
    }

    /// The run folder: of this machine for Slurm, whose machines share it, otherwise of the
    /// containers.
    fn folder(&self, recipe: &Recipe) -> Result<PathBuf> {
        let given = self.run_dir.clone().unwrap_or_else(|| recipe.default_run_dir());
        Ok(match (self.to, &self.volume) {
            (Destination::Slurm, _) => std::path::absolute(given)?,
            (Destination::Sky, None) => given,
            (Destination::Sky, Some(volume)) if volume.contains("://") => given,
            _ => Path::new(launch::DATA).join(given),
        })
    }

    fn system_setting(&self) -> Vec<String> {
        self.system.iter().map(|name| format!("system={name}")).collect()
    }

    /// The `--set` values of the command in the job.
    fn settings(&self, template: Template) -> Result<Vec<String>> {
        let overrides = self.overrides.of_verb::<Self>()?;
        match template {
            Template::FinetuneAfterPretrain => {
                let hint = "the job calls `finetune`: change that line in the script of --dry-run";
                let checked = self.overrides.of_verb::<FinetuneVerb>();
                Ok(checked.map_err(|error| error.with_hint(hint))?.to_vec())
            }
            Template::ArrayOfSeeds if overrides.iter().any(|text| text.starts_with("seed=")) => {
                Err(Error::recipe("--set seed: in array-of-seeds the flag --seeds decides `seed`")
                    .with_hint("use --seeds instead"))
            }
            _ => Ok([&self.system_setting(), overrides].concat()),
        }
    }

    /// What a person should know of a job that can be submitted.
    fn warnings(&self, recipe: &Recipe) -> Vec<String> {
        let mut told = Vec::new();
        if self.gpus > self.tasks {
            told.push(format!(
                "warning: {} rank(s) on machines with {} GPUs leave {} idle; --tasks sets the \
                 ranks of a machine",
                self.tasks,
                self.gpus,
                self.gpus - self.tasks
            ));
        }
        let kept = self.volume.as_ref().is_some_and(|volume| !volume.contains("://"));
        if self.to == Destination::Sky && !kept && recipe.checkpoint_mirror.is_none() {
            told.push(
                "warning: the run folder lies on the first machine and is lost with it; set \
                 checkpoint_mirror, or give --volume NAME"
                    .to_owned(),
            );
        }
        told
    }

    /// Gives the launch file to the scheduler and returns its answer.
    fn hand_over(&self, script: &str, recipe: &Recipe) -> Result<String> {
        match self.to {
            Destination::Slurm => {
                fs_err::create_dir_all(self.folder(recipe)?.join(run_files::LOG))?;
                answer_of("sbatch", &[], script)
            }
            Destination::Kubernetes => answer_of("kubectl", &["apply", "-f", "-"], script),
            Destination::Sky => {
                let folder = tempfile::tempdir()?;
                let file = folder.path().join("task.yaml");
                fs_err::write(&file, script)?;
                let (name, file) = (recipe.name.as_str(), file.to_string_lossy());
                let words = ["launch", "--yes", "--detach-run", "--cluster", name, &file];
                answer_of("sky", &words, "")
            }
        }
    }
}

/// A value of a flag as it is written.
fn named(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// What a tool answers to `input` on its standard input.
fn answer_of(tool: &str, words: &[&str], input: &str) -> Result<String> {
    let missing = |error: std::io::Error| {
        Error::recipe(format!("{tool} cannot be started: {error}"))
            .with_hint("submit from a machine that has it, or use --dry-run")
    };
    let mut child = Command::new(tool)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends before it has read everything says why.
        if let Err(error) = stdin.write_all(input.as_bytes())
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            return Err(error.into());
        }
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::recipe(format!("{tool} rejected the job ({})", output.status)))
    }
}

#[cfg(test)]
mod tests;
