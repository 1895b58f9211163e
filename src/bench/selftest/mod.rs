//! The self-test of a device: every operation of `torch`, forward and backward, with random numbers
//! against the formulas of `torch::plain`; dropout, hooks, buckets, the optimiser; sums over ranks.
//!
//! Not for: speed, or models (`parity`).

mod attention;
mod layers;
mod ranks;
mod training;
mod trial;

use std::fmt;
use std::time::Instant;

use serde::Serialize;

use crate::pipeline::Session;
use crate::torch::device;
use crate::{Error, Result};
use trial::Trial;
pub use trial::{CheckRow, Numbers};

/// What the self-test does.
#[derive(Clone, Copy, Debug)]
pub struct SelftestOptions {
    /// Seed of the first round.
    pub seed: u64,
    /// Rounds, each with a seed of its own.
    pub rounds: u64,
    /// Whether a child process is started that gives up.
    pub child: bool,
}

/// All checks.
#[derive(Clone, Debug, Serialize)]
pub struct SelftestResult {
    /// The device.
    pub device: String,
    /// The seed that repeats this.
    pub seed: u64,
    /// Rounds.
    pub rounds: u64,
    /// Seconds.
    pub seconds: f64,
    /// Whether every check passed.
    pub passed: bool,
    /// The checks of all rounds.
    pub checks: Vec<CheckRow>,
}

impl SelftestResult {
    /// The names of the checks that failed, each once.
    pub fn failed(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for row in self.checks.iter().filter(|row| !row.passed) {
            let numbers = row.numbers.map_or_else(String::new, |n| format!(" ({})", n.name()));
            let name = format!("{}{numbers}", row.name);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

impl fmt::Display for SelftestResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, seed, rounds, seconds, checks, .. } = self;
        writeln!(f, "{device}, seed {seed}, rounds: {rounds}")?;
        for row in checks {
            let numbers = row.numbers.map_or("", Numbers::name);
            let number =
                |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.1e}"));
            let verdict = if row.passed { "ok" } else { "FAILED" };
            write!(
                f,
                "{:<58}{numbers:>5}{:>9}{:>9}  {verdict}",
                row.name,
                number(row.difference),
                number(row.tolerance)
            )?;
            match &row.problem {
                Some(problem) => writeln!(f, ": {}", problem.lines().next().unwrap_or_default())?,
                None => writeln!(f)?,
            }
        }
        let failed = checks.iter().filter(|row| !row.passed).count();
        write!(f, "{} checks, {failed} failed, {seconds:.1} s", checks.len())
    }
}

/// Runs all checks on the session's device.
///
/// # Errors
/// If there are several ranks, or numbers cannot be drawn. A check that fails is no error of this
/// function.
pub fn selftest(options: SelftestOptions, session: &Session) -> Result<SelftestResult> {
    if session.world.size() > 1 {
        return Err(Error::recipe(format!(
            "selftest checks one device, but {} ranks were started",
            session.world.size()
        ))
        .with_hint("start it without a launcher"));
    }
    let started = Instant::now();
    let mut checks = Vec::new();
    for round in 0..options.rounds {
        let mut trial = Trial::new(session.device, options.seed.wrapping_add(round));
        one_round(&mut trial, session)?;
        if options.child && round == 0 {
            ranks::abort_of_a_child(&mut trial);
        }
        checks.append(&mut trial.rows);
    }
    Ok(SelftestResult {
        device: device::described(session.device),
        seed: options.seed,
        rounds: options.rounds,
        seconds: started.elapsed().as_secs_f64(),
        passed: checks.iter().all(|row| row.passed),
        checks,
    })
}

fn one_round(trial: &mut Trial, session: &Session) -> Result<()> {
    for numbers in [Numbers::Fp32, Numbers::Tf32, Numbers::Bf16] {
        if numbers == Numbers::Tf32 && !trial.device.is_cuda() {
            continue;
        }
        trial.with(numbers)?;
        attention::checks(trial)?;
        layers::checks(trial)?;
        training::checks(trial)?;
    }
    trial.with(Numbers::Fp32)?;
    ranks::checks(trial, session);
    Ok(())
}

/// What the child of the self-test does.
///
/// # Errors
/// If it cannot get as far as giving up.
pub fn give_up(session: &Session) -> Result<()> {
    ranks::give_up(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_passes_on_the_cpu() {
        let session = Session::start("cpu", 1).unwrap();
        let options = SelftestOptions { seed: 11, rounds: 1, child: false };
        let result = selftest(options, &session).unwrap();
        assert!(result.passed && result.failed().is_empty(), "{result}");
        assert!(result.checks.len() > 60, "{result}");
        let of = |numbers| result.checks.iter().filter(|row| row.numbers == Some(numbers)).count();
        assert!(of(Numbers::Fp32) > 35 && of(Numbers::Bf16) > 25 && of(Numbers::Tf32) == 0);
    }

    #[test]
    fn what_failed_is_named_once() {
        let row = |numbers, passed| CheckRow {
            name: "linear".into(),
            numbers,
            difference: Some(0.5),
            tolerance: Some(1e-5),
            passed,
            problem: None,
        };
        let checks = vec![
            row(Some(Numbers::Fp32), true),
            row(Some(Numbers::Bf16), false),
            row(Some(Numbers::Bf16), false),
        ];
        let result = SelftestResult {
            device: "the CPU".into(),
            seed: 1,
            rounds: 1,
            seconds: 0.0,
            passed: false,
            checks,
        };
        assert_eq!(result.failed(), ["linear (bf16)"]);
        let shown = result.to_string();
        assert!(shown.contains("bf16") && shown.contains("FAILED") && shown.contains("2 failed"));
    }
}
