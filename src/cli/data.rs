//! Verbs that make data: `synth`, `prepare`, `label`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::shared::{print_all, write_json};
use crate::corpus::world::{WorldOptions, write_world};
use crate::corpus::{FactBase, LabelOptions, label_file, load_relations};
use crate::stages::{PrepareJob, relations_in, survey_files};
use crate::train::say;
use crate::{Error, Result};

/// `synth`.
#[derive(Debug, Args)]
pub struct Synth {
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Distantly supervised documents
    #[arg(long, value_name = "N", default_value_t = 2000)]
    distant: usize,
    /// Human-annotated training documents
    #[arg(long, value_name = "N", default_value_t = 200)]
    human: usize,
    /// Development documents
    #[arg(long, value_name = "N", default_value_t = 100)]
    dev: usize,
    /// Test documents
    #[arg(long, value_name = "N", default_value_t = 200)]
    test: usize,
    /// Share of false labels among the distant ones
    #[arg(long, value_name = "P", default_value_t = 0.4)]
    noise: f64,
    /// Seed of the world
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

impl Synth {
    /// Writes the world.
    ///
    /// # Errors
    /// A noise outside 0..0.9; the disk.
    pub fn run(self) -> Result<()> {
        let options =
            WorldOptions { distant: self.distant, human: self.human, dev: self.dev, test: self.test, noise: self.noise, seed: self.seed };
        say(format!("{}", write_world(&options, &self.output)?));
        Ok(())
    }
}

/// Formats of `prepare`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// DocRED, Re-DocRED, DWIE and other files of that form
    Docred,
    /// EoG's CDR files (not built yet)
    Cdr,
    /// EoG's GDA files (not built yet)
    Gda,
    /// BioRED in EoG's form (not built yet)
    Biored,
    /// PubTator (not built yet)
    Pubtator,
    /// ChemDisGene (not built yet)
    Chemdisgene,
    /// One document a line (not built yet)
    Jsonl,
}

/// `prepare`.
#[derive(Debug, Args)]
pub struct Prepare {
    /// Format of the input
    #[arg(long, value_enum, value_name = "F")]
    format: Format,
    /// Files to read, in order
    #[arg(long, num_args = 1.., required = true, value_name = "FILE")]
    input: Vec<PathBuf>,
    /// Folder of shards to write
    #[arg(long, value_name = "DIR", required_unless_present = "check")]
    output: Option<PathBuf>,
    /// Tokenizer folder, vocab.txt, or a text file of word vectors
    #[arg(long, value_name = "DIR-or-vocab", required_unless_present = "check")]
    tokenizer: Option<PathBuf>,
    /// rel_info.json or rel2id.json (default: the relations of the labels, sorted)
    #[arg(long, value_name = "FILE")]
    relations: Option<PathBuf>,
    /// Documents a shard
    #[arg(long, value_name = "N")]
    shard_rows: Option<usize>,
    /// Lower-case words where the tokenizer does not say
    #[arg(long)]
    lowercase: bool,
    /// Write nothing, and say what the files hold, what they share and what is odd about them
    #[arg(long, conflicts_with = "output")]
    check: bool,
    /// With --check: write what is said as JSON too
    #[arg(long, value_name = "FILE", requires = "check")]
    json: Option<PathBuf>,
}

impl Prepare {
    /// Writes the shards, or the survey.
    ///
    /// # Errors
    /// Bad documents, the disk.
    pub fn run(self) -> Result<()> {
        if !matches!(self.format, Format::Docred) {
            return Err(Error::recipe(format!("--format {:?} is not built yet", self.format).to_lowercase())
                .with_hint("convert the files to DocRED's form"));
        }
        let (Some(output), Some(tokenizer)) = (&self.output, &self.tokenizer) else { return self.check() };
        let relations = match &self.relations {
            Some(path) => load_relations(path)?,
            None => relations_in(&self.input)?,
        };
        let job = PrepareJob {
            inputs: &self.input,
            output,
            tokenizer,
            lowercase: self.lowercase,
            relations: &relations,
            exclude: &std::collections::HashSet::new(),
            shard_rows: self.shard_rows,
        };
        say(format!("{}", job.run()?));
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let relations = self.relations.as_deref().map(load_relations).transpose()?;
        let report = survey_files(&self.input, relations, self.tokenizer.as_deref(), self.lowercase)?;
        print_all(report.to_string().as_bytes())?;
        write_json(self.json.as_deref(), &report)
    }
}

/// `label`.
#[derive(Debug, Args)]
pub struct Label {
    /// Facts: JSON list or TSV of (head name, tail name, relation)
    #[arg(long, value_name = "FILE")]
    facts: PathBuf,
    /// Documents with entities, in DocRED form
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Labelled documents
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

impl Label {
    /// Labels the documents.
    ///
    /// # Errors
    /// Bad documents or facts, the disk.
    pub fn run(self) -> Result<()> {
        let facts = FactBase::load(&self.facts)?;
        say(format!("{}", label_file(&facts, &self.input, &self.output, &LabelOptions::default())?));
        Ok(())
    }
}
