//! The self-test of a device from outside, on the CPU: what it prints and writes, how it repeats,
//! and how a device that is not there is refused.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

fn selftest(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("docre-pretrain").unwrap();
    command.args(["selftest", "--threads", "1"]).args(arguments);
    command
}

fn checks(file: &Path) -> Vec<Value> {
    let text = fs_err::read_to_string(file).unwrap();
    let result: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&result["passed"], &result["device"]), (&true.into(), &"the CPU".into()));
    result["checks"].as_array().unwrap().clone()
}

#[test]
fn all_checks_pass_on_the_cpu_and_a_seed_repeats_them() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a.json", "b.json"].map(|name| folder.path().join(name));
    for file in &files {
        let json = file.to_str().unwrap();
        let assert =
            selftest(&["--device", "cpu", "--seed", "5", "--json", json]).assert().success();
        let shown = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
        assert!(shown.starts_with("the CPU, seed 5, rounds: 1\n"), "{shown}");
        assert!(shown.contains(" checks, 0 failed, "), "{shown}");
    }
    let [first, second] = files.map(|file| checks(&file));
    assert_eq!(first, second);
    let names: Vec<&str> = first.iter().filter_map(|check| check["name"].as_str()).collect();
    for name in [
        "attention, heads of 26",
        "locked dropout has one mask a sequence",
        "100 rounds of slow kernel, all-reduce, read",
        "a rank that gives up ends within 5 s",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
}

#[test]
fn a_gpu_passes_too_and_one_that_is_not_there_is_refused_with_the_reason() {
    let assert = selftest(&["--device", "cuda"]).assert();
    if Path::new("/dev/nvidia0").exists() {
        assert.success();
        return;
    }
    let assert = assert.code(64);
    let told = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(told.starts_with("error: CUDA cannot be used: ") && told.contains("hint: "), "{told}");
}
