//! Mutated files at every reader: each gives what it reads or an error about the data, never a
//! panic and never a hang.
//!
//! A few seconds in the usual tests; `DOCRE_FUZZ_SECONDS=600 cargo test --test fuzz` for longer,
//! `DOCRE_FUZZ_ONLY=NAME` for the readers whose file has this in its name, `DOCRE_FUZZ_SEED` for
//! other mutations. Not for: what a reader makes of a good file.
#![allow(clippy::unwrap_used, reason = "a call that fails fails its test")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use targets::{Target, targets};

#[path = "../../src/torch/hf/tests/handmade.rs"]
mod handmade;
mod targets;

/// Longest time one reading of a small file may take, in a debug build on a busy machine.
const LONGEST: Duration = Duration::from_secs(60);

/// Text that hits the joints of the formats.
const TOKENS: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b",",
    b":",
    b"\t",
    b"\n",
    b"\n\n",
    b"|",
    b"|t|",
    b"|a|",
    b"-1",
    b"99999999999999999999",
    b"NaN",
    b"null",
    b"\xff",
    b"\xf0\x9f\x98\x80",
    b"\\ud800",
    b" ",
    b"\0",
    b"1e309",
];

/// A few changes: bytes flipped, cut out, repeated, or replaced by a joint of the formats.
fn mutate(good: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len().max(1)).min(bytes.len());
        let end = (at + rng.random_range(0..12)).min(bytes.len());
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.truncate(at),
            3 => {
                let piece = bytes[at..end].repeat(rng.random_range(1..200));
                bytes.splice(at..at, piece);
            }
            _ => drop(bytes.splice(
                at..end.min(at + 3),
                TOKENS[rng.random_range(0..TOKENS.len())].iter().copied(),
            )),
        }
    }
    bytes
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

fn try_one(target: &Target, path: &Path, bytes: &[u8]) {
    fs_err::write(path, bytes).unwrap();
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.read)(path)));
    let told = || format!("{}: {:?}", target.name, String::from_utf8_lossy(bytes));
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) if target.codes.contains(&error.exit_code()) => {}
        Ok(Err(error)) => panic!("exit code {}: {error}; {}", error.exit_code(), told()),
        Err(_) => panic!("a panic; {}", told()),
    }
    assert!(started.elapsed() < LONGEST, "a reading took {:?}; {}", started.elapsed(), told());
}

#[test]
fn good_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for target in targets(folder.path()) {
        let path = folder.path().join(target.name);
        fs_err::write(&path, &target.good).unwrap();
        (target.read)(&path).unwrap_or_else(|error| panic!("{}: {error}", target.name));
    }
}

#[test]
fn mutated_files_end_in_documents_or_data_errors() {
    let folder = tempfile::tempdir().unwrap();
    let only = std::env::var("DOCRE_FUZZ_ONLY").unwrap_or_default();
    let targets: Vec<_> =
        targets(folder.path()).into_iter().filter(|target| target.name.contains(&only)).collect();
    assert!(!targets.is_empty(), "no reader's file has `{only}` in its name");
    let until = Instant::now() + Duration::from_secs(number("DOCRE_FUZZ_SECONDS", 5));
    let mut rng = ChaCha8Rng::seed_from_u64(number("DOCRE_FUZZ_SEED", 1));
    let mut rounds = 0;
    while rounds < 20 || Instant::now() < until {
        for target in &targets {
            try_one(target, &folder.path().join(target.name), &mutate(&target.good, &mut rng));
        }
        rounds += 1;
    }
    println!("{rounds} rounds of {} readers", targets.len());
}

#[test]
fn deep_and_endless_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for target in targets(folder.path()) {
        let path = folder.path().join(target.name);
        for bytes in [
            "[".repeat(1_000_000),
            "{\"a\":".repeat(300_000),
            "x".repeat(1_000_000),
            "\t".repeat(1_000_000),
            "[{\"title\":[".repeat(100_000),
        ] {
            try_one(&target, &path, bytes.as_bytes());
        }
        // Halves of characters, and text that is no text.
        for bytes in [&b"\xc3"[..], b"\xff\xfe[\x00", b"", b"\n\n\n", b"\xef\xbb\xbf[]"] {
            try_one(&target, &path, bytes);
        }
    }
}
