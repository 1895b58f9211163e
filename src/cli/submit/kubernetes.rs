//! Launch files for Kubernetes: an Indexed Job, a TrainJob, an MPIJob.
//!
//! A file is YAML; the values of its places are JSON, which is YAML too. Not for handing the file
//! to the cluster.

use serde_json::{Value, json};

use super::launch::{DATA, LaunchJob, PORT};
use super::places::fill;
use crate::{Error, Result, exit_code};

/// Where the recipe lies in a container.
const RECIPE: &str = "/etc/docre/recipe.toml";

/// The kinds of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClusterJob {
    /// Of Kubernetes itself.
    Indexed,
    /// Of Kubeflow Trainer.
    Train,
    /// Of the MPI Operator.
    Mpi,
}

impl ClusterJob {
    fn text(self) -> &'static str {
        match self {
            Self::Indexed => include_str!("../../../jobs/kubernetes/indexed-job.yaml"),
            Self::Train => include_str!("../../../jobs/kubernetes/train-job.yaml"),
            Self::Mpi => include_str!("../../../jobs/kubernetes/mpi-job.yaml"),
        }
    }

    /// The command of a container: a script of the shell, and the words that it goes on with.
    fn command(self, job: &LaunchJob) -> Result<Value> {
        let (shell, script) = match self {
            Self::Indexed => {
                let (tasks, nodes, name) = (job.tasks, job.nodes, job.dns_name()?);
                let script = format!(
                    "exec \"$0\" launch -n {tasks} --nodes {nodes} --node-rank \
                     \"$JOB_COMPLETION_INDEX\" --rendezvous {name}-0.{name}:{PORT} \"$@\""
                );
                ("sh", script)
            }
            Self::Train => {
                let script = "exec \"$0\" launch -n \"$PET_NPROC_PER_NODE\" --nodes \
                              \"$PET_NNODES\" --node-rank \"$PET_NODE_RANK\" --rendezvous \
                              \"$PET_MASTER_ADDR:$PET_MASTER_PORT\" \"$@\"";
                ("sh", script.to_owned())
            }
            Self::Mpi => {
                let ranks = u64::from(job.nodes) * u64::from(job.tasks);
                let script = include_str!("../../../jobs/kubernetes/mpirun.sh");
                ("bash", fill(script, &vec![("RANKS", ranks.to_string())])?)
            }
        };
        let run = job.run_on_volume()?;
        let mut words = vec![shell, "-c", &script];
        let program = job.program_there();
        words.extend([program.as_str(), "run", RECIPE, "--run-dir", &run, "--resume"]);
        words.extend(job.settings.iter().flat_map(|setting| ["--set", setting.as_str()]));
        Ok(json!(words))
    }
}

/// The launch file of a run; `recipe` is the text of its recipe.
///
/// # Errors
/// A recipe error (64) for a name, a folder or an image that does not suit.
pub(super) fn cluster_file(kind: ClusterJob, job: &LaunchJob, recipe: &str) -> Result<String> {
    let claim = job.volume.as_deref().ok_or_else(|| {
        Error::recipe("a job of Kubernetes needs --volume CLAIM").with_hint(format!(
            "name a PersistentVolumeClaim that all machines can mount; it becomes {DATA}, and \
             holds data and run folders"
        ))
    })?;
    let backoff = u64::from(job.restarts) * u64::from(job.nodes);
    let values = vec![
        ("NAME", json!(job.dns_name()?).to_string()),
        ("RECIPE", json!(recipe).to_string()),
        ("NODES", job.nodes.to_string()),
        ("TASKS", job.tasks.to_string()),
        ("PORT", PORT.to_string()),
        ("BACKOFF", backoff.to_string()),
        ("RESTARTS", job.restarts.to_string()),
        ("GRACE", job.grace.to_string()),
        ("FAILURES", failures().to_string()),
        ("IMAGE", json!(job.image()?).to_string()),
        ("COMMAND", kind.command(job)?.to_string()),
        ("DATA", json!(DATA).to_string()),
        ("RESOURCES", resources(job).to_string()),
        ("ENVIRONMENT", environment().to_string()),
        ("MOUNTS", mounts().to_string()),
        ("VOLUMES", volumes(job.dns_name()?, claim).to_string()),
    ];
    let recipe = include_str!("../../../jobs/kubernetes/recipe.yaml");
    let (comment, objects) = head_and_body(kind.text());
    fill(&[comment, recipe, objects].concat(), &values)
}

/// A file's first comment and what follows.
fn head_and_body(text: &str) -> (&str, &str) {
    text.split_at(text.find("\napiVersion").map_or(0, |end| end + 1))
}

/// What an exit code does to a job: 75 starts a pod anew without being counted, as the loss of its
/// machine does; 71 is counted; what a person must mend ends the job.
fn failures() -> Value {
    let codes = |action: &str, codes: &[u8]| {
        let values = json!({ "operator": "In", "values": codes });
        json!({ "action": action, "onExitCodes": values })
    };
    use exit_code::{BUG, DATA, IO, RANK_LOST, RECIPE, STOPPED, USAGE};
    let lost_machine = json!({ "type": "DisruptionTarget", "status": "True" });
    json!({ "rules": [
        codes("FailJob", &[USAGE, RECIPE, DATA, BUG, IO]),
        codes("Ignore", &[STOPPED]),
        { "action": "Ignore", "onPodConditions": [lost_machine] },
        codes("Count", &[RANK_LOST]),
    ]})
}

/// What a machine is asked for.
fn resources(job: &LaunchJob) -> Value {
    let mut limits = json!({ "cpu": job.cores() });
    if let Some(memory) = job.memory {
        limits["memory"] = json!(format!("{memory}Gi"));
    }
    if job.gpus > 0 {
        limits["nvidia.com/gpu"] = json!(job.gpus);
    }
    // Requests that are not given are those of the limits.
    json!({ "limits": limits })
}

/// Containers run as root, which Open MPI refuses unless told otherwise.
fn environment() -> Value {
    json!([
        { "name": "OMPI_ALLOW_RUN_AS_ROOT", "value": "1" },
        { "name": "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "value": "1" },
    ])
}

fn mounts() -> Value {
    json!([
        { "name": "data", "mountPath": DATA },
        { "name": "recipe", "mountPath": "/etc/docre", "readOnly": true },
        { "name": "memory", "mountPath": "/dev/shm" },
    ])
}

/// The last one is where the ranks of a machine exchange messages: a container has 64 MB of its
/// own.
fn volumes(name: &str, claim: &str) -> Value {
    json!([
        { "name": "data", "persistentVolumeClaim": { "claimName": claim } },
        { "name": "recipe", "configMap": { "name": name } },
        { "name": "memory", "emptyDir": { "medium": "Memory" } },
    ])
}
