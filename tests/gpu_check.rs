//! `cluster/gpu-check.sh` with a program that only pretends: which phases run after a failure, what
//! is skipped, exit codes, and what `result.json` says. (`make test-gpu-check` runs the real one.)

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Answers as the program does; `BROKEN` is the verb that fails.
const PRETENDER: &str = r#"#!/usr/bin/env bash
verb=$1
[ "$verb" != "${BROKEN:-}" ] || { echo "error: broken"; exit 70; }
while [ $# -gt 0 ]; do
    case $1 in --json) json=$2 ;; --run-dir) folder=$2 ;; esac
    shift
done
case $verb in
    doctor) echo '{"nccl": null, "matmul_gflops": {"fp32": 9, "bf16": 8}}' >"$json" ;;
    selftest) echo '{"seed": 7, "checks": [{"passed": true}]}' >"$json" ;;
    verify) echo '[{"case": "atlop", "tensors": [{"max_rel": 1e-7}]}]' >"$json" ;;
    bench) echo '{"matmul_gflops": 9, "precision": "Fp32", "rows": [{"name": "pretrain",
        "documents_per_s": 5, "peak_memory_mb": 100}], "failed": []}' >"$json"
        case $json in */systems.json) echo '{"rows": [], "failed": []}' >"$json" ;; esac ;;
    run) mkdir -p "$folder"
        printf '%s\n' '{"stage": "rank", "step": 1, "loss": 5.2}' \
            '{"stage": "finetune-baseline", "step": 1, "loss": '"${LOSS:-0.7}"'}' \
            >"$folder/metrics.jsonl"
        echo '{"baseline-dev": {"split": "dev", "official": {"f1": 0.5}}}' >"$folder/scores.json"
        case $folder in
            */smoke-parts)
                if [ ! -e "$folder/before" ]; then
                    until [ -e "$folder/STOP" ]; do sleep 0.01; done
                    touch "$folder/before"
                    exit 75
                fi ;;
        esac ;;
esac
"#;

/// Runs the check; returns the exit code and the result.
fn check(environment: &[(&str, &str)]) -> (i32, Value) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    fs_err::write(&program, PRETENDER).unwrap();
    fs_err::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let parity = folder.path().join("parity");
    fs_err::create_dir(&parity).unwrap();
    let out: PathBuf = folder.path().join("out");
    let status = Command::new(root.join("cluster/gpu-check.sh"))
        .envs([("DEVICE", "cpu"), ("SHORT", "1")])
        .env("BINARY", &program)
        .env("PARITY", &parity)
        .env("OUT", &out)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let result = fs_err::read_to_string(out.join("result.json")).unwrap();
    assert!(!out.join("work").exists() && !out.join("result.json.new").exists());
    (status.status.code().unwrap(), serde_json::from_str(&result).unwrap())
}

/// The status of each phase, in order.
fn statuses(result: &Value) -> Vec<(&str, &str)> {
    let phases = result["phases"].as_object().unwrap();
    phases.iter().map(|(name, phase)| (&**name, phase["status"].as_str().unwrap())).collect()
}

const PHASES: [&str; 7] =
    ["machine", "operations", "parity", "training", "speed", "quality", "systems"];

#[test]
fn all_phases_pass_and_are_recorded() {
    let (code, result) = check(&[]);
    assert_eq!(statuses(&result), PHASES.map(|name| (name, "ok")), "{result}");
    assert_eq!((code, &result["verdict"]), (0, &json!("passed")));
    assert_eq!(result["operations"], json!({"seed": 7, "checks": 1, "failed": []}));
    assert_eq!(result["parity"], json!({"atlop": 1e-7}));
    assert_eq!(result["losses"]["resumed"], json!(0.0));
    assert_eq!(result["bench"][0]["documents_per_s"], json!(5));
    assert_eq!(result["binary_sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn a_failure_stops_no_later_phase_but_for_the_first() {
    let (code, result) = check(&[("BROKEN", "selftest")]);
    let expected = PHASES.map(|name| (name, if name == "operations" { "failed" } else { "ok" }));
    assert_eq!(statuses(&result), expected, "{result}");
    assert_eq!((code, &result["failures"]), (1, &json!(["operations"])));
    assert_eq!(result["phases"]["operations"]["rc"], json!(70));
    let (code, result) = check(&[("BROKEN", "doctor")]);
    assert_eq!(statuses(&result), [("machine", "failed")]);
    assert_eq!((code, &result["verdict"]), (1, &json!("failed")));
    // NaN is not equal to itself, and no larger than any tolerance.
    let (code, result) = check(&[("LOSS", "NaN")]);
    assert_eq!((code, &result["failures"]), (1, &json!(["training"])));
}

#[test]
fn what_does_not_fit_into_the_time_is_skipped_and_told() {
    // The limits of two phases are ten times 100 s and more here.
    let (code, result) = check(&[("LIMIT", "950")]);
    let expected = PHASES.map(|name| {
        let fits = matches!(name, "machine" | "operations" | "parity" | "training" | "systems");
        (name, if fits { "ok" } else { "skipped" })
    });
    assert_eq!(statuses(&result), expected, "{result}");
    assert_eq!((code, &result["verdict"]), (2, &json!("incomplete")));
    assert_eq!(result["skipped"], json!(["speed", "quality"]));
}
