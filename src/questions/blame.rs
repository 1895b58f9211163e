//! Which documents a run stumbled over: the steps whose loss stands out from those before it, and
//! what these steps read.
//!
//! Everything comes from the metrics and from the order, which is arithmetic; nothing is computed
//! again. Not for losses that are no numbers: these stop a run, or are listed in its
//! `log/non-finite.jsonl`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::batch::{StepContents, describe_batches};
use crate::base::run_files;
use crate::recipe::Recipe;
use crate::train::LossHistory;
use crate::train::metrics::{MetricLine, MetricsWriter, read_metrics};
use crate::{DataError, Result};

/// What a run stumbled over.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Blame {
    /// Standard deviations from which a loss counts.
    pub above: f64,
    /// Steps that were looked at.
    pub steps: usize,
    /// How many of them stand out.
    pub found: usize,
    /// Those that stand out most, stage by stage in their order.
    pub spikes: Vec<Spike>,
    /// Documents of two of these steps or more, the most frequent first. In a long run every
    /// document comes up again and again; one that is here more often than its neighbours is worth
    /// a look.
    pub repeated: Vec<Repeated>,
}

/// A step whose loss stands out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spike {
    /// The loss of the step.
    pub loss: Option<f64>,
    /// Standard deviations above the losses before it, by task; the total under an empty name.
    pub deviations: BTreeMap<String, f64>,
    /// What the step read.
    #[serde(flatten)]
    pub contents: StepContents,
}

/// A document with the steps that read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repeated {
    /// Its title.
    pub title: String,
    /// The stage.
    pub stage: String,
    /// The steps.
    pub steps: Vec<u64>,
}

/// Finds the steps of a run of the pipeline whose loss, or that of one task, lies `above` standard
/// deviations over those before it, and describes the `most` that stand out furthest. `shards` is
/// where the documents of the stage lie if not in the run folder.
///
/// # Errors
/// A folder without metrics; the shards of a stage that are not there.
pub fn blame(run: &Path, shards: Option<&Path>, above: f64, most: usize) -> Result<Blame> {
    let recipe = Recipe::load(&run.join(run_files::RECIPE), &[])?;
    let lines = metrics_of(run)?;
    let mut found = outliers(&lines, above);
    let mut blame = Blame { above, steps: lines.len(), found: found.len(), ..Blame::default() };
    found.sort_by(|a, b| b.largest().total_cmp(&a.largest()));
    found.truncate(most);
    let stages: Vec<&str> = found
        .iter()
        .map(|outlier| outlier.line.stage.as_str())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    for stage in stages {
        let mut own: Vec<&Outlier> =
            found.iter().filter(|outlier| outlier.line.stage == stage).collect();
        own.sort_by_key(|outlier| outlier.line.step);
        let steps: Vec<u64> = own.iter().map(|outlier| outlier.line.step).collect();
        let contents = describe_batches(&recipe, run, shards, stage, &steps)?;
        blame.repeated.extend(repeated(stage, &contents));
        let spike = |(outlier, contents): (&Outlier, StepContents)| Spike {
            loss: outlier.line.loss,
            deviations: outlier.deviations.clone(),
            contents,
        };
        blame.spikes.extend(own.into_iter().zip(contents).map(spike));
    }
    blame.repeated.sort_by_key(|document| std::cmp::Reverse(document.steps.len()));
    Ok(blame)
}

/// The metrics of a run that has done a step.
pub(super) fn metrics_of(run: &Path) -> Result<Vec<MetricLine>> {
    let lines = read_metrics(&MetricsWriter::path(run))?;
    if lines.is_empty() {
        return Err(DataError::new(run, "has no metrics.jsonl, or an empty one")
            .hint("no stage has done a step here")
            .into());
    }
    Ok(lines)
}

/// A line of the metrics that stands out.
struct Outlier<'a> {
    line: &'a MetricLine,
    deviations: BTreeMap<String, f64>,
}

impl Outlier<'_> {
    fn largest(&self) -> f64 {
        self.deviations.values().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// Steps whose loss, the total or that of a task, lies `above` deviations over those before it in
/// its stage. A step that was skipped counts for nothing.
fn outliers(lines: &[MetricLine], above: f64) -> Vec<Outlier<'_>> {
    let mut histories: BTreeMap<(&str, &str), LossHistory> = BTreeMap::new();
    let mut found = Vec::new();
    for line in lines.iter().filter(|line| line.number("skipped").is_none()) {
        let total = line.loss.map(|loss| ("", loss));
        let mut deviations = BTreeMap::new();
        for (task, loss) in line.tasks().chain(total) {
            let score = histories.entry((&line.stage, task)).or_default().score(loss);
            if let Some(score) = score.filter(|&score| score >= above) {
                deviations.insert(task.to_owned(), score);
            }
        }
        if !deviations.is_empty() {
            found.push(Outlier { line, deviations });
        }
    }
    found
}

fn repeated(stage: &str, contents: &[StepContents]) -> Vec<Repeated> {
    let mut steps: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for (step, title) in contents.iter().flat_map(|step| {
        step.items.iter().flat_map(|item| item.titles()).map(|title| (step.step, title))
    }) {
        steps.entry(title).or_default().insert(step);
    }
    let several = steps.into_iter().filter(|(_, steps)| steps.len() > 1);
    several
        .map(|(title, steps)| Repeated {
            title: title.to_owned(),
            stage: stage.to_owned(),
            steps: steps.into_iter().collect(),
        })
        .collect()
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { above, steps, found, spikes, repeated } = self;
        write!(f, "{found} of {steps} steps stand out by {above} standard deviations or more")?;
        if spikes.len() < *found {
            write!(f, "; the {} that do most:", spikes.len())?;
        }
        for spike in spikes {
            write!(f, "\n\n{}, loss {:.4}", spike.contents.stage, spike.loss.unwrap_or(f64::NAN))?;
            for (task, score) in &spike.deviations {
                let task = if task.is_empty() { "in all" } else { task };
                write!(f, ", {task} +{score:.1}")?;
            }
            write!(f, "; {}", spike.contents)?;
        }
        if !repeated.is_empty() {
            write!(f, "\n\nin several of these steps:")?;
        }
        repeated.iter().try_for_each(|document| {
            let steps: Vec<String> = document.steps.iter().map(u64::to_string).collect();
            write!(f, "\n  {} ({}, steps {})", document.title, document.stage, steps.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stage: &str, step: u64, detection: f64, alignment: f64) -> MetricLine {
        let line = MetricLine {
            stage: stage.into(),
            step,
            loss: Some(detection + alignment),
            ..MetricLine::default()
        };
        line.with("loss/RelDet", detection).with("loss/RelAlign", alignment)
    }

    #[test]
    fn a_task_that_leaps_is_named_though_the_total_hides_it() {
        let wave = |step: u64| f64::from((step * 7 % 11) as u32);
        let mut lines: Vec<MetricLine> = (1..=60)
            .map(|step| line("pretrain", step, 100.0 + 5.0 * wave(step), 1.0 + 0.01 * wave(step)))
            .collect();
        lines[39] = line("pretrain", 40, 100.0, 3.0);
        lines[49] = line("pretrain", 50, 900.0, 1.0).with("skipped", 1.0);
        lines.extend((1..=15).map(|step| line("rank", step, 1e6 * step as f64, 1.0)));
        let found = outliers(&lines, 6.0);
        let told: Vec<(&str, u64, Vec<&str>)> = found
            .iter()
            .map(|outlier| {
                (
                    outlier.line.stage.as_str(),
                    outlier.line.step,
                    outlier.deviations.keys().map(String::as_str).collect(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [("pretrain", 40, vec!["RelAlign"])],
            "a skipped step and a history of fifteen count for nothing"
        );
        assert!(found[0].largest() > 50.0);
    }
}
