//! `predict`, `evaluate`, `export`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::inspect::CheckpointFindings;
use super::shared::{Clock, Machine, print_all, write_json};
use crate::base::say;
use crate::base::write_atomic;
use crate::corpus::Format;
use crate::eval::{CompareOptions, Scorer, to_csv};
use crate::pipeline;
use crate::pipeline::{EvaluateTask, Evaluation, GoldFormat, Input, PredictOptions};
use crate::report::{EvaluationPage, write_plots};
use crate::train::Checkpoint;
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
    /// Write result.zip beside it, and read it again
    #[arg(long)]
    zip: bool,
    /// Write the scores of every pair and relation too (Parquet), for `evaluate --scores`
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Decision threshold instead of the one found on dev (threshold rule only)
    #[arg(long, value_name = "P")]
    threshold: Option<f64>,
    /// Cut documents that are too long for the model instead of ending with an error
    #[arg(long)]
    truncate: bool,
    /// A checkpoint of `finetune --system lstm-sp`: name the evidence sentences of each predicted
    /// fact
    #[arg(long, value_name = "C")]
    evidence: Option<PathBuf>,
    /// Write the number of documents and facts as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

impl Predict {
    /// Predicts.
    ///
    /// # Errors
    /// As [`pipeline::predict_file`].
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let session = self.machine.session()?;
        let options = PredictOptions {
            checkpoint: &self.checkpoint,
            ranker: self.ranker.as_deref(),
            input: &Input { path: self.input, format: self.format },
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

/// `evaluate`.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// Labelled documents
    #[arg(long, value_name = "FILE")]
    gold: PathBuf,
    /// Predictions (result.json or result.zip); several: mean and deviation
    #[arg(long, value_name = "FILE")]
    predictions: Vec<PathBuf>,
    /// Scores of every pair and relation (Parquet), for thresholds and curves
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Threshold for --scores that was chosen on other documents
    #[arg(long, value_name = "P", requires = "scores", allow_negative_numbers = true)]
    theta: Option<f32>,
    /// Facts that Ign F1 ignores: a .fact file or the annotated training file
    #[arg(long, value_name = "FILE")]
    train_facts: Option<PathBuf>,
    /// Distant facts, for the second Ign F1
    #[arg(long, value_name = "FILE")]
    distant_facts: Option<PathBuf>,
    /// Data set the files belong to
    #[arg(long, value_enum, value_name = "NAME", default_value = "docred")]
    dataset: Dataset,
    /// MeSH tree numbers, to take hypernyms out of the pairs of CDR before scoring
    #[arg(long, value_name = "FILE")]
    mesh_tree: Option<PathBuf>,
    /// Scorer to follow: official, atlop or redocred (default: the data set's own)
    #[arg(long, value_name = "NAME")]
    scorer: Option<String>,
    /// Other predictions on the same documents: what one gets and the other misses, and is it luck
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Resamples of the bootstrap of --compare
    #[arg(long, value_name = "N", default_value_t = 1_000, requires = "compare")]
    samples: usize,
    /// Seed of the bootstrap of --compare
    #[arg(long, value_name = "S", default_value_t = 1, requires = "compare")]
    seed: u64,
    /// Write the scores for machines
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the rows of the table; a comparison goes to NAME-comparison.csv
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write charts (SVG) into a folder; of several files, those of the first
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Write tables, definitions, charts and comparison as one page
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Data sets with a scorer or a format of their own.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Dataset {
    /// DocRED and corpora of its form
    Docred,
    /// Re-DocRED
    Redocred,
    /// CDR: listed pairs, EoG's format
    Cdr,
    /// GDA: likewise
    Gda,
}

impl Dataset {
    fn format(self) -> GoldFormat {
        match self {
            Self::Docred | Self::Redocred => GoldFormat::Docred,
            Self::Cdr | Self::Gda => GoldFormat::Eog,
        }
    }

    fn scorer(self) -> Scorer {
        if self == Self::Redocred { Scorer::Redocred } else { Scorer::Official }
    }
}

impl Evaluate {
    /// Scores and prints a table.
    ///
    /// # Errors
    /// As [`pipeline::evaluate`]; the disk.
    pub fn run(self) -> Result<()> {
        if self.samples == 0 {
            return Err(Error::recipe("--samples 0")
                .with_hint("a bootstrap takes at least one resample, usually 1000"));
        }
        if self.mesh_tree.is_some() && self.dataset == Dataset::Gda {
            return Err(Error::recipe("--mesh-tree does not belong to --dataset gda")
                .with_hint("only CDR is filtered for hypernyms"));
        }
        let task = EvaluateTask {
            gold: &self.gold,
            format: self.dataset.format(),
            predictions: &self.predictions,
            scores: self.scores.as_deref(),
            theta: self.theta,
            train_facts: self.train_facts.as_deref(),
            distant_facts: self.distant_facts.as_deref(),
            mesh_tree: self.mesh_tree.as_deref(),
            scorer: self.scorer.as_deref().map_or(Ok(self.dataset.scorer()), str::parse)?,
            compare: self.compare.as_deref(),
            comparison: CompareOptions {
                samples: self.samples,
                seed: self.seed,
                ..CompareOptions::default()
            },
        };
        let evaluation = pipeline::evaluate(&task)?;
        for warning in &evaluation.scores.warnings {
            eprintln!("warning: {warning}");
        }
        print_all(format!("{evaluation}\n").as_bytes())?;
        self.write(&evaluation)
    }

    fn write(&self, evaluation: &Evaluation) -> Result<()> {
        write_json(self.json.as_deref(), evaluation)?;
        if let Some(path) = &self.csv {
            let rows = evaluation
                .seeds
                .as_ref()
                .map_or_else(|| to_csv(&evaluation.scores.sections()), |seeds| seeds.to_csv());
            write_atomic(path, |out| out.write_all(rows.as_bytes()))?;
            if let Some(comparison) = &evaluation.comparison {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                write_atomic(&path.with_file_name(format!("{stem}-comparison.csv")), |out| {
                    out.write_all(comparison.to_csv().as_bytes())
                })?;
            }
        }
        self.draw(evaluation)
    }

    fn draw(&self, evaluation: &Evaluation) -> Result<()> {
        let (scores, comparison) = (&evaluation.scores, evaluation.comparison.as_ref());
        let scored =
            if self.predictions.is_empty() { self.scores.as_slice() } else { &self.predictions };
        let other = self.compare.as_deref().map(name).unwrap_or_default();
        let files: Vec<String> = scored.iter().map(|path| name(path)).collect();
        if let Some(folder) = &self.plots {
            write_plots(
                folder,
                scores,
                comparison,
                [files.first().map_or("", String::as_str), &other],
            )?;
        }
        let Some(path) = &self.report else { return Ok(()) };
        let comparison = comparison.map(|comparison| (other.as_str(), comparison));
        let gold = name(&self.gold);
        EvaluationPage {
            gold: &gold,
            files: &files,
            scores,
            comparison,
            seeds: evaluation.seeds.as_ref(),
        }
        .write(path)
    }
}

/// The name of a file without its folders.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// A checkpoint of any stage
    #[arg(long, value_name = "C")]
    checkpoint: PathBuf,
    /// The ranker, where it is not where the checkpoint says
    #[arg(long, value_name = "C")]
    ranker: Option<PathBuf>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Write what was exported as JSON, as `inspect` does
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Export {
    /// Exports.
    ///
    /// # Errors
    /// As [`pipeline::export`].
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
