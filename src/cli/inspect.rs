//! Seeing and understanding: `systems`, `report`, `inspect`, `batch`, `why`, `autopsy`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::shared::{print_all, write_json};
use crate::recipe::Recipe;
use crate::report::{ReportData, write_report};
use crate::shards::{DocumentStore, Manifest, StoreOptions};
use crate::stages::{self, Description, WhyQuery};
use crate::train::{Checkpoint, Difference, TensorDifference, autopsy, compare};
use crate::{DataError, Error, Result};

/// `report RUN…`.
#[derive(Debug, Args)]
pub struct Report {
    /// Run folders; several are compared in one page
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page (default: report.html in the first run)
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Report {
    /// Writes the page again from what the runs left.
    ///
    /// # Errors
    /// A folder that is no finished run.
    pub fn run(self) -> Result<()> {
        let mut merged = ReportData::default();
        for (index, run) in self.runs.iter().enumerate() {
            let path = run.join("report.json");
            let hint = "name a run folder whose run has finished";
            let bytes = fs_err::read(&path).map_err(|error| DataError::new(run, format!("has no report: {error}")).hint(hint))?;
            let data: ReportData = serde_json::from_slice(&bytes).map_err(|error| DataError::new(&path, error.to_string()))?;
            if index == 0 {
                merged = data;
            } else {
                let name = |variant: &str| format!("{variant} ({})", run.display());
                merged.scores.extend(data.scores.into_iter().map(|row| crate::report::ScoreRow { variant: name(&row.variant), ..row }));
                merged.learning.extend(data.learning.into_iter().map(|line| crate::report::Series { name: name(&line.name), ..line }));
            }
        }
        let output = self.output.unwrap_or_else(|| self.runs[0].join("report.html"));
        write_report(&output, &merged)?;
        println!("{}", output.display());
        Ok(())
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
}

impl Systems {
    /// Prints the list or the description.
    ///
    /// # Errors
    /// An unknown system or encoder.
    pub fn run(self) -> Result<()> {
        let text = match &self.name {
            Some(name) => stages::describe_system(name, &self.encoder)?,
            None => stages::list_systems() + "\n",
        };
        print_all(text.as_bytes())
    }
}

/// `inspect PATH`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// A checkpoint, a folder of shards, or a run folder
    path: PathBuf,
    /// A second checkpoint: both are checked and compared
    other: Option<PathBuf>,
    /// Write the comparison of two checkpoints as JSON
    #[arg(long, value_name = "FILE", requires = "other")]
    json: Option<PathBuf>,
}

impl Inspect {
    /// Checks hashes and prints what is there.
    ///
    /// # Errors
    /// A damaged file, or a path that is nothing of ours.
    pub fn run(self) -> Result<()> {
        let path = &self.path;
        if let Some(other) = &self.other {
            return compare_checkpoints(path, other, self.json.as_deref());
        }
        if path.join("MANIFEST.json").exists() {
            inspect_checkpoint(path)
        } else if path.join("manifest.json").exists() {
            inspect_shards(path)
        } else if path.join("run.json").exists() {
            inspect_run(path)
        } else {
            let hint = "a checkpoint has MANIFEST.json, a folder of shards manifest.json, a run folder run.json";
            Err(DataError::new(path, "is no checkpoint, no folder of shards and no run folder").hint(hint).into())
        }
    }
}

/// Prints where two checkpoints differ.
fn compare_checkpoints(first: &Path, second: &Path, json: Option<&Path>) -> Result<()> {
    let found = compare(&Checkpoint::open(first)?, &Checkpoint::open(second)?)?;
    write_json(json, &found)?;
    let mut text = format!("{} tensors are equal to the bit, {} differ\n", found.equal_tensors, found.tensors.len());
    for TensorDifference { name, difference } in &found.tensors {
        let told = match difference {
            Difference::OnlyFirst => "only in the first".to_owned(),
            Difference::OnlySecond => "only in the second".to_owned(),
            Difference::Shape { first, second } => format!("shape {first:?} and {second:?}"),
            Difference::Numbers { count, of, largest } => format!("{count} of {of} numbers, by at most {largest:.3e}"),
        };
        text += &format!("  {name}: {told}\n");
    }
    for (name, first, second) in &found.trainer {
        text += &format!("  {name}: {first} and {second}\n");
    }
    for name in &found.files {
        text += &format!("  {name} differs\n");
    }
    print_all(text.as_bytes())
}

fn inspect_checkpoint(path: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(path)?;
    let (description, state): (Description, _) = (checkpoint.description()?, checkpoint.trainer()?);
    println!("checkpoint {} (all hashes match)", checkpoint.identity()?);
    let system = description.settings.system();
    println!("  {system} {:?}, stage {}, step {} of {}", description.part, state.stage, state.step, state.total_steps);
    println!("  encoder {}, {} relations", description.encoder.name, description.relations.len());
    if let Some((f1, step)) = state.best {
        println!("  best dev F1 {:.2} at step {step}", 100.0 * f1);
    }
    if let Some(ranker) = &description.ranker {
        println!("  ranker {}", ranker.display());
    }
    Ok(())
}

fn inspect_shards(path: &Path) -> Result<()> {
    let store = DocumentStore::open(path, StoreOptions::default())?;
    let manifest: &Manifest = store.manifest();
    println!(
        "{} documents, {} labelled, {} facts, {} relations (all hashes match)",
        manifest.documents,
        manifest.labelled,
        manifest.facts,
        manifest.relations.len()
    );
    println!("  tokenizer {} ({} pieces), {}", manifest.tokenizer.kind, manifest.tokenizer.vocab_size, &manifest.tokenizer.identity[..16]);
    println!(
        "  longest document {} pieces, most entities {}, most mentions {}",
        manifest.max_pieces, manifest.max_entities, manifest.max_mentions
    );
    match &manifest.scored {
        Some(scored) => println!("  scored by {}, kept {}", scored.checkpoint, scored.keep),
        None => println!("  not scored"),
    }
    for shard in &manifest.shards {
        println!("  {}: {} rows in {} row groups, {} bytes", shard.file, shard.rows, shard.row_groups, shard.bytes);
    }
    println!("  {} bytes in memory", store.memory_bytes());
    Ok(())
}

fn inspect_run(path: &Path) -> Result<()> {
    println!("{}", fs_err::read_to_string(path.join("run.json"))?.trim());
    for stage in fs_err::read_dir(path.join("checkpoints"))? {
        let stage = stage?.path();
        if let Some(checkpoint) = Checkpoint::latest(&stage)? {
            let state = checkpoint.trainer()?;
            let done = if state.finished { "finished" } else { "unfinished" };
            println!("{:<24} step {} of {}, {done}", state.stage, state.step, state.total_steps);
        }
    }
    Ok(())
}

/// `batch RUN --stage S --step N`.
#[derive(Debug, Args)]
pub struct Batch {
    /// The run folder
    run: PathBuf,
    /// rank, pretrain or finetune
    #[arg(long, default_value = "pretrain")]
    stage: String,
    /// The step, from 1
    #[arg(long)]
    step: u64,
}

impl Batch {
    /// Prints titles and instances.
    ///
    /// # Errors
    /// A folder that is no run; an unknown stage.
    pub fn run(self) -> Result<()> {
        let recipe = Recipe::load(&self.run.join("recipe.toml"), &[])?;
        if self.step == 0 {
            return Err(Error::recipe("--step counts from 1"));
        }
        println!("{}", stages::describe_batch(&recipe, &self.run, &self.stage, self.step)?);
        Ok(())
    }
}

/// `why RUN --title T`.
#[derive(Debug, Args)]
pub struct Why {
    /// The run folder
    run: PathBuf,
    /// Title of the document
    #[arg(long, value_name = "T")]
    title: String,
    /// Head entity: its number, or one of its names
    #[arg(long, value_name = "H")]
    head: Option<String>,
    /// Tail entity, likewise; with --head, the sentences that name one of the two are shown
    #[arg(long, value_name = "T")]
    tail: Option<String>,
    /// Identifier or name of a relation
    #[arg(long, value_name = "R")]
    relation: Option<String>,
    /// Write the explanation as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Why {
    /// Prints labels, ranks and predictions of the document's pairs.
    ///
    /// # Errors
    /// A folder that is no run; a title, an entity or a relation that it does not know.
    pub fn run(self) -> Result<()> {
        let Self { run, title, head, tail, relation, json } = self;
        let found = stages::why(&run, &WhyQuery { title, head, tail, relation })?;
        write_json(json.as_deref(), &found)?;
        print_all(format!("{found}\n").as_bytes())
    }
}

/// `autopsy RUN`.
#[derive(Debug, Args)]
pub struct Autopsy {
    /// The run folder
    run: PathBuf,
    /// How many of the last events to print
    #[arg(long, value_name = "N", default_value_t = 40)]
    events: usize,
}

impl Autopsy {
    /// Prints what the recorders tell.
    ///
    /// # Errors
    /// A folder without recorders.
    pub fn run(self) -> Result<()> {
        print_all(autopsy(&self.run, self.events)?.as_bytes())
    }
}
