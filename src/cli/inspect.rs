//! What is there: `systems`, `report`, `inspect`.
//!
//! Not for: questions about a run (`questions`).

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::shared::{Clock, print_all, write_json};
use crate::pipeline::Description;
use crate::questions;
use crate::report::{ReportData, ScoreRow, write_report};
use crate::shards::{DocumentStore, Manifest, StoreOptions};
use crate::systems::{SystemInfo, systems};
use crate::train::checkpoint::{CheckpointDifference, Difference, TensorDifference, compare};
use crate::train::{Checkpoint, TrainerState};
use crate::{DataError, Result};

/// `report RUN…`.
#[derive(Debug, Args)]
pub struct Report {
    /// Run folders; several are compared in one page
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page (default: report.html in the first run)
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the scores of all runs as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What a page compares.
#[derive(Debug, Serialize)]
struct Compared<'a> {
    runs: &'a [PathBuf],
    scores: &'a [ScoreRow],
}

impl Report {
    /// Writes the page again from what the runs left.
    ///
    /// # Errors
    /// A folder that is no finished run.
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let mut merged = ReportData::default();
        for (index, run) in self.runs.iter().enumerate() {
            let path = run.join("report.json");
            let hint = "name a run folder whose run has finished";
            let bytes = fs_err::read(&path).map_err(|error| {
                DataError::new(run, format!("has no report: {error}")).hint(hint)
            })?;
            let data: ReportData = serde_json::from_slice(&bytes)
                .map_err(|error| DataError::new(&path, error.to_string()))?;
            if index == 0 {
                merged = data;
            } else {
                let name = |variant: &str| format!("{variant} ({})", run.display());
                merged.scores.extend(
                    data.scores
                        .into_iter()
                        .map(|row| ScoreRow { variant: name(&row.variant), ..row }),
                );
                merged.learning.extend(
                    data.learning
                        .into_iter()
                        .map(|line| crate::report::Series { name: name(&line.name), ..line }),
                );
            }
        }
        let output = self.output.unwrap_or_else(|| self.runs[0].join("report.html"));
        write_report(&output, &merged)?;
        println!("{}", output.display());
        clock.write(
            self.json.as_deref(),
            &output,
            None,
            &Compared { runs: &self.runs, scores: &merged.scores },
        )
    }
}

/// `systems [NAME]`.
#[derive(Debug, Args)]
pub struct Systems {
    /// The system to describe; all are listed without it
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Encoder that the sizes are for: tiny, mini, base, bilstm, or a Hugging Face folder
    #[arg(long, value_name = "E", default_value = "base")]
    encoder: String,
    /// Write the list or the description as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Systems {
    /// Prints the list or the description.
    ///
    /// # Errors
    /// An unknown system or encoder.
    pub fn run(self) -> Result<()> {
        let json = self.json.as_deref();
        let Some(name) = &self.name else {
            let systems: Vec<SystemInfo> = systems().iter().map(|system| system.info()).collect();
            write_json(json, &systems)?;
            return print_all((questions::list_systems() + "\n").as_bytes());
        };
        let description = questions::describe_system(name, &self.encoder)?;
        write_json(json, &description)?;
        print_all(description.to_string().as_bytes())
    }
}

/// `inspect PATH`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// A checkpoint, a folder of shards, or a run folder
    path: PathBuf,
    /// A second checkpoint, or a second run: both are compared
    other: Option<PathBuf>,
    /// Write what is found as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Inspect {
    /// Checks hashes and prints what is there.
    ///
    /// # Errors
    /// A damaged file, or a path that is nothing of ours.
    pub fn run(self) -> Result<()> {
        let (path, json) = (&self.path, self.json.as_deref());
        if let Some(other) = &self.other {
            if [path, other].iter().all(|run| run.join("recipe.toml").exists()) {
                return show(&questions::parting(path, other)?, json);
            }
            let found = compare(&Checkpoint::open(path)?, &Checkpoint::open(other)?)?;
            write_json(json, &found)?;
            print_all(differences(&found).as_bytes())
        } else if path.join("MANIFEST.json").exists() {
            show(&CheckpointFindings::of(&Checkpoint::open(path)?)?, json)
        } else if path.join("manifest.json").exists() {
            show(&ShardFindings::of(path)?, json)
        } else if path.join("run.json").exists() {
            show(&RunFindings::of(path)?, json)
        } else {
            let hint = "a checkpoint has MANIFEST.json, a folder of shards manifest.json, a run \
                folder run.json";
            Err(DataError::new(path, "is no checkpoint, no folder of shards and no run folder")
                .hint(hint)
                .into())
        }
    }
}

pub(super) fn show(found: &(impl Serialize + fmt::Display), json: Option<&Path>) -> Result<()> {
    write_json(json, found)?;
    print_all(format!("{found}\n").as_bytes())
}

/// Where two checkpoints differ.
fn differences(found: &CheckpointDifference) -> String {
    let mut text = format!(
        "{} tensors are equal to the bit, {} differ\n",
        found.equal_tensors,
        found.tensors.len()
    );
    for TensorDifference { name, difference } in &found.tensors {
        let told = match difference {
            Difference::OnlyFirst => "only in the first".to_owned(),
            Difference::OnlySecond => "only in the second".to_owned(),
            Difference::Shape { first, second } => format!("shape {first:?} and {second:?}"),
            Difference::Numbers { count, of, largest } => {
                format!("{count} of {of} numbers, by at most {largest:.3e}")
            }
        };
        text += &format!("  {name}: {told}\n");
    }
    for (name, first, second) in &found.trainer {
        text += &format!("  {name}: {first} and {second}\n");
    }
    for name in &found.files {
        text += &format!("  {name} differs\n");
    }
    text
}

/// A checkpoint whose hashes all match.
#[derive(Debug, Serialize)]
pub(super) struct CheckpointFindings {
    identity: String,
    #[serde(flatten)]
    description: Description,
    state: TrainerState,
}

impl CheckpointFindings {
    pub(super) fn of(checkpoint: &Checkpoint) -> Result<Self> {
        Ok(Self {
            identity: checkpoint.identity()?,
            description: checkpoint.description()?,
            state: checkpoint.trainer()?,
        })
    }
}

impl fmt::Display for CheckpointFindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, description, state } = self;
        writeln!(f, "checkpoint {identity} (all hashes match)")?;
        let system = description.settings.system();
        writeln!(
            f,
            "  {system} {:?}, stage {}, step {} of {}",
            description.part, state.stage, state.step, state.total_steps
        )?;
        write!(
            f,
            "  encoder {}, {} relations",
            description.encoder.name,
            description.relations.len()
        )?;
        if let Some((f1, step)) = state.best {
            write!(f, "\n  best dev F1 {:.2} at step {step}", 100.0 * f1)?;
        }
        match &description.ranker {
            Some(ranker) => write!(f, "\n  ranker {}", ranker.display()),
            None => Ok(()),
        }
    }
}

/// A folder of shards whose hashes all match.
#[derive(Debug, Serialize)]
struct ShardFindings {
    memory_bytes: usize,
    #[serde(flatten)]
    manifest: Manifest,
}

impl ShardFindings {
    fn of(path: &Path) -> Result<Self> {
        let store = DocumentStore::open(path, StoreOptions::default())?;
        store.tokenizer()?;
        if store.manifest().fact_index.is_some() {
            store.fact_index()?;
        }
        Ok(Self { memory_bytes: store.memory_bytes(), manifest: store.manifest().clone() })
    }
}

impl fmt::Display for ShardFindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Manifest { documents, labelled, facts, relations, tokenizer, scored, shards, .. } =
            &self.manifest;
        let Manifest { max_pieces, max_entities, max_mentions, .. } = &self.manifest;
        let relations = relations.len();
        writeln!(
            f,
            "{documents} documents, {labelled} labelled, {facts} facts, {relations} relations (all \
             hashes match)"
        )?;
        writeln!(
            f,
            "  tokenizer {} ({} pieces), {}",
            tokenizer.kind,
            tokenizer.vocab_size,
            &tokenizer.identity[..16]
        )?;
        writeln!(
            f,
            "  longest document {max_pieces} pieces, most entities {max_entities}, most mentions \
             {max_mentions}"
        )?;
        match scored {
            Some(scored) => writeln!(f, "  scored by {}, kept {}", scored.checkpoint, scored.keep)?,
            None => writeln!(f, "  not scored")?,
        }
        for shard in shards {
            writeln!(
                f,
                "  {}: {} rows in {} row groups, {} bytes",
                shard.file, shard.rows, shard.row_groups, shard.bytes
            )?;
        }
        write!(f, "  {} bytes in memory", self.memory_bytes)
    }
}

/// A run folder.
#[derive(Debug, Serialize)]
struct RunFindings {
    run: serde_json::Value,
    /// The last checkpoint of each stage.
    stages: Vec<TrainerState>,
}

impl RunFindings {
    fn of(path: &Path) -> Result<Self> {
        let identity = path.join("run.json");
        let run = serde_json::from_slice(&fs_err::read(&identity)?)
            .map_err(|error| DataError::new(&identity, error.to_string()))?;
        let mut stages = Vec::new();
        for stage in fs_err::read_dir(path.join("checkpoints")).into_iter().flatten() {
            if let Some(checkpoint) = Checkpoint::latest(&stage?.path())? {
                stages.push(checkpoint.trainer()?);
            }
        }
        stages.sort_by(|a, b| a.stage.cmp(&b.stage));
        Ok(Self { run, stages })
    }
}

impl fmt::Display for RunFindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.run)?;
        self.stages.iter().try_for_each(|state| {
            let done = if state.finished { "finished" } else { "unfinished" };
            write!(f, "\n{:<24} step {} of {}, {done}", state.stage, state.step, state.total_steps)
        })
    }
}
