//! The launch file for SkyPilot: a task.
//!
//! Not for handing it over.

use std::path::Path;

use serde_json::{Value, json};

use super::launch::{DATA, LaunchJob, PORT, plain, quoted, settings_text};
use super::places::fill;
use crate::{Error, Result, exit_code};

/// Where the recipe lies on the machines.
const RECIPE: &str = "/tmp/docre/recipe.toml";

/// The task of a run.
///
/// # Errors
/// A recipe error (64) for a name, a folder, an image or a setting that does not suit.
pub(super) fn sky_file(job: &LaunchJob) -> Result<String> {
    let settings = settings_text(&job.settings);
    if settings.contains(char::is_control) {
        return Err(Error::recipe(
            "--set holds a line break, which a task of SkyPilot cannot hold",
        )
        .with_hint("write it into the recipe"));
    }
    let recipe = std::path::absolute(&job.recipe)?;
    let mut mounts = json!({ RECIPE: recipe });
    let mut volumes = json!({});
    match job.volume.as_deref() {
        Some(bucket) if bucket.contains("://") => {
            mounts[DATA] = json!({ "source": bucket, "mode": "MOUNT" });
        }
        Some(volume) => volumes[DATA] = json!(volume),
        None => {}
    }
    let values = vec![
        ("NAME", json!(job.dns_name()?).to_string()),
        ("NODES", job.nodes.to_string()),
        ("TASKS", job.tasks.to_string()),
        ("PORT", PORT.to_string()),
        ("RESOURCES", resources(job)?.to_string()),
        ("MOUNTS", mounts.to_string()),
        ("VOLUMES", volumes.to_string()),
        ("DATA", if job.volume.is_some() { DATA.into() } else { "\"$HOME\"".into() }),
        ("PROGRAM", quoted(&plain("--program", &job.program_there())?)),
        ("RECIPE", RECIPE.into()),
        ("RUN", run_folder(job)?),
        ("SETTINGS", settings),
    ];
    fill(include_str!("../../../jobs/sky.yaml"), &values)
}

/// The run folder, for the shell: on the volume if there is one. A bucket is no file system for it.
fn run_folder(job: &LaunchJob) -> Result<String> {
    match job.volume.as_deref() {
        Some(volume) if !volume.contains("://") => Ok(quoted(&job.run_on_volume()?)),
        _ => {
            let run = plain("--run-dir", &job.run.display().to_string())?;
            let below = if Path::new(&run).is_absolute() { "" } else { "\"$HOME\"/" };
            Ok(format!("{below}{}", quoted(&run)))
        }
    }
}

/// What a machine is asked for.
fn resources(job: &LaunchJob) -> Result<Value> {
    let codes = [exit_code::STOPPED, exit_code::RANK_LOST];
    let recovery = json!({
        "max_restarts_on_errors": job.restarts,
        "recover_on_exit_codes": codes,
    });
    let mut resources = json!({
        "image_id": format!("docker:{}", job.image()?),
        "cpus": format!("{}+", job.cores()),
        "job_recovery": recovery,
    });
    if let Some(memory) = job.memory {
        resources["memory"] = json!(format!("{memory}+"));
    }
    match (&job.accelerator, job.gpus) {
        (Some(kind), 1..) => resources["accelerators"] = json!(format!("{kind}:{}", job.gpus)),
        (None, 0) => {}
        (Some(_), 0) => return Err(Error::recipe("--accelerator needs --gpus")),
        (None, _) => {
            return Err(Error::recipe("SkyPilot needs the kind of the GPUs")
                .with_hint("--accelerator H200, for example; `sky show-gpus` lists them"));
        }
    }
    Ok(resources)
}
