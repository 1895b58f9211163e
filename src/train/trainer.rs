//! The step loop.
//!
//! One step: the ranks add up the valid rows of every loss slot, each micro-batch divides by those
//! global counts, gradients are summed over micro-batches and ranks (the all-reduce runs inside the
//! last backward pass), the norm is clipped, Adam updates the weights. Accumulation and data
//! parallelism are therefore exact up to rounding, whatever the number of micro-batches and ranks.
//! In a deterministic run the batch is divided into leaves that do not depend on the ranks, and
//! everything is added up leaf by leaf in one order, so that rounding is the same, too.

use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

use super::batches::BatchSource;
use super::communication::WirePrecision;
use super::culprits::{Finding, culprits};
use super::division::{Division, StepWork};
use super::gradient_sums::{BUCKET_BYTES, GradientSums};
use super::loss_history::SPIKE;
use super::loss_sums::LossSums;
use super::metrics::Metrics;
use super::objective::{Forward, MicroBatch, Objective};
use super::parameter_groups::groups;
use super::prefetch::{Prefetched, prefetch};
use super::replicas;
use super::schedule::{NonFinite, Schedule};
use super::sections::{StepClock, StepSection};
use super::stage::{Boundary, StageContext};
use super::state::TrainerState;
use super::step_report::StepReport;
use crate::base::{Progress, brief, say};
use crate::ranks::{ReduceOp, World};
use crate::sampling::OrderHash;
use crate::torch::precision::choose_gpu_products;
use crate::torch::{Adam, Dropout, GradientBuckets, Precision, on};
use crate::{Error, Result, exit_code};

/// The first step of a process may take this long, however short the limit is.
const FIRST_STEP_LIMIT: Duration = Duration::from_secs(900);

/// Threads that prepare the batches of a GPU. One prepares some 3,000 documents a second, which is
/// fewer than a GPU can take with a small model.
const GPU_PREFETCH_THREADS: usize = 4;

/// What the loop is told besides model, data and context.
#[derive(Clone, Debug)]
pub struct TrainerSettings {
    /// Schedule and optimiser.
    pub schedule: Schedule,
    /// Number of steps.
    pub total_steps: u64,
    /// Call the boundary every so many steps; 0: only at the end.
    pub boundary_steps: u64,
    /// Precision of the forward pass.
    pub precision: Precision,
    /// Whether sums are made in an order that does not depend on the number of ranks.
    pub deterministic: bool,
    /// Kind of number in which gradients travel between ranks.
    pub wire: WirePrecision,
    /// Seed of libtorch's own generator, which makes the dropout masks of a GPU.
    pub seed: u64,
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
    clock: StepClock,
    /// Where training stands.
    pub state: TrainerState,
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
        if objective.parameters().device().is_cuda() {
            choose_gpu_products(settings.precision)?;
        }
        let parameters = trainable(objective);
        let shared = world.communicator().carries();
        let buckets = GradientBuckets::new(&parameters, BUCKET_BYTES, shared)?;
        let schedule = &settings.schedule;
        let mut optimizer = Adam::new(&groups(&parameters, schedule, objective))?;
        let division = Division::of(schedule.batch, settings.deterministic);
        let sums = GradientSums::new(division, &parameters, &buckets, settings.wire, world)?;
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
            clock: StepClock::start(),
            state,
        })
    }

    /// Loads the optimiser's tensors of a checkpoint.
    ///
    /// # Errors
    /// If names or shapes are not this model's.
    pub fn load_optimizer(&mut self, tensors: &[(String, Tensor)]) -> Result<()> {
        self.optimizer.load_state(tensors)
    }

    /// Runs from the current state to the last step.
    ///
    /// # Errors
    /// [`Error::Stopped`] after a request to stop (a checkpoint has been written); errors of the
    /// source, the model and the disk.
    pub fn run<S: BatchSource<Batch = O::Batch>>(
        &mut self,
        source: &S,
        context: &StageContext,
        metrics: &mut Option<Metrics>,
        boundary: &mut dyn Boundary,
    ) -> Result<()> {
        let total = self.settings.total_steps;
        let mut progress = Progress::new(context.stage, total, self.state.step, context.is_root());
        if self.state.unjudged {
            self.at_boundary(&StepReport::default(), context, &progress, boundary, metrics)?;
        }
        std::thread::scope(|scope| {
            let threads = if self.on_gpu() { GPU_PREFETCH_THREADS } else { 1 };
            let work = (self.division, context.share());
            let mut batches = prefetch(scope, source, self.state.step..total, work, threads);
            while self.state.step < total && !self.state.finished {
                self.clock = StepClock::start();
                let prepared = self.await_batch(&mut batches, context)?;
                self.clock.lap(StepSection::Reading);
                let started = Instant::now();
                let report = self.step(&prepared, context)?;
                if !report.finite {
                    self.refuse(&report, source, &prepared, context)?;
                }
                self.after_step(&report, started, boundary.unmirrored(), metrics, &mut progress);
                self.at_boundary(&report, context, &progress, boundary, metrics)?;
            }
            Ok::<(), Error>(())
        })?;
        boundary.settle()?;
        progress.finish(&format!("{} steps done", self.state.step));
        Ok(())
    }

    fn await_batch(
        &self,
        batches: &mut Prefetched<O::Batch>,
        context: &StageContext,
    ) -> Result<StepWork<O::Batch>> {
        let reading = StepSection::Reading.recorded();
        let name = format!("{reading} of step {} of {}", self.state.step + 1, context.stage);
        let _section = context.world.watchdog().section_within(name, self.patience(context));
        let ended = || Err(Error::Bug("the batch thread ended early".into()));
        batches.next().unwrap_or_else(ended)
    }

    /// Names the documents behind a step that was not finite, and ends training if the schedule
    /// does not allow to skip it.
    fn refuse<S: BatchSource<Batch = O::Batch>>(
        &mut self,
        report: &StepReport,
        source: &S,
        prepared: &StepWork<O::Batch>,
        context: &StageContext,
    ) -> Result<()> {
        let step = self.state.step;
        let _section = context.world.watchdog().section_within(
            format!("looking for the documents that broke step {step}"),
            FIRST_STEP_LIMIT,
        );
        let (rows, world) = (&prepared.rows, context.world);
        let (buckets, forward) = (&self.buckets, self.forward());
        let mut documents =
            culprits(self.objective, source, buckets, forward, step - 1, rows, world)?;
        let alone = !documents.is_empty();
        if !alone {
            documents = rows.iter().map(|&row| source.title(row)).collect();
        }
        let stage = self.state.stage.clone();
        let finding = Finding { stage, step, ranks: report.bad_ranks.clone(), documents, alone };
        let root = context.is_root();
        world.agree(if root { finding.record(context.run.path()) } else { Ok(()) })?;
        self.state.skipped_in_a_row += 1;
        let (skipped, culprits) = (self.state.skipped_in_a_row, finding.describe());
        let schedule = &self.settings.schedule;
        if schedule.non_finite == NonFinite::Stop || skipped > schedule.non_finite_limit {
            return Err(Error::NonFinite { stage: finding.stage, step, culprits });
        }
        if root {
            say(format!(
                "{}: step {step} is not finite{culprits}; its update is skipped, {skipped} in a \
                 row",
                finding.stage
            ));
        }
        Ok(())
    }

    fn on_gpu(&self) -> bool {
        self.objective.parameters().device().is_cuda()
    }

    fn forward(&self) -> Forward {
        Forward { train: true, precision: self.settings.precision }
    }

    /// One optimiser step over a prepared global batch. If losses or gradient are not finite on any
    /// rank, no rank updates anything, and the report says so.
    ///
    /// # Errors
    /// If libtorch rejects an operation; a lost rank (71).
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
        let (rows, mut report) = self.exchange_counts(prepared, context)?;
        self.clock.lap(StepSection::Exchange);
        let started = Instant::now();
        let sums = self.backward(prepared, &rows, world)?;
        self.clock.lap(StepSection::Compute);
        let waiting = world.watchdog().unbounded_section(StepSection::Exchange.recorded());
        let busy = started.elapsed();
        self.sums.finish(world, &self.buckets)?;
        // On a GPU this is the one place of a step where the host waits: for all sums over ranks,
        // too, so that a collective that hangs shows in this section.
        let (sums, norm) = sums.read(self.buckets.norm_on_device()?)?;
        drop(waiting);
        let sums = self.exchange_sums(sums, busy, world, &mut report)?;
        self.clock.lap(StepSection::Exchange);
        let updating = world.watchdog().unbounded_section(StepSection::Update.recorded());
        (report.grad_norm, report.finite) = self.update(&sums, norm)?;
        drop(updating);
        self.clock.lap(StepSection::Update);
        report.add_losses(self.objective.slots(), &sums, &rows);
        self.state.step = step;
        let mut hash = OrderHash::from_hex(&self.state.order_hash).unwrap_or_default();
        hash.add(step, prepared.rows.iter().copied());
        self.state.order_hash = hash.to_hex();
        Ok(report)
    }

    /// Seeds libtorch's generator, which makes the dropout masks of a GPU, anew for each step and
    /// rank, so that a resumed run draws what an unbroken one does. Elsewhere masks are functions
    /// of the item.
    fn seed_generator(&self, context: &StageContext, step: u64) {
        if self.on_gpu() {
            let (seed, rank) = (self.settings.seed, context.world.rank());
            tch::manual_seed(generator_seed(seed, context.stage, step, rank));
        }
    }

    /// Adds up over all ranks, leaf by leaf, the valid rows of each slot, `[slots]`; begins the
    /// report with documents, tokens, and requests to stop and to save.
    ///
    /// # Errors
    /// The error of a rank that the others do not know of.
    fn exchange_counts(
        &mut self,
        prepared: &StepWork<O::Batch>,
        context: &StageContext,
    ) -> Result<(Vec<f64>, StepReport)> {
        let slots = self.objective.slots().len();
        let width = slots + 2;
        let mut shared = vec![0.0; self.division.leaves() * width];
        for (leaf, micro) in prepared.leaves.iter().enumerate() {
            let own = &mut shared[(prepared.first + leaf) * width..][..width];
            for batch in micro {
                own.iter_mut().zip(batch.counts()).for_each(|(total, count)| *total += count);
                own[slots] += batch.documents() as f64;
                own[slots + 1] += batch.tokens() as f64;
            }
        }
        let (signals, run) = (context.signals, context.run.path());
        shared.push(f64::from(u8::from(signals.stop_requested(run))));
        // Rank 0 alone looks, since it removes the file: another could see it once more.
        shared.push(f64::from(u8::from(context.is_root() && signals.save_requested(run))));
        shared.push(f64::from(self.failed.as_ref().map_or(0, Error::exit_code)));
        context.world.communicator().all_reduce_f64(&mut shared, ReduceOp::Sum)?;
        let (mut rows, requests) = self.division.total(&shared, width);
        if requests[2] > 0.0 {
            // Only rank 0 writes, so only it can have failed.
            let elsewhere = Error::Elsewhere { rank: 0, code: requests[2] as u8 };
            return Err(self.failed.take().unwrap_or(elsewhere));
        }
        let report = StepReport {
            documents: rows[slots],
            tokens: rows[slots + 1],
            stop: requests[0] > 0.0,
            save: requests[1] > 0.0,
            ..StepReport::default()
        };
        rows.truncate(slots);
        Ok((rows, report))
    }

    /// Adds up the sums of the slots over all leaves and ranks. In the same message each rank
    /// reports whether its own sums were finite, and the seconds that it worked.
    fn exchange_sums(
        &self,
        mut shared: Vec<f64>,
        busy: Duration,
        world: &World,
        report: &mut StepReport,
    ) -> Result<Vec<f64>> {
        let bad = shared.iter().any(|sum| !sum.is_finite());
        let own = shared.len() + world.rank();
        shared.resize(shared.len() + 2 * world.size(), 0.0);
        shared[own] = f64::from(u8::from(bad));
        shared[own + world.size()] = busy.as_secs_f64();
        world.communicator().all_reduce_f64(&mut shared, ReduceOp::Sum)?;
        let (sums, of_ranks) = self.division.total(&shared, self.objective.slots().len());
        let (bad, busy_s) = of_ranks.split_at(world.size());
        report.bad_ranks = (0..world.size()).filter(|&rank| bad[rank] > 0.0).collect();
        report.busy_s = busy_s.to_vec();
        Ok(sums)
    }

    /// How long a step may take before the watchdog takes it for hung: generous for the first step
    /// of this process, then the limit that was set, or many times the longest step so far.
    fn patience(&self, context: &StageContext) -> Duration {
        let limit = context.world.watchdog().limit();
        self.longest_step.map_or(limit.max(FIRST_STEP_LIMIT), |longest| limit.max(20 * longest))
    }

    /// Forward and backward over all leaves of this rank; returns the sums of the slots, leaf by
    /// leaf (0 for the leaves of other ranks). The reducer is armed afterwards.
    fn backward(
        &mut self,
        prepared: &StepWork<O::Batch>,
        totals: &[f64],
        world: &World,
    ) -> Result<LossSums> {
        let _section = world.watchdog().unbounded_section(StepSection::Compute.recorded());
        let mut sums = LossSums::new(self.division.leaves() * totals.len());
        for (leaf, micro) in prepared.leaves.iter().enumerate() {
            let leaf = prepared.first + leaf;
            self.buckets.zero()?;
            if micro.is_empty() {
                self.sums.arm()?;
            }
            for (index, batch) in micro.iter().enumerate() {
                let values = self.backward_of(batch, totals, index + 1 == micro.len())?;
                sums.add(leaf * totals.len(), values)?;
            }
            self.sums.leaf_done(leaf, &self.buckets)?;
        }
        Ok(sums)
    }

    /// Forward and backward of one micro-batch; returns the sums of its slots, `[slots]`.
    fn backward_of(&self, batch: &O::Batch, totals: &[f64], last: bool) -> Result<Tensor> {
        let terms = self.objective.forward(batch, self.forward())?;
        let weights: Vec<f32> = totals
            .iter()
            .map(|&total| if total > 0.0 { (1.0 / total) as f32 } else { 0.0 })
            .collect();
        let terms = Tensor::f_stack(&terms, 0)?.f_to_kind(Kind::Float)?;
        let loss = terms.f_dot(&on(&weights, terms.device())?)?;
        if last {
            self.sums.arm()?;
        }
        loss.f_backward()?;
        Ok(terms.f_detach()?)
    }

    /// Clips and steps; returns the norm and whether all numbers were finite. If not, nothing is
    /// changed. Every rank decides from the same reduced numbers. `norm` is that of a GPU.
    fn update(&mut self, sums: &[f64], norm: Option<f64>) -> Result<(f64, bool)> {
        let schedule = &self.settings.schedule;
        let (on_gpu, norm) = match norm {
            Some(norm) => (true, norm),
            None => (false, self.buckets.norm()?),
        };
        if !norm.is_finite() || sums.iter().any(|sum| !sum.is_finite()) {
            return Ok((norm, false));
        }
        let clips = schedule.clip > 0.0 && norm > schedule.clip;
        if clips && !on_gpu {
            self.buckets.scale(schedule.clip / (norm + 1e-6))?;
        }
        // A GPU divides while it updates, which spares it a pass over all gradients.
        let divisor = (clips && on_gpu).then(|| (norm + 1e-6) / schedule.clip);
        let rate = schedule.rate_at(self.state.step + 1, self.settings.total_steps);
        for (settings, base) in self.optimizer.settings_mut().zip(&self.rates) {
            settings.lr = base * rate;
        }
        self.optimizer.step(divisor)?;
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
        // The first step of a process warms up, which says nothing about the others.
        self.longest_step =
            Some(self.longest_step.map_or(Duration::ZERO, |longest| longest.max(elapsed)));
        let (step, loss, seconds) = (self.state.step, report.loss, elapsed.as_secs_f64());
        self.state.seconds += seconds;
        let mut score = None;
        if report.finite {
            self.state.skipped_in_a_row = 0;
            score = self.state.losses.score(loss);
        }
        if let Some(score) = score.filter(|&score| score >= SPIKE) {
            progress.note(&format!(
                "the loss of step {step}, {loss:.4}, is {score:.1} standard deviations above those \
                 before it"
            ));
        }
        let rate = report.documents / seconds.max(1e-9);
        progress.update(step, || format!("loss {loss:.4}, {} documents/s", brief(rate)));
        let Some(writer) = metrics else { return };
        let schedule = &self.settings.schedule;
        let lr = schedule.learning_rate * schedule.rate_at(step, self.settings.total_steps);
        let mut line = report.line(&self.state.stage, step, seconds, &self.clock);
        line.lr = Some(lr);
        line.order_hash = Some(self.state.order_hash.clone());
        if let Some(score) = score {
            line = line.with("loss_z", score);
        }
        if unmirrored > 0 {
            line = line.with("unmirrored", unmirrored as f64);
        }
        self.failed = writer.write(line).err();
    }

    fn at_boundary(
        &mut self,
        report: &StepReport,
        context: &StageContext,
        progress: &Progress,
        boundary: &mut dyn Boundary,
        metrics: &mut Option<Metrics>,
    ) -> Result<()> {
        let schedule = &self.settings.schedule;
        let (step, total) = (self.state.step, self.settings.total_steps);
        let stage = self.state.stage.clone();
        let last = step == total;
        let due = |every: u64| every > 0 && step.is_multiple_of(every);
        self.state.finished = last;
        let mut save = last || report.stop || report.save || due(schedule.checkpoint_steps);
        self.state.unjudged = last || due(self.settings.boundary_steps);
        let stopped = || Error::Stopped { place: format!("at step {step} of stage `{stage}`") };
        if self.state.unjudged {
            let judgements = self.state.curve.len();
            // What a boundary does may take minutes, so a request to stop comes first.
            let reached = match report.stop {
                true => Err(stopped()),
                false => boundary.reached(&mut self.state, progress),
            };
            match reached {
                Ok(wanted) => save |= wanted,
                Err(error) if error.exit_code() == exit_code::STOPPED => {
                    self.state.finished = false;
                    self.save(true, context, boundary)?;
                    return Err(stopped());
                }
                Err(error) => return Err(error),
            }
            self.state.unjudged = false;
            if let (Some(writer), Some(&(_, f1))) =
                (metrics, self.state.curve.get(judgements..).and_then(<[_]>::last))
            {
                self.failed = writer.judged(&stage, step, f1).err().or(self.failed.take());
            }
        }
        let last = self.state.finished;
        if save || due(schedule.compare_ranks_steps) {
            self.compare_ranks(context)?;
        }
        if save {
            self.save(report.save || report.stop || last, context, boundary)?;
        }
        if context.is_root() && report.save {
            context.signals.save_answered(context.run.path());
        }
        if report.stop && !last {
            return Err(stopped());
        }
        Ok(())
    }

    /// Takes a checkpoint on rank 0 and, if `settled`, waits until it is on the disk.
    fn save(
        &mut self,
        settled: bool,
        context: &StageContext,
        boundary: &mut dyn Boundary,
    ) -> Result<()> {
        let name = format!("the checkpoint of step {}", self.state.step);
        let _section = context.world.watchdog().unbounded_section(name);
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
        if self.settings.schedule.compare_ranks_steps == 0 {
            return Ok(());
        }
        let _section = context
            .world
            .watchdog()
            .section_within("comparing the weights of all ranks", self.patience(context));
        replicas::compare(context.world, &trainable(self.objective))
    }
}

/// Names and tensors of the parameters that are trained.
fn trainable<O: Objective>(objective: &O) -> Vec<(String, Tensor)> {
    let entries = objective.parameters().trainable();
    entries.map(|entry| (entry.name.clone(), entry.tensor.shallow_clone())).collect()
}

/// Seed of libtorch's generator for a step of a stage on a rank.
fn generator_seed(seed: u64, stage: &str, step: u64, rank: usize) -> i64 {
    let stage =
        stage.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(257).wrapping_add(byte.into()));
    Dropout::token_key(seed, step, rank as u64, stage)
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
