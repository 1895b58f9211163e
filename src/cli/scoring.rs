//! `predict`, `evaluate`, `export`.

use std::path::PathBuf;

use clap::Args;

use super::shared::{Machine, write_json};
use crate::Result;
use crate::stages::{self, EvaluateFiles, PredictOptions};

/// `predict`.
#[derive(Debug, Args)]
pub struct Predict {
    /// A fine-tuned checkpoint or an export of it
    #[arg(long, value_name = "C")]
    checkpoint: PathBuf,
    /// The ranker, where it is not where the checkpoint says
    #[arg(long, value_name = "C")]
    ranker: Option<PathBuf>,
    /// Documents in DocRED form, labelled or not
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Predictions
    #[arg(long, value_name = "result.json")]
    output: PathBuf,
    /// Write result.zip beside it
    #[arg(long)]
    zip: bool,
    /// Decision threshold instead of the one found on dev (threshold rule only)
    #[arg(long, value_name = "P")]
    threshold: Option<f64>,
    #[command(flatten)]
    machine: Machine,
}

impl Predict {
    /// Predicts.
    ///
    /// # Errors
    /// As [`stages::predict_file`].
    pub fn run(self) -> Result<()> {
        let session = self.machine.session()?;
        let options = PredictOptions {
            checkpoint: &self.checkpoint,
            ranker: self.ranker.as_deref(),
            input: &self.input,
            output: &self.output,
            zip: self.zip,
            threshold: self.threshold,
        };
        session.run(|session| stages::predict_file(&options, session).map(drop))
    }
}

/// `evaluate`.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// Labelled documents
    #[arg(long, value_name = "FILE")]
    gold: PathBuf,
    /// Predictions (result.json)
    #[arg(long, value_name = "FILE")]
    predictions: PathBuf,
    /// Facts that Ign F1 ignores: a .fact file or the annotated training file
    #[arg(long, value_name = "FILE")]
    train_facts: Option<PathBuf>,
    /// Distant facts, for the second Ign F1
    #[arg(long, value_name = "FILE")]
    distant_facts: Option<PathBuf>,
    /// Scorer variant
    #[arg(long, value_name = "NAME", default_value = "official")]
    scorer: String,
    /// Write the scores for machines
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Evaluate {
    /// Scores and prints a table.
    ///
    /// # Errors
    /// As [`stages::evaluate`].
    pub fn run(self) -> Result<()> {
        let files = EvaluateFiles {
            gold: &self.gold,
            predictions: &self.predictions,
            train_facts: self.train_facts.as_deref(),
            distant_facts: self.distant_facts.as_deref(),
            scorer: self.scorer.parse()?,
        };
        let scores = stages::evaluate(&files)?;
        println!("{scores}");
        write_json(self.json.as_deref(), &scores)
    }
}

/// `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// A checkpoint of any stage
    #[arg(long, value_name = "C")]
    checkpoint: PathBuf,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

impl Export {
    /// Exports.
    ///
    /// # Errors
    /// As [`stages::export`].
    pub fn run(self) -> Result<()> {
        stages::export(&self.checkpoint, &self.output)
    }
}
