//! `bench systems`: every system trained and scored on the same documents, each in a process of its
//! own, so that peak memory is its own.
//!
//! Not for: results that count; a system's own recipe trains it as its paper does.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::table::{FailedSystem, SystemRow, SystemTable};
use super::trivial::TypePrior;
use crate::base::{read_json, say, to_json, write_whole};
use crate::corpus::Format;
use crate::corpus::formats::{DocredWriter, ReadOptions};
use crate::eval::{EvaluateOptions, FactSets, Gold, OfficialScores, Prediction, evaluate};
use crate::pipeline::{OpenShards, Role, RunData, TrainingShards, gold_of, prepare_data};
use crate::recipe::{DataSources, Recipe};
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::{Reads, SystemInfo, find, systems};
use crate::{Error, Result};

/// What is compared.
#[derive(Clone, Debug)]
pub struct SystemsBench {
    /// Data, word vectors and schedules; the generated world when absent.
    pub recipe: Option<PathBuf>,
    /// Settings over the recipe.
    pub settings: Vec<String>,
    /// Systems; all when empty.
    pub systems: Vec<String>,
    /// Encoders of the systems that read word pieces: `ENCODER` for all, `SYSTEM=ENCODER` for one;
    /// those that read words take a table of word vectors.
    pub encoders: Vec<String>,
    /// Annotated documents of the generated world; with `overfit`, the documents that are learnt by
    /// heart.
    pub documents: Option<usize>,
    /// Train and score on the same few documents without the encoder's dropout: can every system
    /// learn?
    pub overfit: bool,
}

/// The share of its first loss under which a system counts as able to learn.
const LEARNT: f64 = 0.1;

/// Where the documents of systems that read so lie.
fn folder_of(reads: Reads, work: &Path) -> PathBuf {
    work.join(if reads == Reads::Words { "words" } else { "pieces" })
}

/// Where a system's documents lie.
pub(crate) struct Splits {
    pub train: PathBuf,
    pub dev: PathBuf,
    /// What is scored: test, or dev where there is no test.
    pub held_out: PathBuf,
    /// The file of facts that Ign F1 ignores, where the recipe names one.
    facts: Option<PathBuf>,
}

impl SystemsBench {
    /// The systems that take part.
    ///
    /// # Errors
    /// If a system is unknown.
    pub fn entrants(&self) -> Result<Vec<&'static str>> {
        if self.systems.is_empty() {
            return Ok(systems().iter().map(|system| system.info().name).collect());
        }
        self.systems.iter().map(|name| Ok(find(name)?.info().name)).collect()
    }

    /// The encoder that was asked for, of a system that reads word pieces.
    fn encoder_of(&self, system: &str) -> &str {
        // Not any `=`: a folder's name may hold one.
        let named = |asked: &str| asked.split_once('=').is_some_and(|(name, _)| find(name).is_ok());
        let own = self
            .encoders
            .iter()
            .rev()
            .find_map(|asked| asked.strip_prefix(system)?.strip_prefix('='));
        own.or_else(|| self.encoders.iter().rev().map(String::as_str).find(|asked| !named(asked)))
            .unwrap_or("tiny")
    }

    /// The recipe of one system.
    pub(crate) fn recipe_of(&self, system: &str) -> Result<Recipe> {
        let settings = [
            &[format!("system={system}"), "variants=[\"baseline\"]".to_owned()],
            self.settings.as_slice(),
        ]
        .concat();
        let mut recipe = match &self.recipe {
            Some(path) => Recipe::load(path, &settings)?,
            None => Recipe::parse(&self.generated(), "bench systems", &settings)?,
        };
        recipe.data.distant.clear();
        recipe.data.label = None;
        match find(system)?.info().reads {
            Reads::Pieces => recipe.encoder.name = self.encoder_of(system).to_owned(),
            Reads::Words => {
                recipe.encoder.name = "words".to_owned();
                // Word vectors bring their own vocabulary.
                recipe.data.tokenizer =
                    recipe.data.tokenizer.filter(|_| recipe.encoder.word_vectors.is_none());
            }
        }
        // Systems can ask for more layers than the two of `tiny`.
        if recipe.encoder.name == "tiny" {
            recipe.systems.fit(2);
        }
        if self.overfit {
            recipe.encoder.dropout = 0.0;
        }
        Ok(recipe)
    }

    /// The generated world with a schedule that fits encoders that start from nothing.
    fn generated(&self) -> String {
        let documents = self.documents.unwrap_or(if self.overfit { 40 } else { 400 });
        let held_out = if self.overfit { 1 } else { documents.div_ceil(4) };
        let (epochs, evaluate) = if self.overfit { (40, 20) } else { (6, 2) };
        let world = format!(
            "[data.synth]\ndistant = 1\nhuman = {documents}\ndev = {held_out}\ntest = {held_out}\n"
        );
        let schedule = format!(
            "learning_rate = 2e-3\nhead_rate = 1\nwarmup = 0.05\nclip = 1\nbatch = 8\nepochs = \
             {epochs}\nevaluate_epochs = {evaluate}\nfirst_evaluation_epoch = 0\n"
        );
        format!("{world}[finetune]\n{schedule}[inference]\n{schedule}")
    }

    /// Prepares the documents for what `system` reads.
    fn prepare(&self, reads: Reads, system: &str, work: &Path) -> Result<()> {
        let mut recipe = self.recipe_of(system)?;
        if self.overfit && self.recipe.is_some() {
            recipe.data = self.first_documents(&recipe.data, work)?;
        }
        let folder = folder_of(reads, work);
        let data = prepare_data(&recipe, &folder)?;
        write_whole(&folder.join("data.json"), &to_json(&data)?)
    }

    /// The first annotated documents that have labels, as the only ones.
    fn first_documents(&self, data: &DataSources, work: &Path) -> Result<DataSources> {
        let wanted = self.documents.unwrap_or(40);
        let path = work.join("first.json");
        let mut writer = DocredWriter::create(&path)?;
        let mut taken = 0;
        let split = data.split.iter().flat_map(|split| &split.files);
        for file in data.human.iter().chain(split) {
            Format::DOCRED.read(file, &ReadOptions::default(), &mut |document| {
                if taken < wanted && !document.facts().is_empty() {
                    taken += 1;
                    writer.write(&document)?;
                }
                Ok(())
            })?;
        }
        writer.finish()?;
        if taken == 0 {
            return Err(Error::recipe("the recipe names no annotated documents")
                .with_hint("data.human or data.split"));
        }
        let (relations, tokenizer) = (data.relations.clone(), data.tokenizer.clone());
        Ok(DataSources {
            human: vec![path],
            relations,
            tokenizer,
            lowercase: data.lowercase,
            ..DataSources::default()
        })
    }

    /// Where the documents of `system` lie below `work`.
    pub(crate) fn splits(&self, system: &str, work: &Path) -> Result<Splits> {
        let folder = folder_of(find(system)?.info().reads, work);
        let data: RunData = read_json(&folder.join("data.json"))?;
        let train = data.need(Role::Human)?;
        if self.overfit {
            return Ok(Splits { dev: train.clone(), held_out: train.clone(), train, facts: None });
        }
        let dev = data.need(Role::Dev)?;
        let held_out = data.shards_of(Role::Test).unwrap_or_else(|| dev.clone());
        Ok(Splits { train, dev, held_out, facts: data.train_facts })
    }
}

impl Splits {
    /// Official scores of predictions for the held-out documents; Ign F1 where training facts are
    /// known.
    pub(crate) fn score(
        &self,
        store: &DocumentStore,
        predictions: &[Prediction],
    ) -> Result<OfficialScores> {
        let gold = gold_of(store);
        // What is scored as it was learnt has no Ign F1.
        let apart = self.train != self.held_out;
        let facts = apart
            .then(|| {
                let shards = [TrainingShards::alone(&self.train)];
                let train = OpenShards::open(&shards, StoreOptions::MEMORY)?;
                train.known_facts(self.facts.as_deref())
            })
            .transpose()?;
        let options = EvaluateOptions {
            facts: FactSets { annotated: facts.as_ref(), distant: None },
            ..EvaluateOptions::default()
        };
        Ok(evaluate("held out", &Gold::new(&gold)?, predictions, &options).official)
    }

    fn trivial(&self) -> Result<SystemRow> {
        let open = |path: &Path| DocumentStore::open(path, StoreOptions::default());
        let (prior, held_out) = (TypePrior::learn(&open(&self.train)?), open(&self.held_out)?);
        let scores =
            self.score(&held_out, &prior.predict(&held_out, prior.best_cut(&open(&self.dev)?)))?;
        let ign_f1 = scores.ign_annotated.map(|ign| ign.f1);
        Ok(SystemRow {
            system: "type prior".into(),
            encoder: "none".into(),
            f1: scores.f1,
            ign_f1,
            ..SystemRow::default()
        })
    }

    fn describe(&self) -> Result<String> {
        let count =
            |path: &Path| Ok::<_, Error>(DocumentStore::open(path, StoreOptions::default())?.len());
        let (train, dev, held_out) =
            (count(&self.train)?, count(&self.dev)?, count(&self.held_out)?);
        Ok(if self.train == self.held_out {
            format!("{train} documents, learnt and scored")
        } else {
            format!(
                "{train} training documents, {dev} dev documents for epoch and threshold, \
                 {held_out} scored"
            )
        })
    }
}

/// Trains and scores every system; `flags` are passed on to the processes (device, threads). A row
/// is told as soon as it is there, and a system that fails is named in the table: hours of the
/// others are not lost.
///
/// # Errors
/// Bad data.
pub fn compare_systems(bench: &SystemsBench, flags: &[String]) -> Result<SystemTable> {
    let entrants = bench.entrants()?;
    let work = tempfile::tempdir()?;
    for reads in [Reads::Words, Reads::Pieces] {
        let mut known = systems().into_iter().map(|system| system.info());
        let reader = known.find(|info| info.reads == reads && entrants.contains(&info.name));
        if let Some(SystemInfo { name: system, .. }) = reader {
            bench.prepare(reads, system, work.path())?;
        }
    }
    let splits = bench.splits(entrants[0], work.path())?;
    let mut table = SystemTable {
        documents: splits.describe()?,
        rows: vec![splits.trivial()?],
        failed: Vec::new(),
    };
    say(format!("bench systems: {}", table.rows[0]));
    for system in entrants {
        say(format!("bench systems: {system}"));
        match run_apart(bench, system, work.path(), flags)? {
            Ok(row) => {
                say(format!("bench systems: {row}"));
                table.rows.push(row);
            }
            Err(failed) => table.failed.push(failed),
        }
    }
    Ok(table)
}

/// The systems of a table that did not get under a tenth of their first loss.
pub fn not_learnt(table: &SystemTable) -> Vec<&str> {
    let stuck =
        |row: &&SystemRow| row.loss_left().is_some_and(|left| left.is_nan() || left >= LEARNT);
    table.rows.iter().filter(stuck).map(|row| row.system.as_str()).collect()
}

/// This program again, for one system.
fn run_apart(
    bench: &SystemsBench,
    system: &str,
    work: &Path,
    flags: &[String],
) -> Result<std::result::Result<SystemRow, FailedSystem>> {
    let row = work.join(format!("{system}.json"));
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["bench", "systems", "--systems", system, "--encoder", bench.encoder_of(system)])
        .args(flags);
    command.arg("--entrant").arg(work).arg("--json").arg(&row);
    if let Some(recipe) = &bench.recipe {
        command.arg("--recipe").arg(recipe);
    }
    command.args(bench.settings.iter().flat_map(|setting| ["--set", setting.as_str()]));
    if let Some(documents) = bench.documents {
        command.arg("--documents").arg(documents.to_string());
    }
    if bench.overfit {
        command.arg("--overfit");
    }
    let status = command.status()?;
    if !status.success() {
        return Ok(Err(FailedSystem {
            system: system.to_owned(),
            exit_code: status.code().and_then(|code| code.try_into().ok()),
        }));
    }
    serde_json::from_slice(&fs_err::read(&row)?)
        .map(Ok)
        .map_err(|error| Error::Bug(error.to_string()))
}
