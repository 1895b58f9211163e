//! Data: `synth`, `prepare`, `survey`, `label`, `convert`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::shared::{Clock, print_all, write_json};
use crate::base::say;
use crate::corpus::formats::{OnError, ReadOptions, load_relations};
use crate::corpus::label::{Matching, ReviewedPairs, label_reviewed};
use crate::corpus::synth::{WorldOptions, write_world};
use crate::corpus::{FactBase, Format, LabelOptions, MeshTree, RelationSet, label_file};
use crate::pipeline;
use crate::pipeline::{
    DocumentForm, InputFile, PrepareJob, WHOLE_FILE, relations_in, survey_files,
};
use crate::{DataError, Error, Result};

/// Generate a small world: documents, relations, a tokenizer, and the truth of its labels
#[derive(Debug, Args)]
pub struct SynthVerb {
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    world: WorldOptions,
    /// Write the counts of each file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl SynthVerb {
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let WorldOptions { distant, human, dev, test, .. } = self.world;
        let summary = write_world(&self.world, &self.output)?;
        say(format!("{summary}"));
        let documents = distant + human + dev + test;
        clock.write(self.json.as_deref(), &self.output, Some(documents), &summary)
    }
}

/// Input files and how they are read.
#[derive(Debug, Args)]
struct InputFlags {
    /// Format of the input
    #[arg(long, value_enum, value_name = "F")]
    format: Format,
    /// Files to read, in order
    #[arg(long, num_args = 1.., required = true, value_name = "FILE")]
    input: Vec<PathBuf>,
    /// Relations: rel_info.json or rel2id.json [default: the relations of the labels, sorted]
    #[arg(long, value_name = "FILE")]
    relations: Option<PathBuf>,
    /// Tokenizer folder, vocab.txt, a text file of word vectors, or a repository of the Hugging
    /// Face Hub (ORG/NAME) [default: the folder `tokenizer` beside the first input; `survey` counts
    /// words without it]
    #[arg(long, value_name = "DIR-or-vocab")]
    tokenizer: Option<PathBuf>,
    /// Lower-case words (`true`, or no value) or keep their case (`false`) [default: as the
    /// tokenizer's files say]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    lowercase: Option<bool>,
    #[command(flatten)]
    reading: ReadingFlags,
}

/// How documents are read, beyond their format.
#[derive(Debug, Args)]
struct ReadingFlags {
    /// PubTator: types of head and tail of candidate pairs, or all
    /// [default: Chemical:Disease,Gene:Disease]
    #[arg(long, value_name = "TYPES")]
    pair_types: Option<String>,
    /// PubTator: MeSH tree numbers (2017MeshTree.txt), to leave out pairs as CDR's hypernym filter
    /// does
    #[arg(long, value_name = "FILE")]
    mesh_tree: Option<PathBuf>,
    /// What to do with a document that cannot be read: stop, with an error that lists all of them,
    /// or skip it, and list it in NAME.left-out.jsonl beside the output
    #[arg(long, value_enum, value_name = "WHAT", default_value = "stop")]
    on_error: OnError,
}

impl ReadingFlags {
    fn options(&self, relations: Option<RelationSet>) -> Result<ReadOptions> {
        let pair_types = self.pair_types.as_deref().map(str::parse).transpose()?;
        let mesh = self.mesh_tree.as_deref().map(MeshTree::load).transpose()?.map(Arc::new);
        let on_error = self.on_error;
        Ok(ReadOptions { relations, pair_types, mesh, on_error, ..ReadOptions::default() })
    }
}

/// Turn documents of any supported format into Parquet shards
#[derive(Debug, Args)]
pub struct PrepareVerb {
    #[command(flatten)]
    files: InputFlags,
    /// Folder of shards to write
    #[arg(long, value_name = "DIR", required_unless_present = "check")]
    output: Option<PathBuf>,
    /// Survey the files instead
    #[arg(long, hide = true)]
    check: bool,
    /// Title of a document to leave out, which may be faulty; may be repeated
    #[arg(long, value_name = "TITLE")]
    exclude_title: Vec<String>,
    /// Documents in each shard
    #[arg(long, value_name = "N")]
    shard_rows: Option<usize>,
    /// Write the manifest and what was dropped as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl PrepareVerb {
    pub fn run(self) -> Result<()> {
        let Some(output) = self.output.filter(|_| !self.check) else {
            return SurveyVerb { files: self.files, json: self.json }.run();
        };
        let clock = Clock::start();
        let files = self.files;
        let tokenizer = files.tokenizer.map_or_else(|| tokenizer_beside(&files.input), Ok)?;
        let exclude: HashSet<String> = self.exclude_title.into_iter().collect();
        let inputs = InputFile::all(&files.input, files.format);
        let read = ReadOptions {
            excluded: Some(Arc::new(exclude.clone())),
            ..files.reading.options(None)?
        };
        let relations = match &files.relations {
            Some(path) => load_relations(path)?,
            None => relations_in(&inputs, &read)?,
        };
        let job = PrepareJob {
            lowercase: files.lowercase,
            shard_rows: self.shard_rows,
            exclude: Some(&exclude),
            ..PrepareJob::new(&inputs, &read, &output, &tokenizer, &relations)
        };
        let report = job.run()?;
        say(format!("{report}"));
        let documents = report.manifest.documents + report.dropped;
        clock.write(self.json.as_deref(), &output, Some(documents), &report)
    }
}

/// Say what files of documents hold, what they share and what is odd about them
#[derive(Debug, Args)]
pub struct SurveyVerb {
    #[command(flatten)]
    files: InputFlags,
    /// Write the survey as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl SurveyVerb {
    pub fn run(self) -> Result<()> {
        let files = &self.files;
        let relations = files.relations.as_deref().map(load_relations).transpose()?;
        let (inputs, read) =
            (InputFile::all(&files.input, files.format), files.reading.options(relations)?);
        let report = survey_files(&inputs, &read, files.tokenizer.as_deref(), files.lowercase)?;
        print_all(report.to_string().as_bytes())?;
        write_json(self.json.as_deref(), &report)?;
        let stops = files.reading.on_error == OnError::Stop;
        let faults = report.0.into_iter().flat_map(|file| file.left_out);
        let faults = faults.filter(|fault| stops || fault.what == WHOLE_FILE);
        let listing = DataError::listing(faults.map(|fault| fault.error).collect());
        listing.map_or(Ok(()), |error| Err(error.into()))
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
            "name the tokenizer of the encoder with --tokenizer: a folder, vocab.txt, or a file of \
             word vectors",
        ))
}

/// Label documents with facts of a knowledge base, or with answers about single pairs
#[derive(Debug, Args)]
pub struct LabelVerb {
    /// Facts: JSON list or TSV of (head name, tail name, relation), or JSONL of items with claims
    #[arg(long, value_name = "FILE", required_unless_present = "reviewed")]
    facts: Option<PathBuf>,
    /// Pairs that `predict --review` wrote, with answers: `relations` lists those that hold; null
    /// leaves the labels of a pair as they are
    #[arg(long, value_name = "FILE", conflicts_with_all = ["facts", "matching"])]
    reviewed: Option<PathBuf>,
    /// With --facts, the relations that labels may have; facts of others are left out. With
    /// --reviewed, those that answers may name, beside the candidates of the file and the labels of
    /// the input
    #[arg(long, value_name = "FILE")]
    relations: Option<PathBuf>,
    /// Documents with entities. With --facts, labels that they already have are compared, then
    /// replaced
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Format of the input
    #[arg(long, value_enum, value_name = "F", default_value = "docred")]
    format: Format,
    /// Labelled documents to write, in DocRED's format
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// How names of facts and of entities are matched
    #[arg(long = "match", value_enum, value_name = "HOW", default_value = "exact")]
    matching: Matching,
    /// Write the counts as JSON: with --facts also coverage, ambiguity and agreement
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    reading: ReadingFlags,
}

impl LabelVerb {
    pub fn run(self) -> Result<()> {
        let options = LabelOptions {
            format: self.format,
            read: self.reading.options(None)?,
            ..LabelOptions::default()
        };
        let relations = self.relations.as_deref().map(load_relations).transpose()?;
        if let Some(path) = &self.reviewed {
            let reviewed = ReviewedPairs::load(path, relations.as_ref())?;
            let report = label_reviewed(&reviewed, &self.input, &self.output, &options)?;
            say(format!("label: {report}"));
            return write_json(self.json.as_deref(), &report);
        }
        let facts = self.facts.as_deref().unwrap_or(Path::new(""));
        let mut facts = FactBase::load_with(facts, self.matching)?;
        if let (Some(relations), Some(file)) = (&relations, &self.relations) {
            facts.keep_relations(relations, file)?;
        }
        let report = label_file(&facts, &self.input, &self.output, &options)?;
        print_all(report.table().as_bytes())?;
        say(format!("{report}"));
        write_json(self.json.as_deref(), &report)
    }
}

/// Convert documents from one format to another
#[derive(Debug, Args)]
pub struct ConvertVerb {
    /// Format of the input
    #[arg(long, value_enum, value_name = "F", alias = "from")]
    format: DocumentForm,
    /// Format of the output; pubtator, chemdisgene and brat cannot be written
    #[arg(long, value_enum, value_name = "F")]
    to: DocumentForm,
    /// File to read
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// File to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Write the number of documents and what was lost as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    reading: ReadingFlags,
}

impl ConvertVerb {
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let read = self.reading.options(None)?;
        let report = pipeline::convert(self.format, &self.input, self.to, &self.output, &read)?;
        say(format!("convert: {report}"));
        clock.write(self.json.as_deref(), &self.output, Some(report.documents), &report)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Prepare {
        #[command(flatten)]
        verb: PrepareVerb,
    }

    #[test]
    fn lowercase_says_true_or_false_or_nothing() {
        let lowercase = |flags: &[&str]| {
            let all = ["x", "--format", "docred", "--input", "a.json", "--output", "o"];
            Prepare::try_parse_from([&all, flags].concat()).unwrap().verb.files.lowercase
        };
        assert_eq!(lowercase(&[]), None);
        assert_eq!(lowercase(&["--lowercase"]), Some(true));
        assert_eq!(lowercase(&["--lowercase", "true"]), Some(true));
        assert_eq!(lowercase(&["--lowercase", "false"]), Some(false));
    }

    #[test]
    fn prepare_check_is_a_survey() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs_err::write(&path, r#"[{"title": "a", "sents": [], "vertexSet": []}]"#).unwrap();
        let input = path.to_str().unwrap();
        let flags = ["x", "--format", "docred", "--check", "--input", input];
        Prepare::try_parse_from(flags).unwrap().verb.run().unwrap();
        fs_err::write(&path, "[{}]").unwrap();
        let verb = Prepare::try_parse_from(flags).unwrap().verb;
        assert_eq!(verb.run().unwrap_err().exit_code(), 65);
        assert!(Prepare::try_parse_from(["x", "--format", "docred", "--input", input]).is_err());
    }

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
