//! Shared by the tests of the program from outside: where it is, an environment without launchers,
//! and the files of a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A recipe that trains every stage for a few steps. `top` holds lines of its top level, `pretrain`
/// lines of that stage.
pub fn recipe(
    name: &str,
    distant: usize,
    top: &str,
    pretrain: &str,
    finetune_steps: usize,
) -> String {
    format!(
        r#"
name = "{name}"
variants = ["pretrained"]
threads = 1
device = "cpu"
{top}
[data.synth]
distant = {distant}
human = 8
dev = 4
test = 4
[encoder]
name = "tiny"
[dsdocre]
relation_width = 16
[rank]
learning_rate = 1e-3
batch = 4
steps = 2
[pretrain]
learning_rate = 1e-3
batch = 4
{pretrain}
[finetune]
learning_rate = 1e-3
batch = 4
steps = {finetune_steps}
"#
    )
}

pub fn program() -> PathBuf {
    assert_cmd::cargo::cargo_bin!("docre-pretrain").to_path_buf()
}

/// Removes the variables of a launcher, such as the rank, but not the settings of MPI.
pub fn free_of_launchers(command: &mut Command) {
    let foreign = [
        "OMPI_",
        "PMI",
        "SLURM_",
        "WORLD_SIZE",
        "RANK",
        "LOCAL_RANK",
        "MASTER_",
        "TORCHELASTIC_",
        "DOCRE_LAUNCHED",
        "DOCRE_WORLD",
    ];
    let wishes = ["OMPI_MCA_", "OMPI_ALLOW_"];
    let starts = |name: &str, with: &[&str]| with.iter().any(|start| name.starts_with(start));
    for (name, _) in
        std::env::vars().filter(|(name, _)| starts(name, &foreign) && !starts(name, &wishes))
    {
        command.env_remove(name);
    }
}

/// Allows `mpirun` to run as root and with more ranks than cores.
pub fn allow_mpirun(command: &mut Command) {
    for name in [
        "OMPI_ALLOW_RUN_AS_ROOT",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
        "OMPI_MCA_rmaps_base_oversubscribe",
    ] {
        command.env(name, "1");
    }
}

/// The lines of `metrics.jsonl` of a stage by step; the last line of a repeated step counts.
pub fn metrics(run: &Path, stage: &str) -> BTreeMap<u64, Value> {
    let text = fs_err::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| line["stage"] == stage)
        .map(|line| (line["step"].as_u64().unwrap(), line))
        .collect()
}

/// Copies a folder with its contents.
pub fn copy(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs_err::copy(entry.path(), target).unwrap();
        }
    }
}
