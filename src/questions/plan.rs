//! What a recipe will take on a cluster, before anything is submitted: steps, floating-point
//! operations, time, memory, disk and traffic of each stage, for a number of ranks.
//!
//! Steps, documents and sizes of models are exact; time and memory are estimates from the formulas
//! of docs/design.md and say so. Not for measuring: `bench` does that on the machine it runs on.

mod corpora;
mod estimate;
mod fabric;
mod scaling;

use std::path::Path;

use clap::Args;
use serde_json::Value;
use tch::Device;

use self::corpora::{CorpusSize, corpora};
use self::estimate::{RunEstimate, StageEstimate, Took};
pub use self::scaling::ScalingOptions;
use self::scaling::{StepShape, WorkSource};
use super::cost::{finetuning_head_flops, pretraining_head_flops, ranking_flops};
use super::systems::{Sizes, foundation, model_of};
use crate::base::{read_json, run_files};
use crate::encoders::{encoder_flops, encoder_size};
use crate::pipeline::{
    Pretraining, Role, check_roles, pretrain_steps, stage_of, student_stage_of, total_steps,
    without_work,
};
use crate::recipe::Recipe;
use crate::sampling::SourceVisits;
use crate::shards::ShardManifest;
use crate::systems::dsdocre::{DsdocreModel, DsdocreSettings, ModelKind};
use crate::systems::{Model, Variant};
use crate::torch::precision::{Precision, matmul_rate};
use crate::torch::{GradientBuckets, device};
use crate::train::{BUCKET_BYTES, Checkpoint, RunIdentity, Schedule, TrainerState};
use crate::{Error, Result};

/// Numbers that the backward pass keeps a token, layer and channel (docs/design.md).
const KEPT_PER_CHANNEL: f64 = 14.0;

/// Share of the rate of matrix products that training is assumed to reach: an estimate for
/// BERT-base on one H200 in micro-batches of 8,600 tokens (docs/design.md).
const SHARE: f64 = 0.15;

/// Seconds that a host takes at least to start the kernels of a micro-batch, forward and backward,
/// whatever its size: 7 µs for each of up to 900 (docs/design.md).
const FIXED_S: f64 = 0.006;

/// Where the run will take place, as the flags of `plan` say it.
#[derive(Clone, Copy, Debug, Args)]
pub struct PlanOptions {
    /// Number of machines
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub nodes: usize,
    /// GPUs of each machine, with one rank each
    #[arg(long = "gpus", value_name = "G", default_value_t = 1)]
    pub ranks_per_node: usize,
    /// Speed of matrix products on one GPU in TFLOP/s, in the precision of the recipe [default:
    /// measured on this machine's CPU]
    #[arg(long, value_name = "T")]
    pub tflops: Option<f64>,
    /// Share of that speed that training reaches [default: 0.15, estimated for BERT-base on an
    /// H200]
    #[arg(long, value_name = "S", default_value_t = SHARE, hide_default_value = true)]
    pub share: f64,
}

/// Estimates a recipe; documents are counted in `folder`, the run folder, where they are prepared,
/// otherwise in their files. What that run has taken so far is set beside the estimate.
///
/// # Errors
/// Bad documents, missing files; an encoder or settings that cannot be built.
pub fn plan(recipe: &Recipe, folder: &Path, options: PlanOptions) -> Result<RunEstimate> {
    if options.nodes * options.ranks_per_node == 0 || !(options.share > 0.0 && options.share <= 1.0)
    {
        return Err(Error::recipe("--nodes and --gpus count from 1, --share lies in (0, 1]"));
    }
    check_roles(recipe)?;
    let tflops = match options.tflops {
        Some(rate) if rate > 0.0 => rate,
        Some(rate) => return Err(Error::recipe(format!("--tflops {rate} is no rate"))),
        None => {
            device::set_threads(
                std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            )?;
            matmul_rate(Device::Cpu, Precision::Fp32)? / 1e12
        }
    };
    let corpora = corpora(recipe, folder)?;
    let mut estimate = RunEstimate {
        name: recipe.name.clone(),
        ranks: options.nodes * options.ranks_per_node,
        ranks_per_node: options.ranks_per_node,
        tflops,
        share: options.share,
        corpora,
        stages: Vec::new(),
        scaling: Vec::new(),
        notes: Vec::new(),
    };
    if options.tflops.is_none() {
        estimate.notes.push(
            "the rate was measured on the CPU of this machine; --tflops names that of your GPUs"
                .into(),
        );
    }
    let sizes = sizes(recipe, folder)?;
    if sizes.is_none() {
        estimate.notes.push(format!(
            "models are sized for {} word pieces and {} relations",
            Sizes::DOCRED.pieces,
            Sizes::DOCRED.relations
        ));
    }
    estimate.add_stages(recipe, sizes.unwrap_or(Sizes::DOCRED))?;
    for stage in &mut estimate.stages {
        stage.took = took(folder, stage)?;
    }
    Ok(estimate)
}

/// What a stage has taken, by its last checkpoint.
fn took(folder: &Path, stage: &StageEstimate) -> Result<Option<Took>> {
    let path = folder.join(run_files::IDENTITY);
    let Some(checkpoint) =
        Checkpoint::latest(&folder.join(run_files::CHECKPOINTS).join(&stage.stage))?
            .filter(|_| path.exists())
    else {
        return Ok(None);
    };
    let run: RunIdentity = read_json(&path)?;
    let TrainerState { step, seconds, .. } = checkpoint.trainer()?;
    let flops = stage.flops * step as f64 / stage.steps.max(1) as f64;
    let tflops = flops / (seconds.max(f64::MIN_POSITIVE) * run.world_size.max(1) as f64) / 1e12;
    Ok(Some(Took { steps: step, hours: seconds / 3600.0, ranks: run.world_size, tflops }))
}

/// The vocabulary and the relations of prepared shards.
fn sizes(recipe: &Recipe, folder: &Path) -> Result<Option<Sizes>> {
    let shards = folder.join(run_files::SHARDS);
    let mut names = vec![Role::Human.name()];
    names.extend(recipe.data.source.iter().map(|source| source.name.as_str()));
    let there = names.into_iter().find_map(|name| {
        let folder = shards.join(name);
        folder.join("manifest.json").exists().then_some(folder)
    });
    let Some(shards) = there else { return Ok(None) };
    let manifest = ShardManifest::read(&shards)?;
    Ok(Some(Sizes {
        pieces: manifest.tokenizer.vocab_size as i64,
        relations: manifest.relations.len(),
    }))
}

/// What a model weighs.
struct ModelSize {
    config: Value,
    width: f64,
    layers: f64,
    parameters: usize,
    /// Bytes of the gradient buckets.
    buckets: Vec<usize>,
}

impl ModelSize {
    fn of(model: &dyn Model) -> Self {
        let config = model.encoder_config();
        let [width, layers] = encoder_size(&config).unwrap_or([0.0, 1.0]);
        let parameters = model.parameters().iter().map(|entry| entry.tensor.numel()).sum();
        let trained = model.parameters().trainable();
        let trained: Vec<_> =
            trained.map(|entry| (entry.name.clone(), entry.tensor.shallow_clone())).collect();
        let buckets = GradientBuckets::sizes(&trained, BUCKET_BYTES);
        Self { config, width, layers, parameters, buckets }
    }
}

/// A stage before its time and memory are known.
struct StageWork<'a> {
    stage: String,
    recipe: &'a Recipe,
    schedule: &'a Schedule,
    steps: u64,
    documents_per_step: f64,
    /// Items that the ranks divide among themselves: those of a batch, or the documents to score.
    items: usize,
    /// The documents that it reads.
    corpus: &'a CorpusSize,
    /// Forward FLOPs a document; `None` where they are not known.
    flops: Option<f64>,
    /// Whether there is a backward pass, which costs twice the forward pass.
    trains: bool,
}

impl StageWork<'_> {
    /// A step, for the curve of [`RunEstimate::add_scaling`].
    fn shape(&self, model: &ModelSize, rate: f64) -> StepShape {
        let documents = self.documents_per_step / self.items.max(1) as f64;
        StepShape {
            items: self.items.max(1),
            documents,
            tokens: documents * self.corpus.tokens,
            budget: self.schedule.tokens_per_micro_batch as f64,
            buckets: model.buckets.clone(),
            seconds: 3.0 * self.flops.unwrap_or_default() * documents / rate,
        }
    }
}

impl RunEstimate {
    /// Adds how each stage that trains scales to more ranks.
    ///
    /// # Errors
    /// A recipe error (64) for options that mean nothing.
    pub fn add_scaling(&mut self, options: &ScalingOptions) -> Result<()> {
        let trained = || self.stages.iter().filter_map(|own| Some((own, own.shape.as_ref()?)));
        let names: Vec<&str> = trained().map(|(own, _)| own.stage.as_str()).collect();
        let given = options.measured(&names)?;
        let work = |own: &StageEstimate, shape: &StepShape| {
            let given = given.iter().find(|(name, _)| *name == own.stage);
            match (given, own.took.filter(|took| took.steps > 0)) {
                (Some((_, seconds)), _) => (seconds / shape.items as f64, WorkSource::Given),
                (None, Some(took)) => {
                    let share = shape.items.div_ceil(took.ranks.max(1)) as f64;
                    let step = 3600.0 * took.hours / took.steps as f64;
                    (step / share, WorkSource::RunFolder)
                }
                (None, None) => (shape.seconds, WorkSource::Estimated),
            }
        };
        let curve = |(own, shape): (&StageEstimate, &StepShape)| {
            shape.scaling(&own.stage, work(own, shape), options, self.ranks_per_node)
        };
        let (known, unknown): (Vec<_>, Vec<_>) =
            trained().map(curve).partition(|curve| curve.item_s > 0.0);
        let estimated = known.iter().any(|curve| curve.source == WorkSource::Estimated);
        self.scaling = known;
        if estimated {
            self.notes.push(
                "scaling: seconds of work are estimated; --step-seconds or a run folder gives \
                 measured ones"
                    .into(),
            );
        }
        let unknown = unknown.iter().map(|curve| {
            format!("scaling: the work of {} is not known; --step-seconds gives it", curve.stage)
        });
        self.notes.extend(unknown);
        Ok(())
    }

    fn corpus(&self, role: Role) -> Result<CorpusSize> {
        let found = self.corpora.iter().find(|size| size.role == role.name());
        found.cloned().ok_or_else(|| role.missing())
    }

    /// The documents that an epoch of fine-tuning visits, those of all sources.
    fn visited(&self, recipe: &Recipe) -> Result<CorpusSize> {
        if recipe.data.source.is_empty() && recipe.data.human_weight.is_none() {
            return self.corpus(Role::Human);
        }
        let own = |(name, weight): (&str, f64)| {
            let size = self.corpora.iter().find(|size| size.role == name)?;
            let visits = SourceVisits::weighted(size.labelled, weight).visits;
            Some((visits as f64, size))
        };
        let named = recipe.data.source.iter().map(|source| (source.name.as_str(), source.weight));
        let human = (Role::Human.name(), recipe.data.human_weight());
        let sizes: Vec<(f64, &CorpusSize)> =
            [human].into_iter().chain(named).filter_map(own).collect();
        let visits: f64 = sizes.iter().map(|(visits, _)| visits).sum();
        let mean = |number: fn(&CorpusSize) -> f64| {
            let sum: f64 = sizes.iter().map(|(visits, size)| visits * number(size)).sum();
            sum / visits.max(1.0)
        };
        Ok(CorpusSize {
            role: Role::Human.name().to_owned(),
            documents: visits as usize,
            labelled: visits as usize,
            tokens: mean(|size| size.tokens),
            entities: mean(|size| size.entities),
            bytes: mean(|size| size.bytes),
            source: "sources",
        })
    }

    /// Estimates the time and the memory of a stage.
    fn add(&mut self, work: &StageWork, model: &ModelSize) {
        if work.flops.is_none() {
            self.notes.push(format!(
                "{}: the cost of this encoder is not known, so its time is given as 0",
                work.stage
            ));
        }
        let working = self.ranks.min(work.items.max(1)) as f64;
        if work.trains {
            let told = without_work(work.recipe, work.schedule, work.items, self.ranks);
            self.notes.extend(told.map(|told| format!("{}: {told}", work.stage)));
        }
        let (ranks, parameters) = (self.ranks as f64, model.parameters as f64);
        let rate = self.tflops * 1e12 * self.share;
        let of_training = |number: f64| if work.trains { number } else { 0.0 };
        let passes = if work.trains { 3.0 } else { 1.0 };
        let flops =
            passes * work.flops.unwrap_or_default() * work.documents_per_step * work.steps as f64;
        let device = if work.recipe.device == "cpu" { Device::Cpu } else { Device::Cuda(0) };
        let budget = work.schedule.token_budget(device) as f64;
        let tokens = (work.documents_per_step / working).max(1.0) * work.corpus.tokens;
        // Weights, and in training gradients and two moments, in 32 bits.
        let numbers = if work.trains { 4.0 } else { 1.0 } * parameters;
        let kept = of_training(budget.min(tokens) * model.layers * KEPT_PER_CHANNEL * model.width);
        let all = work.corpus.documents as f64 * work.corpus.bytes;
        let limit = work.recipe.data.memory() as f64;
        if work.trains && all > limit {
            self.notes.push(format!(
                "{}: the documents take {:.1} GB, so windows of data.memory = {:.1} GB are used",
                work.stage,
                all / 1e9,
                limit / 1e9
            ));
        }
        let micro_batches = (tokens / budget).ceil();
        // The forward pass is a third of it. A CPU starts nothing elsewhere.
        let fixed = if device == Device::Cpu { 0.0 } else { FIXED_S * passes / 3.0 };
        let fixed = fixed * micro_batches * work.steps as f64;
        let computing = flops / (rate * working);
        self.stages.push(StageEstimate {
            stage: work.stage.clone(),
            steps: work.steps,
            documents_per_step: work.documents_per_step,
            micro_batches,
            flops,
            hours: computing.max(fixed) / 3600.0,
            parameters: model.parameters,
            memory_gb: (4.0 * (numbers + kept) + of_training(all.min(limit))) / 1e9,
            checkpoint_gb: of_training(12.0 * parameters / 1e9),
            traffic_gb: of_training(2.0 * (ranks - 1.0) / ranks * 4.0 * parameters / 1e9),
            took: None,
            shape: work.trains.then(|| work.shape(model, rate)),
        });
    }

    fn add_stages(&mut self, recipe: &Recipe, sizes: Sizes) -> Result<()> {
        if recipe.variants.iter().any(|variant| variant.is_ranked()) {
            self.add_ranker(recipe, sizes)?;
        }
        let wanted = |wants: fn(Variant) -> bool| recipe.variants.iter().any(|&row| wants(row));
        if wanted(Variant::starts_unranked) {
            self.add_pretraining(recipe, Pretraining::Unranked.stage(), sizes)?;
        }
        if wanted(|variant| variant == Variant::Pretrained) {
            self.add_pretraining(recipe, Pretraining::Denoised.stage(), sizes)?;
        }
        if wanted(|variant| variant == Variant::TaughtPretrained) {
            self.add_pretraining(recipe, Pretraining::Taught.stage(), sizes)?;
        }
        self.add_finetuning(recipe, sizes)
    }

    fn add_ranker(&mut self, recipe: &Recipe, sizes: Sizes) -> Result<()> {
        let (human, schedule) = (self.corpus(Role::Human)?, &recipe.rank);
        let items = schedule.batch.min(human.labelled);
        let model = dsdocre(recipe, ModelKind::Ranker, sizes)?;
        let cost = |size: &CorpusSize| {
            let encoder = encoder_flops(&model.config, size.tokens)?;
            Some(encoder + ranking_flops(size.entities, model.width))
        };
        let train = StageWork {
            stage: "rank".into(),
            recipe,
            schedule,
            steps: total_steps(schedule, human.labelled),
            documents_per_step: items as f64,
            items,
            corpus: &human,
            flops: cost(&human),
            trains: true,
        };
        self.add(&train, &model);
        for size in &self.corpora.clone() {
            let score = StageWork {
                stage: format!("score {}", size.role),
                steps: 1,
                documents_per_step: size.documents as f64,
                items: size.documents,
                corpus: size,
                flops: cost(size),
                trains: false,
                ..train
            };
            self.add(&score, &model);
        }
        Ok(())
    }

    fn add_pretraining(&mut self, recipe: &Recipe, stage: &str, sizes: Sizes) -> Result<()> {
        let (distant, schedule) = (self.corpus(Role::Distant)?, &recipe.pretrain);
        let settings: &DsdocreSettings = recipe.settings_of()?;
        let model = dsdocre(recipe, ModelKind::Pretrainer, sizes)?;
        let heads = pretraining_head_flops(settings, distant.entities, model.width);
        let cost = encoder_flops(&model.config, distant.tokens).map(|encoder| encoder + heads);
        let work = StageWork {
            stage: stage.to_owned(),
            recipe,
            schedule,
            steps: pretrain_steps(schedule),
            documents_per_step: 2.0 * schedule.batch as f64,
            items: schedule.batch,
            corpus: &distant,
            flops: cost,
            trains: true,
        };
        self.add(&work, &model);
        Ok(())
    }

    fn add_finetuning(&mut self, recipe: &Recipe, sizes: Sizes) -> Result<()> {
        let (human, settings) = (self.visited(recipe)?, recipe.settings()?);
        let model = ModelSize::of(&*model_of(&settings, &recipe.encoder.name, sizes)?);
        let heads = if let Some(dsdocre) = settings.get::<DsdocreSettings>() {
            finetuning_head_flops(dsdocre, human.entities, model.width)
        } else {
            self.notes.push(format!(
                "of `{}` only the encoder is counted; `bench systems` measures the whole system",
                settings.system()
            ));
            0.0
        };
        let flops = |corpus: &CorpusSize| {
            encoder_flops(&model.config, corpus.tokens).map(|encoder| encoder + heads)
        };
        for finetuning in finetunings(recipe)? {
            let Finetuning { stage, schedule, distant, trains } = finetuning;
            let corpus = if distant { &self.corpus(Role::Distant)? } else { &human };
            let documents = if trains { corpus.labelled } else { corpus.documents };
            let items = if trains { schedule.batch.min(documents) } else { documents };
            let work = StageWork {
                stage,
                recipe,
                schedule,
                steps: if trains { total_steps(schedule, documents) } else { 1 },
                documents_per_step: items as f64,
                items,
                corpus,
                flops: flops(corpus),
                trains,
            };
            self.add(&work, &model);
        }
        Ok(())
    }
}

/// A stage of fine-tuning, or of teaching what was fine-tuned.
struct Finetuning<'r> {
    stage: String,
    schedule: &'r Schedule,
    /// Whether it reads the distant documents.
    distant: bool,
    trains: bool,
}

/// The stages of all variants, each once: teachers come before their students.
fn finetunings(recipe: &Recipe) -> Result<Vec<Finetuning<'_>>> {
    let settings = recipe.settings()?;
    let mut stages: Vec<Finetuning<'_>> = Vec::new();
    let mut add = |stage: String, schedule, distant, trains| {
        if stages.iter().all(|known| known.stage != stage) {
            stages.push(Finetuning { stage, schedule, distant, trains });
        }
    };
    let last = if settings.second_stage() { &recipe.inference } else { &recipe.finetune };
    for &variant in &recipe.variants {
        if let Some(teacher) = variant.teacher() {
            add(stage_of(teacher), last, false, true);
            add(format!("teach {}", teacher.name()), last, true, false);
        }
        if variant.is_student() {
            add(student_stage_of(variant), &recipe.student, true, true);
            add(stage_of(variant), &recipe.refine, false, true);
            continue;
        }
        let stage = stage_of(variant);
        if settings.first_stage().is_some() {
            add(format!("{stage}-base"), &recipe.finetune, false, true);
        }
        add(stage, last, false, true);
    }
    Ok(stages)
}

/// DSDocRE's ranker or pre-trainer, sized.
fn dsdocre(recipe: &Recipe, kind: ModelKind, sizes: Sizes) -> Result<ModelSize> {
    let foundation = foundation(&recipe.encoder.name, sizes)?;
    Ok(ModelSize::of(&DsdocreModel::new(foundation, kind, recipe.settings_of()?)?))
}

#[cfg(test)]
mod scaling_tests;
#[cfg(test)]
mod tests;
