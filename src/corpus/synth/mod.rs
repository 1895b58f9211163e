//! The generated world: a corpus in DocRED's layout on which pre-training can be tried without any
//! download.
//!
//! Short documents tell what a knowledge base holds about persons, companies, places and books.
//! Annotated documents (human, development, test) have exactly the facts that their text expresses.
//! Distant documents have what the knowledge base says about their entities, right or wrong, and
//! `truth.json` says which is which. Documents often name two related entities together without a
//! word about the relation, so that names alone do not solve the task. Not for: claims about
//! natural language.
//!
//! A fact is also expressed if it follows from expressed facts by an inverse, by capital ⇒ country,
//! or by one of the three compositions of `schema`. Nothing else follows: children of one parent
//! are siblings, for example, but siblings need not have the same parents.

mod atlas;
mod closure;
mod community;
mod distractors;
mod generator;
mod lists;
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
use self::story::Told;
pub use self::{
    options::WorldOptions, schema::world_relations, supervise::SplitSummary, truth::Truth,
};
use super::Document;
use super::formats::docred::{DocredWriter, to_json};
use crate::base::files::{AtomicFile, write_whole};
use crate::{Error, Result};

/// Documents that are made in parallel at a time. This bounds the memory.
const CHUNK: usize = 1024;
/// With a larger share hardly any fact would be left to tell.
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
/// `dev_distant.json` (the documents of dev with distant labels), `rel_info.json`, `truth.json` and
/// `tokenizer/` into `output`. Each file appears whole or not at all; `rel_info.json` comes last.
///
/// `truth.json` maps the title of each distant document to `{"labels": [bool, …], "missing": [{h,
/// t, r, evidence}, …]}`: whether each label row is expressed, and what is expressed without a
/// label.
///
/// # Errors
/// A recipe error if the noise is outside its range, or if the folder holds such files that no
/// generated world has put there; I/O errors.
pub fn write_world(options: &WorldOptions, output: &Path) -> Result<WorldSummary> {
    if !(0.0..=MAX_NOISE).contains(&options.noise) {
        let message = format!(
            "the share of false labels, {}, is not between 0 and {MAX_NOISE}",
            options.noise
        );
        return Err(Error::recipe(message).with_hint("0.4 resembles DocRED's distant data"));
    }
    let files = [
        "train_distant.json",
        "train_annotated.json",
        "dev.json",
        "dev_distant.json",
        "test.json",
        "rel_info.json",
    ];
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
    let vocabulary = tokenizer::write(options, &output.join("tokenizer"))?;
    let annotated = |split, file| {
        write_split(&generator, split, &output.join(file), supervise::annotated, None)
    };
    let dev_distant = output.join("dev_distant.json");
    write_split(&generator, Split::Dev, &dev_distant, supervise::distant, None)?;
    let summary = WorldSummary {
        vocabulary,
        human: annotated(Split::Human, "train_annotated.json")?,
        dev: annotated(Split::Dev, "dev.json")?,
        test: annotated(Split::Test, "test.json")?,
        distant: write_split(
            &generator,
            Split::Distant,
            &output.join("train_distant.json"),
            supervise::distant,
            Some(AtomicFile::create(&output.join("truth.json"))?),
        )?,
    };
    write_relations(&output.join("rel_info.json"))?;
    Ok(summary)
}

/// The first documents of a small world, without labels: text that anybody may have, for trying a
/// model.
pub fn sample_documents(count: usize) -> Vec<Document> {
    let generator = WorldGenerator::new(&WorldOptions::default());
    let tell = |index| Document { facts: None, ..generator.tell(Split::Test, index).document };
    (0..count).map(tell).collect()
}

fn chunks(size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..size).step_by(CHUNK).map(move |start| start..(start + CHUNK).min(size))
}

/// Writes the documents of a split as `supervise` labels them; with `truth`, also what is true of
/// their labels.
fn write_split(
    generator: &WorldGenerator,
    split: Split,
    path: &Path,
    supervise: fn(Told) -> Result<supervise::Supervised>,
    mut truth: Option<AtomicFile>,
) -> Result<SplitSummary> {
    let mut total = SplitSummary::default();
    let mut writer = DocredWriter::create(path)?;
    for chunk in chunks(generator.size(split)) {
        let made = chunk.into_par_iter().map(|index| {
            let (document, line, summary) = supervise(generator.tell(split, index))?;
            Ok((to_json(&document)?, line, summary))
        });
        for (json, line, summary) in made.collect::<Result<Vec<_>>>()? {
            writer.write_json(&json)?;
            if let Some(truth) = &mut truth {
                truth.write_all(if total.documents == 0 { b"{\n" } else { b",\n" })?;
                truth.write_all(&line)?;
            }
            total.add(&summary);
        }
    }
    if let Some(truth) = &mut truth {
        truth.write_all(if total.documents == 0 { b"{}\n" } else { b"\n}\n" })?;
    }
    writer.finish()?;
    truth.map_or(Ok(()), AtomicFile::finish)?;
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
