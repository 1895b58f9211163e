//! The simulated network against measured sums, against ranks that really wait for each other, and
//! what it makes of a recipe.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

use super::fabric::{Fabric, StepTimeline};
use super::scaling::ScalingOptions;
use super::tests::RECIPE;
use super::*;
use crate::ranks::failure::Watchdog;
use crate::ranks::{Communicator, GradientReducer, ReduceOp, simulated_world};

fn options(line: &str) -> ScalingOptions {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: ScalingOptions,
    }
    let words = ["plan", "--scaling"].into_iter().chain(line.split_whitespace());
    <Line as clap::Parser>::try_parse_from(words).unwrap().options
}

fn scaled(line: &str) -> Result<RunEstimate> {
    let recipe = Recipe::parse(RECIPE, "test", &[]).unwrap();
    let options_of_plan =
        PlanOptions { nodes: 2, ranks_per_node: 8, tflops: Some(0.5), share: 0.5 };
    let mut estimate = plan(&recipe, Path::new("/nowhere"), options_of_plan)?;
    estimate.add_scaling(&options(line))?;
    Ok(estimate)
}

/// Published tables of NCCL's all-reduce: bytes a rank and "bus bandwidth" in GB/s, on 8 H200 of a
/// machine and on 4 machines of 8 B200.
#[test]
fn the_defaults_are_within_a_quarter_of_published_measurements() {
    let mib = f64::from(1 << 20);
    let inside =
        [(1.0, 40.0), (4.0, 107.0), (16.0, 220.0), (32.0, 276.0), (64.0, 347.0), (1024.0, 464.0)];
    let between = [(1.0, 5.0), (32.0, 91.0), (256.0, 229.0), (1024.0, 362.0)];
    let options = options("");
    for (ranks, table) in [(8, inside.as_slice()), (32, between.as_slice())] {
        let fabric = options.fabric(ranks, 8);
        for (size, bandwidth) in table {
            let measured = 2.0 * (ranks - 1) as f64 / ranks as f64 * size * mib / (bandwidth * 1e9);
            let ratio = fabric.all_reduce(size * mib, ranks) / measured;
            assert!((0.75..1.25).contains(&ratio), "{ranks} ranks, {size} MiB: {ratio}");
        }
    }
}

/// Closed forms: everything hidden but the last bucket, and nothing hidden.
#[test]
fn overlap_hides_all_but_what_the_last_bucket_takes() {
    let fabric = Fabric { latency_s: 0.0, bytes_per_s: 1e3 };
    let work = StepTimeline { before_s: 5.0, backward_s: 8.0, buckets: vec![1e3; 4] };
    // Two ranks: a bucket takes 1 s, and one is complete every 2 s.
    assert_eq!(fabric.step(&work, 2, true), 14.0);
    assert_eq!(fabric.step(&work, 2, false), 17.0);
    assert_eq!(fabric.step(&work, 1, false), 13.0);
    // Buckets that take longer than the backward pass follow one another.
    let slow = Fabric { bytes_per_s: 1e2, ..fabric };
    assert_eq!(slow.step(&work, 2, true), 5.0 + 2.0 + 40.0);
    let latency = Fabric { latency_s: 1.0, ..fabric };
    // 2 · 3 steps of a ring of 4, and two short messages over 2 steps each.
    assert_eq!(latency.all_reduce(1e3, 4), 6.0 + 1.5);
    assert_eq!(latency.step(&work, 4, false), 13.0 + 4.0 * 7.5 + 4.0);
}

/// A rank whose sums take as long as the fabric says.
struct Delayed {
    inner: Box<dyn Communicator>,
    fabric: Fabric,
}

impl Communicator for Delayed {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn size(&self) -> usize {
        self.inner.size()
    }
    fn barrier(&self) -> Result<()> {
        self.inner.barrier()
    }
    fn all_reduce_f64(&self, values: &mut [f64], op: ReduceOp) -> Result<()> {
        self.inner.all_reduce_f64(values, op)
    }
    fn all_reduce_tensor(&self, tensor: &Tensor) -> Result<()> {
        let bytes = (tensor.numel() * tensor.kind().elt_size_in_bytes()) as f64;
        thread::sleep(Duration::from_secs_f64(self.fabric.all_reduce(bytes, self.size())));
        self.inner.all_reduce_tensor(tensor)
    }
    fn broadcast(&self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        self.inner.broadcast(root, bytes)
    }
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.inner.all_gather(bytes)
    }
    fn abort(&self, code: u8) -> ! {
        self.inner.abort(code)
    }
}

/// Seconds of a step that sleeps where it would compute, on ranks that send real buckets.
fn step_of_ranks(
    size: usize,
    fabric: Fabric,
    work: &StepTimeline,
    wire: Kind,
    overlap: bool,
) -> f64 {
    let rank = |comm| {
        let comm: Arc<dyn Communicator> = Arc::new(Delayed { inner: Box::new(comm), fabric });
        let numbers = |bytes: &f64| Tensor::ones([*bytes as i64 / 4], (Kind::Float, Device::Cpu));
        let buckets: Vec<Tensor> = work.buckets.iter().map(numbers).collect();
        let owner: Vec<usize> = (0..buckets.len()).collect();
        let asleep = Watchdog::asleep();
        let reducer = GradientReducer::new(&comm, &asleep, buckets, owner.clone(), wire).unwrap();
        comm.barrier().unwrap();
        let started = Instant::now();
        thread::sleep(Duration::from_secs_f64(work.before_s));
        reducer.arm().unwrap();
        let pause = Duration::from_secs_f64(work.backward_s / owner.len() as f64);
        for &bucket in &owner {
            thread::sleep(pause);
            if overlap {
                reducer.ready(bucket);
            }
        }
        reducer.finish().unwrap();
        started.elapsed().as_secs_f64()
    };
    thread::scope(|scope| {
        let ranks: Vec<_> =
            simulated_world(size).into_iter().map(|comm| scope.spawn(move || rank(comm))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).fold(0.0, f64::max)
    })
}

/// The reducer over 2 and 4 simulated ranks takes what the model says, in both kinds of numbers. A
/// busy machine only makes it slower, so the best of some tries counts; 15 % are for waking up.
#[test]
fn ranks_that_wait_for_each_other_take_the_predicted_time() {
    let fabric = Fabric { latency_s: 5e-3, bytes_per_s: 1e6 };
    let work = StepTimeline { before_s: 0.05, backward_s: 0.2, buckets: vec![8e4; 4] };
    for size in [2, 4] {
        for (wire, share) in [(Kind::Float, 1.0), (Kind::BFloat16, 0.5)] {
            for overlap in [true, false] {
                let buckets = work.buckets.iter().map(|bytes| share * bytes).collect();
                // The short messages are no part of the reducer.
                let sent = StepTimeline { buckets, ..work.clone() };
                let short = 2.0 * (size as f64).log2().ceil() * fabric.latency_s;
                let predicted = fabric.step(&sent, size, overlap) - short;
                let near = |_| {
                    let ratio = step_of_ranks(size, fabric, &work, wire, overlap) / predicted;
                    assert!(ratio > 0.98, "faster than the network: {ratio}");
                    ratio < 1.15
                };
                assert!((0..30).any(near), "{size} ranks, {wire:?}, overlap {overlap}");
            }
        }
    }
}

#[test]
fn a_recipe_scales_until_its_batch_is_used_up() {
    let estimate = scaled("--step-seconds pretrain=1.6").unwrap();
    let names: Vec<&str> = estimate.scaling.iter().map(|curve| curve.stage.as_str()).collect();
    let tuned = ["finetune-baseline", "finetune-denoised", "finetune-pretrained"];
    assert_eq!(names, [["rank", "pretrain"].as_slice(), &tuned].concat());
    let pretrain = &estimate.scaling[1];
    assert_eq!((pretrain.source, pretrain.item_s), (WorkSource::Given, 0.1));
    let ranks: Vec<usize> = pretrain.points.iter().map(|point| point.ranks).collect();
    assert_eq!(ranks, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    let work: Vec<f64> = pretrain.points.iter().map(|point| point.work_s).collect();
    for (work, share) in work.iter().zip([16.0, 8.0, 4.0, 2.0, 1.0, 1.0, 1.0]) {
        assert!((work - 0.1 * share).abs() < 1e-9, "{work} {share}");
    }
    let one = &pretrain.points[0];
    assert!((one.fp32.efficiency - 1.0).abs() < 1e-9 && one.fp32.step_s == one.bf16.step_s);
    assert!((one.fp32.documents_per_s - 32.0 / 1.6).abs() < 1e-9);
    for pair in pretrain.points.windows(2) {
        assert!(pair[1].fp32.efficiency < pair[0].fp32.efficiency, "{pair:?}");
    }
    for point in &pretrain.points[1..] {
        let (fp32, bf16) = (&point.fp32, &point.bf16);
        assert!(bf16.step_s <= fp32.step_s, "{point:?}");
        assert!(fp32.step_s <= fp32.step_s_without_overlap, "{point:?}");
        // A rank cannot work more than its share of the items.
        assert!(fp32.efficiency <= 1.6 / (point.ranks as f64 * point.work_s) + 1e-9, "{point:?}");
    }
    assert!(estimate.to_string().contains("scaling of pretrain: 0.1000 s of work an item (given)"));
    assert!(
        estimate.notes.iter().any(|note| note.starts_with("scaling: ")),
        "others are estimated"
    );
}

#[test]
fn a_batch_that_grows_with_the_ranks_keeps_them_at_work() {
    let estimate = scaled("--step-seconds pretrain=1.6 --batch-per-rank 16").unwrap();
    let last = estimate.scaling[1].points.last().unwrap();
    assert_eq!((last.ranks, last.batch), (512, 16 * 512));
    assert!((last.work_s - 1.6).abs() < 1e-9 && last.fp32.efficiency > 0.9, "{last:?}");
    // One machine has faster links: 8 ranks are inside, 16 are not.
    let slow = scaled("--step-seconds pretrain=1.6 --latency-us 1000").unwrap();
    let step = |estimate: &RunEstimate, place: usize| estimate.scaling[1].points[place].fp32.step_s;
    let fast = scaled("--step-seconds pretrain=1.6").unwrap();
    assert_eq!(step(&fast, 3), step(&slow, 3));
    assert!(step(&slow, 4) > step(&fast, 4) + 0.03);
}

#[test]
fn options_that_mean_nothing_are_refused() {
    for line in [
        "--latency-us=-1",
        "--bandwidth-gbs 0",
        "--node-bandwidth-gbs inf",
        "--batch-per-rank 0",
        "--step-seconds pretrain",
        "--step-seconds pretrain=0",
        "--step-seconds none=1",
    ] {
        assert_eq!(scaled(line).unwrap_err().exit_code(), 64, "{line}");
    }
}

/// `jobs/docred.toml` says what to start on 1, 8 and 64 GPUs: no rank is without work.
#[test]
fn what_the_recipe_of_docred_says_of_gpus_gives_every_rank_work() {
    let text = include_str!("../../../jobs/docred.toml");
    let lines = text.lines().filter_map(|line| line.strip_prefix("#   "));
    let joined = lines.collect::<Vec<_>>().join(" ").replace('\\', "");
    let commands: Vec<Vec<&str>> = joined
        .split("docre-pretrain ")
        .skip(1)
        .map(|command| command.split_whitespace().collect())
        .collect();
    let mut started = Vec::new();
    for words in commands {
        let after = |flag: &str| {
            let places = words.iter().enumerate().filter(|(_, word)| **word == flag);
            places.map(|(place, _)| words[place + 1].to_owned()).collect::<Vec<String>>()
        };
        let number = |flag: &str| after(flag).first().map_or(1, |word| word.parse().unwrap());
        let (nodes, tasks): (usize, usize) = (number("--nodes"), number("--tasks"));
        assert!(tasks == 1 || after("--gpus") == [tasks.to_string()], "{words:?}");
        // The same stages over generated documents, as many as DocRED's.
        let own = ["encoder.name=\"base\"", "data={synth={distant=20,human=3053,dev=2,test=2}}"];
        let mut table: toml::Table = toml::from_str(text).unwrap();
        table.remove("data");
        let settings = [after("--set"), own.map(str::to_owned).to_vec()].concat();
        let recipe = Recipe::parse(&table.to_string(), "docred.toml", &settings).unwrap();
        let options = PlanOptions { nodes, ranks_per_node: tasks, tflops: Some(400.0), share: 0.4 };
        let estimate = plan(&recipe, Path::new("/nowhere"), options).unwrap();
        let idle = estimate.notes.iter().find(|note| note.contains("without work"));
        assert_eq!(idle, None, "{words:?}");
        let rates = [&recipe.rank, &recipe.pretrain, &recipe.finetune]
            .map(|schedule| (schedule.batch, schedule.learning_rate));
        started.push((nodes * tasks, rates, estimate.stages[5].steps));
    }
    // The rate grows with the square root of the batch, and the documents that are read stay.
    let expected = [
        (1, [(32, 3e-5), (16, 3e-5), (4, 1e-5)], 16_000),
        (8, [(32, 3e-5), (16, 3e-5), (8, 1.4e-5)], 16_000),
        (64, [(64, 4.2e-5), (64, 6e-5), (64, 4e-5)], 4_000),
    ];
    assert_eq!(started, expected);
}
