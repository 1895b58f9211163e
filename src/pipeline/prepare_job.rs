//! Files of documents, and how they become one folder of shards.
//!
//! Not for: which files a recipe names, and for what (`data`).

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::base::say;
use crate::corpus::formats::{ReadOptions, ReadSummary, TitleKey, list_left_out, title_key};
use crate::corpus::survey::WINDOW;
use crate::corpus::{Document, FileSurvey, Format, RelationSet};
use crate::shards::{PrepareOptions, PrepareReport, WriteOptions, prepare};
use crate::text::Tokenizer;
use crate::{DataError, Error, Result};

/// A file of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
}

impl InputFile {
    /// A file in DocRED's form, as this program writes them.
    pub fn docred(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), format: Format::DOCRED }
    }

    /// Files of one format.
    pub fn all(paths: &[PathBuf], format: Format) -> Vec<Self> {
        paths.iter().map(|path| Self { path: path.clone(), format }).collect()
    }

    /// Hands every document to `each`, in file order.
    ///
    /// # Errors
    /// As [`Format::read`].
    pub fn read(
        &self,
        options: &ReadOptions,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<ReadSummary> {
        self.format.read(&self.path, options, each)
    }
}

/// Reads files one after another, and tells `done` what was in each.
///
/// # Errors
/// As [`Format::read`]; if documents cannot be read, the error lists those of all files.
pub(super) fn read_files(
    files: &[InputFile],
    options: &ReadOptions,
    each: &mut dyn FnMut(&InputFile, Document) -> Result<()>,
    done: &mut dyn FnMut(&InputFile, ReadSummary),
) -> Result<()> {
    let mut failed: Option<Box<DataError>> = None;
    for file in files {
        let is_good = failed.is_none();
        let read = file.read(options, &mut |document| {
            if is_good { each(file, document) } else { Ok(()) }
        });
        match (read, &mut failed) {
            (Ok(summary), None) => done(file, summary),
            (Ok(_), Some(_)) => {}
            (Err(Error::Data(error)), None) => failed = Some(error),
            (Err(Error::Data(error)), Some(first)) => first.also.push(error.to_string()),
            (Err(error), _) => return Err(error),
        }
    }
    failed.map_or(Ok(()), |error| Err(Error::Data(error)))
}

/// Files that become shards.
#[derive(Clone, Copy)]
pub struct PrepareJob<'a> {
    /// Files, in order.
    pub inputs: &'a [InputFile],
    /// How they are read; the relations are those below.
    pub read: &'a ReadOptions,
    /// Folder of shards.
    pub output: &'a Path,
    /// Tokenizer folder, vocabulary or word vectors.
    pub tokenizer: &'a Path,
    /// Whether words are put into lower case; where it is not said, the tokenizer's files decide.
    pub lowercase: Option<bool>,
    /// Relations in class order.
    pub relations: &'a RelationSet,
    /// Titles to leave out, where there are any.
    pub exclude: Option<&'a HashSet<String>>,
    /// Titles of which the caller knows that they are used otherwise; left out as well.
    pub elsewhere: Option<&'a HashSet<TitleKey>>,
    /// The only titles to take, where not all are.
    pub only: Option<&'a HashSet<String>>,
    /// Documents a shard.
    pub shard_rows: Option<usize>,
}

impl<'a> PrepareJob<'a> {
    /// All documents of the inputs, words as they are, in shards of the usual size.
    pub fn new(
        inputs: &'a [InputFile],
        read: &'a ReadOptions,
        output: &'a Path,
        tokenizer: &'a Path,
        relations: &'a RelationSet,
    ) -> Self {
        Self {
            inputs,
            read,
            output,
            tokenizer,
            lowercase: None,
            relations,
            exclude: None,
            elsewhere: None,
            only: None,
            shard_rows: None,
        }
    }

    /// Writes the shards.
    ///
    /// # Errors
    /// If a file holds a bad document, the tokenizer cannot be read, or the shards cannot be
    /// written.
    pub fn run(&self) -> Result<PrepareReport> {
        self.run_and_count().map(|(report, _)| report)
    }

    /// As [`Self::run`]; also returns how many documents have titles that are used otherwise.
    pub(super) fn run_and_count(&self) -> Result<(PrepareReport, usize)> {
        let tokenizer = Tokenizer::load(self.tokenizer, self.lowercase)?;
        tokenizer.warnings().iter().for_each(|warning| say(format!("warning: {warning}")));
        tokenizer.note().iter().for_each(|note| say(format!("note: {note}")));
        let write = WriteOptions::default();
        let rows_per_shard = self.shard_rows.unwrap_or(write.rows_per_shard);
        let options = PrepareOptions {
            output: self.output.to_owned(),
            tokenizer,
            relations: self.relations.clone(),
            write: WriteOptions { rows_per_shard, ..write },
        };
        let read = ReadOptions { relations: Some(self.relations.clone()), ..self.read.clone() };
        let mut seen: HashSet<TitleKey> =
            self.exclude.into_iter().flatten().map(|title| title_key(title)).collect();
        let (mut left_out, mut elsewhere) = (0, 0);
        let mut faulty = Vec::new();
        let mut source = |each: &mut dyn FnMut(Document) -> Result<()>| {
            let survey = RefCell::new(FileSurvey::default());
            let mut take = |_: &InputFile, document: Document| {
                if self.only.is_some_and(|titles| !titles.contains(&document.title)) {
                    return Ok(());
                }
                survey.borrow_mut().add(&document, document.num_words());
                let key = title_key(&document.title);
                if self.elsewhere.is_some_and(|titles| titles.contains(&key)) {
                    elsewhere += 1;
                    return Ok(());
                }
                if seen.insert(key) {
                    return each(document);
                }
                left_out += 1;
                Ok(())
            };
            read_files(self.inputs, &read, &mut take, &mut |input, summary| {
                let survey = FileSurvey { file: input.path.clone(), ..survey.take() };
                let warnings = summary.warnings(&input.path).into_iter().chain(survey.warnings());
                warnings.for_each(|warning| say(format!("warning: {warning}")));
                faulty.extend(summary.left_out);
            })
        };
        let mut report = prepare(&options, &mut source, &mut |_| {})?;
        report.left_out = faulty.len();
        list_left_out(&faulty, self.output)?;
        if let Some(warning) = report.pieces.warning() {
            say(format!("warning: {warning}"));
        }
        if report.manifest.max_pieces + 2 > WINDOW {
            let pieces = report.manifest.max_pieces;
            say(format!(
                "warning: the longest document has {pieces} pieces without markers, more than the \
                 {WINDOW} of a BERT: some systems read longer documents in windows, others, such \
                 as dsdocre, need encoder.truncate"
            ));
        }
        if left_out > 0 {
            say(format!(
                "{}: {left_out} documents left out, whose title is in an earlier file or held out",
                self.output.display()
            ));
        }
        Ok((report, elsewhere))
    }
}

/// The relations that occur in the labels of files, sorted by identifier.
///
/// # Errors
/// Bad documents.
pub fn relations_in(files: &[InputFile], read: &ReadOptions) -> Result<RelationSet> {
    let mut ids = std::collections::BTreeSet::new();
    let mut each = |_: &InputFile, document: Document| {
        ids.extend(document.facts().iter().map(|fact| fact.relation.clone()));
        Ok(())
    };
    read_files(files, read, &mut each, &mut |_, _| {})?;
    let mut set = RelationSet::default();
    for id in ids {
        set.insert(&id, &id);
    }
    Ok(set)
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
