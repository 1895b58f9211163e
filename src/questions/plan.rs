//! What a recipe will take on a cluster, before anything is submitted: steps, floating-point
//! operations, time, memory, disk and traffic of each stage, for a number of ranks.
//!
//! Steps, documents and sizes of models are exact; time and memory are estimates from the formulas
//! of docs/design.md and say so. Not for measuring: `bench` does that on the machine it runs on.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use tch::Device;

use super::cost::{ranking_flops, relation_vector_flops};
use super::systems::{Sizes, foundation, model_of};
use crate::corpus::formats::ReadOptions;
use crate::encoders::encoder_flops;
use crate::pipeline::data::Role;
use crate::pipeline::input::Input;
use crate::pipeline::pretrain::pretrain_steps;
use crate::pipeline::training::total_steps;
use crate::recipe::Recipe;
use crate::shards::{DocumentStore, ShardManifest, StoreOptions};
use crate::systems::dsdocre::{DsdocreModel, DsdocreSettings, ModelConfig, Part};
use crate::systems::{Foundation, Model, Variant};
use crate::torch::device;
use crate::torch::precision::{Precision, matmul_rate};
use crate::train::Schedule;
use crate::train::{Checkpoint, RunIdentity, TrainerState};
use crate::{DataError, Error, Result};

/// A mean generated document, in pieces with markers, and its entities (docs/experiments.md).
const GENERATED: (f64, f64) = (230.0, 11.7);
/// Word pieces a word of English news and encyclopedia text (BERT's vocabulary on DocRED: 1.26).
const PIECES_PER_WORD: f64 = 1.26;
/// Numbers that the backward pass keeps a token, layer and channel (docs/design.md).
const KEPT_PER_CHANNEL: f64 = 14.0;

/// Where the run will take place.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// Machines.
    pub nodes: usize,
    /// Ranks a machine: one a GPU.
    pub ranks_per_node: usize,
    /// Matrix products of one rank, in TFLOP/s; measured on this machine when absent.
    pub tflops: Option<f64>,
    /// The share of that rate that training reaches.
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
    /// Hours on all ranks.
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
    let path = folder.join("run.json");
    let Some(checkpoint) = Checkpoint::latest(&folder.join("checkpoints").join(&stage.stage))?
        .filter(|_| path.exists())
    else {
        return Ok(None);
    };
    let run: RunIdentity = serde_json::from_slice(&fs_err::read(&path)?)
        .map_err(|error| DataError::new(&path, error.to_string()))?;
    let TrainerState { step, seconds, .. } = checkpoint.trainer()?;
    let flops = stage.flops * step as f64 / stage.steps.max(1) as f64;
    let tflops = flops / (seconds.max(f64::MIN_POSITIVE) * run.world_size.max(1) as f64) / 1e12;
    Ok(Some(Took { steps: step, hours: seconds / 3600.0, ranks: run.world_size, tflops }))
}

/// The vocabulary and the relations of prepared shards.
fn sizes(folder: &Path) -> Result<Option<Sizes>> {
    let shards = folder.join("data/shards").join(Role::Human.name());
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
    let mut found = Vec::new();
    for role in Role::ALL {
        let shards = folder.join("data/shards").join(role.name());
        if shards.join("manifest.json").exists() {
            found.push(of_shards(role, &shards)?);
        } else if let Some(synth) = &data.synth {
            let documents = [synth.distant, synth.human, synth.dev, synth.test][role as usize];
            let (tokens, entities) = GENERATED;
            found.push(CorpusSize {
                role: role.name(),
                documents,
                labelled: documents,
                tokens,
                entities,
                source: "generated world",
            });
        } else {
            let own = [&data.distant, &data.human, &data.dev, &data.test][role as usize];
            let labelled = data
                .label
                .iter()
                .filter(|_| role == Role::Distant)
                .flat_map(|label| &label.documents);
            let files: Vec<_> = own.iter().chain(labelled).cloned().collect();
            let share = data.split.as_ref().map_or(0.0, |split| match role {
                Role::Distant => 0.0,
                Role::Human => 1.0 - split.dev_share - split.test_share,
                Role::Dev => split.dev_share,
                Role::Test => split.test_share,
            });
            let split: Vec<_> = data
                .split
                .iter()
                .filter(|_| share > 0.0)
                .flat_map(|split| split.files.clone())
                .collect();
            let mut size = Count::default();
            size.add(&Input::all(&files, data.format), 1.0)?;
            size.add(&Input::all(&split, data.format), share)?;
            found.extend(size.finish(role));
        }
    }
    Ok(found.into_iter().filter(|size| size.documents > 0).collect())
}

fn of_shards(role: Role, folder: &Path) -> Result<CorpusSize> {
    let store =
        DocumentStore::open(folder, StoreOptions { verify: false, ..StoreOptions::default() })?;
    let (mut labelled, mut tokens, mut entities) = (0, 0.0, 0.0);
    for row in 0..store.len() {
        let document = store.get(row);
        labelled += usize::from(!document.facts.is_empty());
        let mentions: usize = document.entities.iter().map(|entity| entity.mentions.len()).sum();
        tokens += (document.pieces.len() + 2 * mentions + 2) as f64;
        entities += document.entities.len() as f64;
    }
    let count = store.len().max(1) as f64;
    let (tokens, entities) = (tokens / count, entities / count);
    Ok(CorpusSize {
        role: role.name(),
        documents: store.len(),
        labelled,
        tokens,
        entities,
        source: "shards",
    })
}

/// Documents counted in files, each with a weight.
#[derive(Default)]
struct Count {
    documents: f64,
    labelled: f64,
    words: f64,
    mentions: f64,
    entities: f64,
}

impl Count {
    fn add(&mut self, files: &[Input], weight: f64) -> Result<()> {
        for file in files {
            file.read(&ReadOptions::default(), &mut |document| {
                self.documents += weight;
                self.labelled += if document.facts.as_ref().is_none_or(|facts| !facts.is_empty()) {
                    weight
                } else {
                    0.0
                };
                self.words += weight * document.num_words() as f64;
                self.entities += weight * document.entities.len() as f64;
                self.mentions += weight
                    * document.entities.iter().map(|entity| entity.mentions.len()).sum::<usize>()
                        as f64;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn finish(self, role: Role) -> Option<CorpusSize> {
        (self.documents > 0.0).then(|| CorpusSize {
            role: role.name(),
            documents: self.documents.round() as usize,
            labelled: self.labelled.round() as usize,
            tokens: (PIECES_PER_WORD * self.words + 2.0 * self.mentions) / self.documents + 2.0,
            entities: self.entities / self.documents,
            source: "files",
        })
    }
}

/// What a model weighs.
struct Sized {
    config: Value,
    width: f64,
    layers: f64,
    parameters: usize,
}

impl Sized {
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
struct Work<'a> {
    stage: String,
    plan: &'a Schedule,
    steps: u64,
    documents_per_step: f64,
    /// The documents that it reads.
    corpus: &'a CorpusSize,
    /// Forward FLOPs a document; `None` where they are not known.
    flops: Option<f64>,
    /// Whether there is a backward pass, which costs twice the forward pass.
    trains: bool,
}

impl Work<'_> {
    fn estimate(&self, ranks: usize, rate: f64, model: &Sized) -> StageEstimate {
        let ranks = ranks as f64;
        let passes = if self.trains { 3.0 } else { 1.0 };
        let flops =
            passes * self.flops.unwrap_or_default() * self.documents_per_step * self.steps as f64;
        let budget = self.plan.tokens_per_micro_batch as f64;
        let tokens = (self.documents_per_step / ranks).max(1.0) * self.corpus.tokens;
        // Weights, and in training gradients and two moments, in 32 bits.
        let numbers = if self.trains { 4.0 } else { 1.0 } * model.parameters as f64;
        let kept = if self.trains {
            budget.min(tokens) * model.layers * KEPT_PER_CHANNEL * model.width
        } else {
            0.0
        };
        StageEstimate {
            stage: self.stage.clone(),
            steps: self.steps,
            documents_per_step: self.documents_per_step,
            micro_batches: (tokens / budget).ceil(),
            flops,
            hours: flops / (rate * ranks) / 3600.0,
            parameters: model.parameters,
            memory_gb: 4.0 * (numbers + kept) / 1e9,
            checkpoint_gb: if self.trains { 12.0 * model.parameters as f64 / 1e9 } else { 0.0 },
            traffic_gb: if self.trains {
                2.0 * (ranks - 1.0) / ranks * 4.0 * model.parameters as f64 / 1e9
            } else {
                0.0
            },
            took: None,
        }
    }
}

impl RunEstimate {
    fn corpus(&self, role: Role) -> Result<CorpusSize> {
        let found = self.corpora.iter().find(|size| size.role == role.name());
        found
            .cloned()
            .ok_or_else(|| Error::recipe(format!("the recipe names no {} documents", role.name())))
    }

    fn add(&mut self, work: &Work, model: &Sized) {
        if work.flops.is_none() {
            self.notes.push(format!(
                "{}: the cost of this encoder is not known, and its time left at 0",
                work.stage
            ));
        }
        self.stages.push(work.estimate(self.ranks, self.tflops * 1e12 * self.share, model));
    }

    fn add_stages(&mut self, recipe: &Recipe, sizes: Sizes) -> Result<()> {
        let wants = |variant| recipe.variants.contains(&variant);
        if wants(Variant::Denoised) || wants(Variant::Pretrained) {
            self.add_ranker(recipe, sizes)?;
        }
        if wants(Variant::Pretrained) {
            self.add_pretraining(recipe, sizes)?;
        }
        self.add_finetuning(recipe, sizes)
    }

    fn add_ranker(&mut self, recipe: &Recipe, sizes: Sizes) -> Result<()> {
        let human = self.corpus(Role::Human)?;
        let model = dsdocre(recipe, Part::Ranker, sizes)?;
        let cost = |size: &CorpusSize| {
            Some(
                encoder_flops(&model.config, size.tokens)?
                    + ranking_flops(size.entities, model.width),
            )
        };
        let work = Work {
            stage: "rank".into(),
            plan: &recipe.rank,
            steps: total_steps(&recipe.rank, human.labelled),
            documents_per_step: recipe.rank.batch as f64,
            corpus: &human,
            flops: cost(&human),
            trains: true,
        };
        self.add(&work, &model);
        for size in self.corpora.clone() {
            let (stage, documents_per_step) =
                (format!("score {}", size.role), size.documents as f64);
            let work = Work {
                stage,
                plan: &recipe.rank,
                steps: 1,
                documents_per_step,
                corpus: &size,
                flops: cost(&size),
                trains: false,
            };
            self.add(&work, &model);
        }
        Ok(())
    }

    fn add_pretraining(&mut self, recipe: &Recipe, sizes: Sizes) -> Result<()> {
        let (distant, settings, plan) = (
            self.corpus(Role::Distant)?,
            recipe.settings_of::<DsdocreSettings>()?,
            &recipe.pretrain,
        );
        let model = dsdocre(recipe, Part::Pretrainer, sizes)?;
        // Relation vectors are asked for by alignment alone, of the share of items that states one
        // fact twice.
        let vectors = settings.same_fact_ratio
            * (2 + settings.alignment_hard + settings.alignment_random) as f64;
        let cost = encoder_flops(&model.config, distant.tokens).map(|encoder| {
            let heads = relation_vector_flops(settings, vectors / 2.0, vectors / 2.0, model.width);
            encoder + ranking_flops(distant.entities, model.width) + heads
        });
        let work = Work {
            stage: "pretrain".into(),
            plan,
            steps: pretrain_steps(plan),
            documents_per_step: 2.0 * plan.batch as f64,
            corpus: &distant,
            flops: cost,
            trains: true,
        };
        self.add(&work, &model);
        Ok(())
    }

    fn add_finetuning(&mut self, recipe: &Recipe, sizes: Sizes) -> Result<()> {
        let (human, settings) = (self.corpus(Role::Human)?, recipe.settings()?);
        let model = Sized::of(&*model_of(&settings, &recipe.encoder.name, sizes)?);
        let heads = if let Some(dsdocre) = settings.get::<DsdocreSettings>() {
            let pairs = dsdocre.finetune_rule().count(human.entities.round() as usize) as f64;
            relation_vector_flops(dsdocre, pairs, human.entities.min(pairs), model.width)
        } else {
            self.notes.push(format!(
                "of `{}` the encoder alone is counted; `bench systems` measures it whole",
                settings.system()
            ));
            0.0
        };
        for variant in &recipe.variants {
            let work = Work {
                stage: format!("finetune-{}", variant.name()),
                plan: &recipe.finetune,
                steps: total_steps(&recipe.finetune, human.labelled),
                documents_per_step: recipe.finetune.batch as f64,
                corpus: &human,
                flops: encoder_flops(&model.config, human.tokens).map(|encoder| encoder + heads),
                trains: true,
            };
            self.add(&work, &model);
        }
        Ok(())
    }
}

/// DSDocRE's ranker or pre-trainer, sized.
fn dsdocre(recipe: &Recipe, part: Part, sizes: Sizes) -> Result<Sized> {
    let config = ModelConfig::of(part, recipe.settings_of()?, sizes.relations);
    let Foundation { encoder, parameters, .. } = foundation(&recipe.encoder.name, sizes)?;
    Ok(Sized::of(&DsdocreModel::new(encoder, parameters, config, None)?))
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
        let head = [
            "steps",
            "docs/step",
            "micro",
            "PFLOP",
            "hours",
            "params M",
            "memory GB",
            "ckpt GB",
            "GB/step",
        ];
        write!(f, "\n{:<22}", "")?;
        head.iter().try_for_each(|name| write!(f, "{name:>11}"))?;
        for stage in &self.stages {
            let StageEstimate {
                stage: name,
                steps,
                documents_per_step,
                micro_batches,
                flops,
                hours,
                ..
            } = stage;
            let (petaflop, parameters) = (flops / 1e15, stage.parameters as f64 / 1e6);
            write!(
                f,
                "\n{name:<22}{steps:>11}{documents_per_step:>11.0}{micro_batches:>11.0}{petaflop:>11.3}{hours:>11.3}{parameters:>11.1}"
            )?;
            write!(
                f,
                "{:>11.2}{:>11.2}{:>11.3}",
                stage.memory_gb, stage.checkpoint_gb, stage.traffic_gb
            )?;
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
