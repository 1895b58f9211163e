//! `predict` from outside: as a stream of lines, and from files into files, on one rank and on two,
//! stopped and resumed.
//!
//! Not for: how good predictions are.
#![allow(clippy::unwrap_used, reason = "a call that fails fails its test")]

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod common;
mod files;
mod place;
mod stream;
