//! Small recipes that try a table in seconds: a few documents, a few steps, the encoder `tiny`.
//! Not for: numbers that mean anything.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use toml::Table;

use crate::base::{say, text_file, write_whole};
use crate::corpus::formats::{DocredWriter, ReadOptions};
use crate::corpus::synth::WorldOptions;
use crate::corpus::{Document, Format};
use crate::encoders::EncoderSpec;
use crate::recipe::{DataSources, EncoderChoice, Recipe, SplitSource, settings_of_table};
use crate::train::Schedule;
use crate::{Error, Result};

/// Documents of each file.
const DOCUMENTS: usize = 6;
/// Documents of a file that is divided among roles, so that each of them gets some.
const DIVIDED: usize = 60;
/// They are chosen from the first documents of the file, this many for each.
const CHOSEN_FROM: usize = 10;
/// Documents whose number of entities is nearest to this are chosen: pairs are what costs time.
const ENTITIES: usize = 6;
/// Lines of a file of word vectors.
const LINES: usize = 5000;
/// Steps of each stage.
const STEPS: u64 = 2;
/// Layers of the encoder `tiny`.
const TINY_LAYERS: usize = 2;

/// A small recipe.
#[derive(Debug)]
pub struct SmokeRecipe {
    /// The recipe.
    pub recipe: Recipe,
    /// What it reads, in words.
    pub source: String,
    /// The files that must be cut before.
    pub cuts: Vec<CutFile>,
}

/// A few documents, or the first lines, of a file, as a file of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutFile {
    /// The file.
    pub from: PathBuf,
    /// What it holds.
    pub contents: Contents,
    /// What is written: documents in DocRED's form, or lines.
    pub to: PathBuf,
}

/// The small form of a recipe. Its documents are a few of the recipe's files if these are there,
/// and otherwise generated; then `generated` is laid over it.
///
/// # Errors
/// [`Error::Recipe`] for settings that no recipe has.
pub fn smoke_recipe(recipe: &Recipe, generated: &Table, root: &Path) -> Result<SmokeRecipe> {
    let mut small = recipe.clone();
    let (mut cuts, mut settings) = (Vec::new(), Vec::new());
    // The paths of a recipe that is read again would start at the folder of its file.
    let folder = std::path::absolute(root.join("smoke"))?;
    let real = real_data(recipe, &folder, &mut cuts);
    let source = match real {
        Some(data) => {
            small.data = data;
            "a few documents of the recipe's files".to_owned()
        }
        None => {
            cuts.clear();
            small.data = world(recipe);
            settings = settings_of_table(generated);
            "a generated corpus, because files of the recipe are not there".to_owned()
        }
    };
    small.encoder =
        EncoderChoice { name: "tiny".into(), word_vectors: None, truncate: true, ..small.encoder };
    small.systems.fit(TINY_LAYERS);
    small.distant.passes = small.distant.passes.min(2);
    for stage in [
        &mut small.rank,
        &mut small.pretrain,
        &mut small.finetune,
        &mut small.student,
        &mut small.refine,
        &mut small.inference,
    ] {
        shorten(stage);
    }
    let recipe = Recipe::parse(&small.to_toml()?, "the recipe of the smoke test", &settings)?;
    Ok(SmokeRecipe { recipe, source, cuts })
}

fn shorten(stage: &mut Schedule) {
    stage.steps = Some(STEPS);
    stage.batch = stage.batch.min(2);
    stage.checkpoint_steps = 0;
    stage.evaluate_epochs = 1;
    stage.first_evaluation_epoch = 0.0;
    stage.patience = 0;
}

/// A corpus of a few generated documents for each role.
fn world(recipe: &Recipe) -> DataSources {
    let world = WorldOptions { distant: 24, human: 8, dev: 4, test: 4, ..WorldOptions::default() };
    let synth = Some(recipe.data.synth.clone().map_or(world.clone(), |own| WorldOptions {
        seed: own.seed,
        noise: own.noise,
        ..world
    }));
    DataSources { synth, ..DataSources::default() }
}

/// The recipe's own sources with cut files in place of its files; `None` where one of these, or a
/// tokenizer for them, is not there.
fn real_data(recipe: &Recipe, folder: &Path, cuts: &mut Vec<CutFile>) -> Option<DataSources> {
    let data = &recipe.data;
    if data.synth.is_some() {
        return None;
    }
    let tokenizer = tokenizer_there(recipe, folder, cuts)?;
    let mut cut_as = |format, count, files: &[PathBuf]| -> Option<Vec<PathBuf>> {
        let kind = Contents::Documents(format, count);
        files.iter().map(|from| cut_of(from, kind, folder, cuts)).collect()
    };
    let mut source = data.source.clone();
    for each in &mut source {
        each.files = cut_as(each.format.take().unwrap_or(data.format), DOCUMENTS, &each.files)?;
    }
    let mut cut_to = |count, files: &[PathBuf]| cut_as(data.format, count, files);
    let there = |file: &Option<PathBuf>| match file {
        Some(file) => file.exists().then(|| Some(file.clone())),
        None => Some(None),
    };
    let mut label = data.label.clone();
    if let Some(label) = &mut label {
        label.facts.exists().then_some(())?;
        label.documents = cut_to(DOCUMENTS, &label.documents)?;
    }
    let split = match &data.split {
        Some(split) => Some(SplitSource { files: cut_to(DIVIDED, &split.files)?, ..split.clone() }),
        None => None,
    };
    let mut cut = |files: &[PathBuf]| cut_to(DOCUMENTS, files);
    Some(DataSources {
        format: Format::DOCRED,
        distant: cut(&data.distant)?,
        human: cut(&data.human)?,
        dev: cut(&data.dev)?,
        test: cut(&data.test)?,
        relations: there(&data.relations)?,
        train_facts: there(&data.train_facts)?,
        tokenizer: Some(tokenizer),
        mesh_tree: None,
        // The cut files may hold fewer, and other documents than those of dev.
        human_documents: 0,
        dev_distant: Vec::new(),
        label,
        split,
        source,
        ..data.clone()
    })
}

/// The tokenizer of the recipe, the first words of its word vectors, or the tokenizer of its
/// encoder's folder, if it is there.
fn tokenizer_there(recipe: &Recipe, folder: &Path, cuts: &mut Vec<CutFile>) -> Option<PathBuf> {
    if let Some(named) = &recipe.data.tokenizer {
        return named.exists().then(|| named.clone());
    }
    match EncoderSpec::parse(&recipe.encoder.name).ok()? {
        EncoderSpec::Folder(folder) => Some(folder),
        spec if spec.reads_words() => {
            cut_of(recipe.encoder.word_vectors.as_ref()?, Contents::Lines, folder, cuts)
        }
        EncoderSpec::New(_) => None,
    }
}

fn cut_of(
    from: &Path,
    contents: Contents,
    folder: &Path,
    cuts: &mut Vec<CutFile>,
) -> Option<PathBuf> {
    from.exists().then_some(())?;
    let hash = blake3::hash(from.as_os_str().as_encoded_bytes()).to_hex();
    let ending = match contents {
        Contents::Documents(..) => "json",
        Contents::Lines => "txt",
    };
    let to = folder.join(format!("{}.{ending}", &hash[..12]));
    cuts.push(CutFile { from: from.to_owned(), contents, to: to.clone() });
    Some(to)
}

/// What a file holds, and how much of it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Documents of a format.
    Documents(Format, usize),
    /// Word vectors, one a line.
    Lines,
}

impl CutFile {
    /// Writes the file unless it is there.
    ///
    /// # Errors
    /// Those of the reader; the disk.
    pub fn write(&self) -> Result<()> {
        if self.to.exists() {
            return Ok(());
        }
        if let Some(folder) = self.to.parent() {
            fs_err::create_dir_all(folder)?;
        }
        let what = match self.contents {
            Contents::Documents(format, count) => {
                format!("{} documents", self.write_documents(format, count)?)
            }
            Contents::Lines => format!("{} lines", self.write_lines()?),
        };
        say(format!("{}: {what}", self.from.display()));
        Ok(())
    }

    fn write_documents(&self, format: Format, count: usize) -> Result<usize> {
        let enough = count * CHOSEN_FROM;
        let mut documents: Vec<Document> = Vec::new();
        let mut each = |document| {
            documents.push(document);
            // An error is the only way to make a reader stop before the end of its file.
            if documents.len() < enough { Ok(()) } else { Err(Error::Bug("enough".into())) }
        };
        let read = format.read(&self.from, &ReadOptions::default(), &mut each);
        if documents.len() < enough {
            read?;
        }
        let documents = cheapest(documents, count);
        let mut writer = DocredWriter::create(&self.to)?;
        documents.iter().try_for_each(|document| writer.write(document))?;
        writer.finish()?;
        Ok(documents.len())
    }

    fn write_lines(&self) -> Result<usize> {
        let reader = BufReader::new(text_file::open(&self.from)?);
        let mut text = String::new();
        let mut count = 0;
        for (row, line) in reader.lines().take(LINES).enumerate() {
            text += &line.map_err(|error| text_file::unreadable(&self.from, row, error))?;
            text.push('\n');
            count += 1;
        }
        write_whole(&self.to, text.as_bytes())?;
        Ok(count)
    }
}

/// The documents whose number of entities is nearest to [`ENTITIES`], in their order. Those with
/// facts come first.
fn cheapest(documents: Vec<Document>, count: usize) -> Vec<Document> {
    let cost = |document: &Document| {
        (
            document.facts.as_ref().is_none_or(Vec::is_empty),
            document.entities.len().abs_diff(ENTITIES),
        )
    };
    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.sort_by_key(|&place| cost(&documents[place]));
    let chosen = &order[..count.min(order.len())];
    let numbered = documents.into_iter().enumerate();
    numbered.filter(|(place, _)| chosen.contains(place)).map(|(_, document)| document).collect()
}
