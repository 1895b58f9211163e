//! Scores: `evaluate`, `audit`.

use std::path::PathBuf;

use clap::Args;

use super::shared::{MachineFlags, print_all, write_json};
use crate::Result;
use crate::base::write_atomic;
use crate::eval::{SideBySide, SystemScores, distinct_names, to_csv};
use crate::pipeline::{self, AuditTask, EvaluateTask, Evaluation, Session};
use crate::report::{AuditPage, EvaluationPage, write_plots};

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
    /// Write charts (SVG) into a folder; with several predictions, those of the first; with
    /// several systems, bars of all side by side
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Write tables, definitions, charts and comparison as one HTML page
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

impl EvaluateVerb {
    pub fn run(self) -> Result<()> {
        let evaluation = pipeline::evaluate(&self.task)?;
        if evaluation.systems.is_empty() {
            let warnings = evaluation.scores.warnings.iter();
            warnings.for_each(|warning| eprintln!("warning: {warning}"));
        }
        for SystemScores { name, scores } in &evaluation.systems {
            scores.warnings.iter().for_each(|warning| eprintln!("warning: {name}: {warning}"));
        }
        print_all(format!("{evaluation}\n").as_bytes())?;
        self.write(&evaluation)
    }

    fn write(&self, evaluation: &Evaluation) -> Result<()> {
        write_json(self.json.as_deref(), evaluation)?;
        if let Some(path) = &self.csv {
            let rows = match &evaluation.seeds {
                Some(seeds) => seeds.to_csv(),
                None if evaluation.is_side_by_side() => SideBySide(&evaluation.systems).to_csv(),
                None => to_csv(&evaluation.scores.sections()),
            };
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
        let EvaluateTask { gold, predictions, scores, systems: named, .. } = &self.task;
        let scored = if predictions.is_empty() { scores.as_slice() } else { predictions };
        let scored = scored.iter().chain(named.iter().map(|system| &system.path));
        let files = distinct_names(&scored.map(PathBuf::as_path).collect::<Vec<_>>());
        let Evaluation { scores, systems, comparison, seeds } = evaluation;
        if let Some(folder) = &self.plots {
            write_plots(folder, scores, systems)?;
        }
        let Some(path) = &self.report else { return Ok(()) };
        let gold = &gold.file_name().unwrap_or_default().to_string_lossy();
        let (comparison, seeds) = (comparison.as_ref(), seeds.as_ref());
        EvaluationPage { gold, files: &files, scores, systems, comparison, seeds }.write(path)
    }
}

/// Compare distant labels with human ones, and see what denoisers keep of them
#[derive(Debug, Args)]
pub struct AuditVerb {
    #[command(flatten)]
    task: AuditTask,
    /// Write the numbers and curves as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write tables and charts as one HTML page
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineFlags,
}

impl AuditVerb {
    pub fn run(self) -> Result<()> {
        self.machine.session()?.run(|session| session.world.on_root(|| self.tell(session)))
    }

    fn tell(&self, session: &Session) -> Result<()> {
        let audit = pipeline::audit(&self.task, session)?;
        print_all(format!("{audit}\n").as_bytes())?;
        write_json(self.json.as_deref(), &audit)?;
        let Some(path) = &self.report else { return Ok(()) };
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().display().to_string();
        let (labels, gold) = (&name(&self.task.distant), &name(&self.task.gold));
        AuditPage { labels, gold, audit: &audit }.write(path)
    }
}
