//! `predict`, `evaluate`, `export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::shared::{Machine, write_json};
use crate::corpus::Format;
use crate::eval::Scorer;
use crate::stages::{self, EvaluateFiles, Input, PredictOptions};
use crate::{Error, Result};

/// `predict`.
#[derive(Debug, Args)]
pub struct Predict {
    /// A fine-tuned checkpoint or an export of it
    #[arg(long, value_name = "C")]
    checkpoint: PathBuf,
    /// The ranker, where it is not where the checkpoint says
    #[arg(long, value_name = "C")]
    ranker: Option<PathBuf>,
    /// Documents, labelled or not
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Format of the input
    #[arg(long, value_enum, value_name = "F", default_value = "docred")]
    format: Format,
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
            input: &Input { path: self.input, format: self.format },
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
    /// Data set the files belong to
    #[arg(long, value_enum, value_name = "NAME", default_value = "docred")]
    dataset: Dataset,
    /// Scorer to follow: official, atlop or redocred (default: the data set's own)
    #[arg(long, value_name = "NAME")]
    scorer: Option<String>,
    /// Write the scores for machines
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Data sets with a scorer of their own.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Dataset {
    /// DocRED and corpora of its form
    Docred,
    /// Re-DocRED
    Redocred,
    /// CDR (not built yet)
    Cdr,
    /// GDA (not built yet)
    Gda,
}

impl Evaluate {
    fn scorer(&self) -> Result<Scorer> {
        match (&self.scorer, self.dataset) {
            (_, Dataset::Cdr | Dataset::Gda) => {
                Err(Error::recipe("scoring of CDR and GDA is not built yet").with_hint("docred and redocred are"))
            }
            (Some(name), _) => name.parse(),
            (None, Dataset::Docred) => Ok(Scorer::Official),
            (None, Dataset::Redocred) => Ok(Scorer::Redocred),
        }
    }

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
            scorer: self.scorer()?,
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
