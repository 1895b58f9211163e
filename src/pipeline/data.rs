//! From the files that a recipe names to shards: generate, label, split, prepare. Each step is
//! skipped where its result is complete.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::human_share::{ChosenDocuments, HumanShare};
pub(super) use super::prepare_job::InputFile;
use super::prepare_job::{PrepareJob, read_files, relations_in};
use super::sources::check_files;
use super::training_shards::TrainingShards;
use crate::base::{say, to_json, write_whole};
use crate::corpus::formats::{
    DocredWriter, GoingOn, ReadOptions, TitleKey, list_left_out, load_relations, title_key,
};
use crate::corpus::synth::write_world;
use crate::corpus::{
    Document, FactBase, Format, LabelOptions, MeshTree, RelationSet, label_file, title_position,
};
use crate::encoders::EncoderSpec;
use crate::recipe::{DataSources, NamedSource, Recipe, SplitSource};
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::dsdocre::DsdocreSettings;
use crate::{Error, Result};

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

    /// The error of a recipe that cannot do without documents of this role.
    pub fn missing(self) -> Error {
        Error::recipe(format!("the recipe names no {} documents", self.name())).with_hint(
            match self {
                Self::Distant => {
                    "name files with distant labels as data.distant, or documents and facts under \
                 [data.label]; variants = [\"baseline\"] needs none"
                }
                Self::Human => {
                    "name annotated files as data.human, or under [data.split], which divides them"
                }
                Self::Dev => {
                    "name annotated files as data.dev, or let [data.split] take them from the \
                 annotated ones: files = [\"annotated.json\"] and dev_share = 0.2 in place of \
                 data.human"
                }
                Self::Test => "name files as data.test",
            },
        )
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
    /// Which part of the annotated documents is trained on, where the recipe asks for one.
    pub human_share: Option<HumanShare>,
}

impl RunData {
    /// Name of the folder of distant labels of dev.
    const DEV_DISTANT: &str = "dev-distant";

    /// Shards of dev with distant labels, where the recipe names these.
    pub fn dev_distant(&self) -> Option<PathBuf> {
        let folder = self.shards.join(Self::DEV_DISTANT);
        folder.exists().then_some(folder)
    }

    /// The shards that fine-tuning trains on, the human-annotated ones first.
    ///
    /// # Errors
    /// The recipe names no documents to train on.
    pub fn training(&self, named: &DataSources) -> Result<Vec<TrainingShards>> {
        if named.source.is_empty() {
            self.need(Role::Human)?;
        }
        let has_human = self.shards_of(Role::Human).is_some();
        Ok(training_shards(named, &self.shards, has_human))
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
        self.shards_of(role).ok_or_else(|| role.missing())
    }
}

/// The shards below a folder that fine-tuning trains on, the human-annotated ones first.
pub fn training_shards(named: &DataSources, folder: &Path, has_human: bool) -> Vec<TrainingShards> {
    let name = Role::Human.name();
    let human =
        TrainingShards { weight: named.human_weight(), ..TrainingShards::alone(folder.join(name)) };
    let others = named.source.iter().map(|source| TrainingShards {
        name: source.name.clone(),
        folder: folder.join(&source.name),
        kind: Some(source.kind),
        weight: source.weight,
    });
    has_human.then_some(human).into_iter().chain(others).collect()
}

impl NamedSource {
    /// Its files; `format` where it names none of its own.
    fn inputs(&self, format: Format) -> Vec<InputFile> {
        InputFile::all(&self.files, self.format.unwrap_or(format))
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
    prepare_data_while(recipe, folder, GoingOn::default())
}

/// As [`prepare_data`]; now and then it asks whether to go on.
///
/// # Errors
/// Those of [`prepare_data`], and of the answer.
pub(super) fn prepare_data_while(
    recipe: &Recipe,
    folder: &Path,
    going_on: GoingOn,
) -> Result<RunData> {
    check_files(recipe)?;
    let named = &recipe.data;
    let read = ReadOptions {
        mesh: named.mesh_tree.as_deref().map(MeshTree::load).transpose()?.map(Arc::new),
        on_error: named.on_error,
        excluded: Some(Arc::new(named.exclude_titles.iter().cloned().collect())),
        going_on,
        ..ReadOptions::default()
    };
    let mut sources = sources(named, &read, folder)?;
    if named.train_on_dev {
        let dev = sources.files[Role::Dev as usize].clone();
        let human = &mut sources.files[Role::Human as usize];
        human.extend(dev.into_iter().filter(|file| !human.contains(file)).collect::<Vec<_>>());
    }
    let with_human = recipe.settings_of::<DsdocreSettings>()?.pretrain_on_human;
    if with_human {
        // First, so that of a title in both the annotated document stays.
        let human = sources.files[Role::Human as usize].clone();
        sources.files[Role::Distant as usize].splice(..0, human);
    }
    let relations = relations(named, &sources, &read)?;
    let shards = folder.join("shards");
    let tokenizer_path = tokenizer_path(recipe, &sources)?;
    let held_out = held_out_titles(named, &sources, &read)?;
    let chosen =
        ChosenDocuments::choose(named, &sources.files[Role::Human as usize], &read, &held_out)?;
    chosen.iter().for_each(|chosen| say(chosen.share.to_string()));
    let mut data = RunData {
        shards: shards.clone(),
        roles: Vec::new(),
        train_facts: named.train_facts.clone(),
        truth: sources.truth.clone(),
        human_share: chosen.as_ref().map(|chosen| chosen.share),
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
            // The documents that are not chosen must not come back as distant ones with labels of
            // annotators.
            elsewhere: chosen
                .as_ref()
                .filter(|_| role == Role::Human || (role == Role::Distant && with_human))
                .map(|chosen| &chosen.others),
            ..PrepareJob::new(files, &read, &output, &tokenizer_path, &relations)
        };
        let report = job.run()?;
        say(format!("prepare {}: {report}", role.name()));
    }
    let output = shards.join(RunData::DEV_DISTANT);
    if !sources.dev_distant.is_empty() && !output.exists() {
        let dev = DocumentStore::open(&data.need(Role::Dev)?, StoreOptions::default())?;
        let titles = (0..dev.len()).map(|row| dev.title(row)).collect();
        let only = Some(&titles);
        let job =
            PrepareJob::new(&sources.dev_distant, &read, &output, &tokenizer_path, &relations);
        let report = PrepareJob { lowercase: named.lowercase, only, ..job }.run()?;
        say(format!("prepare {}: {report}", RunData::DEV_DISTANT));
    }
    let template = PrepareJob {
        lowercase: named.lowercase,
        exclude: Some(&held_out),
        ..PrepareJob::new(&[], &read, &shards, &tokenizer_path, &relations)
    };
    prepare_sources(named, &template, data.shards_of(Role::Human))?;
    Ok(data)
}

/// Prepares the named sources, `template.output` being the folder of all shards. A title that
/// several sources have stays with annotators, or else in the source of the better kind.
fn prepare_sources(
    named: &DataSources,
    template: &PrepareJob,
    human: Option<PathBuf>,
) -> Result<()> {
    if named.source.is_empty() {
        return Ok(());
    }
    let mut taken = HashSet::new();
    if let Some(human) = human {
        add_titles(&human, &mut taken)?;
    }
    let mut sources: Vec<&NamedSource> = named.source.iter().collect();
    sources.sort_by_key(|source| source.kind);
    for source in sources {
        let output = template.output.join(&source.name);
        if !output.join("manifest.json").exists() {
            let inputs = source.inputs(named.format);
            let job = PrepareJob {
                inputs: &inputs,
                output: &output,
                elsewhere: Some(&taken),
                ..*template
            };
            let (report, elsewhere) = job.run_and_count()?;
            say(format!("prepare {} ({}): {report}", source.name, source.kind.name()));
            if elsewhere > 0 {
                say(format!(
                    "warning: {elsewhere} documents of source {} are left out: their titles are \
                     also in data.human or in a source of a kind that comes first",
                    source.name
                ));
            }
        }
        add_titles(&output, &mut taken)?;
    }
    Ok(())
}

/// Adds the titles of shards.
fn add_titles(shards: &Path, titles: &mut HashSet<TitleKey>) -> Result<()> {
    let store = DocumentStore::open(shards, StoreOptions::default())?;
    store.each_title(&mut |_, title| {
        titles.insert(title_key(title));
        true
    });
    Ok(())
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
        let mut facts = FactBase::load(&label.facts)?;
        if let Some(file) = &named.relations {
            facts.keep_relations(&load_relations(file)?, file)?;
        }
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
    let own = named.source.iter().map(|source| source.inputs(named.format));
    let files: Vec<InputFile> = sources.files.iter().cloned().chain(own).flatten().collect();
    relations_in(&files, read)
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
        Error::recipe(format!("encoder `{}` brings no tokenizer", recipe.encoder.name)).with_hint(
            "name a tokenizer folder, a vocab.txt or a file of word vectors as data.tokenizer",
        )
    })
}

#[cfg(test)]
#[path = "data_tests.rs"]
mod tests;
