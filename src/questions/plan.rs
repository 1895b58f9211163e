//! What a recipe will take on a cluster, before anything is submitted: steps, floating-point
//! operations, time, memory, disk and traffic of each stage, for a number of ranks.
//!
//! Steps, documents and sizes of models are exact; time and memory are estimates from the formulas
//! of docs/design.md and say so. Not for measuring: `bench` does that on the machine it runs on.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use tch::Device;

use super::cost::{ranking_flops, relation_vector_flops};
use super::systems::{Sizes, foundation, model_of};
use crate::base::{read_json, run_files};
use crate::corpus::Format;
use crate::corpus::formats::ReadOptions;
use crate::encoders::encoder_flops;
use crate::pipeline::{
    InputFile, Pretraining, Role, check_files, pretrain_steps, total_steps, without_work,
};
use crate::recipe::Recipe;
use crate::shards::{DocumentStore, ShardManifest, StoreOptions};
use crate::systems::dsdocre::{DsdocreModel, DsdocreSettings, ModelKind};
use crate::systems::{Model, Variant};
use crate::torch::device;
use crate::torch::precision::{Precision, matmul_rate};
use crate::train::{Checkpoint, RunIdentity, Schedule, TrainerState};
use crate::{Error, Result};

/// A mean generated document, in pieces with markers, and its entities (docs/experiments.md).
const GENERATED: (f64, f64) = (230.0, 11.7);
/// Word pieces a word of English news and encyclopedia text (BERT's vocabulary on DocRED: 1.26).
const PIECES_PER_WORD: f64 = 1.26;
/// Numbers that the backward pass keeps a token, layer and channel (docs/design.md).
const KEPT_PER_CHANNEL: f64 = 14.0;

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
    /// Share of that speed that training reaches
    #[arg(long, value_name = "S", default_value_t = 0.4)]
    pub share: f64,
}

/// The documents of a role.
#[derive(Clone, Debug, Serialize)]
pub struct CorpusSize {
    /// The role.
    pub role: &'static str,
    /// Documents.
    pub documents: usize,
    /// Those with facts.
    pub labelled: usize,
    /// Mean length in tokens, markers included.
    pub tokens: f64,
    /// Mean number of entities.
    pub entities: f64,
    /// Where the numbers come from.
    pub source: &'static str,
}

/// One stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageEstimate {
    /// Its name.
    pub stage: String,
    /// Steps.
    pub steps: u64,
    /// Documents a step.
    pub documents_per_step: f64,
    /// Micro-batches of a rank and step.
    pub micro_batches: f64,
    /// Floating-point operations of the whole stage.
    pub flops: f64,
    /// Hours on all ranks that have work.
    pub hours: f64,
    /// Numbers in the model.
    pub parameters: usize,
    /// Memory of one rank, in GB: weights, gradients, moments, activations of a micro-batch.
    pub memory_gb: f64,
    /// One checkpoint, in GB.
    pub checkpoint_gb: f64,
    /// What each rank sends a step, in GB.
    pub traffic_gb: f64,
    /// What it has taken so far in the run folder, if it has a checkpoint there.
    pub took: Option<Took>,
}

/// What the training steps of a stage have taken, without evaluations and checkpoints.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Took {
    /// Steps.
    pub steps: u64,
    /// Hours.
    pub hours: f64,
    /// Ranks of the run's last start.
    pub ranks: usize,
    /// The estimated operations of these steps by time and rank, in TFLOP/s.
    pub tflops: f64,
}

/// A recipe on a number of ranks.
#[derive(Clone, Debug, Serialize)]
pub struct RunEstimate {
    /// Name of the recipe.
    pub name: String,
    /// Ranks.
    pub ranks: usize,
    /// Assumed rate of a rank in TFLOP/s, and the share of it that training reaches.
    pub tflops: f64,
    /// See [`PlanOptions::share`].
    pub share: f64,
    /// The documents.
    pub corpora: Vec<CorpusSize>,
    /// The stages, in order.
    pub stages: Vec<StageEstimate>,
    /// What the reader should know.
    pub notes: Vec<String>,
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
        tflops,
        share: options.share,
        corpora,
        stages: Vec::new(),
        notes: Vec::new(),
    };
    if options.tflops.is_none() {
        estimate.notes.push(
            "the rate was measured on the CPU of this machine; --tflops names that of your GPUs"
                .into(),
        );
    }
    let sizes = sizes(folder)?;
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
fn sizes(folder: &Path) -> Result<Option<Sizes>> {
    let shards = folder.join(run_files::SHARDS).join(Role::Human.name());
    if !shards.join("manifest.json").exists() {
        return Ok(None);
    }
    let manifest = ShardManifest::read(&shards)?;
    Ok(Some(Sizes {
        pieces: manifest.tokenizer.vocab_size as i64,
        relations: manifest.relations.len(),
    }))
}

/// The documents of all roles that have some.
fn corpora(recipe: &Recipe, folder: &Path) -> Result<Vec<CorpusSize>> {
    let data = &recipe.data;
    if !folder.join(run_files::SHARDS).exists() {
        check_files(recipe)?;
    }
    // Whether the documents of dev are among those of a role.
    let joined_by_dev = |role| role == Role::Human && data.train_on_dev;
    let mut found = Vec::new();
    for role in Role::ALL {
        let shards = folder.join(run_files::SHARDS).join(role.name());
        if shards.join("manifest.json").exists() {
            found.push(Count::of_shards(&shards)?.finish(role, "shards"));
        } else if let Some(synth) = &data.synth {
            let joined = if joined_by_dev(role) { synth.dev } else { 0 };
            let documents = [synth.distant, synth.human, synth.dev, synth.test][role as usize];
            let documents = documents + joined;
            let (tokens, entities) = GENERATED;
            let (role, source) = (role.name(), "generated world");
            let labelled = documents;
            found.push(CorpusSize { role, documents, labelled, tokens, entities, source });
        } else {
            let mut count = Count::default();
            let own = [&data.distant, &data.human, &data.dev, &data.test][role as usize];
            count.add_files(own, data.format, 1.0)?;
            if joined_by_dev(role) {
                let dev = data.dev.iter().filter(|file| !own.contains(file));
                count.add_files(&dev.cloned().collect::<Vec<_>>(), data.format, 1.0)?;
            }
            if let (Role::Distant, Some(label)) = (role, &data.label) {
                count.add_files(&label.documents, data.format, 1.0)?;
            }
            if let (Some(split), true) = (&data.split, role != Role::Distant) {
                let shares = [split.dev_share, split.test_share];
                let share = match role {
                    Role::Dev => shares[0],
                    Role::Test => shares[1],
                    _ if joined_by_dev(role) => 1.0 - shares[1],
                    _ => 1.0 - shares[0] - shares[1],
                };
                if share > 0.0 {
                    count.add_files(&split.files, data.format, share)?;
                }
            }
            found.push(count.finish(role, "files"));
        }
    }
    Ok(found.into_iter().filter(|size| size.documents > 0).collect())
}

/// Documents counted in shards or files, each with a weight.
#[derive(Default)]
struct Count {
    documents: f64,
    labelled: f64,
    pieces: f64,
    mentions: f64,
    entities: f64,
}

impl Count {
    fn of_shards(folder: &Path) -> Result<Self> {
        let options = StoreOptions { verify: false, ..StoreOptions::default() };
        let store = DocumentStore::open(folder, options)?;
        let mut count = Self::default();
        for document in (0..store.len()).map(|row| store.get(row)) {
            let mentions = document.entities.iter().map(|entity| entity.mentions.len()).sum();
            let pieces = document.pieces.len() as f64;
            count.add(1.0, !document.facts.is_empty(), pieces, mentions, document.entities.len());
        }
        Ok(count)
    }

    fn add_files(&mut self, files: &[PathBuf], format: Format, weight: f64) -> Result<()> {
        for file in InputFile::all(files, format) {
            file.read(&ReadOptions::default(), &mut |document| {
                let labelled = document.facts.as_ref().is_none_or(|facts| !facts.is_empty());
                let mentions = document.entities.iter().map(|entity| entity.mentions.len()).sum();
                let pieces = PIECES_PER_WORD * document.num_words() as f64;
                self.add(weight, labelled, pieces, mentions, document.entities.len());
                Ok(())
            })?;
        }
        Ok(())
    }

    fn add(&mut self, weight: f64, labelled: bool, pieces: f64, mentions: usize, entities: usize) {
        self.documents += weight;
        self.labelled += if labelled { weight } else { 0.0 };
        self.pieces += weight * pieces;
        self.mentions += weight * mentions as f64;
        self.entities += weight * entities as f64;
    }

    fn finish(self, role: Role, source: &'static str) -> CorpusSize {
        let documents = self.documents.max(f64::MIN_POSITIVE);
        CorpusSize {
            role: role.name(),
            documents: self.documents.round() as usize,
            labelled: self.labelled.round() as usize,
            // Two markers a mention, and the pieces at both ends.
            tokens: (self.pieces + 2.0 * self.mentions) / documents + 2.0,
            entities: self.entities / documents,
            source,
        }
    }
}

/// What a model weighs.
struct ModelSize {
    config: Value,
    width: f64,
    layers: f64,
    parameters: usize,
}

impl ModelSize {
    fn of(model: &dyn Model) -> Self {
        let config = model.encoder_config();
        let number = |key: &str| config.get(key).and_then(Value::as_f64);
        let (width, layers) =
            (number("hidden_size").unwrap_or_default(), number("num_hidden_layers").unwrap_or(1.0));
        let parameters = model.parameters().iter().map(|entry| entry.tensor.numel()).sum();
        Self { config, width, layers, parameters }
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

impl RunEstimate {
    fn corpus(&self, role: Role) -> Result<CorpusSize> {
        let found = self.corpora.iter().find(|size| size.role == role.name());
        found
            .cloned()
            .ok_or_else(|| Error::recipe(format!("the recipe names no {} documents", role.name())))
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
            let told = without_work(work.recipe, work.schedule, self.ranks);
            self.notes.extend(told.map(|told| format!("{}: {told}", work.stage)));
        }
        let (ranks, parameters) = (self.ranks as f64, model.parameters as f64);
        let rate = self.tflops * 1e12 * self.share;
        let of_training = |number: f64| if work.trains { number } else { 0.0 };
        let passes = if work.trains { 3.0 } else { 1.0 };
        let flops =
            passes * work.flops.unwrap_or_default() * work.documents_per_step * work.steps as f64;
        let budget = work.schedule.tokens_per_micro_batch as f64;
        let tokens = (work.documents_per_step / working).max(1.0) * work.corpus.tokens;
        // Weights, and in training gradients and two moments, in 32 bits.
        let numbers = if work.trains { 4.0 } else { 1.0 } * parameters;
        let kept = of_training(budget.min(tokens) * model.layers * KEPT_PER_CHANNEL * model.width);
        self.stages.push(StageEstimate {
            stage: work.stage.clone(),
            steps: work.steps,
            documents_per_step: work.documents_per_step,
            micro_batches: (tokens / budget).ceil(),
            flops,
            hours: flops / (rate * working) / 3600.0,
            parameters: model.parameters,
            memory_gb: 4.0 * (numbers + kept) / 1e9,
            checkpoint_gb: of_training(12.0 * parameters / 1e9),
            traffic_gb: of_training(2.0 * (ranks - 1.0) / ranks * 4.0 * parameters / 1e9),
            took: None,
        });
    }

    fn add_stages(&mut self, recipe: &Recipe, sizes: Sizes) -> Result<()> {
        if recipe.variants.iter().any(|variant| variant.is_ranked()) {
            self.add_ranker(recipe, sizes)?;
        }
        for (variant, how) in [
            (Variant::UnrankedPretrained, Pretraining::Unranked),
            (Variant::Pretrained, Pretraining::Denoised),
        ] {
            if recipe.variants.contains(&variant) {
                self.add_pretraining(recipe, how.stage(), sizes)?;
            }
        }
        self.add_finetuning(recipe, sizes)
    }

    fn add_ranker(&mut self, recipe: &Recipe, sizes: Sizes) -> Result<()> {
        let (human, schedule) = (self.corpus(Role::Human)?, &recipe.rank);
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
            documents_per_step: schedule.batch as f64,
            items: schedule.batch,
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
        // Only alignment needs relation vectors, for the share of items that states one fact twice.
        let vectors = settings.same_fact_ratio
            * (2 + settings.alignment_hard + settings.alignment_random) as f64;
        let cost = encoder_flops(&model.config, distant.tokens).map(|encoder| {
            let heads = relation_vector_flops(settings, vectors / 2.0, vectors / 2.0, model.width);
            encoder + ranking_flops(distant.entities, model.width) + heads
        });
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
        let (human, settings) = (self.corpus(Role::Human)?, recipe.settings()?);
        let model = ModelSize::of(&*model_of(&settings, &recipe.encoder.name, sizes)?);
        let heads = if let Some(dsdocre) = settings.get::<DsdocreSettings>() {
            let pairs = dsdocre.finetune_pairs().count(human.entities.round() as usize) as f64;
            relation_vector_flops(dsdocre, pairs, human.entities.min(pairs), model.width)
        } else {
            self.notes.push(format!(
                "of `{}` only the encoder is counted; `bench systems` measures the whole system",
                settings.system()
            ));
            0.0
        };
        for variant in &recipe.variants {
            let stage = format!("finetune-{}", variant.name());
            let mut stages = Vec::new();
            if settings.first_stage().is_some() {
                stages.push((format!("{stage}-base"), &recipe.finetune));
            }
            let last = if settings.second_stage() { &recipe.inference } else { &recipe.finetune };
            stages.push((stage, last));
            for (stage, schedule) in stages {
                let work = StageWork {
                    stage,
                    recipe,
                    schedule,
                    steps: total_steps(schedule, human.labelled),
                    documents_per_step: schedule.batch as f64,
                    items: schedule.batch,
                    corpus: &human,
                    flops: encoder_flops(&model.config, human.tokens).map(|of| of + heads),
                    trains: true,
                };
                self.add(&work, &model);
            }
        }
        Ok(())
    }
}

/// DSDocRE's ranker or pre-trainer, sized.
fn dsdocre(recipe: &Recipe, kind: ModelKind, sizes: Sizes) -> Result<ModelSize> {
    let foundation = foundation(&recipe.encoder.name, sizes)?;
    Ok(ModelSize::of(&DsdocreModel::new(foundation, kind, recipe.settings_of()?)?))
}

impl fmt::Display for RunEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, ranks, tflops, share, .. } = self;
        writeln!(
            f,
            "{name} on {ranks} rank(s) of {tflops:.3} TFLOP/s, of which {:.0} % are reached \
             (assumed)\n",
            100.0 * share
        )?;
        for CorpusSize { role, documents, labelled, tokens, entities, source } in &self.corpora {
            let means = format!("{tokens:.0} tokens and {entities:.1} entities each");
            writeln!(
                f,
                "{role:<9}{documents:>9} documents, {labelled} labelled, {means} ({source})"
            )?;
        }
        let columns = "steps docs/step micro PFLOP hours params_M memory_GB ckpt_GB GB/step";
        write!(f, "\n{:<22}", "")?;
        columns.split(' ').try_for_each(|name| write!(f, "{:>11}", name.replace('_', " ")))?;
        for stage in &self.stages {
            write!(f, "\n{:<22}{:>11}", stage.stage, stage.steps)?;
            write!(f, "{:>11.0}{:>11.0}", stage.documents_per_step, stage.micro_batches)?;
            write!(f, "{:>11.3}{:>11.3}", stage.flops / 1e15, stage.hours)?;
            write!(f, "{:>11.1}{:>11.2}", stage.parameters as f64 / 1e6, stage.memory_gb)?;
            write!(f, "{:>11.2}{:>11.3}", stage.checkpoint_gb, stage.traffic_gb)?;
        }
        let hours: f64 = self.stages.iter().map(|stage| stage.hours).sum();
        write!(f, "\n{:<22}{hours:>55.3}", "all")?;
        for (stage, took) in self.stages.iter().filter_map(|stage| Some((stage, stage.took?))) {
            let Took { steps, hours, ranks, tflops } = took;
            write!(
                f,
                "\n{:<22}took {hours:.3} hours for {steps} steps on {ranks} rank(s), {tflops:.3} \
                 TFLOP/s each",
                stage.stage
            )?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "\nnote: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = r#"
        name = "planned"
        [data.synth]
        distant = 1000
        human = 100
        dev = 10
        test = 10
        [encoder]
        name = "tiny"
        [rank]
        batch = 10
        epochs = 3
        [pretrain]
        batch = 16
        steps = 50
        [finetune]
        batch = 20
        epochs = 4
    "#;

    fn planned(ranks_per_node: usize) -> RunEstimate {
        let recipe = Recipe::parse(RECIPE, "test", &[]).unwrap();
        let options = PlanOptions { nodes: 2, ranks_per_node, tflops: Some(0.5), share: 0.5 };
        plan(&recipe, Path::new("/nowhere"), options).unwrap()
    }

    #[test]
    fn steps_documents_and_shares_of_ranks_follow_the_recipe() {
        let (two, eight) = (planned(1), planned(4));
        let names: Vec<&str> = two.stages.iter().map(|stage| stage.stage.as_str()).collect();
        let scored = ["score distant", "score human", "score dev", "score test"];
        let tuned = ["finetune-baseline", "finetune-denoised", "finetune-pretrained"];
        assert_eq!(names, [["rank"].as_slice(), &scored, &["pretrain"], &tuned].concat());
        assert_eq!((two.stages[0].steps, two.stages[5].steps, two.stages[6].steps), (30, 50, 20));
        assert_eq!(
            (
                two.ranks,
                eight.ranks,
                two.stages[1].documents_per_step,
                two.stages[5].documents_per_step
            ),
            (2, 8, 1000.0, 32.0)
        );
        for (two, eight) in two.stages.iter().zip(&eight.stages) {
            assert!(
                (two.hours / eight.hours - 4.0).abs() < 1e-9 && two.flops == eight.flops,
                "{}",
                two.stage
            );
            assert!(
                eight.memory_gb <= two.memory_gb && eight.traffic_gb >= two.traffic_gb,
                "{}",
                two.stage
            );
        }
        assert!(two.to_string().contains("finetune-pretrained"), "{two}");
    }

    #[test]
    fn documents_of_dev_that_are_trained_on_are_counted() {
        let recipe = Recipe::parse(RECIPE, "test", &["data.train_on_dev=true".into()]).unwrap();
        let sizes = corpora(&recipe, Path::new("/nowhere")).unwrap();
        let documents: Vec<_> = sizes.iter().map(|size| (size.role, size.documents)).collect();
        assert_eq!(documents, [("distant", 1000), ("human", 110), ("dev", 10), ("test", 10)]);
    }

    #[test]
    fn hours_are_divided_by_the_ranks_that_a_batch_gives_work_to() {
        let (ten, forty) = (planned(5), planned(20));
        // Ranker: batches of 10 on 10 and on 40 ranks.
        assert_eq!(ten.stages[0].hours.to_bits(), forty.stages[0].hours.to_bits());
        assert!(ten.notes.is_empty() || !ten.notes[0].starts_with("rank: "), "{:?}", ten.notes);
        let told = "rank: a batch of 10 leaves 30 of 40 ranks without work (10, 11, ";
        assert!(forty.notes.iter().any(|note| note.starts_with(told)), "{:?}", forty.notes);
    }

    #[test]
    fn wrong_machines_are_refused() {
        let recipe = Recipe::parse(RECIPE, "test", &[]).unwrap();
        let good = PlanOptions { nodes: 1, ranks_per_node: 1, tflops: Some(1.0), share: 0.5 };
        for bad in [
            PlanOptions { nodes: 0, ..good },
            PlanOptions { tflops: Some(-1.0), ..good },
            PlanOptions { share: 0.0, ..good },
        ] {
            assert_eq!(plan(&recipe, Path::new("/nowhere"), bad).unwrap_err().exit_code(), 64);
        }
    }
}
