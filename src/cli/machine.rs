//! The machine, or a cluster: `doctor`, `systems`, `plan`, `submit`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::pipeline::FinetuneVerb;
use super::shared::{Overrides, print_all, show, write_json};
use crate::base::run_files;
use crate::questions::{self, PlanOptions, ScalingOptions};
use crate::recipe::Recipe;
use crate::systems::{SystemInfo, systems};
use crate::torch::{Precision, device, precision::matmul_rate};
use crate::{Error, Result};

/// Below this much free memory, training a `mini` encoder is doubtful: `tiny` takes 1 GB, `mini` 2
/// GB (docs/experiments.md).
const LOW_MEMORY_BYTES: u64 = 2_500_000_000;
/// Below this much free disk, a run is doubtful: a checkpoint of `mini` takes 0.2 GB, of `base` 1.7
/// GB.
const LOW_DISK_BYTES: u64 = 5_000_000_000;

/// Check libtorch, MPI, NCCL, GPUs, memory and disk of this machine
#[derive(Debug, Args)]
pub struct DoctorVerb {
    /// Write the findings as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What the machine offers.
#[derive(Debug, Serialize)]
struct Findings {
    version: &'static str,
    libtorch: &'static str,
    cores: usize,
    memory: String,
    disk_here: String,
    disk_for_temporary_files: String,
    cuda_devices: i64,
    mpi: bool,
    object_stores: bool,
    nccl: Option<String>,
    /// GFLOP/s on the CPU, by number format.
    matmul_gflops: BTreeMap<&'static str, f64>,
}

impl DoctorVerb {
    pub fn run(self) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cuda = device::open_cuda();
        let nccl = crate::ranks::NcclLibrary::open().map(|library| library.version().to_string());
        let mut findings = Findings {
            version: env!("CARGO_PKG_VERSION"),
            libtorch: env!("DOCRE_LIBTORCH"),
            cores,
            memory: memory(),
            disk_here: disk(Path::new(".")),
            disk_for_temporary_files: disk(&std::env::temp_dir()),
            cuda_devices: cuda.as_ref().map_or(0, |()| tch::Cuda::device_count()),
            mpi: cfg!(feature = "mpi"),
            object_stores: cfg!(feature = "cloud"),
            nccl: nccl.as_ref().ok().cloned(),
            matmul_gflops: BTreeMap::new(),
        };
        println!("docre-pretrain {} on libtorch {}", findings.version, findings.libtorch);
        told("cores", cores);
        told("memory", &findings.memory);
        told("disk here", &findings.disk_here);
        told("disk for temporary files", &findings.disk_for_temporary_files);
        match cuda {
            Ok(()) => told("CUDA", format!("{} device(s)", findings.cuda_devices)),
            Err(error) => told("CUDA", format!("none: {}", first_line(&error))),
        }
        told("MPI", if findings.mpi { "built in" } else { "not built in (--no-default-features)" });
        told(
            "object stores",
            if findings.object_stores { "built in" } else { "not built in (--features cloud)" },
        );
        match nccl {
            Ok(version) => told("NCCL", version),
            Err(error) => told("NCCL", format!("none: {}", first_line(&error))),
        }
        device::set_threads(cores)?;
        for (name, precision) in [("fp32", Precision::Fp32), ("bf16", Precision::Bf16)] {
            let rate = matmul_rate(tch::Device::Cpu, precision)? / 1e9;
            findings.matmul_gflops.insert(name, rate);
            told(&format!("matmul {name}"), format!("{rate:.0} GFLOP/s on the CPU"));
        }
        write_json(self.json.as_deref(), &findings)
    }
}

fn told(name: &str, value: impl std::fmt::Display) {
    println!("{name:<26}{value}");
}

fn first_line(error: &crate::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Total and free memory, and the limit of the container where there is a lower one.
fn memory() -> String {
    let Some((total, free)) =
        fs_err::read_to_string("/proc/meminfo").ok().and_then(|text| parse_meminfo(&text))
    else {
        return "unknown: /proc/meminfo cannot be read".into();
    };
    let limit = fs_err::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    let limited = limit
        .filter(|&limit| limit < total)
        .map_or_else(String::new, |limit| format!(", limited to {}", gigabytes(limit)));
    let low = if free.min(limit.unwrap_or(free)) < LOW_MEMORY_BYTES {
        "; little: use the encoder `tiny`, or add memory"
    } else {
        ""
    };
    format!("{}, {} free{limited}{low}", gigabytes(total), gigabytes(free))
}

/// (total, available) in bytes, from the text of `/proc/meminfo`.
fn parse_meminfo(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(':')?
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
            .map(|kilobytes| kilobytes * 1024)
    };
    Some((field("MemTotal")?, field("MemAvailable")?))
}

fn disk(path: &Path) -> String {
    match rustix::fs::statvfs(path) {
        Ok(disk) => {
            let free = disk.f_bavail * disk.f_frsize;
            let low = if free < LOW_DISK_BYTES {
                "; little for checkpoints: free some, or put --run-dir on another disk"
            } else {
                ""
            };
            format!("{} free of {}{low}", gigabytes(free), gigabytes(disk.f_blocks * disk.f_frsize))
        }
        Err(error) => format!("unknown: {error}"),
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

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

/// The job scripts.
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

/// Turn a recipe into a Slurm job and submit it
#[derive(Debug, Args)]
pub struct SubmitVerb {
    /// Recipe (TOML)
    recipe: PathBuf,
    /// Job script
    #[arg(long, value_enum, default_value = "single-node")]
    template: Template,
    /// Run folder [default: runs/NAME]
    #[arg(long, value_name = "R")]
    run_dir: Option<PathBuf>,
    /// Number of machines
    #[arg(long, default_value_t = 1)]
    nodes: u32,
    /// Ranks on each machine
    #[arg(long, default_value_t = 1)]
    tasks: u32,
    /// Cores of each rank
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// GPUs of each machine; 0 requests none
    #[arg(long, default_value_t = 0)]
    gpus: u32,
    /// Slurm partition
    #[arg(long)]
    partition: Option<String>,
    /// Time limit, after which the job is requeued
    #[arg(long, default_value = "24:00:00")]
    time: String,
    /// Seconds before the time limit at which the run is asked to save and stop
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    grace: u32,
    /// Restarts after lost ranks
    #[arg(long, default_value_t = 5)]
    restarts: u32,
    /// array-of-seeds: the seeds, written as a Slurm array
    #[arg(long, default_value = "1-3")]
    seeds: String,
    /// finetune-after-pretrain: the job to wait for
    #[arg(long, value_name = "JOB")]
    after: Option<String>,
    /// System to train [default: the recipe's]
    #[arg(long, value_name = "NAME")]
    system: Option<String>,
    #[command(flatten)]
    overrides: Overrides,
    /// Path of the program on the compute nodes [default: this program]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Log file of the job, with Slurm's patterns [default: log/%x-%A.log in the run folder, for
    /// arrays log/%x-%A_%a.log]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Print the script instead of submitting it
    #[arg(long)]
    dry_run: bool,
    /// Write the script and Slurm's answer as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What was submitted to Slurm.
#[derive(Debug, Serialize)]
struct Submitted {
    run_dir: PathBuf,
    script: String,
    /// The answer of sbatch; null in a dry run.
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
        let run_dir = self.folder(&recipe)?;
        let answer = if self.dry_run {
            None
        } else {
            fs_err::create_dir_all(run_dir.join(run_files::LOG))?;
            Some(String::from_utf8_lossy(&sbatch(&script)?).into_owned())
        };
        let submitted = Submitted::new(run_dir, script, answer);
        write_json(self.json.as_deref(), &submitted)?;
        print_all(submitted.answer.as_ref().unwrap_or(&submitted.script).as_bytes())
    }

    fn folder(&self, recipe: &Recipe) -> Result<PathBuf> {
        Ok(std::path::absolute(self.run_dir.clone().unwrap_or_else(|| recipe.default_run_dir()))?)
    }

    fn system_setting(&self) -> Vec<String> {
        self.system.iter().map(|name| format!("system={name}")).collect()
    }

    /// The `--set` values of the command in the job.
    fn settings(&self) -> Result<Vec<String>> {
        let overrides = self.overrides.of_verb::<Self>()?;
        match self.template {
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

    fn fill(&self, recipe: &Recipe) -> Result<String> {
        let after = match (self.template, &self.after) {
            (Template::FinetuneAfterPretrain, None) => {
                return Err(Error::recipe("finetune-after-pretrain needs --after JOB").with_hint(
                    "JOB is the number that `submit` printed for the pre-training job",
                ));
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
            self.settings()?.iter().map(|setting| format!(" --set {}", quoted(setting))).collect();
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
            ("SYSTEM", plain("--system", &recipe.system)?),
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

    /// Adds the optional resources after the first line.
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

/// Pipes a script into sbatch and returns its answer.
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
        Err(Error::recipe(format!("sbatch rejected the job ({})", output.status)))
    }
}

/// Quotes a word for the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Checks a value that stands unquoted in an `#SBATCH` line, or between double quotes.
fn plain(name: &str, text: &str) -> Result<String> {
    let odd = |letter: char| !(letter.is_alphanumeric() || "-_.,:/%@+=".contains(letter));
    match text.chars().find(|&letter| odd(letter)) {
        Some(letter) => Err(Error::recipe(format!(
            "{name} is `{text}`, but {letter:?} is not allowed in a job script"
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

    #[test]
    fn the_kernel_s_figures_are_read() {
        let text = "MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable:   12000000 kB\n";
        assert_eq!(parse_meminfo(text), Some((24_576_000_000, 12_288_000_000)));
        assert_eq!(parse_meminfo("MemTotal: 5 kB\n"), None);
        assert_eq!(gigabytes(24_576_000_000), "24.6 GB");
    }

    #[test]
    fn the_disk_of_a_folder_is_known() {
        assert!(disk(&std::env::temp_dir()).contains(" GB free of "));
        assert!(disk(Path::new("/nowhere")).starts_with("unknown: No such file"));
    }

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        submit: SubmitVerb,
    }

    fn script(line: &str) -> Result<String> {
        let words = ["submit", "jobs/smoke.toml"].into_iter().chain(line.split_whitespace());
        let submit = Line::try_parse_from(words).unwrap().submit;
        submit.fill(&Recipe::parse("name = \"smoke\"", "test", &submit.system_setting())?)
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
            let left =
                text.lines().find(|line| !line.starts_with("# ") && line.matches('@').count() > 1);
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
    fn the_system_and_overrides_reach_the_job_once() {
        let text = script("--system atlop --set rank.steps=3").unwrap();
        assert!(text.contains(" --set 'system=atlop' --set 'rank.steps=3')"), "{text}");
        let finetune = "--template finetune-after-pretrain --after 17";
        let text = script(&format!("{finetune} --system atlop")).unwrap();
        assert!(
            text.contains(" finetune --system \"atlop\" ") && !text.contains("--set"),
            "{text}"
        );
        for (line, flag) in [
            ("--set system=atlop", "--system"),
            (&format!("{finetune} --set device=cpu"), "--device"),
            (&format!("{finetune} --set encoder.name=tiny"), "--encoder"),
            ("--template array-of-seeds --set seed=3", "--seeds"),
        ] {
            let error = script(line).unwrap_err();
            assert!(error.exit_code() == 64 && error.to_string().contains(flag), "{line}: {error}");
        }
        assert!(script("--set seed=3 --set device=cpu --set encoder.name=tiny").is_ok());
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
