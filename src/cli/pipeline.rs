//! The pipeline: `run`, its stages one by one, `export` and `graph`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::looking::CheckpointFindings;
use super::shared::{Clock, MachineFlags, Overrides};
use crate::base::{read_json, run_files, say};
use crate::distant::DistantSettings;
use crate::encoders::EncoderSpec;
use crate::graph::{GraphTask, make_graph};
use crate::pipeline::{
    self, ActiveRun, ExportTask, FinetuneTask, Pretraining, ScoreTask, Session, TeachTask,
    TrainingShards, claim,
};
use crate::recipe::Recipe;
use crate::sampling::KeptPairs;
use crate::train::Checkpoint;
use crate::{Error, Result};

/// Run the whole pipeline from one recipe
#[derive(Debug, Args)]
pub struct RunVerb {
    /// Recipe (TOML): a file, or `quickstart` or `smoke`, which are inside the program
    recipe: PathBuf,
    /// Run folder [default: runs/NAME]
    #[arg(long, value_name = "R")]
    run_dir: Option<PathBuf>,
    /// Continue an unfinished stage from its last checkpoint; finished stages are always skipped
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    overrides: Overrides,
    /// Write the scores of all variants as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl RunVerb {
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let recipe = self.overrides.load::<Self>(Some(&self.recipe), &[]);
        let (session, recipe) =
            Session::start_with(recipe, |recipe| (recipe.device.clone(), recipe.threads))?;
        let folder = self.run_dir.unwrap_or_else(|| recipe.default_run_dir());
        session.run(|session| {
            pipeline::run(&recipe, &folder, self.resume, session)?;
            session.world.on_root(|| {
                let scores: Value = read_json(&folder.join(run_files::SCORES))?;
                clock.write(self.json.as_deref(), &folder, None, &json!({ "scores": scores }))
            })
        })
    }
}

/// What every training stage takes beside its data.
#[derive(Debug, Args)]
struct StageFlags {
    /// Encoder: tiny, mini, base, bilstm, words, or a Hugging Face folder or
    /// repository (ORG/NAME)
    #[arg(long, value_name = "E")]
    encoder: String,
    /// Run folder
    #[arg(long, value_name = "R")]
    run_dir: PathBuf,
    /// Recipe with schedule and settings [default: those of the system]
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
    /// Continue from the last checkpoint in the run folder
    #[arg(long)]
    resume: bool,
    /// Write the resulting checkpoint, its steps, scores and seconds as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineFlags,
}

impl StageFlags {
    /// The recipe of the verb `V` with the encoder of the command line, and with its system if that
    /// is given.
    fn recipe<V: Args>(&self, system: Option<&str>) -> Result<Recipe> {
        let encoder = format!("encoder.name={}", toml::Value::from(self.encoder.as_str()));
        let system = system.map(|name| format!("system={name}"));
        let flags: Vec<String> = system.into_iter().chain([encoder]).collect();
        self.overrides.load::<V>(self.recipe.as_deref(), &flags)
    }

    /// Runs a stage in its run folder, and says where its checkpoint is. `work` is the recipe, and
    /// what else was read from flags and files.
    fn stage<T>(
        &self,
        work: Result<(Recipe, T)>,
        train: impl FnOnce(&ActiveRun, T) -> Result<Checkpoint>,
    ) -> Result<()> {
        let clock = Clock::start();
        let (session, (recipe, rest)) =
            Session::start_with(work, |_| (self.machine.device.clone(), self.machine.threads))?;
        session.run(|session| {
            let (folder, resume) = (&self.run_dir, self.resume);
            let run = ActiveRun::enter(&recipe, folder, resume, session, || {
                Ok(claim(&recipe, folder, resume, session, || Ok(()))?.0)
            })?;
            let checkpoint = train(&run, rest)?;
            session.world.on_root(|| {
                let path = checkpoint.path();
                say(format!("checkpoint: {}", path.display()));
                let findings = CheckpointFindings::of(&checkpoint)?;
                clock.write(self.json.as_deref(), path, None, &findings)
            })
        })
    }
}

/// Stage 1: train the ranker on annotated documents
#[derive(Debug, Args)]
pub struct RankVerb {
    /// Human-annotated shards
    #[arg(long, value_name = "SHARDS")]
    train: PathBuf,
    #[command(flatten)]
    flags: StageFlags,
}

impl RankVerb {
    pub fn run(self) -> Result<()> {
        let Self { train, flags } = &self;
        let work = flags.recipe::<Self>(None).map(|recipe| (recipe, ()));
        flags.stage(work, |run, ()| pipeline::rank(run, train))
    }
}

/// Score all entity pairs of each document with the ranker, and keep the best
#[derive(Debug, Args)]
pub struct ScoreVerb {
    /// Checkpoint of the ranker
    #[arg(long, value_name = "C")]
    checkpoint: PathBuf,
    /// Shards to score
    #[arg(long, value_name = "SHARDS")]
    input: PathBuf,
    /// Shards to write
    #[arg(long, value_name = "SHARDS")]
    output: PathBuf,
    /// Annotated shards whose documents are also in the input: they are not ranked, so that
    /// pre-training uses all their labels
    #[arg(long, value_name = "SHARDS")]
    annotated: Option<PathBuf>,
    /// Pairs to keep in each document: a number (60), a multiple of its entities (3n), or the
    /// larger of both (60,3n)
    #[arg(long, value_name = "K", default_value = "60,3n")]
    keep: String,
    /// Write the number of documents and pairs as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineFlags,
}

impl ScoreVerb {
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let keep: KeptPairs = self.keep.parse()?;
        if self.output.exists() {
            return Err(Error::recipe(format!("{} exists already", self.output.display()))
                .with_hint("name a folder that does not exist yet"));
        }
        let session = self.machine.stoppable_session()?;
        let task = ScoreTask {
            checkpoint: &self.checkpoint,
            input: &self.input,
            output: &self.output,
            annotated: self.annotated.as_deref(),
            keep,
            tokens: pipeline::PREDICT_TOKENS,
        };
        session.run(|session| {
            let report = pipeline::score(&task, session)?;
            session.world.on_root(|| {
                clock.write(self.json.as_deref(), &self.output, Some(report.documents), &report)
            })
        })
    }
}

/// Judge the pairs of distant documents with a fine-tuned system
#[derive(Debug, Args)]
pub struct TeachVerb {
    #[command(flatten)]
    task: TeachTask,
    /// Relations below this probability are not stored [default: 0.01]
    #[arg(long, value_name = "P")]
    floor: Option<f64>,
    /// The most relations that are stored of a pair, those with labels not counted [default: 4]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Passes with dropout, whose deviations tell how certain a prediction is [default: none]
    #[arg(long, value_name = "K")]
    passes: Option<usize>,
    /// Tokens to store of each pair's attention, for a student of DREEAM [default: none]
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Store the logits of all pairs, for a student of KD-DocRE
    #[arg(long)]
    logits: bool,
    /// Write the number of documents, their bytes, and how well probabilities hold as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineFlags,
}

impl TeachVerb {
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let Self { task, floor, top, passes, tokens, logits, .. } = &self;
        if task.output.exists() {
            return Err(Error::recipe(format!("{} exists already", task.output.display()))
                .with_hint("name a folder that does not exist yet"));
        }
        let defaults = DistantSettings::default();
        let settings = DistantSettings {
            floor: floor.unwrap_or(defaults.floor),
            top: top.unwrap_or(defaults.top),
            passes: passes.unwrap_or(defaults.passes),
            tokens: tokens.unwrap_or(defaults.tokens),
            logits: *logits,
            ..defaults
        };
        self.machine.stoppable_session()?.run(|session| {
            let report = pipeline::teach(task, &settings, session)?;
            session.world.on_root(|| {
                say(format!("teach: {report}"));
                clock.write(self.json.as_deref(), &task.output, Some(report.documents), &report)
            })
        })
    }
}

/// Stage 2: pre-train an encoder on denoised distant supervision
#[derive(Debug, Args)]
pub struct PretrainVerb {
    /// Distant shards, scored by the ranker
    #[arg(long, value_name = "SHARDS")]
    distant: PathBuf,
    #[command(flatten)]
    flags: StageFlags,
}

impl PretrainVerb {
    pub fn run(self) -> Result<()> {
        let Self { distant, flags } = &self;
        let work = flags.recipe::<Self>(None).map(|recipe| (recipe, ()));
        flags.stage(work, |run, ()| pipeline::pretrain(run, distant, Pretraining::Denoised))
    }
}

/// Stage 3: fine-tune a system on annotated documents
#[derive(Debug, Args)]
pub struct FinetuneVerb {
    /// System, see `docre-pretrain systems` [default: the recipe's, or dsdocre]
    #[arg(long, value_name = "NAME")]
    system: Option<String>,
    /// Human-annotated shards; give several to train on all of them, as SHARDS=WEIGHT to visit the
    /// documents of one more or less often than once an epoch
    #[arg(long, value_name = "SHARDS", required = true)]
    train: Vec<String>,
    /// Labelled shards on which the best epoch is chosen
    #[arg(long, value_name = "SHARDS")]
    dev: PathBuf,
    /// Checkpoint whose heads to start from, where name and shape agree (DocRE-II's second stage
    /// starts from its first)
    #[arg(long, value_name = "C")]
    heads_from: Option<PathBuf>,
    /// Checkpoint of the ranker that scored both; without it, pairs are sampled (the baseline)
    #[arg(long, value_name = "C")]
    ranker: Option<PathBuf>,
    #[command(flatten)]
    flags: StageFlags,
}

impl FinetuneVerb {
    pub fn run(self) -> Result<()> {
        let flags = &self.flags;
        let work = flags.recipe::<Self>(self.system.as_deref()).and_then(|recipe| {
            // A checkpoint of this program is a Hugging Face folder, so any folder will do.
            let start = match EncoderSpec::parse(&recipe.encoder.name)? {
                EncoderSpec::Folder(folder) => Some(folder),
                _ => None,
            };
            let settings = recipe.settings()?;
            let train = self.train.iter().map(|text| text.parse()).collect::<Result<_>>()?;
            Ok((recipe, (start, settings, TrainingShards::named_apart(train))))
        });
        flags.stage(work, |run, (start, settings, train)| {
            let task = FinetuneTask {
                stage: "finetune",
                train: &train,
                dev: &self.dev,
                start: start.as_deref(),
                heads_from: self.heads_from.as_deref(),
                ranker: self.ranker.as_deref(),
                settings: &settings,
                schedule: None,
            };
            pipeline::finetune(&task, run)
        })
    }
}

/// Export a checkpoint as a Hugging Face folder, with a card and a self-test
#[derive(Debug, Args)]
pub struct ExportVerb {
    #[command(flatten)]
    task: ExportTask,
    /// Write what was exported as JSON, as `inspect` does
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl ExportVerb {
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let output = &self.task.output;
        let checked = match pipeline::export(&self.task)? {
            Some(report) => format!("{} checks of its self-test hold", report.rows.len()),
            None => "without a self-test".to_owned(),
        };
        say(format!("export: {}, {checked}", output.display()));
        let findings = CheckpointFindings::of(&Checkpoint::open(output)?)?;
        clock.write(self.json.as_deref(), output, None, &findings)
    }
}

/// Turn predictions of many documents into a graph with its sources
#[derive(Debug, Args)]
pub struct GraphVerb {
    #[command(flatten)]
    task: GraphTask,
    /// Write what the graph holds as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl GraphVerb {
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let report = make_graph(&self.task)?;
        report.warnings.iter().for_each(|warning| say(format!("warning: {warning}")));
        say(format!("graph: {report}"));
        clock.write(self.json.as_deref(), &self.task.output, Some(report.documents), &report)
    }
}
