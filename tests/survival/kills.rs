//! Ranks that are killed at random moments. `DOCRE_KILLS` sets how often (4; nightly 500),
//! `DOCRE_KILL_SEED` the moments: round *i* is drawn from that seed plus *i* alone, so that
//! `DOCRE_KILLS=1` with the seed that was printed repeats it.

use std::process::Command;
use std::time::{Duration, Instant};

use super::common::program;
use super::place::{By, Place, random, setting};

/// What is drawn for a round.
#[derive(Debug)]
struct Blow {
    ranks: usize,
    rank: usize,
    /// The step after which it is struck.
    step: u64,
    /// And so much later.
    pause: Duration,
}

impl Blow {
    fn draw(mut seed: u64) -> Self {
        let ranks = if seed.is_multiple_of(2) { 2 } else { 4 };
        let (rank, step) = (random(&mut seed) as usize % ranks, 1 + random(&mut seed) % 34);
        Self { ranks, rank, step, pause: Duration::from_millis(random(&mut seed) % 100) }
    }
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_rank_killed_at_any_moment_is_named_and_the_run_goes_on_to_the_same_weights() {
    kill(By::Mpirun);
}

#[test]
fn a_rank_killed_at_any_moment_over_c10d_is_named_too() {
    kill(By::Launch);
}

/// Half of the kills are for either way.
fn kill(by: By) {
    let place = Place::with(by);
    let kills = setting("DOCRE_KILLS", 4).div_ceil(2);
    let seed = setting("DOCRE_KILL_SEED", 7);
    place.prepared(2);
    for seed in seed..seed + kills {
        let blow = Blow::draw(seed);
        println!("DOCRE_KILL_SEED={seed}: {blow:?}");
        let (ranks, rank) = (blow.ranks, blow.rank);
        let calm = format!("calm{ranks}");
        if !place.path(&calm).exists() {
            place.fresh(&calm);
            place.finish(ranks, &calm, "--resume");
        }
        place.fresh("killed");
        let mut started = place.start(ranks, "killed", "--resume");
        place.await_step("killed", blow.step, &mut started);
        std::thread::sleep(blow.pause);
        place.signal("killed", rank, libc::SIGKILL);
        let killed = Instant::now();
        let ended = place.end(started);
        assert!(
            killed.elapsed() < Duration::from_secs(30),
            "{blow:?}: the others ended only after {:?}",
            killed.elapsed()
        );
        assert_eq!(ended.code, Some(71), "{blow:?}:\n{}", ended.said);
        let sentence = ended
            .said
            .lines()
            .find(|line| line.contains("was killed by signal 9"))
            .unwrap_or_else(|| panic!("{}", ended.said));
        assert!(sentence.starts_with(&format!("rank {rank} on ")), "{blow:?}: {sentence}");
        assert!(
            sentence.contains("the last good checkpoint is")
                || sentence.contains("there is no checkpoint yet"),
            "{sentence}"
        );
        let autopsy =
            Command::new(program()).args(["autopsy"]).arg(place.path("killed")).output().unwrap();
        assert!(
            String::from_utf8(autopsy.stdout).unwrap().starts_with(sentence),
            "autopsy says the same first"
        );
        place.finish(ranks, "killed", "--resume");
        assert_eq!(place.final_hashes("killed"), place.final_hashes(&calm), "{blow:?}");
        fs_err::remove_dir_all(place.path("killed")).unwrap();
    }
}
