//! The step loop over a toy model: what several ranks do when numbers break, and where the loop
//! stands afterwards.

use std::sync::Arc;

use tch::{Device, Kind};

use super::*;
use crate::ranks::{Communicator, mortal_world, simulated_world};
use crate::torch::{Init, Parameters};
use crate::train::{Gauges, RunFolder, Share, Signals, StepBatches};

const BATCH: usize = 6;

/// How a document breaks the step.
#[derive(Clone, Copy, PartialEq)]
enum Poison {
    /// Its loss is not a number.
    Loss,
    /// Its loss is 0, but the gradient is not a number.
    Gradient,
}

/// A weight vector against one number a document; the loss of a document is (w·1 − x)².
struct Toy {
    parameters: Parameters,
    weight: Tensor,
}

struct ToyBatch {
    values: Vec<f32>,
    poison: Option<Poison>,
    counts: [f64; 1],
}

/// Documents are numbers; those of `poisoned` rows break the step.
struct ToySource {
    poisoned: Vec<(usize, Poison)>,
}

impl Toy {
    fn new() -> Self {
        let mut parameters = Parameters::new(3, Device::Cpu);
        let weight = parameters.declare("weight", &[4], Init::Normal { std: 1.0 }).unwrap();
        Self { parameters, weight }
    }

    fn bits(&self) -> Vec<f32> {
        Vec::try_from(self.weight.detach()).unwrap()
    }
}

impl MicroBatch for ToyBatch {
    fn counts(&self) -> &[f64] {
        &self.counts
    }
    fn documents(&self) -> usize {
        self.values.len()
    }
    fn tokens(&self) -> usize {
        10 * self.values.len()
    }
}

impl Objective for Toy {
    type Batch = ToyBatch;

    fn slots(&self) -> &[&'static str] {
        &["Fit"]
    }

    fn forward(&self, batch: &ToyBatch, _forward: Forward) -> Result<Vec<Tensor>> {
        let error = self.weight.sum(Kind::Float) - Tensor::from_slice(&batch.values);
        let loss = error.square().sum(Kind::Float);
        Ok(vec![match batch.poison {
            None => loss,
            Some(Poison::Loss) => loss * f64::NAN,
            Some(Poison::Gradient) => loss + (self.weight.sum(Kind::Float) * 0.0).sqrt(),
        }])
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }
}

impl BatchSource for ToySource {
    type Batch = ToyBatch;

    fn prepare(&self, step: u64, share: Share) -> Result<StepBatches<ToyBatch>> {
        let rows: Vec<usize> = (0..BATCH).map(|index| step as usize * BATCH + index).collect();
        let mine =
            rows.iter().enumerate().filter(|(index, _)| share.holds(*index)).map(|(_, &row)| row);
        let single = |row: usize| ToyBatch {
            values: vec![row as f32 * 0.1],
            poison: self.poisoned.iter().find(|(bad, _)| *bad == row).map(|(_, poison)| *poison),
            counts: [1.0],
        };
        Ok(StepBatches { micro: mine.map(single).collect(), rows })
    }

    fn title(&self, row: usize) -> String {
        format!("document {row}")
    }
}

#[derive(Default)]
struct Recorded {
    saved: Vec<u64>,
}

impl Boundary for Recorded {
    fn reached(&mut self, _state: &mut TrainerState, _progress: &Progress) -> Result<bool> {
        Ok(false)
    }
    fn save(&mut self, state: &TrainerState, _optimizer: Vec<(String, Tensor)>) -> Result<()> {
        self.saved.push(state.step);
        Ok(())
    }
}

/// What a rank is left with.
struct Left {
    outcome: Result<()>,
    weights: Vec<f32>,
    optimizer: Vec<(String, Tensor)>,
    state: TrainerState,
    saved: Vec<u64>,
}

/// Ranks without a launcher.
fn ranks(world: usize) -> Vec<Arc<dyn Communicator>> {
    simulated_world(world).into_iter().map(|comm| Arc::new(comm) as Arc<dyn Communicator>).collect()
}

/// Trains on `world` ranks; `disturb` may change a rank's model before training.
fn train(
    world: usize,
    run: &std::path::Path,
    schedule: &Schedule,
    source: &ToySource,
    disturb: impl Fn(usize, &Toy) + Sync,
) -> Vec<Left> {
    train_over(ranks(world), run, schedule, false, source, disturb)
}

fn train_over(
    ranks: Vec<Arc<dyn Communicator>>,
    run: &std::path::Path,
    schedule: &Schedule,
    deterministic: bool,
    source: &ToySource,
    disturb: impl Fn(usize, &Toy) + Sync,
) -> Vec<Left> {
    let disturb = &disturb;
    std::thread::scope(|scope| {
        let start = |comm| {
            scope.spawn(move || {
                let world = World::of(comm);
                let (toy, run, signals) = (Toy::new(), RunFolder::shared(run), Signals::default());
                disturb(world.rank(), &toy);
                let context =
                    StageContext { stage: "toy", world: &world, run: &run, signals: &signals };
                let total_steps = schedule.steps.unwrap_or(1);
                let settings = TrainerSettings {
                    schedule: schedule.clone(),
                    total_steps,
                    boundary_steps: 0,
                    precision: Precision::Fp32,
                    deterministic,
                    wire: WirePrecision::Fp32,
                    seed: 1,
                };
                let state =
                    TrainerState { stage: "toy".into(), total_steps, ..TrainerState::default() };
                let mut trainer = Trainer::new(&toy, settings, &world, state).unwrap();
                let gauges = || Gauges::new(Device::Cpu, total_steps, None);
                let open = || Metrics::open(run.path(), "toy", gauges()).unwrap();
                let mut metrics = context.is_root().then(open);
                let mut boundary = Recorded::default();
                let outcome = trainer.run(source, &context, &mut metrics, &mut boundary);
                Left {
                    outcome,
                    weights: toy.bits(),
                    optimizer: trainer.optimizer.state(),
                    state: trainer.state.clone(),
                    saved: boundary.saved,
                }
            })
        };
        let ranks: Vec<_> = ranks.into_iter().map(start).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn schedule(steps: u64, non_finite: NonFinite) -> Schedule {
    Schedule { learning_rate: 0.1, steps: Some(steps), non_finite, ..Schedule::base() }
}

fn same_tensors(one: &[(String, Tensor)], other: &[(String, Tensor)]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((name, a), (other, b))| name == other && a == b)
}

#[test]
fn a_step_that_is_not_finite_changes_nothing_on_any_rank_and_names_its_documents() {
    for (world, poison) in
        [(1, Poison::Loss), (2, Poison::Loss), (2, Poison::Gradient), (3, Poison::Gradient)]
    {
        let folder = tempfile::tempdir().unwrap();
        // Row 9 is item 3 of step 2: of rank 1 of 2, of rank 0 of 3.
        let broken = ToySource { poisoned: vec![(9, poison)] };
        let good = train(world, folder.path(), &schedule(1, NonFinite::Stop), &broken, |_, _| {});
        let bad = train(world, folder.path(), &schedule(2, NonFinite::Stop), &broken, |_, _| {});
        for (good, bad) in good.iter().zip(&bad) {
            let error = bad.outcome.as_ref().unwrap_err();
            assert_eq!(error.exit_code(), 70);
            let text = error.to_string();
            assert!(
                text.contains("step 2 of stage `toy`") && text.contains("made by `document 9`)"),
                "{text}"
            );
            assert_eq!(text.contains("on rank 1"), world == 2 && poison == Poison::Loss, "{text}");
            assert_eq!(good.weights, bad.weights, "{world} ranks");
            assert!(same_tensors(&good.optimizer, &bad.optimizer), "{world} ranks");
        }
        let lines =
            fs_err::read_to_string(folder.path().join(crate::base::run_files::NON_FINITE)).unwrap();
        assert_eq!((lines.lines().count(), lines.contains("document 9")), (1, true), "{lines}");
    }
}

#[test]
fn skipping_leaves_out_that_update_alone() {
    let folder = tempfile::tempdir().unwrap();
    let source = ToySource { poisoned: vec![(9, Poison::Loss)] };
    let skipped = train(2, folder.path(), &schedule(4, NonFinite::Skip), &source, |_, _| {});
    for left in &skipped {
        left.outcome.as_ref().unwrap();
        assert_eq!(
            (left.state.step, left.state.skipped_in_a_row, left.state.losses.steps),
            (4, 0, 3)
        );
        let steps = left.optimizer.iter().find(|(name, _)| name == "weight.step").unwrap();
        assert_eq!(steps.1.double_value(&[]), 3.0, "the optimiser made three updates");
        assert_eq!(left.weights, skipped[0].weights);
        assert!(left.weights.iter().all(|weight| weight.is_finite()));
    }
    let lines = crate::train::metrics::read_metrics(&crate::train::metrics::MetricsWriter::path(
        folder.path(),
    ))
    .unwrap();
    let marked: Vec<(u64, bool, bool)> = lines
        .iter()
        .map(|line| (line.step, line.loss.is_none(), line.number("skipped").is_some()))
        .collect();
    assert_eq!(marked, [(1, false, false), (2, true, true), (3, false, false), (4, false, false)]);
    assert!(lines.iter().all(|line| line.number("straggler").is_some_and(|score| score >= 1.0)));
}

#[test]
fn too_many_skips_in_a_row_end_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let source = ToySource { poisoned: (1..5).map(|step| (step * BATCH, Poison::Loss)).collect() };
    let limited = |limit| Schedule { non_finite_limit: limit, ..schedule(6, NonFinite::Skip) };
    let ended = train(2, folder.path(), &limited(3), &source, |_, _| {});
    assert!(ended.iter().all(|left| {
        left.outcome.as_ref().is_err_and(|error| error.to_string().contains("step 5"))
    }));
    let done = train(2, folder.path(), &limited(4), &source, |_, _| {});
    assert!(done.iter().all(|left| left.outcome.is_ok() && left.state.step == 6));
}

#[test]
fn ranks_with_other_weights_are_found_before_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let source = ToySource { poisoned: Vec::new() };
    let flip = |rank: usize, toy: &Toy| {
        if rank == 1 {
            let mut values = toy.bits();
            values[2] = f32::from_bits(values[2].to_bits() ^ (1 << 12));
            tch::no_grad(|| toy.weight.shallow_clone().copy_(&Tensor::from_slice(&values)));
        }
    };
    let every = |steps| Schedule {
        compare_ranks_steps: steps,
        checkpoint_steps: 3,
        ..schedule(7, NonFinite::Stop)
    };
    for (compare, found) in [(2, 2), (500, 3)] {
        for left in train(3, folder.path(), &every(compare), &source, flip) {
            let text = left.outcome.unwrap_err().to_string();
            assert!(text.contains("rank 1 ") && text.contains("`weight`"), "{text}");
            assert_eq!(
                (left.state.step, left.saved.len()),
                (found, 0),
                "no checkpoint of unequal weights"
            );
        }
    }
    for left in train(3, folder.path(), &every(2), &source, |_, _| {}) {
        left.outcome.unwrap();
        assert!(left.saved.is_empty() || left.saved == [3, 6, 7]);
    }
}

/// Seeds of bad fabrics; `DOCRE_FABRIC_SEEDS` sets their number. They mostly wait.
#[test]
fn a_rank_that_dies_anywhere_ends_all_without_a_hang_and_with_whole_steps() {
    let folder = tempfile::tempdir().unwrap();
    let source = ToySource { poisoned: Vec::new() };
    let schedule = Schedule { compare_ranks_steps: 2, ..schedule(5, NonFinite::Stop) };
    let calm: Vec<Vec<f32>> = (0..=5)
        .map(|steps| {
            if steps == 0 {
                Toy::new().bits()
            } else {
                train(
                    3,
                    folder.path(),
                    &Schedule { steps: Some(steps), ..schedule.clone() },
                    &source,
                    |_, _| {},
                )
                .remove(0)
                .weights
            }
        })
        .collect();
    let seeds = std::env::var("DOCRE_FABRIC_SEEDS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(2_000);
    for seed in 0..seeds {
        let ranks = mortal_world(3, seed, 18)
            .into_iter()
            .map(|comm| Arc::new(comm) as Arc<dyn Communicator>)
            .collect();
        for (rank, left) in train_over(ranks, folder.path(), &schedule, false, &source, |_, _| {})
            .into_iter()
            .enumerate()
        {
            let error = left.outcome.expect_err("the run cannot be finished");
            assert_eq!(error.exit_code(), 71, "seed {seed}, rank {rank}: {error}");
            let whole = &calm[left.state.step as usize];
            let next = calm.get(left.state.step as usize + 1);
            assert!(
                left.weights == *whole || Some(&left.weights) == next,
                "seed {seed}, rank {rank}: half a step was made"
            );
        }
    }
}

#[test]
fn a_deterministic_run_gives_the_same_bits_on_every_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let source = ToySource { poisoned: vec![(9, Poison::Gradient)] };
    let left = |world, deterministic| {
        let schedule = Schedule { batch: BATCH, clip: 0.5, ..schedule(30, NonFinite::Skip) };
        let ranks =
            train_over(ranks(world), folder.path(), &schedule, deterministic, &source, |_, _| {});
        assert!(ranks.iter().all(|left| left.outcome.is_ok() && left.weights == ranks[0].weights));
        ranks.into_iter().next().unwrap()
    };
    let alone = left(1, true);
    for world in [2, 3, 4, 8] {
        let many = left(world, true);
        assert_eq!(many.weights, alone.weights, "{world} ranks");
        assert!(same_tensors(&many.optimizer, &alone.optimizer), "{world} ranks");
        assert_eq!(
            TrainerState { seconds: 0.0, ..many.state },
            TrainerState { seconds: 0.0, ..alone.state.clone() },
            "{world} ranks"
        );
    }
    let free: Vec<Left> = [1, 2, 4].map(|world| left(world, false)).into();
    assert!(
        free.iter().any(|left| left.weights != free[0].weights),
        "the numbers are such that order matters"
    );
    let close = |a: &Left, b: &Left| {
        a.weights.iter().zip(&b.weights).all(|(a, b)| (a - b).abs() < 1e-4 * a.abs().max(1.0))
    };
    assert!(free.iter().all(|left| close(left, &alone)), "and yet it is the same training");
}

#[test]
fn the_generator_of_a_gpu_is_seeded_by_seed_stage_step_and_rank() {
    let seeds = [
        (1, "rank", 5, 0),
        (2, "rank", 5, 0),
        (1, "pretrain", 5, 0),
        (1, "rank", 6, 0),
        (1, "rank", 5, 1),
        (1, "knar", 5, 0),
    ];
    let drawn: std::collections::BTreeSet<i64> = seeds
        .iter()
        .map(|&(seed, stage, step, rank)| generator_seed(seed, stage, step, rank))
        .collect();
    assert_eq!(drawn.len(), seeds.len());
}

/// A boundary that is asked to stop the first time it is reached at these steps.
#[derive(Default)]
struct Interrupted {
    reached: Vec<u64>,
    stops: Vec<u64>,
    saved: Vec<TrainerState>,
}

impl Boundary for Interrupted {
    fn reached(&mut self, state: &mut TrainerState, _progress: &Progress) -> Result<bool> {
        if let Some(place) = self.stops.iter().position(|&step| step == state.step) {
            self.stops.remove(place);
            return Err(Error::Stopped { place: "while predicting dev".into() });
        }
        self.reached.push(state.step);
        state.curve.push((state.step as f64, 0.5));
        Ok(true)
    }
    fn save(&mut self, state: &TrainerState, _optimizer: Vec<(String, Tensor)>) -> Result<()> {
        self.saved.push(state.clone());
        Ok(())
    }
}

#[test]
fn a_stop_at_a_boundary_saves_at_once_and_the_boundary_is_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::of(ranks(1).remove(0));
    let (run, signals) = (RunFolder::shared(folder.path()), Signals::default());
    let context = StageContext { stage: "toy", world: &world, run: &run, signals: &signals };
    let (toy, source) = (Toy::new(), ToySource { poisoned: Vec::new() });
    let settings = TrainerSettings {
        schedule: schedule(4, NonFinite::Stop),
        total_steps: 4,
        boundary_steps: 2,
        precision: Precision::Fp32,
        deterministic: false,
        wire: WirePrecision::Fp32,
        seed: 1,
    };
    let mut boundary = Interrupted { stops: vec![4], ..Interrupted::default() };
    let mut state = TrainerState { stage: "toy".into(), total_steps: 4, ..Default::default() };
    // What is resumed is the state that was saved last.
    let mut go_on = |boundary: &mut Interrupted| {
        let mut trainer = Trainer::new(&toy, settings.clone(), &world, state.clone()).unwrap();
        let outcome = trainer.run(&source, &context, &mut None, boundary);
        state = boundary.saved.last().unwrap().clone();
        (outcome.map_err(|error| error.to_string()), state.clone())
    };

    // A request that is there before the boundary of step 2 is answered without it.
    signals.request();
    let (outcome, at_one) = go_on(&mut boundary);
    assert!(outcome.unwrap_err().contains("at step 1 of stage `toy`"));
    assert!(!at_one.unjudged, "step 1 is no boundary");
    let (outcome, at_two) = go_on(&mut boundary);
    assert!(outcome.unwrap_err().contains("at step 2 of stage `toy`"));
    assert!(at_two.unjudged && !at_two.finished && boundary.reached.is_empty());
    // Later it is made up for. A request in the middle of the last one leaves the stage unfinished.
    signals.withdraw();
    let (outcome, at_four) = go_on(&mut boundary);
    assert!(outcome.unwrap_err().contains("at step 4 of stage `toy`"));
    assert!(at_four.unjudged && !at_four.finished);
    assert_eq!(boundary.reached, [2]);
    let (outcome, end) = go_on(&mut boundary);
    assert_eq!(outcome, Ok(()));
    assert!(end.finished && !end.unjudged);
    assert_eq!(boundary.reached, [2, 4]);
    assert_eq!(end.curve, [(2.0, 0.5), (4.0, 0.5)]);
}
