//! Job scripts for Slurm.
//!
//! Not for handing them over.

use std::path::{Path, PathBuf};

use super::launch::{LaunchJob, path_text, plain, settings_text};
use super::places::fill;
use crate::Result;

/// The job scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobScript {
    /// One machine.
    SingleNode,
    /// Several machines.
    MultiNode,
    /// The same recipe with several seeds.
    ArrayOfSeeds,
    /// Fine-tuning after another job has pre-trained.
    FinetuneAfterPretrain,
}

impl JobScript {
    fn text(self) -> &'static str {
        match self {
            Self::SingleNode => include_str!("../../../jobs/slurm/single-node.sbatch"),
            Self::MultiNode => include_str!("../../../jobs/slurm/multi-node.sbatch"),
            Self::ArrayOfSeeds => include_str!("../../../jobs/slurm/array-of-seeds.sbatch"),
            Self::FinetuneAfterPretrain => {
                include_str!("../../../jobs/slurm/finetune-after-pretrain.sbatch")
            }
        }
    }
}

/// What only Slurm is told.
#[derive(Debug)]
pub(super) struct SlurmRequest {
    /// Partition.
    pub partition: Option<String>,
    /// Time limit.
    pub time: String,
    /// Seeds of an array.
    pub seeds: String,
    /// The job to wait for.
    pub after: String,
    /// Log file.
    pub log: Option<PathBuf>,
    /// The system that is fine-tuned.
    pub system: String,
}

/// The script of a run, whose folder is `run`.
///
/// # Errors
/// A recipe error (64) for a value that a script cannot hold.
pub(super) fn slurm_file(
    script: JobScript,
    job: &LaunchJob,
    request: &SlurmRequest,
    run: &Path,
) -> Result<String> {
    let program = job.program.clone().map_or_else(std::env::current_exe, Ok)?;
    let name = if script == JobScript::ArrayOfSeeds { "log/%x-%A_%a.log" } else { "log/%x-%A.log" };
    let log = request.log.clone().unwrap_or_else(|| run.join(name));
    let values = vec![
        ("NAME", plain("name", &job.name)?),
        ("NODES", job.nodes.to_string()),
        ("TASKS", job.tasks.to_string()),
        ("CPUS", job.cpus.to_string()),
        ("TIME", plain("--time", &request.time)?),
        ("GRACE", job.grace.to_string()),
        ("RESTARTS", job.restarts.to_string()),
        ("SEEDS", plain("--seeds", &request.seeds)?),
        ("AFTER", plain("--after", &request.after)?),
        ("SYSTEM", plain("--system", &request.system)?),
        ("PROGRAM", path_text(&std::path::absolute(program)?)?),
        ("RECIPE", path_text(&std::path::absolute(&job.recipe)?)?),
        ("RUN", path_text(run)?),
        ("LOG", path_text(&log)?),
        ("SETTINGS", settings_text(&job.settings)),
    ];
    with_resources(&fill(script.text(), &values)?, job, request)
}

/// Adds the optional resources after the first line.
fn with_resources(script: &str, job: &LaunchJob, request: &SlurmRequest) -> Result<String> {
    let mut lines = String::new();
    if job.gpus > 0 {
        lines += &format!("#SBATCH --gpus-per-node={}\n", job.gpus);
    }
    if let Some(memory) = job.memory {
        lines += &format!("#SBATCH --mem={memory}G\n");
    }
    if let Some(partition) = &request.partition {
        lines += &format!("#SBATCH --partition={}\n", plain("--partition", partition)?);
    }
    Ok(script.replacen('\n', &format!("\n{lines}"), 1))
}
