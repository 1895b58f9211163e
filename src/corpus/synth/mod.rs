//! The generated world: a corpus in DocRED's layout on which pre-training can be tried without any
//! download.
//!
//! A knowledge base of persons, companies, places and books is told in short documents. Annotated
//! documents (human, development, test) carry exactly the facts that their text expresses; distant
//! documents carry what the knowledge base says about their entities, right or wrong, and
//! `truth.json` knows which. Entities that the knowledge base relates are often named together
//! without a word about it, so that names alone do not solve the task. Not for: claims about
//! natural language.
//!
//! "Expressed" is closed under inverses, capital ⇒ country, and the three compositions of `schema`,
//! and under nothing else: that siblings share their parents, say, is not counted, though children
//! of one parent are siblings.

mod atlas;
mod closure;
mod community;
mod distractors;
mod generator;
mod names;
mod options;
mod outline;
mod schema;
mod script;
mod story;
mod supervise;
mod templates;
mod tokenizer;
mod truth;

use std::{io::Write, ops::Range, path::Path};

use rayon::prelude::*;
use serde::Serialize;

use self::generator::{Split, WorldGenerator};
pub use self::{
    options::WorldOptions, schema::world_relations, supervise::SplitSummary, truth::Truth,
};
use super::formats::docred::{DocredWriter, to_json};
use crate::base::files::{AtomicFile, write_whole};
use crate::{Error, Result};

/// Documents made at a time, in parallel; this bounds the memory.
const CHUNK: usize = 1024;
/// Above this share hardly any fact would be left to tell.
pub const MAX_NOISE: f64 = 0.8;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WorldSummary {
    /// `train_distant.json`.
    pub distant: SplitSummary,
    /// `train_annotated.json`.
    pub human: SplitSummary,
    /// `dev.json`.
    pub dev: SplitSummary,
    /// `test.json`.
    pub test: SplitSummary,
    /// Pieces in the vocabulary.
    pub vocabulary: usize,
}

impl std::fmt::Display for WorldSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { distant, human, dev, test, vocabulary } = self;
        write!(
            f,
            "{} distant, {} human, {} dev, {} test documents",
            distant.documents, human.documents, dev.documents, test.documents
        )?;
        let share = 100.0 * distant.false_share();
        write!(
            f,
            "; {} distant labels, {share:.1} % of them false, {} facts unlabelled; {vocabulary} \
             word pieces",
            distant.labels, distant.missing
        )
    }
}

/// Writes `train_distant.json`, `train_annotated.json`, `dev.json`, `test.json` (all labelled),
/// `rel_info.json`, `truth.json` and `tokenizer/` into `output`. Each file appears whole or not at
/// all; `rel_info.json` comes last.
///
/// `truth.json` maps the title of each distant document to `{"labels": [bool, …], "missing": [{h,
/// t, r, evidence}, …]}`: whether each label row is expressed, and what is expressed without a
/// label.
///
/// # Errors
/// A recipe error for a noise outside its range, and for a folder that holds such files of somebody
/// else; I/O errors.
pub fn write_world(options: &WorldOptions, output: &Path) -> Result<WorldSummary> {
    if !(0.0..=MAX_NOISE).contains(&options.noise) {
        let message = format!(
            "the share of false labels, {}, is not between 0 and {MAX_NOISE}",
            options.noise
        );
        return Err(Error::recipe(message).with_hint("0.4 resembles DocRED's distant data"));
    }
    let files =
        ["train_distant.json", "train_annotated.json", "dev.json", "test.json", "rel_info.json"];
    if let Some(taken) = files.iter().find(|file| output.join(file).exists())
        && !output.join("truth.json").exists()
    {
        let message = format!(
            "{} already exists and is not part of a generated corpus",
            output.join(taken).display()
        );
        return Err(Error::recipe(message).with_hint("choose another folder"));
    }
    let generator = WorldGenerator::new(options);
    let summary = WorldSummary {
        vocabulary: tokenizer::write(options, &output.join("tokenizer"))?,
        human: write_annotated(&generator, Split::Human, &output.join("train_annotated.json"))?,
        dev: write_annotated(&generator, Split::Dev, &output.join("dev.json"))?,
        test: write_annotated(&generator, Split::Test, &output.join("test.json"))?,
        distant: write_distant(&generator, output)?,
    };
    write_relations(&output.join("rel_info.json"))?;
    Ok(summary)
}

fn chunks(size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..size).step_by(CHUNK).map(move |start| start..(start + CHUNK).min(size))
}

fn write_annotated(generator: &WorldGenerator, split: Split, path: &Path) -> Result<SplitSummary> {
    let mut total = SplitSummary::default();
    let mut writer = DocredWriter::create(path)?;
    for chunk in chunks(generator.size(split)) {
        let made = chunk.into_par_iter().map(|index| {
            let (document, summary) = supervise::annotated(generator.tell(split, index));
            Ok((to_json(&document)?, summary))
        });
        for (json, summary) in made.collect::<Result<Vec<_>>>()? {
            writer.write_json(&json)?;
            total.add(&summary);
        }
    }
    writer.finish()?;
    Ok(total)
}

fn write_distant(generator: &WorldGenerator, output: &Path) -> Result<SplitSummary> {
    let mut total = SplitSummary::default();
    let mut writer = DocredWriter::create(&output.join("train_distant.json"))?;
    let mut truth = AtomicFile::create(&output.join("truth.json"))?;
    for chunk in chunks(generator.size(Split::Distant)) {
        let made = chunk.into_par_iter().map(|index| {
            let (document, line, summary) =
                supervise::distant(generator.tell(Split::Distant, index))?;
            Ok((to_json(&document)?, line, summary))
        });
        for (json, line, summary) in made.collect::<Result<Vec<_>>>()? {
            writer.write_json(&json)?;
            truth.write_all(if total.documents == 0 { b"{\n" } else { b",\n" })?;
            truth.write_all(&line)?;
            total.add(&summary);
        }
    }
    truth.write_all(if total.documents == 0 { b"{}\n" } else { b"\n}\n" })?;
    writer.finish()?;
    truth.finish()?;
    Ok(total)
}

fn write_relations(path: &Path) -> Result<()> {
    let relations = world_relations();
    let names: serde_json::Map<String, serde_json::Value> = relations
        .iter()
        .map(|relation| (relation.id.clone(), relation.name.clone().into()))
        .collect();
    write_whole(path, format!("{:#}\n", serde_json::Value::Object(names)).as_bytes())
}

#[cfg(test)]
mod tests;
