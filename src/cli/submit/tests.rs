use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::Parser;
use serde_json::{Value, json};

use super::launch::quoted;
use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    submit: SubmitVerb,
}

fn parsed(line: &str) -> SubmitVerb {
    let words = ["submit", "jobs/smoke.toml"].into_iter().chain(line.split_whitespace());
    Line::try_parse_from(words).unwrap().submit
}

fn script(line: &str) -> Result<String> {
    let submit = parsed(line);
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
        let text = script(&format!("--template {template} --tasks 8 --run-dir /data/r")).unwrap();
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
        let text =
            script(&format!("--template {template} --gpus 2 --partition long --set rank.steps=3"))
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
    let job = |answer: &str| Submitted::new(PathBuf::new(), String::new(), Some(answer.into())).job;
    assert_eq!(
        (job("Submitted batch job 17\n"), job("Submitted batch job 8 on cluster c1\n"), job("")),
        (Some(17), Some(8), None)
    );
}

#[test]
fn the_system_and_overrides_reach_the_job_once() {
    let text = script("--system atlop --set rank.steps=3").unwrap();
    assert!(text.contains(" --set 'system=atlop' --set 'rank.steps=3')"), "{text}");
    let finetune = "--template finetune-after-pretrain --after 17";
    let text = script(&format!("{finetune} --system atlop")).unwrap();
    assert!(text.contains(" finetune --system \"atlop\" ") && !text.contains("--set"), "{text}");
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

const CLUSTER: &str = "--to kubernetes --image registry/docre:1 --volume claim";

/// The values of a key in the object of a kind. A value is JSON, or a plain word.
///
/// `cluster/test_launch_files.py` reads the files as YAML.
fn values(text: &str, kind: &str, key: &str) -> Vec<Value> {
    let object = text.split("\n---\n").find(|object| object.contains(&format!("\nkind: {kind}\n")));
    let object = object.unwrap_or_else(|| panic!("no {kind} in\n{text}"));
    let lines = object.lines().filter_map(|line| line.trim_start().strip_prefix(key));
    let values = lines.filter_map(|rest| rest.strip_prefix(": "));
    values.map(|value| serde_json::from_str(value).unwrap_or_else(|_| json!(value))).collect()
}

/// The only value of a key, or the first of equal ones.
fn value(text: &str, kind: &str, key: &str) -> Value {
    let mut values = values(text, kind, key);
    values.dedup();
    assert_eq!(values.len(), 1, "{kind}: {key}");
    values.remove(0)
}

/// Words of a list.
fn words(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// A folder with a program of that name, which does what `script` says.
fn fake(name: &str, script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs_err::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A command that finds the programs of `folder` first.
fn with_path(command: &[String], folder: &Path) -> Command {
    let mut process = Command::new(&command[0]);
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    process.args(&command[1..]).env("PATH", path);
    process
}

/// The words that a command gives to the program, in an environment.
fn words_of(command: &[String], environment: &[(&str, &str)]) -> Vec<String> {
    let folder = fake("docre-pretrain", r#"printf '%s\n' "$@""#);
    let output = with_path(command, folder.path()).envs(environment.iter().copied()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn an_indexed_job_starts_its_ranks_on_every_machine() {
    let line = format!("{CLUSTER} --nodes 4 --tasks 8 --gpus 8 --cpus 2 --memory 64");
    let text = script(&line).unwrap();
    let recipe = value(&text, "ConfigMap", "recipe.toml");
    assert_eq!(recipe, fs_err::read_to_string("jobs/smoke.toml").unwrap());
    assert_eq!(value(&text, "Service", "clusterIP"), "None");
    assert_eq!(value(&text, "Service", "batch.kubernetes.io/job-name"), "smoke");
    let job = |key| value(&text, "Job", key);
    assert_eq!((job("completions"), job("parallelism")), (json!(4), json!(4)));
    assert_eq!((job("completionMode"), job("subdomain")), (json!("Indexed"), json!("smoke")));
    let limits = json!({ "cpu": 16, "memory": "64Gi", "nvidia.com/gpu": 8 });
    assert_eq!(job("resources"), json!({ "limits": limits }));
    let told = words_of(&words(&job("command")), &[("JOB_COMPLETION_INDEX", "3")]).join(" ");
    assert_eq!(
        told,
        "launch -n 8 --nodes 4 --node-rank 3 --rendezvous smoke-0.smoke:29500 run \
         /etc/docre/recipe.toml --run-dir /data/runs/smoke --resume"
    );
}

/// 75 and a lost machine cost nothing, 71 is counted once a pod, and what a person must mend ends
/// the job.
#[test]
fn exit_codes_decide_whether_a_pod_starts_again() {
    for (template, kind) in [("indexed-job", "Job"), ("train-job", "TrainingRuntime")] {
        let line = format!("{CLUSTER} --template {template} --nodes 3 --restarts 2 --grace 90");
        let text = script(&line).unwrap();
        let policy = value(&text, kind, "podFailurePolicy");
        let rules = policy["rules"].as_array().unwrap();
        let codes = |rule: usize| (&rules[rule]["action"], &rules[rule]["onExitCodes"]["values"]);
        assert_eq!(codes(0), (&json!("FailJob"), &json!([2, 64, 65, 70, 74])), "{template}");
        assert_eq!(codes(1), (&json!("Ignore"), &json!([75])));
        assert_eq!(
            rules[2]["onPodConditions"],
            json!([{ "type": "DisruptionTarget", "status": "True" }])
        );
        assert_eq!(codes(3), (&json!("Count"), &json!([71])));
        assert_eq!(value(&text, kind, "backoffLimit"), 6);
        assert_eq!(value(&text, kind, "restartPolicy"), "Never");
        assert_eq!(value(&text, kind, "terminationGracePeriodSeconds"), 90);
    }
}

#[test]
fn a_train_job_takes_its_place_from_trainer() {
    let line = format!("{CLUSTER} --template train-job --nodes 2 --tasks 4 --set rank.steps=3");
    let text = script(&line).unwrap();
    assert_eq!(values(&text, "TrainJob", "name"), [json!("smoke"), json!("smoke")]);
    assert_eq!(value(&text, "TrainJob", "numNodes"), 2);
    assert_eq!(value(&text, "TrainJob", "numProcPerNode"), 4);
    let environment = [
        ("PET_NPROC_PER_NODE", "4"),
        ("PET_NNODES", "2"),
        ("PET_NODE_RANK", "1"),
        ("PET_MASTER_ADDR", "smoke-node-0-0.smoke"),
        ("PET_MASTER_PORT", "29400"),
    ];
    let command = words(&value(&text, "TrainingRuntime", "command"));
    assert_eq!(
        words_of(&command, &environment).join(" "),
        "launch -n 4 --nodes 2 --node-rank 1 --rendezvous smoke-node-0-0.smoke:29400 run \
         /etc/docre/recipe.toml --run-dir /data/runs/smoke --resume --set rank.steps=3"
    );
}

/// Kubernetes asks with TERM; the ranks get USR1 and end with 75, which the launcher hands on.
#[test]
fn the_launcher_of_an_mpi_job_asks_its_ranks_to_save() {
    let line = format!("{CLUSTER} --template mpi-job --nodes 3 --tasks 8");
    let text = script(&line).unwrap();
    assert_eq!(value(&text, "MPIJob", "slotsPerWorker"), 8);
    assert_eq!(values(&text, "MPIJob", "replicas"), [json!(1), json!(3)]);
    assert_eq!(value(&text, "MPIJob", "env")[0]["name"], "OMPI_ALLOW_RUN_AS_ROOT");
    let ranks = r#"echo "$@" >"$(dirname "$0")/words"
trap 'exit 75' USR1
touch "$(dirname "$0")/ready"
for _ in {1..1200}; do sleep 0.05; done"#;
    let folder = fake("mpirun", ranks);
    let command = words(&values(&text, "MPIJob", "command")[0]);
    let mut child = with_path(&command, folder.path()).spawn().unwrap();
    let ready = folder.path().join("ready");
    while !ready.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(asked.success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let told = fs_err::read_to_string(folder.path().join("words")).unwrap();
    assert!(told.starts_with("--bind-to none -n 24 docre-pretrain run /etc/docre/"), "{told}");
}

/// The script of a task.
fn script_of(task: &str) -> String {
    let lines = task.split_once("run: |\n").unwrap().1.lines();
    lines.map(|line| line.strip_prefix("  ").unwrap().to_owned() + "\n").collect()
}

/// The value of a key of a task.
fn of_task(task: &str, key: &str) -> Value {
    value(&format!("\nkind: Task\n{task}"), "Task", key)
}

#[test]
fn a_task_of_skypilot_meets_at_its_first_machine() {
    let line = "--to sky --image registry/docre:1 --nodes 2 --tasks 8 --gpus 8 --accelerator H200 \
                --volume shared --set data.synth.noise=0.5";
    let text = script(line).unwrap();
    let task = |key| of_task(&text, key);
    assert_eq!((task("name"), task("num_nodes")), (json!("smoke"), json!(2)));
    let resources = task("resources");
    assert_eq!(resources["accelerators"], "H200:8");
    assert_eq!(resources["image_id"], "docker:registry/docre:1");
    assert_eq!(resources["job_recovery"]["recover_on_exit_codes"], json!([75, 71]));
    assert_eq!(task("volumes"), json!({ "/data": "shared" }));
    let run = script_of(&text).replace("cd /data\n", "");
    let environment = [
        ("SKYPILOT_NUM_NODES", "2"),
        ("SKYPILOT_NODE_RANK", "1"),
        ("SKYPILOT_NODE_IPS", "10.0.0.5\n10.0.0.6"),
    ];
    let told = words_of(&["bash".into(), "-c".into(), run], &environment).join(" ");
    assert_eq!(
        told,
        "launch -n 8 --nodes 2 --node-rank 1 --rendezvous 10.0.0.5:29500 run \
         /tmp/docre/recipe.toml --run-dir /data/runs/smoke --resume --set data.synth.noise=0.5"
    );
}

#[test]
fn a_bucket_holds_data_and_no_run_folder() {
    let text = script("--to sky --image i --volume s3://bucket/data").unwrap();
    assert_eq!(of_task(&text, "file_mounts")["/data"]["source"], "s3://bucket/data");
    let run = script_of(&text);
    assert!(run.starts_with("cd /data\n") && run.contains(r#"--run-dir "$HOME"/'runs/smoke'"#));
    let told = parsed("--to sky --image i --volume s3://bucket/data --gpus 8 --tasks 2")
        .warnings(&Recipe::parse("", "test", &[]).unwrap());
    assert!(told[0].contains("leave 6 idle") && told[1].contains("checkpoint_mirror"), "{told:?}");
}

/// Every word of a file is data, whatever it holds.
#[test]
fn names_and_settings_stay_words() {
    let submit = Line::try_parse_from(
        ["submit", "jobs/smoke.toml"].into_iter().chain(CLUSTER.split_whitespace()).chain([
            "--set",
            "name=true",
            "--set",
            "encoder.name=a: \"b\" # c '$d' @NAME@",
        ]),
    );
    let submit = submit.unwrap().submit;
    let recipe = Recipe::parse("name = \"true\"", "test", &[]).unwrap();
    let text = submit.fill(&recipe).unwrap();
    assert!(text.contains("  name: \"true\"\n"), "{text}");
    let command = words(&value(&text, "Job", "command"));
    assert_eq!(command.last().unwrap(), "encoder.name=a: \"b\" # c '$d' @NAME@");
}

#[test]
fn what_a_destination_does_not_read_is_refused() {
    for (line, told) in [
        ("--to kubernetes --image i", "--volume CLAIM"),
        ("--to kubernetes --volume c", "--image IMAGE"),
        ("--to sky --image i --gpus 1", "kind of the GPUs"),
        ("--to sky --image i --accelerator H200", "--accelerator needs --gpus"),
        ("--to sky --image i --grace 5", "--grace means nothing with --to sky"),
        ("--to kubernetes --image i --volume c --partition p", "--partition means nothing"),
        ("--image i", "--image means nothing with --to slurm"),
        ("--template mpi-job", "--template mpi-job is not for --to slurm"),
        (&format!("{CLUSTER} --run-dir /elsewhere/r"), "in a container only /data is kept"),
        (&format!("{CLUSTER} --run-dir ../r"), "in a container only /data is kept"),
    ] {
        let error = script(line).unwrap_err();
        assert!(error.exit_code() == 64 && error.to_string().contains(told), "{line}: {error}");
    }
    let submit = parsed(CLUSTER);
    for name in ["Smoke", "a_b", "9", "-a", "a-", &"a".repeat(60)] {
        let recipe = Recipe::parse(&format!("name = \"{name}\""), "test", &[]).unwrap();
        let error = submit.fill(&recipe).unwrap_err();
        assert!(error.to_string().contains("small letters"), "{name}: {error}");
    }
}

#[test]
fn a_tool_is_given_the_file_and_its_answer_comes_back() {
    let folder = fake("kubectl", r#"echo "$1: $(cat)""#);
    let tool = folder.path().join("kubectl").display().to_string();
    assert_eq!(answer_of(&tool, &["apply"], "kind: Job\n").unwrap(), "apply: kind: Job\n");
    let folder = fake("sky", "exit 3");
    let tool = folder.path().join("sky").display().to_string();
    // More than a pipe holds, so that the tool is gone before all of it is written.
    let error = answer_of(&tool, &[], &"x".repeat(1 << 20)).unwrap_err();
    assert!(error.exit_code() == 64 && error.to_string().contains("rejected the job"), "{error}");
    let error = answer_of("no-such-scheduler", &[], "").unwrap_err();
    assert!(error.to_string().starts_with("no-such-scheduler cannot be started"), "{error}");
    assert!(error.hint().unwrap().contains("--dry-run"));
}
