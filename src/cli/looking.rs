//! Looking into a run: `watch`, `report`, `inspect`, `check`, `why`, `batch`, `blame`, `ledger`,
//! `explain`, `autopsy`.

use std::fmt;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::shared::{Clock, MachineFlags, Overrides, print_all, show, write_json};
use crate::base::{read_json, run_files};
use crate::distant::LabelRule;
use crate::graph::{EdgeQuery, is_graph, why_edges};
use crate::pipeline::{self, Description};
use crate::questions::{self, RunLook, WatchedRun, WhyQuery};
use crate::ranks::failure::autopsy;
use crate::recipe::Recipe;
use crate::report::{ReportData, Series, VariantScores, write_report};
use crate::shards::{DocumentStore, FileEntry, ShardManifest, StoreOptions};
use crate::train::checkpoint::{CheckpointDifference, Difference, TensorDifference, compare};
use crate::train::{Checkpoint, PrecisionChoice, SPIKE, TrainerState};
use crate::{DataError, Error, Result};

/// Show how far a run is and what each rank is doing
///
/// On a terminal this is a page that q ends; otherwise one line at each look. It ends with the run.
#[derive(Debug, Args)]
pub struct WatchVerb {
    /// Run folder
    run: PathBuf,
    /// Print the state once and exit
    #[arg(long)]
    once: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    every: u64,
    /// Show the run as a page in a browser instead, until this program is ended; port 0 takes a
    /// free port and prints it
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with_all = ["once", "json"])]
    serve: Option<String>,
    /// Write the state as JSON, at each look
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl WatchVerb {
    pub fn run(self) -> Result<()> {
        let mut run = WatchedRun::open(&self.run)?;
        let every = self.every.max(1);
        if let Some(address) = &self.serve {
            let told = |url: &str| print_all(format!("{url}\n").as_bytes());
            return questions::serve(run, address, every, told);
        }
        let every = Duration::from_secs(every);
        let json = self.json.as_deref();
        if std::io::stdout().is_terminal() && !self.once {
            let seen = |look: &RunLook| write_json(json, &look.state);
            let last = questions::watch_terminal(&mut run, every, seen)?;
            return print_all(last.state.to_string().as_bytes());
        }
        loop {
            let state = run.look()?.state;
            write_json(json, &state)?;
            if self.once || !state.at_work() {
                return print_all(state.to_string().as_bytes());
            }
            print_all(format!("{}\n", state.in_one_line()).as_bytes())?;
            std::thread::sleep(every);
        }
    }
}

/// Write report.html for one run, or compare several runs in it
#[derive(Debug, Args)]
pub struct ReportVerb {
    /// Run folders; several are compared on one page
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Page to write [default: report.html in the first run]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the scores of all runs as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl ReportVerb {
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let read = |run: &PathBuf| -> Result<ReportData> {
            let path = run.join("report.json");
            if path.exists() {
                return read_json(&path);
            }
            let error = DataError::new(run, "has no report.json");
            Err(error.hint("name the folder of a run that has finished").into())
        };
        let mut merged = read(&self.runs[0])?;
        for run in &self.runs[1..] {
            let ReportData { scores, learning, .. } = read(run)?;
            let name = |variant: &str| format!("{variant} ({})", run.display());
            let row = |row: VariantScores| VariantScores { variant: name(&row.variant), ..row };
            let line = |line: Series| Series { name: name(&line.name), ..line };
            merged.scores.extend(scores.into_iter().map(row));
            merged.learning.extend(learning.into_iter().map(line));
        }
        let output = self.output.unwrap_or_else(|| self.runs[0].join(run_files::REPORT));
        write_report(&output, &merged)?;
        println!("{}", output.display());
        let compared = json!({ "runs": self.runs, "scores": merged.scores });
        clock.write(self.json.as_deref(), &output, None, &compared)
    }
}

/// Describe and check a checkpoint, shards or a run; compare two checkpoints or two runs
#[derive(Debug, Args)]
pub struct InspectVerb {
    /// Checkpoint (also ORG/NAME of the Hugging Face Hub), folder of shards, or run folder
    path: PathBuf,
    /// Second checkpoint or run, to compare with the first
    other: Option<PathBuf>,
    /// Print how much a checkpoint's last layer makes of each part that it reads (DocRE-II: of
    /// features and of relations)
    #[arg(long, conflicts_with = "other")]
    weights: bool,
    /// Write the findings as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl InspectVerb {
    pub fn run(self) -> Result<()> {
        let (path, json) = (&self.path, self.json.as_deref());
        if self.weights {
            show(&questions::PartWeights::of(&Checkpoint::open(path)?)?, json)
        } else if let Some(other) = &self.other {
            if [path, other].iter().all(|run| run.join(run_files::RECIPE).exists()) {
                return show(&questions::parting(path, other)?, json);
            }
            let found = compare(&Checkpoint::open(path)?, &Checkpoint::open(other)?)?;
            write_json(json, &found)?;
            print_all(differences(&found).as_bytes())
        } else if path.join("MANIFEST.json").exists() || Checkpoint::is_repository(path) {
            show(&CheckpointFindings::of(&Checkpoint::open(path)?)?, json)
        } else if ShardManifest::is_at(path) {
            show(&ShardFindings::of(path)?, json)
        } else if path.join(run_files::IDENTITY).exists() {
            show(&RunFindings::of(path)?, json)
        } else {
            let error = "is neither a checkpoint nor a folder of shards nor a run folder";
            let hint = "a checkpoint has MANIFEST.json, a folder of shards manifest.json, a run \
                folder run.json";
            Err(DataError::new(path, error).hint(hint).into())
        }
    }
}

/// Where two checkpoints differ.
fn differences(found: &CheckpointDifference) -> String {
    let (equal, differ) = (found.equal_tensors, found.tensors.len());
    let mut text = format!("{equal} tensors are equal to the bit, {differ} differ\n");
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
pub struct CheckpointFindings {
    identity: String,
    #[serde(flatten)]
    description: Description,
    state: TrainerState,
}

impl CheckpointFindings {
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
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
        let (system, kind) = (description.settings.system(), description.kind);
        let (encoder, relations) = (&description.encoder.name, description.relations.len());
        let TrainerState { stage, step, total_steps, .. } = state;
        writeln!(f, "  {system} {kind:?}, stage {stage}, step {step} of {total_steps}")?;
        write!(f, "  encoder {encoder}, {relations} relations")?;
        if let Some((f1, step)) = state.best {
            write!(f, "\n  best dev F1 {:.2} at step {step}", 100.0 * f1)?;
        }
        if state.calibration.is_some() {
            write!(f, "\n  probabilities are calibrated on dev")?;
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
    manifest: ShardManifest,
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
        let ShardManifest {
            documents, labelled, facts, relations, tokenizer, scored, shards, ..
        } = &self.manifest;
        let ShardManifest { max_pieces, max_entities, max_mentions, .. } = &self.manifest;
        let relations = relations.len();
        writeln!(
            f,
            "{documents} documents, {labelled} labelled, {facts} facts, {relations} relations (all \
             hashes match)"
        )?;
        let (kind, pieces, identity) =
            (&tokenizer.kind, tokenizer.vocab_size, &tokenizer.identity[..16]);
        writeln!(f, "  tokenizer {kind} ({pieces} pieces), {identity}")?;
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
            let FileEntry { file, rows, row_groups, bytes, .. } = shard;
            writeln!(f, "  {file}: {rows} rows in {row_groups} row groups, {bytes} bytes")?;
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
        let run = read_json(&path.join(run_files::IDENTITY))?;
        let mut stages = Vec::new();
        for stage in fs_err::read_dir(path.join(run_files::CHECKPOINTS)).into_iter().flatten() {
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

/// Check that an export does what it did when it was exported, by its self-test
///
/// Hashes, labels, configuration, numbers and facts are compared. The checkpoint of a run has no
/// self-test; of it, the hashes are checked.
#[derive(Debug, Args)]
pub struct CheckVerb {
    /// Export, or repository of the Hugging Face Hub (ORG/NAME)
    model: PathBuf,
    #[command(flatten)]
    machine: MachineFlags,
    /// Write what was compared as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl CheckVerb {
    pub fn run(self) -> Result<()> {
        self.machine.session()?.run(|session| {
            let precision = session.precision(PrecisionChoice::Auto);
            let report = pipeline::check_model(&self.model, session.device, precision)?;
            session.world.on_root(|| show(&report, self.json.as_deref()))?;
            report.outcome()
        })
    }
}

/// Explain what a run says about a document: labels, truth, ranks and predictions
#[derive(Debug, Args)]
pub struct WhyVerb {
    /// Run folders; the predictions of several stand side by side. Or a folder that `graph` has
    /// made: what an edge rests on
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    #[command(flatten)]
    query: WhyQuery,
    /// Write the explanation as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl WhyVerb {
    pub fn run(self) -> Result<()> {
        if let [folder] = self.runs.as_slice()
            && is_graph(folder)
        {
            let WhyQuery { title, head, tail, relation } = self.query;
            if title.is_some() {
                return Err(Error::recipe("--title asks about a document, and this is a graph")
                    .with_hint("ask with --head, --tail and --relation"));
            }
            let query = EdgeQuery { head, tail, relation };
            return show(&why_edges(folder, &query)?, self.json.as_deref());
        }
        show(&questions::why(&self.runs, &self.query)?, self.json.as_deref())
    }
}

/// Print the documents of any past or future step
#[derive(Debug, Args)]
pub struct BatchVerb {
    /// Run folder
    run: PathBuf,
    /// Stage: rank, pretrain or finetune
    #[arg(long, default_value = "pretrain")]
    stage: String,
    /// Step, counted from 1
    #[arg(long)]
    step: u64,
    /// Shards of the stage, if they are not in the run folder (after `rank`, `pretrain`,
    /// `finetune`)
    #[arg(long, value_name = "SHARDS")]
    shards: Option<PathBuf>,
    /// Write the documents as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl BatchVerb {
    pub fn run(self) -> Result<()> {
        let recipe = Recipe::load(&self.run.join(run_files::RECIPE), &[])?;
        if self.step == 0 {
            return Err(Error::recipe("--step 0, but steps are counted from 1"));
        }
        let steps = questions::describe_batches(
            &recipe,
            &self.run,
            self.shards.as_deref(),
            &self.stage,
            &[self.step],
        )?;
        steps.iter().try_for_each(|contents| show(contents, self.json.as_deref()))
    }
}

/// Find the steps whose loss stands out, and the documents they read
#[derive(Debug, Args)]
pub struct BlameVerb {
    /// Run folder
    run: PathBuf,
    /// Standard deviations above the preceding losses from which a step stands out
    #[arg(long, value_name = "Z", default_value_t = SPIKE)]
    above: f64,
    /// Number of steps to describe at most
    #[arg(long, value_name = "N", default_value_t = 10)]
    most: usize,
    /// Shards of the stage, if they are not in the run folder (after `rank`, `pretrain`,
    /// `finetune`)
    #[arg(long, value_name = "SHARDS")]
    shards: Option<PathBuf>,
    /// Write the findings as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl BlameVerb {
    pub fn run(self) -> Result<()> {
        show(
            &questions::blame(&self.run, self.shards.as_deref(), self.above, self.most)?,
            self.json.as_deref(),
        )
    }
}

/// Write a table of all distant labels: rank, score, and whether pre-training keeps them
#[derive(Debug, Args)]
pub struct LedgerVerb {
    /// Run folder, or a folder of shards that `score` or `teach` wrote
    path: PathBuf,
    /// Parquet file to write [default: labels.parquet in the run folder]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Number of best pairs of each document that count as kept, 0 for all [default:
    /// dsdocre.k_pretrain of the run]
    #[arg(long, value_name = "K")]
    keep: Option<usize>,
    /// What becomes of labels that a teacher has judged [default: distant.rule of the run, or soft]
    #[arg(long, value_enum, value_name = "RULE")]
    rule: Option<LabelRule>,
    /// Write the counts of each relation as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl LedgerVerb {
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let (output, ledger) =
            questions::ledger(&self.path, self.output.as_deref(), self.keep, self.rule)?;
        print_all(format!("{ledger}\n").as_bytes())?;
        clock.write(self.json.as_deref(), &output, None, &ledger)
    }
}

/// Explain a key of a recipe: meaning, values in the profiles and in a recipe
#[derive(Debug, Args)]
pub struct ExplainVerb {
    /// A key such as pretrain.batch, a table, the name of a key in any table, or a word [default:
    /// all keys]
    key: Option<String>,
    /// Also show the value of the key in this recipe
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
    /// Write the explanations as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl ExplainVerb {
    pub fn run(self) -> Result<()> {
        let asked = self.recipe.is_some() || !self.overrides.of_verb::<Self>()?.is_empty();
        let recipe =
            asked.then(|| self.overrides.load::<Self>(self.recipe.as_deref(), &[])).transpose()?;
        let keys = questions::explain(self.key.as_deref(), recipe.as_ref())?;
        let text: String = keys.iter().map(|key| format!("{key}\n")).collect();
        write_json(self.json.as_deref(), &json!({ "keys": keys }))?;
        print_all(format!("values: fixed | paper | code (one where all agree)\n{text}").as_bytes())
    }
}

/// Explain how a run ended: the verdict and the last events of all ranks
#[derive(Debug, Args)]
pub struct AutopsyVerb {
    /// Run folder
    run: PathBuf,
    /// Number of last events to print
    #[arg(long, value_name = "N", default_value_t = 40)]
    events: usize,
    /// Write the findings as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl AutopsyVerb {
    pub fn run(self) -> Result<()> {
        show(&autopsy(&self.run, self.events)?, self.json.as_deref())
    }
}
