//! Scores: `evaluate`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::shared::{print_all, write_json};
use crate::Result;
use crate::base::write_atomic;
use crate::eval::to_csv;
use crate::pipeline::{self, EvaluateTask, Evaluation};
use crate::report::{EvaluationPage, write_plots};

/// Score predictions against annotated documents
#[derive(Debug, Args)]
pub struct EvaluateVerb {
    #[command(flatten)]
    task: EvaluateTask,
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

impl EvaluateVerb {
    pub fn run(self) -> Result<()> {
        let evaluation = pipeline::evaluate(&self.task)?;
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
        let EvaluateTask { gold, predictions, scores, compare, .. } = &self.task;
        let scored = if predictions.is_empty() { scores.as_slice() } else { predictions };
        let files: Vec<String> = scored.iter().map(|path| name(path)).collect();
        let other = compare.as_deref().map(name).unwrap_or_default();
        let (scores, comparison) = (&evaluation.scores, evaluation.comparison.as_ref());
        if let Some(folder) = &self.plots {
            let names = [files.first().map_or("", String::as_str), &other];
            write_plots(folder, scores, comparison, names)?;
        }
        let Some(path) = &self.report else { return Ok(()) };
        let (gold, seeds) = (&name(gold), evaluation.seeds.as_ref());
        let comparison = comparison.map(|comparison| (other.as_str(), comparison));
        EvaluationPage { gold, files: &files, scores, comparison, seeds }.write(path)
    }
}

/// The name of a file without its folders.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
