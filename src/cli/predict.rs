//! The verb `predict`: files into files, or a stream of documents into answers.

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use clap::Args;

use super::shared::{Clock, MachineFlags};
use crate::pipeline::{self, PredictFiles, PredictOptions};
use crate::{Error, Result};

/// Predict the facts of documents with a fine-tuned checkpoint
#[derive(Debug, Args)]
pub struct PredictVerb {
    #[command(flatten)]
    options: PredictOptions,
    #[command(flatten)]
    files: Option<PredictFiles>,
    /// Read documents from standard input, one JSON object a line, and answer each on standard
    /// output with a line of its own, until the input ends
    #[arg(long, conflicts_with = "PredictFiles")]
    stream: bool,
    /// Write the number of documents and facts as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineFlags,
}

impl PredictVerb {
    pub fn run(self) -> Result<()> {
        match &self.files {
            _ if self.stream => self.answer(),
            Some(files) => self.predict(files),
            // The parser asks for one of them.
            None => Err(Error::Bug("predict without files or a stream".into())),
        }
    }

    fn predict(&self, files: &PredictFiles) -> Result<()> {
        let clock = Clock::start();
        self.machine.stoppable_session()?.run(|session| {
            let error_in = |error: Error| match files.input.as_slice() {
                [file] => error.in_file(file),
                _ => error,
            };
            let report =
                pipeline::predict_files(&self.options, files, session).map_err(error_in)?;
            session.world.on_root(|| {
                clock.write(self.json.as_deref(), &files.output, Some(report.documents), &report)
            })
        })
    }

    fn answer(&self) -> Result<()> {
        let clock = Clock::start();
        self.machine.stoppable_session()?.run(|session| {
            let mut output = BufWriter::new(std::io::stdout());
            let input = std::io::stdin();
            let report = pipeline::answer_lines(&self.options, input, &mut output, session)?;
            clock.write(self.json.as_deref(), Path::new("-"), Some(report.documents), &report)
        })
    }
}
