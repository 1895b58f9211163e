//! What all readers of documents share: what is checked beyond the document itself, titles that
//! repeat, documents that cannot be read, and the count of what was in a file.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::base::ordered;
use crate::base::records::{Record, Unit, read_all_records};
use crate::base::{say, to_json, write_whole};
use crate::corpus::check::{OtherRows, unknown_relation};
use crate::corpus::mentions::{Annotator, FoundMentions};
use crate::corpus::{Document, MeshTree, PairTypes, RelationSet};
use crate::{DataError, Error, Result};

/// Documents of a file that cannot be read are looked for up to this number.
const MOST_FAULTS: usize = 10_000;
/// Documents that may be left out of a file: with more, it is not what it was taken for.
const MOST_LEFT_OUT: usize = 1_000_000;

/// After so many documents it is asked whether to go on: the answer may lie on a network disk.
const ASKED_EVERY: usize = 64;

/// Documents that cannot be read and are named on the terminal.
const MOST_SHOWN: usize = 5;

/// What a reader checks and makes beyond the document itself.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The relations that labels may use; `None` takes any.
    pub relations: Option<RelationSet>,
    /// PubTator: entity types that make a candidate pair; `None` is Chemical → Disease and Gene →
    /// Disease.
    pub pair_types: Option<PairTypes>,
    /// PubTator: the hierarchy by which the hypernym filter of CDR takes pairs out; `None` leaves
    /// all in.
    pub mesh: Option<Arc<MeshTree>>,
    /// What is done with a document that cannot be read.
    pub on_error: OnError,
    /// Titles of documents that are passed over if they cannot be read.
    pub excluded: Option<Arc<HashSet<String>>>,
    /// Adds mentions to documents of the formats docred, jsonl, brat and plain text.
    pub annotator: Option<Arc<Annotator>>,
    /// Asked now and then while documents are read.
    pub going_on: GoingOn,
}

/// Asks whether work is to go on; by default it is.
#[derive(Clone, Default)]
pub struct GoingOn(Option<Arc<dyn Fn() -> Result<()> + Send + Sync>>);

impl GoingOn {
    /// Asks `whether`, which ends the work by an error.
    pub fn while_it(whether: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(whether)))
    }

    /// Asks.
    ///
    /// # Errors
    /// What ends the work.
    pub fn ask(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |whether| whether())
    }
}

impl fmt::Debug for GoingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GoingOn({})", self.0.is_some())
    }
}

/// What is done with a document that cannot be read.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The program ends with an error that lists all such documents of the file.
    #[default]
    Stop,
    /// The document is left out, counted and listed. A file of which nothing is left is an error.
    Skip,
}

/// A document, or a row of one, that was left out because it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// What was left out: `document` or `relation`; `file` in a survey.
    pub what: &'static str,
    /// Why.
    pub error: DataError,
}

/// As a line of a list: `file`, `row`, `title`, `what`, `field`, `reason`; `row`, `title` and
/// `field` where they are known.
impl Serialize for LeftOut {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let DataError { file, row, title, field, problem, .. } = &self.error;
        let mut line = serializer.serialize_map(None)?;
        line.serialize_entry("file", file)?;
        row.iter().try_for_each(|row| line.serialize_entry("row", row))?;
        title.iter().try_for_each(|title| line.serialize_entry("title", title))?;
        line.serialize_entry("what", self.what)?;
        field.iter().try_for_each(|field| line.serialize_entry("field", field))?;
        line.serialize_entry("reason", problem)?;
        line.end()
    }
}

/// Lists what cannot be read and was left out, in `OUTPUT.left-out.jsonl` beside
/// `output`, and says so.
///
/// # Errors
/// I/O errors.
pub fn list_left_out(faulty: &[LeftOut], output: &Path) -> Result<()> {
    if faulty.is_empty() {
        return Ok(());
    }
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".left-out.jsonl");
    let list = output.with_file_name(name);
    let mut lines = Vec::new();
    for left_out in faulty {
        lines.extend(to_json(left_out)?);
        lines.push(b'\n');
    }
    write_whole(&list, &lines)?;
    let relations = faulty.iter().filter(|left_out| left_out.what == "relation").count();
    say(format!(
        "warning: {} documents and {relations} relations cannot be read and were left out; {} \
         lists them:",
        faulty.len() - relations,
        list.display()
    ));
    faulty.iter().take(MOST_SHOWN).for_each(|left_out| say(format!("  {}", left_out.error)));
    if faulty.len() > MOST_SHOWN {
        say(format!("  and {} more", faulty.len() - MOST_SHOWN));
    }
    Ok(())
}

/// What was in a file. Print it at load time: copies of DocRED differ in their number of documents
/// (docs/formats.md, "Data sets").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSummary {
    /// Documents read.
    pub documents: usize,
    /// Documents without any entity; they are kept, and no stage can train on them.
    pub without_entities: usize,
    /// Documents that carry no `labels` at all (a hidden test set).
    pub unlabelled: usize,
    /// Labelled documents whose list of facts is empty.
    pub without_facts: usize,
    /// Sentences.
    pub sentences: usize,
    /// Words.
    pub words: usize,
    /// Entities.
    pub entities: usize,
    /// Mentions.
    pub mentions: usize,
    /// Unique facts.
    pub facts: usize,
    /// Label rows that repeated a fact of the same document; each is kept once, with the evidence
    /// of all its rows.
    pub duplicate_facts: usize,
    /// Label rows that say "no relation" (`NA`), which are left out.
    pub no_relation: usize,
    /// ChemDisGene's distant labels: relations that no mentioned pair of the right types bears,
    /// which are left out.
    pub unplaced_facts: usize,
    /// PubTator: relations of mentioned entities whose types are not asked about, which are left
    /// out.
    pub unasked_facts: usize,
    /// Documents that cannot be read, whose titles were to be passed over.
    pub excluded: usize,
    /// What was left out because it cannot be read.
    pub left_out: Vec<LeftOut>,
    /// What a reader has to say about the file.
    pub notes: Vec<String>,
    /// What a reader passed over or took in another way than it stands, with its number.
    pub passed_over: Vec<(usize, &'static str)>,
    /// Mentions that were added.
    pub found: FoundMentions,
}

impl ReadSummary {
    fn add(&mut self, document: &Document, others: OtherRows) {
        self.documents += 1;
        self.without_entities += usize::from(document.entities.is_empty());
        self.unlabelled += usize::from(document.facts.is_none());
        self.without_facts += usize::from(document.facts.as_ref().is_some_and(Vec::is_empty));
        self.sentences += document.sentences.len();
        self.words += document.num_words();
        self.entities += document.entities.len();
        self.mentions +=
            document.entities.iter().map(|entity| entity.mentions.len()).sum::<usize>();
        self.facts += document.facts().len();
        self.duplicate_facts += others.repeated;
        self.no_relation += others.no_relation;
        self.unplaced_facts += others.unplaced;
        self.unasked_facts += others.unasked;
        let faulty = others.faulty.into_iter().map(|error| LeftOut { what: "relation", error });
        self.left_out.extend(faulty);
        others.passed_over.into_iter().for_each(|(count, what)| self.pass_over(count, what));
        self.found.add(others.found);
    }

    fn pass_over(&mut self, count: usize, what: &'static str) {
        match self.passed_over.iter_mut().find(|(_, known)| *known == what) {
            Some((sum, _)) => *sum += count,
            None if count > 0 => self.passed_over.push((count, what)),
            None => {}
        }
    }

    /// What the user should be told of the file, beside what was left out as faulty.
    pub fn warnings(&self, file: &Path) -> Vec<String> {
        let told = self.notes.iter().cloned().chain(self.omissions());
        told.map(|told| format!("{}: {told}", file.display())).collect()
    }

    /// What the documents do not hold although the file does, beside what was left out as faulty.
    pub fn omissions(&self) -> Vec<String> {
        let counts = [
            (self.no_relation, "labels that say \"no relation\" (NA) were left out"),
            (self.unplaced_facts, "relations between what is not mentioned were left out"),
            (
                self.unasked_facts,
                "relations of types that were not asked about were left out (--pair-types)",
            ),
            (self.excluded, "documents that cannot be read were passed over by title"),
        ];
        let all = self.passed_over.iter().copied().chain(counts);
        all.filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }
}

/// 128 bits of a hash, which stand for a title: a corpus of millions of documents must not keep its
/// titles.
pub type TitleKey = [u8; 16];

/// The key of a title.
pub fn title_key(title: &str) -> TitleKey {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(title.as_bytes()).as_bytes()[..16]);
    key
}

/// The last step of every reader: refuses repeated titles, gathers the errors of documents that
/// cannot be read, and counts what was read.
#[derive(Debug)]
pub struct Intake<'a> {
    options: &'a ReadOptions,
    rows: HashMap<TitleKey, usize>,
    summary: ReadSummary,
    faults: Vec<DataError>,
}

impl<'a> Intake<'a> {
    /// For a file that is read with `options`.
    pub fn new(options: &'a ReadOptions) -> Self {
        Self { options, rows: HashMap::new(), summary: ReadSummary::default(), faults: Vec::new() }
    }

    /// Takes the next document, with its label rows that made no fact, or the error that is in its
    /// place; hands a good document to `each`.
    ///
    /// # Errors
    /// Those of `each`, and errors that are not about the document.
    pub fn take(
        &mut self,
        read: Result<(Document, OtherRows)>,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<()> {
        let read = read.and_then(|(document, others)| {
            self.check_title(&document)?;
            Ok((document, others))
        });
        match read {
            Ok((document, others)) => {
                if self.summary.documents.is_multiple_of(ASKED_EVERY) {
                    self.options.going_on.ask()?;
                }
                self.summary.add(&document, others);
                // The documents before the first faulty one; what follows is only looked through.
                if self.faults.is_empty() { each(document) } else { Ok(()) }
            }
            Err(Error::Data(error)) => self.fault(*error),
            Err(error) => Err(error),
        }
    }

    /// Keeps a note about the file.
    pub fn note(&mut self, note: impl Into<String>) {
        self.summary.notes.push(note.into());
    }

    /// Counts what the reader passed over or took in another way than it stands.
    pub fn passed_over(&mut self, count: usize, what: &'static str) {
        self.summary.pass_over(count, what);
    }

    /// The counts, where the file could be read to its end (`outcome`) and all of its documents
    /// could be read or were to be left out.
    ///
    /// # Errors
    /// That of `outcome`; a [`DataError`] that lists the documents that cannot be read.
    pub fn finish(mut self, outcome: Result<()>) -> Result<ReadSummary> {
        if self.summary.documents == 0 && outcome.is_ok() {
            // Nothing is left: the file is not what it was taken for.
            let left_out = std::mem::take(&mut self.summary.left_out).into_iter();
            self.faults.extend(left_out.map(|left_out| left_out.error));
        }
        if self.faults.is_empty() {
            return outcome.map(|()| self.summary);
        }
        match outcome {
            Ok(()) => {}
            Err(Error::Data(error)) => self.faults.push(*error),
            Err(error) => return Err(error),
        }
        Err(DataError::listing(self.faults).unwrap_or_default().into())
    }

    fn check_title(&mut self, document: &Document) -> Result<()> {
        match self.rows.insert(title_key(&document.title), document.provenance.row) {
            None => Ok(()),
            Some(first) => Err(document
                .place()
                .error("title", format!("the title was already used by row {first}"))
                .hint(
                    "titles are the keys of facts and predictions; rename one of the two documents",
                )
                .into()),
        }
    }

    fn fault(&mut self, error: DataError) -> Result<()> {
        let excluded = self.options.excluded.as_ref().zip(error.title.as_ref());
        if excluded.is_some_and(|(titles, title)| titles.contains(title)) {
            self.summary.excluded += 1;
            return Ok(());
        }
        match self.options.on_error {
            OnError::Skip if self.summary.left_out.len() < MOST_LEFT_OUT => {
                self.summary.left_out.push(LeftOut { what: "document", error });
                Ok(())
            }
            OnError::Stop if self.faults.len() < MOST_FAULTS => {
                self.faults.push(error);
                Ok(())
            }
            // Where the list of an error is longest, `finish` adds this one to it.
            OnError::Skip | OnError::Stop => Err(error
                .hint("so many documents cannot be read: is this the right format?")
                .into()),
        }
    }
}

/// Reads a file record by record: `parse` makes a document of each on all cores, and tells its
/// label rows that made no fact; `each` takes the documents in the order of the file.
pub(super) fn read_documents(
    path: &Path,
    unit: Unit,
    options: &ReadOptions,
    parse: &(dyn Fn(Record<'_>) -> Result<(Document, OtherRows)> + Sync),
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<ReadSummary> {
    let mut intake = Intake::new(options);
    let outcome = read_all_records(path, unit, parse, &mut |read| intake.take(read, each));
    intake.finish(outcome)
}

/// Makes a document of a file and its number.
type ParseFile<'a> = dyn Fn(&Path, usize) -> Result<(Document, OtherRows)> + Sync + 'a;

/// Reads files that are a document each, `parse`d on all cores; `each` takes the documents in the
/// order of the files.
pub(super) fn read_files(
    paths: &[PathBuf],
    options: &ReadOptions,
    parse: &ParseFile<'_>,
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<ReadSummary> {
    let mut intake = Intake::new(options);
    let work = |(path, row): (&PathBuf, usize)| parse(path, row);
    let outcome = thread::scope(|scope| {
        let (input, output) =
            ordered::start(scope, vec![&work; ordered::threads()], ordered::MOST_TEXT_BYTES);
        scope.spawn(move || {
            for (row, path) in paths.iter().enumerate() {
                // A file that cannot be looked at is an error of its reader.
                let size = fs_err::metadata(path).map_or(0, |found| found.len() as usize);
                if !input.send((path, row), size) {
                    return;
                }
            }
        });
        output.into_iter().try_for_each(|read| intake.take(read, each))
    });
    intake.finish(outcome)
}

/// Refuses facts of relations that are not in the set, where there is one. For formats whose parser
/// does not do so itself.
pub(super) fn check_relations(document: &Document, relations: Option<&RelationSet>) -> Result<()> {
    let Some(set) = relations else { return Ok(()) };
    match document.facts().iter().find_map(|fact| unknown_relation(set, &fact.relation)) {
        None => Ok(()),
        Some((problem, hint)) => Err(document.place().error("facts", problem).hint(hint).into()),
    }
}
