//! Verbs that make data: `synth`, `prepare`, `label`, `convert`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::shared::{Clock, print_all, write_json};
use crate::base::say;
use crate::corpus::formats::{ReadOptions, load_relations};
use crate::corpus::label::Matching;
use crate::corpus::synth::{WorldOptions, write_world};
use crate::corpus::{FactBase, Format, LabelOptions, MeshTree, RelationSet, label_file};
use crate::pipeline;
use crate::pipeline::{Form, Input, PrepareJob, relations_in, survey_files};
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
    /// Write the counts of each file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Synth {
    /// Writes the world.
    ///
    /// # Errors
    /// A noise outside 0..0.9; the disk.
    pub fn run(self) -> Result<()> {
        let options = WorldOptions {
            distant: self.distant,
            human: self.human,
            dev: self.dev,
            test: self.test,
            noise: self.noise,
            seed: self.seed,
        };
        let clock = Clock::start();
        let summary = write_world(&options, &self.output)?;
        say(format!("{summary}"));
        clock.write(
            self.json.as_deref(),
            &self.output,
            Some(self.distant + self.human + self.dev + self.test),
            &summary,
        )
    }
}

/// How documents are read, beyond their format.
#[derive(Debug, Args)]
struct Reading {
    /// PubTator: types of heads and tails that are asked about, such as
    /// Chemical:Disease,Gene:Disease (the default), or all
    #[arg(long, value_name = "TYPES")]
    pair_types: Option<String>,
    /// PubTator: MeSH tree numbers (2017MeshTree.txt), to take pairs out as CDR's hypernym filter
    /// does
    #[arg(long, value_name = "FILE")]
    mesh_tree: Option<PathBuf>,
}

impl Reading {
    fn options(&self, relations: Option<RelationSet>) -> Result<ReadOptions> {
        let pair_types = self.pair_types.as_deref().map(str::parse).transpose()?;
        let mesh = self.mesh_tree.as_deref().map(MeshTree::load).transpose()?.map(Arc::new);
        Ok(ReadOptions { relations, pair_types, mesh })
    }
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
    /// Tokenizer folder, vocab.txt, or a text file of word vectors (default: the folder `tokenizer`
    /// beside the first input)
    #[arg(long, value_name = "DIR-or-vocab")]
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
    #[command(flatten)]
    reading: Reading,
    /// Write nothing, and say what the files hold, what they share and what is odd about them
    #[arg(long, conflicts_with = "output")]
    check: bool,
    /// Write what is said as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Prepare {
    /// Writes the shards, or the survey.
    ///
    /// # Errors
    /// Bad documents, the disk.
    pub fn run(self) -> Result<()> {
        let Some(output) = &self.output else { return self.check() };
        let clock = Clock::start();
        let tokenizer =
            &self.tokenizer.clone().map_or_else(|| tokenizer_beside(&self.input), Ok)?;
        let (inputs, read) = (Input::all(&self.input, self.format), self.reading.options(None)?);
        let relations = match &self.relations {
            Some(path) => load_relations(path)?,
            None => relations_in(&inputs, &read)?,
        };
        let job = PrepareJob {
            inputs: &inputs,
            read: &read,
            output,
            tokenizer,
            lowercase: self.lowercase,
            relations: &relations,
            exclude: &std::collections::HashSet::new(),
            shard_rows: self.shard_rows,
        };
        let report = job.run()?;
        say(format!("{report}"));
        clock.write(
            self.json.as_deref(),
            output,
            Some(report.manifest.documents + report.dropped),
            &report,
        )
    }

    fn check(&self) -> Result<()> {
        let read =
            self.reading.options(self.relations.as_deref().map(load_relations).transpose()?)?;
        let report = survey_files(
            &Input::all(&self.input, self.format),
            &read,
            self.tokenizer.as_deref(),
            self.lowercase,
        )?;
        print_all(report.to_string().as_bytes())?;
        write_json(self.json.as_deref(), &report)
    }
}

/// The tokenizer that `synth` writes beside its documents.
fn tokenizer_beside(inputs: &[PathBuf]) -> Result<PathBuf> {
    let folder = inputs.first().map(|input| input.with_file_name("tokenizer")).unwrap_or_default();
    if folder.is_dir() {
        return Ok(folder);
    }
    Err(Error::recipe(format!("--tokenizer is missing, and {} does not exist", folder.display()))
        .with_hint(
            "name the tokenizer of the encoder: --tokenizer FOLDER, vocab.txt, or a file of \
            word vectors",
        ))
}

/// `label`.
#[derive(Debug, Args)]
pub struct Label {
    /// Facts: JSON list or TSV of (head name, tail name, relation), or JSONL of items with claims
    #[arg(long, value_name = "FILE")]
    facts: PathBuf,
    /// Documents with entities; labels that they have are compared with, and replaced
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Format of the input
    #[arg(long, value_enum, value_name = "F", default_value = "docred")]
    format: Format,
    /// Labelled documents, in DocRED form
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// How names are matched
    #[arg(long = "match", value_enum, value_name = "HOW", default_value = "exact")]
    matching: Matching,
    /// Write counts, coverage, ambiguity and agreement for machines
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    reading: Reading,
}

impl Label {
    /// Labels the documents.
    ///
    /// # Errors
    /// Bad documents or facts, the disk.
    pub fn run(self) -> Result<()> {
        let facts = FactBase::load_with(&self.facts, self.matching)?;
        let options = LabelOptions {
            format: self.format,
            read: self.reading.options(None)?,
            ..LabelOptions::default()
        };
        let report = label_file(&facts, &self.input, &self.output, &options)?;
        print_all(report.table().as_bytes())?;
        say(format!("{report}"));
        write_json(self.json.as_deref(), &report)
    }
}

/// `convert`.
#[derive(Debug, Args)]
pub struct Convert {
    /// Format of the input
    #[arg(long, value_enum, value_name = "F")]
    from: Form,
    /// Format of the output; pubtator and chemdisgene are only read
    #[arg(long, value_enum, value_name = "F")]
    to: Form,
    /// Documents
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The same documents
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Write the number of documents and what was lost as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    reading: Reading,
}

impl Convert {
    /// Converts, and says what the output has no place for.
    ///
    /// # Errors
    /// Bad documents, the disk.
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let read = self.reading.options(None)?;
        let report = pipeline::convert(self.from, &self.input, self.to, &self.output, &read)?;
        say(format!("convert: {report}"));
        clock.write(self.json.as_deref(), &self.output, Some(report.documents), &report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_beside_the_documents_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = [folder.path().join("a.json")];
        let error = tokenizer_beside(&inputs).unwrap_err();
        assert!(
            error.exit_code() == 64 && error.hint().unwrap().contains("--tokenizer"),
            "{error}"
        );
        fs_err::create_dir(folder.path().join("tokenizer")).unwrap();
        assert_eq!(tokenizer_beside(&inputs).unwrap(), folder.path().join("tokenizer"));
    }
}
