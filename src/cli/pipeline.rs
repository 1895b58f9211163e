//! The pipeline: `run`, its stages one by one, `predict` and `export`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::looking::CheckpointFindings;
use super::shared::{Clock, MachineFlags, Overrides, read_json};
use crate::base::{run_files, say, write_whole};
use crate::corpus::Format;
use crate::encoders::EncoderSpec;
use crate::pipeline::{
    self, EncoderStart, FinetuneTask, InputFile, PredictOptions, ScoreTask, Session, StageTask,
};
use crate::recipe::Recipe;
use crate::sampling::KeptPairs;
use crate::train::{Checkpoint, RunFolder, RunRecipe};
use crate::{Error, Result};

/// Run the whole pipeline from one recipe
#[derive(Debug, Args)]
pub struct RunVerb {
    /// Recipe (TOML)
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
    /// Encoder: tiny, mini, base, bilstm, or a Hugging Face folder
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
        let system: Vec<String> = system.map(|name| format!("system={name}")).into_iter().collect();
        let mut recipe = self.overrides.load::<V>(self.recipe.as_deref(), &system)?;
        recipe.encoder.name.clone_from(&self.encoder);
        Ok(recipe)
    }

    /// Runs a stage in its run folder, and says where its checkpoint is. `work` is the recipe, and
    /// what else was read from flags and files.
    fn stage<T>(
        &self,
        work: Result<(Recipe, T)>,
        train: impl FnOnce(&Recipe, T, &Session, &RunFolder) -> Result<Checkpoint>,
    ) -> Result<()> {
        let clock = Clock::start();
        let (session, (recipe, rest)) =
            Session::start_with(work, |_| (self.machine.device.clone(), self.machine.threads))?;
        session.run(|session| {
            let run = self.claim(&recipe, session)?;
            let checkpoint = train(&recipe, rest, session, &run)?;
            session.world.on_root(|| {
                let path = checkpoint.path();
                say(format!("checkpoint: {}", path.display()));
                let findings = CheckpointFindings::of(&checkpoint)?;
                clock.write(self.json.as_deref(), path, None, &findings)
            })
        })
    }

    /// Claims the run folder on rank 0 and writes the resolved recipe into it.
    fn claim(&self, recipe: &Recipe, session: &Session) -> Result<RunFolder> {
        let claim = || {
            let run = RunFolder::claim(&self.run_dir)?;
            let text = recipe.to_toml()?;
            write_whole(&self.run_dir.join(run_files::RECIPE), text.as_bytes())?;
            run.identify(session.world.size(), recipe.seed)?;
            let own = RunRecipe { text: &text, same: &|other| recipe.asks_for_the_same(other) };
            let run = run.mirrored(recipe.checkpoint_mirror.as_deref(), &own, self.resume)?;
            fs_err::remove_file(self.run_dir.join(run_files::STOP)).ok();
            Ok(run)
        };
        let run = session.world.agree(if session.is_root() {
            claim()
        } else {
            Ok(RunFolder::shared(&self.run_dir))
        })?;
        session.enter(&run, recipe)?;
        Ok(run)
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
        flags.stage(work, |recipe, (), session, run| {
            let task = StageTask {
                shards: train,
                encoder: &recipe.encoder,
                settings: recipe.settings_of()?,
                schedule: &recipe.rank,
                seed: recipe.seed,
                deterministic: recipe.deterministic,
                resume: flags.resume,
            };
            pipeline::rank(&task, session, run)
        })
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
        let session = self.machine.session()?;
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
        flags.stage(work, |recipe, (), session, run| {
            let task = StageTask {
                shards: distant,
                encoder: &recipe.encoder,
                settings: recipe.settings_of()?,
                schedule: &recipe.pretrain,
                seed: recipe.seed,
                deterministic: recipe.deterministic,
                resume: flags.resume,
            };
            pipeline::pretrain(&task, session, run)
        })
    }
}

/// Stage 3: fine-tune a system on annotated documents
#[derive(Debug, Args)]
pub struct FinetuneVerb {
    /// System, see `docre-pretrain systems` [default: the recipe's, or dsdocre]
    #[arg(long, value_name = "NAME")]
    system: Option<String>,
    /// Human-annotated shards
    #[arg(long, value_name = "SHARDS")]
    train: PathBuf,
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
                EncoderSpec::Folder(folder) => EncoderStart::Checkpoint(folder),
                _ => EncoderStart::Choice,
            };
            let settings = recipe.settings()?;
            Ok((recipe, (start, settings)))
        });
        flags.stage(work, |recipe, (start, settings), session, run| {
            let second =
                self.heads_from.is_some() && settings.second_schedule(recipe.profile).is_some();
            let task = FinetuneTask {
                stage: "finetune",
                train: &self.train,
                dev: &self.dev,
                encoder: &recipe.encoder,
                start,
                heads_from: self.heads_from.clone(),
                ranker: self.ranker.as_deref(),
                settings: &settings,
                schedule: if second { &recipe.inference } else { &recipe.finetune },
                seed: recipe.seed,
                deterministic: recipe.deterministic,
                resume: flags.resume,
            };
            pipeline::finetune(&task, session, run)
        })
    }
}

/// Predict the facts of documents with a fine-tuned checkpoint
#[derive(Debug, Args)]
pub struct PredictVerb {
    /// Fine-tuned checkpoint, or an export of one
    #[arg(long, value_name = "C")]
    checkpoint: PathBuf,
    /// Checkpoint of the ranker, if it has moved since fine-tuning
    #[arg(long, value_name = "C")]
    ranker: Option<PathBuf>,
    /// Documents, labelled or not
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Format of the input
    #[arg(long, value_enum, value_name = "F", default_value = "docred")]
    format: Format,
    /// Predictions to write
    #[arg(long, value_name = "result.json")]
    output: PathBuf,
    /// Also write result.zip beside the output, and check it by reading it again
    #[arg(long)]
    zip: bool,
    /// Also write the scores of all pairs and relations (Parquet), for `evaluate --scores`
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Decision threshold in place of the one chosen on dev (threshold rule only)
    #[arg(long, value_name = "P")]
    threshold: Option<f64>,
    /// Truncate documents that are too long for the model instead of refusing them
    #[arg(long)]
    truncate: bool,
    /// Checkpoint of `finetune --system lstm-sp` that predicts the evidence sentences of each fact
    #[arg(long, value_name = "C")]
    evidence: Option<PathBuf>,
    /// Write the number of documents and facts as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineFlags,
}

impl PredictVerb {
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let session = self.machine.session()?;
        let options = PredictOptions {
            checkpoint: &self.checkpoint,
            ranker: self.ranker.as_deref(),
            input: &InputFile { path: self.input, format: self.format },
            output: &self.output,
            zip: self.zip,
            scores: self.scores.as_deref(),
            threshold: self.threshold,
            truncate: self.truncate,
            evidence: self.evidence.as_deref(),
        };
        session.run(|session| {
            let report = pipeline::predict_file(&options, session)
                .map_err(|error| error.in_file(&options.input.path))?;
            session.world.on_root(|| {
                clock.write(self.json.as_deref(), &self.output, Some(report.documents), &report)
            })
        })
    }
}

/// Export a checkpoint as a Hugging Face folder
#[derive(Debug, Args)]
pub struct ExportVerb {
    /// Checkpoint of any stage
    #[arg(long, value_name = "C")]
    checkpoint: PathBuf,
    /// Checkpoint of the ranker, if it has moved since fine-tuning
    #[arg(long, value_name = "C")]
    ranker: Option<PathBuf>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Write what was exported as JSON, as `inspect` does
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl ExportVerb {
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        pipeline::export(&self.checkpoint, self.ranker.as_deref(), &self.output)?;
        say(format!("export: {}", self.output.display()));
        clock.write(
            self.json.as_deref(),
            &self.output,
            None,
            &CheckpointFindings::of(&Checkpoint::open(&self.output)?)?,
        )
    }
}
