//! The three training stages and scoring as verbs of their own.

use std::path::PathBuf;

use clap::Args;

use super::inspect::CheckpointFindings;
use super::shared::{Clock, Machine, StageFlags};
use crate::base::say;
use crate::encoders::EncoderSpec;
use crate::pipeline;
use crate::pipeline::{
    EncoderStart, FinetuneTask, Keep, PretrainTask, RankTask, ScoreTask, Session,
};
use crate::train::Checkpoint;
use crate::{Error, Result};

/// `rank`.
#[derive(Debug, Args)]
pub struct Rank {
    /// Human-annotated shards
    #[arg(long, value_name = "SHARDS")]
    train: PathBuf,
    #[command(flatten)]
    flags: StageFlags,
}

impl Rank {
    /// Trains the ranker.
    ///
    /// # Errors
    /// As [`pipeline::rank`].
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let (session, recipe) = self.flags.machine.session_for(self.flags.recipe())?;
        session.run(|session| {
            let run = self.flags.claim(&recipe, session)?;
            let (encoder, settings, plan) = (&recipe.encoder, recipe.settings_of()?, &recipe.rank);
            let task = RankTask {
                train: &self.train,
                encoder,
                settings,
                plan,
                seed: recipe.seed,
                resume: self.flags.resume,
            };
            let checkpoint = pipeline::rank(&task, session, &run)?;
            announce(&self.flags, &clock, session, &checkpoint)
        })
    }
}

/// Says what a stage left.
fn announce(
    flags: &StageFlags,
    clock: &Clock,
    session: &Session,
    checkpoint: &Checkpoint,
) -> Result<()> {
    session.world.on_root(|| {
        say(format!("checkpoint: {}", checkpoint.path().display()));
        clock.write(
            flags.json.as_deref(),
            checkpoint.path(),
            None,
            &CheckpointFindings::of(checkpoint)?,
        )
    })
}

/// `score`.
#[derive(Debug, Args)]
pub struct Score {
    /// The ranker's checkpoint
    #[arg(long, value_name = "C")]
    checkpoint: PathBuf,
    /// Shards without scores
    #[arg(long, value_name = "SHARDS")]
    input: PathBuf,
    /// Shards with scores
    #[arg(long, value_name = "SHARDS")]
    output: PathBuf,
    /// Shards of annotated documents that are among the input too: they are not ranked, so that
    /// pre-training takes all their labels
    #[arg(long, value_name = "SHARDS")]
    annotated: Option<PathBuf>,
    /// Pairs to keep a document: a number, a multiple of its entities, or the larger of both, such
    /// as 60,3n
    #[arg(long, value_name = "K", default_value = "60,3n")]
    keep: String,
    /// Write the number of documents and pairs as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

impl Score {
    /// Scores the shards.
    ///
    /// # Errors
    /// As [`pipeline::score`].
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let keep: Keep = self.keep.parse()?;
        if self.output.exists() {
            return Err(Error::recipe(format!("{} is there already", self.output.display()))
                .with_hint("name a new folder"));
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

/// `pretrain`.
#[derive(Debug, Args)]
pub struct Pretrain {
    /// Distant shards, scored by the ranker
    #[arg(long, value_name = "SHARDS")]
    distant: PathBuf,
    #[command(flatten)]
    flags: StageFlags,
}

impl Pretrain {
    /// Pre-trains.
    ///
    /// # Errors
    /// As [`pipeline::pretrain`].
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let (session, recipe) = self.flags.machine.session_for(self.flags.recipe())?;
        session.run(|session| {
            let run = self.flags.claim(&recipe, session)?;
            let (encoder, settings, plan) =
                (&recipe.encoder, recipe.settings_of()?, &recipe.pretrain);
            let task = PretrainTask {
                distant: &self.distant,
                encoder,
                settings,
                plan,
                seed: recipe.seed,
                resume: self.flags.resume,
            };
            let checkpoint = pipeline::pretrain(&task, session, &run)?;
            announce(&self.flags, &clock, session, &checkpoint)
        })
    }
}

/// `finetune`.
#[derive(Debug, Args)]
pub struct Finetune {
    /// The system, see `systems` (default: the recipe's, or dsdocre)
    #[arg(long, value_name = "NAME")]
    system: Option<String>,
    /// Human-annotated shards
    #[arg(long, value_name = "SHARDS")]
    train: PathBuf,
    /// Labelled shards that choose the epoch
    #[arg(long, value_name = "SHARDS")]
    dev: PathBuf,
    /// Take over the heads of a checkpoint as well, where name and shape agree (DocRE-II's second
    /// stage starts from its first)
    #[arg(long, value_name = "C")]
    heads_from: Option<PathBuf>,
    /// The ranker that scored both (without it: the baseline over sampled pairs)
    #[arg(long, value_name = "C")]
    ranker: Option<PathBuf>,
    #[command(flatten)]
    flags: StageFlags,
}

impl Finetune {
    /// Fine-tunes.
    ///
    /// # Errors
    /// As [`pipeline::finetune`].
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        // The system decides the defaults of the schedule.
        let system = self.system.iter().map(|name| format!("system={name}")).collect::<Vec<_>>();
        let told = self.flags.recipe_with(&system).and_then(|recipe| {
            // A checkpoint of this program is a Hugging Face folder, so any folder is a start; a
            // preset's name is the preset.
            let start = match EncoderSpec::parse(&recipe.encoder.name)? {
                EncoderSpec::Folder(folder) => EncoderStart::Checkpoint(folder),
                _ => EncoderStart::Choice,
            };
            Ok((recipe.settings()?, recipe, start))
        });
        let (session, (settings, recipe, start)) = self.flags.machine.session_for(told)?;
        let second =
            self.heads_from.is_some() && settings.entry().second_schedule(recipe.profile).is_some();
        session.run(|session| {
            let run = self.flags.claim(&recipe, session)?;
            let task = FinetuneTask {
                stage: "finetune",
                train: &self.train,
                dev: &self.dev,
                encoder: &recipe.encoder,
                start,
                heads_from: self.heads_from.clone(),
                ranker: self.ranker.as_deref(),
                settings: &settings,
                plan: if second { &recipe.inference } else { &recipe.finetune },
                seed: recipe.seed,
                resume: self.flags.resume,
            };
            let checkpoint = pipeline::finetune(&task, session, &run)?.checkpoint;
            announce(&self.flags, &clock, session, &checkpoint)
        })
    }
}
