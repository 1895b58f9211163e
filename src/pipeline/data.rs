//! From the files that a recipe names to shards: generate, label, split, prepare. Each step is
//! skipped where its result is complete.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::sources::check_files;
use crate::base::{say, to_json, write_whole};
use crate::corpus::formats::{
    DocredWriter, ReadOptions, ReadSummary, TitleKey, list_left_out, load_relations, title_key,
};
use crate::corpus::survey::WINDOW;
use crate::corpus::synth::write_world;
use crate::corpus::{
    Document, FactBase, FileSurvey, Format, LabelOptions, MeshTree, RelationSet, label_file,
    title_position,
};
use crate::encoders::EncoderSpec;
use crate::recipe::{DataSources, Recipe, SplitSource};
use crate::shards::{
    DocumentStore, PrepareOptions, PrepareReport, StoreOptions, WriteOptions, prepare,
};
use crate::systems::dsdocre::DsdocreSettings;
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
fn read_files(
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

/// What a corpus is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Distantly supervised.
    Distant,
    /// Human-annotated training documents.
    Human,
    /// Development.
    Dev,
    /// Test.
    Test,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Distant, Self::Human, Self::Dev, Self::Test];

    /// Name of its folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Distant => "distant",
            Self::Human => "human",
            Self::Dev => "dev",
            Self::Test => "test",
        }
    }
}

/// Where a run's data lie.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunData {
    /// Folder that holds a folder of shards for each role.
    pub shards: PathBuf,
    /// Roles that have documents.
    pub roles: Vec<String>,
    /// The file of the facts that Ign F1 ignores, where the recipe names one.
    pub train_facts: Option<PathBuf>,
    /// Truth of the distant labels, in a generated world.
    pub truth: Option<PathBuf>,
}

impl RunData {
    /// Name of the folder of distant labels of dev.
    const DEV_DISTANT: &str = "dev-distant";

    /// Shards of dev with distant labels, where the recipe names these.
    pub fn dev_distant(&self) -> Option<PathBuf> {
        let folder = self.shards.join(Self::DEV_DISTANT);
        folder.exists().then_some(folder)
    }

    /// Shards of a role, if it has documents.
    pub fn shards_of(&self, role: Role) -> Option<PathBuf> {
        self.roles.iter().any(|name| name == role.name()).then(|| self.shards.join(role.name()))
    }

    /// Shards of a role that the recipe cannot do without.
    ///
    /// # Errors
    /// The role has no documents.
    pub fn need(&self, role: Role) -> Result<PathBuf> {
        self.shards_of(role)
            .ok_or_else(|| Error::recipe(format!("the recipe names no {} documents", role.name())))
    }
}

/// Source files by role.
#[derive(Default)]
struct RoleFiles {
    files: [Vec<InputFile>; 4],
    /// Relations and tokenizer of the generated world.
    relations: Option<PathBuf>,
    tokenizer: Option<PathBuf>,
    truth: Option<PathBuf>,
    /// Distant labels of documents of dev.
    dev_distant: Vec<InputFile>,
}

/// Prepares everything a recipe names under `folder` (rank 0 only).
///
/// # Errors
/// If a file is missing or holds a bad document, or the shards cannot be written.
pub fn prepare_data(recipe: &Recipe, folder: &Path) -> Result<RunData> {
    check_files(recipe)?;
    let named = &recipe.data;
    let read = ReadOptions {
        mesh: named.mesh_tree.as_deref().map(MeshTree::load).transpose()?.map(Arc::new),
        on_error: named.on_error,
        excluded: Some(Arc::new(named.exclude_titles.iter().cloned().collect())),
        ..ReadOptions::default()
    };
    let mut sources = sources(named, &read, folder)?;
    if named.train_on_dev {
        let dev = sources.files[Role::Dev as usize].clone();
        let human = &mut sources.files[Role::Human as usize];
        human.extend(dev.into_iter().filter(|file| !human.contains(file)).collect::<Vec<_>>());
    }
    if recipe.settings_of::<DsdocreSettings>()?.pretrain_on_human {
        // First, so that of a title in both the annotated document stays.
        let human = sources.files[Role::Human as usize].clone();
        sources.files[Role::Distant as usize].splice(..0, human);
    }
    let relations = relations(named, &sources, &read)?;
    let shards = folder.join("shards");
    let tokenizer_path = tokenizer_path(recipe, &sources)?;
    let held_out = held_out_titles(named, &sources, &read)?;
    let mut data = RunData {
        shards: shards.clone(),
        roles: Vec::new(),
        train_facts: named.train_facts.clone(),
        truth: sources.truth.clone(),
    };
    for role in Role::ALL {
        let files = &sources.files[role as usize];
        if files.is_empty() {
            continue;
        }
        data.roles.push(role.name().to_owned());
        let output = shards.join(role.name());
        if output.join("manifest.json").exists() {
            continue;
        }
        let job = PrepareJob {
            lowercase: named.lowercase,
            exclude: matches!(role, Role::Human | Role::Distant).then_some(&held_out),
            ..PrepareJob::new(files, &read, &output, &tokenizer_path, &relations)
        };
        let report = job.run()?;
        say(format!("prepare {}: {report}", role.name()));
    }
    let output = shards.join(RunData::DEV_DISTANT);
    if !sources.dev_distant.is_empty() && !output.exists() {
        let dev = DocumentStore::open(&data.need(Role::Dev)?, StoreOptions::default())?;
        let titles = (0..dev.len()).map(|row| dev.title(row).to_owned()).collect();
        let only = Some(&titles);
        let job =
            PrepareJob::new(&sources.dev_distant, &read, &output, &tokenizer_path, &relations);
        let report = PrepareJob { lowercase: named.lowercase, only, ..job }.run()?;
        say(format!("prepare {}: {report}", RunData::DEV_DISTANT));
    }
    Ok(data)
}

/// Titles that must not be trained on: those of dev and test, and those the recipe names. A
/// document that a training file shares with dev is left to dev, unless dev is trained on too.
fn held_out_titles(
    named: &DataSources,
    sources: &RoleFiles,
    read: &ReadOptions,
) -> Result<HashSet<String>> {
    let mut titles: HashSet<String> = named.exclude_titles.iter().cloned().collect();
    let roles = if named.train_on_dev { &[Role::Test][..] } else { &[Role::Dev, Role::Test] };
    let files: Vec<InputFile> =
        roles.iter().flat_map(|&role| sources.files[role as usize].clone()).collect();
    let mut each = |_: &InputFile, document: Document| {
        titles.insert(document.title);
        Ok(())
    };
    read_files(&files, read, &mut each, &mut |_, _| {})?;
    Ok(titles)
}

/// What to know of scores on dev if documents of dev are trained on too; `None` if none is.
pub fn trained_on_dev(train: &DocumentStore, dev: &DocumentStore) -> Option<String> {
    let shared = (0..dev.len()).filter(|&row| train.find_title(dev.title(row)).is_some()).count();
    (shared > 0).then(|| {
        format!(
            "{shared} of the {} documents of dev are trained on too: scores on dev do not measure \
             the model, and the epoch is chosen by documents that it has learnt",
            dev.len()
        )
    })
}

/// Files that become shards.
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
        let mut left_out = 0;
        let mut faulty = Vec::new();
        let mut source = |each: &mut dyn FnMut(Document) -> Result<()>| {
            let survey = RefCell::new(FileSurvey::default());
            let mut take = |_: &InputFile, document: Document| {
                if self.only.is_some_and(|titles| !titles.contains(&document.title)) {
                    return Ok(());
                }
                survey.borrow_mut().add(&document, document.num_words());
                if seen.insert(title_key(&document.title)) {
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
                "warning: the longest document has {pieces} pieces without markers, BERT's window \
                 is {WINDOW}: dsdocre needs encoder.truncate"
            ));
        }
        if left_out > 0 {
            say(format!(
                "{}: {left_out} documents left out, whose title is in an earlier file or held out",
                self.output.display()
            ));
        }
        Ok(report)
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

fn sources(named: &DataSources, read: &ReadOptions, folder: &Path) -> Result<RoleFiles> {
    let mut sources = RoleFiles {
        files: [&named.distant, &named.human, &named.dev, &named.test]
            .map(|files| InputFile::all(files, named.format)),
        dev_distant: InputFile::all(&named.dev_distant, named.format),
        ..RoleFiles::default()
    };
    if let Some(synth) = &named.synth {
        let world = folder.join("world");
        if !world.join("rel_info.json").exists() {
            say(format!("synth: {}", write_world(synth, &world)?));
        }
        let names = ["train_distant.json", "train_annotated.json", "dev.json", "test.json"];
        for (role, name) in Role::ALL.into_iter().zip(names) {
            sources.files[role as usize].push(InputFile::docred(world.join(name)));
        }
        sources.relations = Some(world.join("rel_info.json"));
        sources.tokenizer = Some(world.join("tokenizer"));
        sources.truth = Some(world.join("truth.json"));
        sources.dev_distant.push(InputFile::docred(world.join("dev_distant.json")));
    }
    if let Some(label) = &named.label {
        let facts = FactBase::load(&label.facts)?;
        for (index, input) in InputFile::all(&label.documents, named.format).iter().enumerate() {
            let output = folder.join(format!("labelled-{index}.json"));
            if !output.exists() {
                fs_err::create_dir_all(folder)?;
                let options = LabelOptions {
                    format: input.format,
                    read: read.clone(),
                    ..LabelOptions::default()
                };
                say(format!(
                    "label {}: {}",
                    input.path.display(),
                    label_file(&facts, &input.path, &output, &options)?
                ));
            }
            sources.files[Role::Distant as usize].push(InputFile::docred(output));
        }
    }
    if let Some(split) = &named.split {
        for (role, file) in [Role::Human, Role::Dev, Role::Test].into_iter().zip(split_files(
            split,
            named.format,
            read,
            folder,
        )?) {
            sources.files[role as usize].extend(file.map(InputFile::docred));
        }
    }
    Ok(sources)
}

/// Divides annotated files by a hash of the title; a part that stays empty has no file.
fn split_files(
    split: &SplitSource,
    format: Format,
    read: &ReadOptions,
    folder: &Path,
) -> Result<[Option<PathBuf>; 3]> {
    fs_err::create_dir_all(folder)?;
    let paths = ["human", "dev", "test"].map(|name| folder.join(format!("split-{name}.json")));
    let counts_path = folder.join("split.json");
    if !counts_path.exists() {
        let mut parts: [Vec<Document>; 3] = Default::default();
        let mut left_out = Vec::new();
        for file in InputFile::all(&split.files, format) {
            let summary = file.read(read, &mut |document| {
                let at = title_position(&document.title, &split.salt);
                let part = if at < split.test_share {
                    2
                } else {
                    usize::from(at < split.test_share + split.dev_share)
                };
                parts[part].push(document);
                Ok(())
            })?;
            left_out.extend(summary.left_out);
        }
        for (path, documents) in paths.iter().zip(&parts) {
            let mut writer = DocredWriter::create(path)?;
            documents.iter().try_for_each(|document| writer.write(document))?;
            writer.finish()?;
        }
        list_left_out(&left_out, &counts_path)?;
        let counts = parts.map(|documents| documents.len());
        say(format!("split: {} human, {} dev, {} test documents", counts[0], counts[1], counts[2]));
        write_whole(&counts_path, &to_json(&counts)?)?;
    }
    let counts: [usize; 3] = serde_json::from_slice(&fs_err::read(&counts_path)?)
        .map_err(|error| Error::Bug(error.to_string()))?;
    let mut counts = counts.into_iter();
    Ok(paths.map(|path| (counts.next() > Some(0)).then_some(path)))
}

/// The relations named by the recipe, or those of the labels, sorted.
fn relations(named: &DataSources, sources: &RoleFiles, read: &ReadOptions) -> Result<RelationSet> {
    if let Some(path) = named.relations.as_ref().or(sources.relations.as_ref()) {
        return load_relations(path);
    }
    relations_in(&sources.files.concat(), read)
}

/// The tokenizer that a recipe names: its own, that of the word vectors, or that of the encoder.
///
/// # Errors
/// [`Error::Recipe`] for an encoder that is neither a preset nor a folder.
pub fn named_tokenizer(recipe: &Recipe) -> Result<Option<PathBuf>> {
    let named = recipe.data.tokenizer.clone();
    let spec = EncoderSpec::parse(&recipe.encoder.name)?;
    // Word vectors bring their own vocabulary, one piece a word.
    let vectors = recipe.encoder.word_vectors.clone().filter(|_| spec.reads_words());
    let encoder = match spec {
        EncoderSpec::Folder(folder) => Some(folder),
        _ => None,
    };
    Ok(named.or(vectors).or(encoder))
}

fn tokenizer_path(recipe: &Recipe, sources: &RoleFiles) -> Result<PathBuf> {
    named_tokenizer(recipe)?.or(sources.tokenizer.clone()).ok_or_else(|| {
        Error::recipe(format!("encoder `{}` brings no tokenizer", recipe.encoder.name))
            .with_hint("name a tokenizer folder or vocab.txt as data.tokenizer")
    })
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod prepare_tests;
#[cfg(test)]
#[path = "data_tests.rs"]
mod tests;
