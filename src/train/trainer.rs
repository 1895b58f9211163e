//! The step loop.
//!
//! One step: the ranks add up the valid rows of every loss slot, each micro-batch divides by those
//! global counts, gradients are summed over micro-batches and ranks (the all-reduce runs inside the
//! last backward pass), the norm is clipped, Adam moves. Accumulation and data parallelism are
//! therefore exact, whatever the number of micro-batches and ranks. What is left is rounding; where
//! the plan is deterministic, the batch is divided into parts that do not depend on the ranks, and
//! everything is added up part by part in one order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

use super::Schedule;
use super::TrainerState;
use super::guard::{Finding, SPIKE, culprits};
use super::metrics::MetricLine;
use super::metrics::Metrics;
use super::prefetch::{Division, StepWork, prefetch};
use super::replicas;
use super::run_folder::RunFolder;
use super::signals::Signals;
use super::{BatchSource, Forward, MicroBatch, Objective, Share};
use crate::base::console::{Progress, say};
use crate::ranks::{FixedTree, GradientReducer, ReduceOp, World};
use crate::sampling::OrderHash;
use crate::torch::HEADS;
use crate::torch::hooks::{self, HookGuard};
use crate::torch::{Adam, AdamSettings, Dropout, GradientBuckets, ParameterGroup, Precision};
use crate::{Error, Result};

/// Size of a gradient bucket in bytes: large enough for the wire, small enough to overlap.
const BUCKET_BYTES: usize = 32 << 20;

/// The first step of a process may take this long, however short the limit is.
const FIRST_STEP_LIMIT: Duration = Duration::from_secs(900);

/// Everything around a stage that is not its model.
pub struct StageContext<'a> {
    /// Name of the stage, as in the run folder.
    pub stage: &'a str,
    /// The ranks.
    pub world: &'a World,
    /// The run folder.
    pub run: &'a RunFolder,
    /// Stop and save requests.
    pub signals: &'a Signals,
}

impl StageContext<'_> {
    /// Whether this rank writes files and speaks.
    pub fn is_root(&self) -> bool {
        self.world.rank() == 0
    }

    /// This rank's share of every global batch.
    pub fn share(&self) -> Share {
        Share { rank: self.world.rank(), world: self.world.size() }
    }
}

/// Numbers of the loop.
#[derive(Clone, Debug)]
pub struct TrainerSettings {
    /// Schedule and optimiser.
    pub plan: Schedule,
    /// Steps in all.
    pub total_steps: u64,
    /// Call the boundary every so many steps; 0: only at the end.
    pub boundary_steps: u64,
    /// Precision of the forward pass.
    pub precision: Precision,
    /// Of libtorch's own generator, which makes the dropout masks of a GPU.
    pub seed: u64,
}

/// What one step gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepReport {
    /// Loss by task, directions added.
    pub losses: BTreeMap<String, f64>,
    /// Their sum.
    pub loss: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Whether losses and gradient were finite numbers on all ranks; otherwise nothing was updated
    /// on any.
    pub finite: bool,
    /// Ranks whose own losses were not finite.
    pub bad_ranks: Vec<usize>,
    /// Seconds each rank worked in the step without waiting for others, by rank.
    pub busy_s: Vec<f64>,
    /// Documents over all ranks.
    pub documents: f64,
    /// Tokens over all ranks.
    pub tokens: f64,
    /// A rank wants to stop.
    pub stop: bool,
    /// A rank wants a checkpoint.
    pub save: bool,
}

/// What the stage does at boundaries; `save` is called with the state and the optimiser's tensors
/// wherever a checkpoint is due.
pub trait Boundary {
    /// Called every `boundary_steps` steps and after the last; may change the state (scores, best
    /// step, `finished` to stop early). Returns whether to save.
    ///
    /// # Errors
    /// What the stage meets; it must be the same on all ranks.
    fn reached(&mut self, state: &mut TrainerState, progress: &Progress) -> Result<bool>;

    /// Takes a checkpoint (called on rank 0 only); it may still be on its way to the disk when this
    /// returns.
    ///
    /// # Errors
    /// I/O errors of this checkpoint or the one before.
    fn save(&mut self, state: &TrainerState, optimizer: Vec<(String, Tensor)>) -> Result<()>;

    /// Returns once every checkpoint taken so far is on the disk.
    ///
    /// # Errors
    /// I/O errors.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    /// Checkpoints that could not be copied to where they should lie too.
    fn unmirrored(&self) -> u64 {
        0
    }
}

/// A model in training.
pub struct Trainer<'a, O: Objective> {
    objective: &'a O,
    settings: TrainerSettings,
    buckets: GradientBuckets,
    optimizer: Adam,
    /// Learning rate of each group before the schedule.
    rates: Vec<f64>,
    division: Division,
    sums: GradientSums,
    longest_step: Option<Duration>,
    /// An error of this rank alone, until the next message lets the others end with it.
    failed: Option<Error>,
    /// Where training stands.
    pub state: TrainerState,
}

/// How gradients are added up over ranks.
enum GradientSums {
    /// While the backward pass is still running, in the order of the library that carries them.
    AsTheyCome { reducer: Arc<GradientReducer>, _hooks: Vec<HookGuard> },
    /// After it, in one order.
    InOrder(FixedTree),
}

impl GradientSums {
    fn new(
        division: Division,
        parameters: &[(String, Tensor)],
        buckets: &GradientBuckets,
        world: &World,
    ) -> Result<Self> {
        if let Division::Fixed(parts) = division {
            return Ok(Self::InOrder(FixedTree::new(parts)));
        }
        let flat = buckets.tensors().map(Tensor::shallow_clone).collect();
        let owner = (0..parameters.len()).map(|index| buckets.bucket_of(index)).collect();
        let reducer = Arc::new(world.gradient_reducer(flat, owner)?);
        let mut hooks = Vec::new();
        if world.communicator().carries() {
            for (index, (_, parameter)) in parameters.iter().enumerate() {
                let reducer = Arc::clone(&reducer);
                hooks.push(hooks::on_gradient_ready(
                    parameter,
                    Arc::new(move || reducer.ready(index)),
                )?);
            }
        }
        Ok(Self::AsTheyCome { reducer, _hooks: hooks })
    }

    /// Call before the backward pass of this rank's last micro-batch.
    fn arm(&self) -> Result<()> {
        if let Self::AsTheyCome { reducer, .. } = self { reducer.arm() } else { Ok(()) }
    }

    /// Call when the buckets hold the gradients of a part.
    fn part_done(&mut self, part: usize, buckets: &GradientBuckets) -> Result<()> {
        if let Self::InOrder(tree) = self { tree.add(part, &buckets.list()) } else { Ok(()) }
    }

    /// Returns when the buckets hold the sums over all ranks.
    fn finish(&mut self, world: &World, buckets: &GradientBuckets) -> Result<()> {
        match self {
            Self::AsTheyCome { reducer, .. } => reducer.finish(),
            Self::InOrder(tree) => tree.finish(world.communicator().as_ref(), &buckets.list()),
        }
    }
}

impl<'a, O: Objective> Trainer<'a, O> {
    /// Prepares gradients, optimiser and reducer; `state` is fresh or from a checkpoint.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn new(
        objective: &'a O,
        settings: TrainerSettings,
        world: &World,
        state: TrainerState,
    ) -> Result<Self> {
        let parameters: Vec<(String, Tensor)> = objective
            .parameters()
            .trainable()
            .map(|entry| (entry.name.clone(), entry.tensor.shallow_clone()))
            .collect();
        let buckets = GradientBuckets::new(&parameters, BUCKET_BYTES)?;
        let mut optimizer = Adam::with_groups(&groups(&parameters, &settings.plan, objective))?;
        let division = Division::of(&settings.plan);
        let sums = GradientSums::new(division, &parameters, &buckets, world)?;
        let rates = optimizer.settings_mut().map(|settings| settings.lr).collect();
        Ok(Self {
            objective,
            settings,
            buckets,
            optimizer,
            rates,
            division,
            sums,
            longest_step: None,
            failed: None,
            state,
        })
    }

    /// Loads the optimiser's tensors of a checkpoint.
    ///
    /// # Errors
    /// Other names or shapes than this model's.
    pub fn load_optimizer(&mut self, tensors: &[(String, Tensor)]) -> Result<()> {
        self.optimizer.load_state(tensors)
    }

    /// Runs from the current state to the last step.
    ///
    /// # Errors
    /// [`Error::Stopped`] after a request to stop (a checkpoint has been written); what the source,
    /// the model or the disk refuse.
    pub fn run<S>(
        &mut self,
        source: &S,
        context: &StageContext,
        metrics: &mut Option<Metrics>,
        boundary: &mut dyn Boundary,
    ) -> Result<()>
    where
        S: BatchSource<Batch = O::Batch>,
    {
        let total = self.settings.total_steps;
        let mut progress = Progress::new(context.stage, total, self.state.step, context.is_root());
        let outcome = std::thread::scope(|scope| {
            let batches =
                prefetch(scope, source, self.state.step..total, self.division, context.share());
            while self.state.step < total && !self.state.finished {
                let prepared = self.await_batch(&batches, context)?;
                let started = Instant::now();
                let report = self.step(&prepared, context)?;
                if !report.finite {
                    self.refuse(&report, source, &prepared, context)?;
                }
                self.after_step(&report, started, boundary.unmirrored(), metrics, &mut progress);
                self.at_boundary(&report, context, &progress, boundary)?;
            }
            Ok::<(), Error>(())
        });
        outcome?;
        boundary.settle()?;
        progress.finish(&format!("{} steps done", self.state.step));
        Ok(())
    }

    fn await_batch(
        &self,
        batches: &Receiver<Result<StepWork<O::Batch>>>,
        context: &StageContext,
    ) -> Result<StepWork<O::Batch>> {
        let name =
            format!("reading the documents of step {} of {}", self.state.step + 1, context.stage);
        let _section = context.world.watchdog().section_within(name, self.patience(context));
        batches.recv().map_err(|_| Error::Bug("the batch thread ended early".into()))?
    }

    /// Names the documents behind a step that was not finite, and ends training where the plan does
    /// not allow to skip it.
    fn refuse<S>(
        &mut self,
        report: &StepReport,
        source: &S,
        prepared: &StepWork<O::Batch>,
        context: &StageContext,
    ) -> Result<()>
    where
        S: BatchSource<Batch = O::Batch>,
    {
        let (step, plan) = (self.state.step, &self.settings.plan);
        let _section = context.world.watchdog().section_within(
            format!("looking for the documents that broke step {step}"),
            FIRST_STEP_LIMIT,
        );
        let mut documents = culprits(
            self.objective,
            source,
            &self.buckets,
            self.forward(),
            step - 1,
            &prepared.rows,
            context.world,
        )?;
        let alone = !documents.is_empty();
        if !alone {
            documents = prepared.rows.iter().map(|&row| source.title(row)).collect();
        }
        let finding = Finding {
            stage: self.state.stage.clone(),
            step,
            ranks: report.bad_ranks.clone(),
            documents,
            alone,
        };
        context.world.agree(if context.is_root() {
            finding.record(context.run)
        } else {
            Ok(())
        })?;
        self.state.skipped_in_a_row += 1;
        let (stage, skipped) = (finding.stage.clone(), self.state.skipped_in_a_row);
        if plan.non_finite != "skip" || skipped > plan.non_finite_limit {
            return Err(Error::NonFinite { stage, step, culprits: finding.describe() });
        }
        if context.is_root() {
            say(format!(
                "{stage}: step {step} is not finite{}; its update is skipped, {skipped} in a row",
                finding.describe()
            ));
        }
        Ok(())
    }

    fn forward(&self) -> Forward {
        Forward { train: true, precision: self.settings.precision }
    }

    /// One optimiser step over a prepared global batch. Where losses or gradient are not finite on
    /// any rank, no rank updates anything, and the report says so.
    ///
    /// # Errors
    /// If libtorch rejects an operation, or another rank fails.
    pub fn step(
        &mut self,
        prepared: &StepWork<O::Batch>,
        context: &StageContext,
    ) -> Result<StepReport> {
        let (world, step) = (context.world, self.state.step + 1);
        let _section = world.watchdog().step(
            step,
            format!("step {step} of {}", context.stage),
            &prepared.rows,
            self.patience(context),
        );
        self.seed_generator(context, step);
        let slots = self.objective.slots();
        let mut shared = self.counts(prepared, context);
        world.communicator().all_reduce_f64(&mut shared, ReduceOp::Sum)?;
        let (totals, requests) = self.division.total(&shared, slots.len() + 2);
        if requests[2] > 0.0 {
            // Only rank 0 writes, so only it can have failed.
            return Err(self
                .failed
                .take()
                .unwrap_or(Error::Elsewhere { rank: 0, code: requests[2] as u8 }));
        }
        let started = Instant::now();
        let mut shared = self.backward(prepared, &totals[..slots.len()], world)?;
        let bad = shared.iter().any(|sum| !sum.is_finite());
        let working = world.watchdog().part("waiting for the sums of gradients");
        let busy = started.elapsed();
        self.sums.finish(world, &self.buckets)?;
        drop(working);
        // A rank tells the others in the same message whether its losses were finite and how long
        // it worked.
        let own = shared.len() + world.rank();
        shared.resize(shared.len() + 2 * world.size(), 0.0);
        shared[own] = f64::from(u8::from(bad));
        shared[own + world.size()] = busy.as_secs_f64();
        world.communicator().all_reduce_f64(&mut shared, ReduceOp::Sum)?;
        let (sums, of_ranks) = self.division.total(&shared, slots.len());
        let (bad, busy) = of_ranks.split_at(world.size());
        let updating = world.watchdog().part("updating the weights");
        let (grad_norm, finite) = self.update(&sums)?;
        drop(updating);
        let mut report = StepReport {
            grad_norm,
            finite,
            bad_ranks: (0..world.size()).filter(|&rank| bad[rank] > 0.0).collect(),
            busy_s: busy.to_vec(),
            documents: totals[slots.len()],
            tokens: totals[slots.len() + 1],
            stop: requests[0] > 0.0,
            save: requests[1] > 0.0,
            ..StepReport::default()
        };
        for ((slot, sum), count) in slots.iter().zip(&sums).zip(&totals) {
            let task = slot.split('/').next().unwrap_or(slot).to_owned();
            *report.losses.entry(task).or_default() += if *count > 0.0 { sum / count } else { 0.0 };
        }
        report.loss = report.losses.values().sum();
        self.state.step = step;
        let mut hash = OrderHash::from_hex(&self.state.order_hash).unwrap_or_default();
        hash.add(self.state.step, prepared.rows.iter().copied());
        self.state.order_hash = hash.to_hex();
        Ok(report)
    }

    /// Dropout masks on a GPU come from libtorch's generator, which starts anew for each step and
    /// rank, so that a resumed run draws what an unbroken one does. Elsewhere masks are functions
    /// of the item.
    fn seed_generator(&self, context: &StageContext, step: u64) {
        if self.objective.parameters().trainable().any(|entry| entry.tensor.device().is_cuda()) {
            tch::manual_seed(generator_seed(
                self.settings.seed,
                context.stage,
                step,
                context.world.rank(),
            ));
        }
    }

    /// What this rank brings to a step: valid rows of each slot, documents and tokens, part by
    /// part; then requests to stop and to save, and the code of an error that the others do not
    /// know of.
    fn counts(&self, prepared: &StepWork<O::Batch>, context: &StageContext) -> Vec<f64> {
        let slots = self.objective.slots().len();
        let width = slots + 2;
        let mut counts = vec![0.0; self.division.parts() * width];
        for (part, micro) in prepared.parts.iter().enumerate() {
            let own = &mut counts[(prepared.first + part) * width..][..width];
            for batch in micro {
                own.iter_mut().zip(batch.counts()).for_each(|(total, count)| *total += count);
                own[slots] += batch.documents() as f64;
                own[slots + 1] += batch.tokens() as f64;
            }
        }
        counts.push(f64::from(u8::from(context.signals.stop_requested(context.run.path()))));
        // Rank 0 alone looks, since it removes the file: another could see it once more.
        counts.push(f64::from(u8::from(
            context.is_root() && context.signals.save_requested(context.run.path()),
        )));
        counts.push(f64::from(self.failed.as_ref().map_or(0, Error::exit_code)));
        counts
    }

    /// How long a step may take before the watchdog takes it for hung: generous for the first step
    /// of this process, then the limit that was set, or many times the longest step so far.
    fn patience(&self, context: &StageContext) -> Duration {
        let limit = context.world.watchdog().limit();
        self.longest_step.map_or(limit.max(FIRST_STEP_LIMIT), |longest| limit.max(20 * longest))
    }

    /// Forward and backward over all parts of this rank; returns the sums of the slots, part by
    /// part (0 for the parts of other ranks). The reducer is armed afterwards.
    fn backward(
        &mut self,
        prepared: &StepWork<O::Batch>,
        totals: &[f64],
        world: &World,
    ) -> Result<Vec<f64>> {
        let _section = world.watchdog().part("forward and backward");
        let mut sums = vec![0.0; self.division.parts() * totals.len()];
        for (part, micro) in prepared.parts.iter().enumerate() {
            let part = prepared.first + part;
            self.buckets.zero()?;
            if micro.is_empty() {
                self.sums.arm()?;
            }
            for (index, batch) in micro.iter().enumerate() {
                let values = self.backward_of(batch, totals, index + 1 == micro.len())?;
                sums[part * totals.len()..]
                    .iter_mut()
                    .zip(values)
                    .for_each(|(sum, value)| *sum += f64::from(value));
            }
            self.sums.part_done(part, &self.buckets)?;
        }
        Ok(sums)
    }

    /// Forward and backward of one micro-batch; returns the sums of its slots.
    fn backward_of(&self, batch: &O::Batch, totals: &[f64], last: bool) -> Result<Vec<f32>> {
        let terms = self.objective.forward(batch, self.forward())?;
        let weights: Vec<f32> = totals
            .iter()
            .map(|&total| if total > 0.0 { (1.0 / total) as f32 } else { 0.0 })
            .collect();
        let terms = Tensor::f_stack(&terms, 0)?.f_to_kind(Kind::Float)?;
        let loss = terms.f_dot(&Tensor::f_from_slice(&weights)?.f_to_device(terms.device())?)?;
        if last {
            self.sums.arm()?;
        }
        loss.f_backward()?;
        Ok(Vec::<f32>::try_from(terms.detach())?)
    }

    /// Clips and steps, and returns the norm and whether all numbers were finite; otherwise nothing
    /// is changed. Every rank decides from the same reduced numbers.
    fn update(&mut self, sums: &[f64]) -> Result<(f64, bool)> {
        let plan = &self.settings.plan;
        let norm = self.buckets.norm()?;
        if !norm.is_finite() || sums.iter().any(|sum| !sum.is_finite()) {
            return Ok((norm, false));
        }
        if plan.clip > 0.0 && norm > plan.clip {
            self.buckets.scale(plan.clip / (norm + 1e-6))?;
        }
        let rate = plan.rate_at(self.state.step + 1, self.settings.total_steps);
        for (settings, base) in self.optimizer.settings_mut().zip(&self.rates) {
            settings.lr = base * rate;
        }
        self.optimizer.step()?;
        Ok((norm, true))
    }

    fn after_step(
        &mut self,
        report: &StepReport,
        started: Instant,
        unmirrored: u64,
        metrics: &mut Option<Metrics>,
        progress: &mut Progress,
    ) {
        let elapsed = started.elapsed();
        // The first step of a process warms up, which says nothing of the others.
        self.longest_step =
            Some(self.longest_step.map_or(Duration::ZERO, |longest| longest.max(elapsed)));
        let seconds = elapsed.as_secs_f64();
        self.state.seconds += seconds;
        let rate = report.documents / seconds.max(1e-9);
        let score = if report.finite { self.state.losses.score(report.loss) } else { None };
        if report.finite {
            self.state.skipped_in_a_row = 0;
        }
        if let Some(score) = score.filter(|&score| score >= SPIKE) {
            let (step, loss) = (self.state.step, report.loss);
            progress.note(&format!(
                "the loss of step {step}, {loss:.4}, is {score:.1} standard \
                deviations above those before it"
            ));
        }
        progress
            .update(self.state.step, || format!("loss {:.4}, {rate:.0} documents/s", report.loss));
        if let Some(writer) = metrics {
            let plan = &self.settings.plan;
            let line = MetricLine {
                stage: self.state.stage.clone(),
                step: self.state.step,
                loss: Some(report.loss),
                lr: Some(
                    plan.learning_rate * plan.rate_at(self.state.step, self.settings.total_steps),
                ),
                grad_norm: Some(report.grad_norm),
                documents_per_s: Some(rate),
                tokens_per_s: Some(report.tokens / seconds.max(1e-9)),
                order_hash: Some(self.state.order_hash.clone()),
                ..MetricLine::default()
            };
            let mut line = report
                .losses
                .iter()
                .fold(line, |line, (task, loss)| line.with(&format!("loss/{task}"), *loss));
            if let Some(score) = score {
                line = line.with("loss_z", score);
            }
            if !report.finite {
                line = line.with("skipped", 1.0);
            }
            if unmirrored > 0 {
                line = line.with("unmirrored", unmirrored as f64);
            }
            if let Some((rank, score)) = straggler(&report.busy_s) {
                line = line.with("straggler", score).with("straggler_rank", rank as f64);
            }
            self.failed = writer.write(&line).err();
        }
    }

    fn at_boundary(
        &mut self,
        report: &StepReport,
        context: &StageContext,
        progress: &Progress,
        boundary: &mut dyn Boundary,
    ) -> Result<()> {
        let plan = &self.settings.plan;
        let (step, total) = (self.state.step, self.settings.total_steps);
        let last = step == total;
        let due = |every: u64| every > 0 && step.is_multiple_of(every);
        self.state.finished = last;
        let mut save = last || report.stop || report.save || due(plan.checkpoint_steps);
        if last || due(self.settings.boundary_steps) {
            save |= boundary.reached(&mut self.state, progress)?;
        }
        let last = self.state.finished;
        if save || due(plan.compare_ranks_steps) {
            self.compare_ranks(context)?;
        }
        if save {
            self.save(report.save || report.stop || last, context, boundary)?;
        }
        if context.is_root() && report.save {
            fs_err::remove_file(context.run.path().join("SAVE")).ok();
        }
        if report.stop && !last {
            return Err(Error::Stopped { stage: self.state.stage.clone(), step });
        }
        Ok(())
    }

    /// Takes a checkpoint on rank 0 and, where `settled`, waits until it is on the disk.
    fn save(
        &mut self,
        settled: bool,
        context: &StageContext,
        boundary: &mut dyn Boundary,
    ) -> Result<()> {
        let _section = context
            .world
            .watchdog()
            .section_within(format!("the checkpoint of step {}", self.state.step), Duration::MAX);
        let mut saved = self.failed.take().map_or(Ok(()), Err);
        if context.is_root() && saved.is_ok() {
            saved = context.run.still_there();
        }
        if context.is_root() && saved.is_ok() {
            saved = boundary.save(&self.state, self.optimizer.state());
            if saved.is_ok() && settled {
                saved = boundary.settle();
            }
        }
        context.world.agree(saved)
    }

    fn compare_ranks(&self, context: &StageContext) -> Result<()> {
        if self.settings.plan.compare_ranks_steps == 0 {
            return Ok(());
        }
        let _section = context
            .world
            .watchdog()
            .section_within("comparing the weights of all ranks", self.patience(context));
        let weights: Vec<(String, Tensor)> = self
            .objective
            .parameters()
            .trainable()
            .map(|entry| (entry.name.clone(), entry.tensor.shallow_clone()))
            .collect();
        replicas::compare(context.world, &weights)
    }
}

/// Seed of libtorch's generator for a step of a stage on a rank.
fn generator_seed(seed: u64, stage: &str, step: u64, rank: usize) -> i64 {
    let stage =
        stage.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(257).wrapping_add(byte.into()));
    Dropout::token_key(seed, step, rank as u64, stage)
}

/// The slowest rank and how many times as long as the median it worked; `None` for one rank.
fn straggler(busy_s: &[f64]) -> Option<(usize, f64)> {
    let mut sorted = busy_s.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let median = *sorted.get((sorted.len() - 1) / 2).filter(|_| sorted.len() > 1)?;
    let rank = (0..busy_s.len()).max_by(|&a, &b| busy_s[a].total_cmp(&busy_s[b]))?;
    Some((rank, busy_s[rank] / median.max(1e-9)))
}

/// Parameters that share a learning rate and a weight decay, in order of their first member.
fn groups<O: Objective>(
    parameters: &[(String, Tensor)],
    plan: &Schedule,
    objective: &O,
) -> Vec<ParameterGroup> {
    let mut groups: Vec<ParameterGroup> = Vec::new();
    for (name, tensor) in parameters {
        let rate =
            objective.rate(name) * if name.starts_with(HEADS) { plan.head_rate } else { 1.0 };
        let decays = !plan.no_decay.iter().any(|part| name.contains(part.as_str()));
        let settings = AdamSettings {
            lr: plan.learning_rate * rate,
            betas: (0.9, 0.999),
            eps: plan.epsilon,
            weight_decay: if decays { plan.weight_decay } else { 0.0 },
            decoupled: plan.optimizer == "adamw",
            amsgrad: plan.amsgrad,
        };
        let member = (name.clone(), tensor.shallow_clone());
        match groups.iter_mut().find(|group| group.settings == settings) {
            Some(group) => group.parameters.push(member),
            None => groups.push(ParameterGroup { parameters: vec![member], settings }),
        }
    }
    groups
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
