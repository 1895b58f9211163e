//! Many steps: memory, file handles and threads of every rank stay where they were, in both
//! precisions. Batches have other numbers of tokens in every step, so a cache by shape would grow.
//! `DOCRE_SOAK_STEPS` sets how many steps (300; nightly 20,000), `DOCRE_SOAK_ENCODER` the encoder.

use std::collections::BTreeMap;
use std::time::Duration;

use docre::Recording;

use super::place::{By, Place, setting};

/// What a process holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    resident_kb: u64,
    handles: u64,
    threads: u64,
}

impl Held {
    /// `None` for a process that is gone.
    fn by(process: u32) -> Option<Self> {
        let status = fs_err::read_to_string(format!("/proc/{process}/status")).ok()?;
        let number = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let handles = fs_err::read_dir(format!("/proc/{process}/fd")).ok()?.count() as u64;
        Some(Self { resident_kb: number("VmRSS:")?, handles, threads: number("Threads:")? })
    }

    /// The middle of each number: what a checkpoint in the making opens for a moment is not what is
    /// kept.
    fn middle(all: &[Self]) -> Self {
        let middle = |of: fn(&Self) -> u64| {
            let mut numbers: Vec<u64> = all.iter().map(of).collect();
            numbers.sort_unstable();
            numbers[numbers.len() / 2]
        };
        Self {
            resident_kb: middle(|held| held.resident_kb),
            handles: middle(|held| held.handles),
            threads: middle(|held| held.threads),
        }
    }
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn memory_handles_and_threads_stay_flat() {
    stay_flat("fp32", By::Mpirun);
}

#[test]
fn memory_handles_and_threads_stay_flat_in_bf16_over_c10d() {
    stay_flat("bf16", By::Launch);
}

fn stay_flat(precision: &str, by: By) {
    let place = Place::with(by);
    let steps = setting("DOCRE_SOAK_STEPS", 300);
    let mut settings = format!(
        "--set pretrain.steps={steps} --set pretrain.checkpoint_steps={} --set \
         pretrain.precision=\"{precision}\"",
        steps / 60
    );
    if let Ok(encoder) = std::env::var("DOCRE_SOAK_ENCODER") {
        settings += &format!(" --set encoder.name=\"{encoder}\"");
    }
    let mut started = place.start(2, "soak", &settings);
    // Of each rank: what it held at each step that was seen.
    let mut seen: BTreeMap<usize, Vec<(u64, Held)>> = BTreeMap::new();
    while started.child.as_mut().unwrap().try_wait().unwrap().is_none() {
        for recording in Recording::read_all(&place.path("soak")).unwrap_or_default() {
            let step = recording.events.last().map_or(0, |event| event.step);
            if let Some(held) = Held::by(recording.pid).filter(|_| step > 0) {
                seen.entry(recording.rank).or_default().push((step, held));
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = place.end(started);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(seen.len(), 2, "{seen:?}");
    for (rank, samples) in seen {
        let between = |from: u64, to: u64| {
            let within =
                samples.iter().filter(|(step, _)| (from..to).contains(step)).map(|(_, held)| *held);
            Held::middle(&within.collect::<Vec<_>>())
        };
        let (warm, late) = (between(steps / 6, steps / 2), between(steps * 3 / 4, steps + 1));
        println!(
            "rank {rank}, {steps} steps: {warm:?} in steps {} to {}, {late:?} in the last quarter",
            steps / 6,
            steps / 2
        );
        assert!(
            late.handles <= warm.handles + 1,
            "rank {rank} opens files and keeps them: {warm:?}, then {late:?}"
        );
        assert!(
            late.threads <= warm.threads + 1,
            "rank {rank} starts threads and keeps them: {warm:?}, then {late:?}"
        );
        assert!(
            late.resident_kb <= warm.resident_kb + 6_000,
            "rank {rank} grows: {warm:?}, then {late:?}"
        );
    }
}
