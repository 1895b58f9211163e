//! Metrics of the step loop: `metrics.jsonl` for programs, TensorBoard events for people.

mod gauges;
mod lines;
mod tensorboard;

pub use gauges::{EncoderCost, Gauges};
pub use lines::{MetricLine, MetricsTail, MetricsWriter, read_metrics};
pub use tensorboard::EventWriter;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Result;

/// The score on dev.
const DEV_F1: &str = "dev/f1";

/// Numbers under these names, or below them, go to TensorBoard too.
const DRAWN: [&str; 6] = ["loss/", "share/", "memory/", "mfu", "eta_s", DEV_F1];

/// Both files of a run (rank 0 only).
pub struct Metrics {
    path: PathBuf,
    lines: MetricsWriter,
    events: EventWriter,
    gauges: Gauges,
    /// The line that was written last.
    last: Option<MetricLine>,
}

impl Metrics {
    /// Appends to `metrics.jsonl` of a run folder and starts an event file for this stretch of the
    /// stage. `gauges` complete each line.
    ///
    /// # Errors
    /// I/O errors.
    pub fn open(run: &Path, stage: &str, gauges: Gauges) -> Result<Self> {
        let path = MetricsWriter::path(run);
        Ok(Self {
            lines: MetricsWriter::open(&path)?,
            events: EventWriter::create(run, stage)?,
            path,
            gauges,
            last: None,
        })
    }

    /// Writes one step.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write(&mut self, line: MetricLine) -> Result<()> {
        let line = self.gauges.complete(line);
        self.lines.write(&line)?;
        self.events.scalars(line.step, &scalars(&line))?;
        self.last = Some(line);
        Ok(())
    }

    /// Writes the F1 on dev after a step: the line of that step once more, with it.
    ///
    /// # Errors
    /// I/O errors.
    pub fn judged(&mut self, stage: &str, step: u64, f1: f64) -> Result<()> {
        let of_step = |line: &MetricLine| line.stage == stage && line.step == step;
        let line =
            match self.last.take().filter(of_step) {
                Some(line) => line,
                // The run was asked to stop before it was judged; another process wrote the line.
                None => read_metrics(&self.path)?.pop().filter(of_step).unwrap_or_else(|| {
                    MetricLine { stage: stage.to_owned(), step, ..MetricLine::default() }
                }),
            };
        let line = line.with(DEV_F1, f1);
        self.lines.write(&line)?;
        self.events.scalars(step, &[(format!("{stage}/{DEV_F1}"), f1 as f32)])
    }
}

/// The curves of a line.
fn scalars(line: &MetricLine) -> Vec<(String, f32)> {
    let named = [
        ("loss", line.loss),
        ("lr", line.lr),
        ("grad_norm", line.grad_norm),
        ("documents_per_s", line.documents_per_s),
        ("tokens_per_s", line.tokens_per_s),
    ];
    let named = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let drawn = |name: &str| DRAWN.iter().any(|drawn| name.starts_with(drawn));
    let more = line.more.iter().filter(|(name, _)| drawn(name));
    let more = more.filter_map(|(name, value)| Some((name.as_str(), Value::as_f64(value)?)));
    let tag = |(name, value): (&str, f64)| (format!("{}/{name}", line.stage), value as f32);
    named.chain(more).map(tag).collect()
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn line(step: u64) -> MetricLine {
        MetricLine { stage: "finetune".into(), step, loss: Some(0.5), ..MetricLine::default() }
    }

    #[test]
    fn a_judged_step_is_written_again_with_its_score() {
        let run = tempfile::tempdir().unwrap();
        let open = || Metrics::open(run.path(), "finetune", Gauges::new(Device::Cpu, 4, None));
        let mut metrics = open().unwrap();
        metrics.write(line(1)).unwrap();
        metrics.judged("finetune", 1, 0.25).unwrap();
        metrics.write(line(2)).unwrap();
        let read = || read_metrics(&MetricsWriter::path(run.path())).unwrap();
        assert_eq!((read()[0].loss, read()[0].number(DEV_F1)), (Some(0.5), Some(0.25)));
        assert_eq!((read().len(), read()[1].number(DEV_F1)), (2, None));
        // A resumed run is judged at the step that the one before had reached.
        open().unwrap().judged("finetune", 2, 0.5).unwrap();
        assert_eq!((read()[1].loss, read()[1].number(DEV_F1)), (Some(0.5), Some(0.5)));
        open().unwrap().judged("finetune", 3, 0.5).unwrap();
        assert_eq!((read()[2].loss, read()[2].step), (None, 3));
    }

    #[test]
    fn curves_are_those_that_people_look_at() {
        let line =
            line(1).with("share/compute", 0.5).with("straggler", 2.0).with("loss/RelDet", 1.0);
        let names: Vec<String> = scalars(&line).into_iter().map(|(tag, _)| tag).collect();
        assert_eq!(names, ["finetune/loss", "finetune/share/compute", "finetune/loss/RelDet"]);
    }
}
