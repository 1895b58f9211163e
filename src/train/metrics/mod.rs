//! Metrics of the step loop: `metrics.jsonl` for programs, TensorBoard events for people.

mod lines;
mod tensorboard;

pub use lines::{MetricLine, MetricsWriter, read_metrics};
pub use tensorboard::EventWriter;

use std::path::Path;

use crate::Result;

/// Both files of a run (rank 0 only).
pub struct Metrics {
    lines: MetricsWriter,
    events: EventWriter,
}

impl Metrics {
    /// Appends to `metrics.jsonl` of a run folder and starts an event file for this stretch of the
    /// stage.
    ///
    /// # Errors
    /// I/O errors.
    pub fn open(run: &Path, stage: &str) -> Result<Self> {
        Ok(Self {
            lines: MetricsWriter::open(&MetricsWriter::path(run))?,
            events: EventWriter::create(run, stage)?,
        })
    }

    /// Writes one step.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write(&mut self, line: &MetricLine) -> Result<()> {
        self.lines.write(line)?;
        let scalars = [
            ("loss", line.loss),
            ("lr", line.lr),
            ("grad_norm", line.grad_norm),
            ("documents_per_s", line.documents_per_s),
        ];
        for (name, value) in scalars {
            if let Some(value) = value {
                self.events.scalar(&format!("{}/{name}", line.stage), line.step, value as f32)?;
            }
        }
        for (task, loss) in line.tasks() {
            self.events.scalar(&format!("{}/loss/{task}", line.stage), line.step, loss as f32)?;
        }
        Ok(())
    }
}
