//! Scores: `evaluate`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::shared::{print_all, write_json};
use crate::base::write_atomic;
use crate::corpus::Format;
use crate::eval::{CompareOptions, Scorer, to_csv};
use crate::pipeline::{self, EvaluateTask, Evaluation};
use crate::report::{EvaluationPage, write_plots};
use crate::{Error, Result};

/// Score predictions against annotated documents
#[derive(Debug, Args)]
pub struct EvaluateVerb {
    /// Annotated documents
    #[arg(long, value_name = "FILE")]
    gold: PathBuf,
    /// Predictions (result.json or result.zip); give several for mean and standard deviation
    #[arg(long, value_name = "FILE")]
    predictions: Vec<PathBuf>,
    /// Scores of all pairs and relations (Parquet), for thresholds and curves
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Threshold for --scores, chosen on other documents
    #[arg(long, value_name = "P", requires = "scores", allow_negative_numbers = true)]
    theta: Option<f32>,
    /// Facts that Ign F1 leaves out: a .fact file or the annotated training file
    #[arg(long, value_name = "FILE")]
    train_facts: Option<PathBuf>,
    /// Distant facts, for a second Ign F1
    #[arg(long, value_name = "FILE")]
    distant_facts: Option<PathBuf>,
    /// Data set of the files, which decides the format of --gold and the default scorer
    #[arg(long, value_enum, value_name = "NAME", default_value = "docred")]
    dataset: Dataset,
    /// MeSH tree numbers, to filter hypernyms from the pairs of CDR before scoring
    #[arg(long, value_name = "FILE")]
    mesh_tree: Option<PathBuf>,
    /// Scorer to follow: official, atlop or redocred [default: the data set's own]
    #[arg(long, value_name = "NAME")]
    scorer: Option<String>,
    /// Other predictions on the same documents: what each gets and the other misses, and whether
    /// the difference is significant
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Bootstrap samples of --compare
    #[arg(long, value_name = "N", default_value_t = 1_000, requires = "compare")]
    samples: usize,
    /// Seed of the bootstrap of --compare
    #[arg(long, value_name = "S", default_value_t = 1, requires = "compare")]
    seed: u64,
    /// Write the scores as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table as CSV; a comparison goes to NAME-comparison.csv
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write charts (SVG) into a folder; with several predictions, those of the first
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Write tables, definitions, charts and comparison as one HTML page
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Data sets with a scorer or a format of their own.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Dataset {
    /// DocRED and corpora in its format
    Docred,
    /// Re-DocRED
    Redocred,
    /// CDR in edge-oriented-graph's format, which lists the candidate pairs
    Cdr,
    /// GDA in the same format
    Gda,
}

impl Dataset {
    fn format(self) -> Result<Format> {
        match self {
            Self::Docred | Self::Redocred => Ok(Format::DOCRED),
            Self::Cdr => "cdr".parse(),
            Self::Gda => "gda".parse(),
        }
    }

    fn scorer(self) -> Scorer {
        if self == Self::Redocred { Scorer::Redocred } else { Scorer::Official }
    }
}

impl EvaluateVerb {
    pub fn run(self) -> Result<()> {
        if self.samples == 0 {
            return Err(Error::recipe("--samples 0")
                .with_hint("a bootstrap needs at least one sample; 1000 is usual"));
        }
        if self.mesh_tree.is_some() && self.dataset == Dataset::Gda {
            return Err(Error::recipe("--mesh-tree cannot be used with --dataset gda")
                .with_hint("only CDR is filtered for hypernyms"));
        }
        let task = EvaluateTask {
            gold: &self.gold,
            format: self.dataset.format()?,
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
