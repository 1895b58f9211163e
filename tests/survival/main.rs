//! Bad days, under a real `mpirun` and under `launch`: killed, stopped, slow and signalled ranks,
//! full and damaged disks, and resumes with other numbers of ranks.
//!
//! Not for what one process does: `cli.rs` tests that.
#![allow(clippy::unwrap_used, reason = "a call that fails fails its test")]

#[path = "../support/bad_disk.rs"]
#[allow(dead_code, reason = "tests inside the library use the rest")]
mod bad_disk;
#[cfg(feature = "cloud")]
mod cloud;
#[path = "../common/mod.rs"]
mod common;
mod disk;
mod exact;
#[cfg(feature = "cloud")]
#[path = "../support/fake_bucket.rs"]
#[allow(dead_code, reason = "tests inside the library use the rest")]
mod fake_bucket;
mod kills;
mod launch;
mod phases;
mod place;
mod ranks;
mod soak;
