//! How many documents a recipe reads and how long they are, from shards, files or the settings of a
//! generated world.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Result;
use crate::base::run_files;
use crate::corpus::Format;
use crate::corpus::formats::ReadOptions;
use crate::pipeline::{InputFile, Role, check_files};
use crate::recipe::Recipe;
use crate::shards::{DocumentStore, StoreOptions};

/// A mean generated document, in pieces with markers, and its entities (docs/experiments.md).
const GENERATED: (f64, f64) = (230.0, 11.7);
/// Word pieces a word of English news and encyclopedia text (BERT's vocabulary on DocRED: 1.26).
const PIECES_PER_WORD: f64 = 1.26;
/// Bytes that a document takes in memory, by token (docs/experiments.md).
const BYTES_PER_TOKEN: f64 = 12.0;

/// The documents of a role or source.
#[derive(Clone, Debug, Serialize)]
pub struct CorpusSize {
    /// The role, or the name of the source.
    pub role: String,
    /// Documents.
    pub documents: usize,
    /// Those with facts.
    pub labelled: usize,
    /// Mean length in tokens, markers included.
    pub tokens: f64,
    /// Mean number of entities.
    pub entities: f64,
    /// Mean number of bytes in memory.
    pub bytes: f64,
    /// Where the numbers come from.
    pub source: &'static str,
}

/// The documents of all roles that have some.
pub(super) fn corpora(recipe: &Recipe, folder: &Path) -> Result<Vec<CorpusSize>> {
    let data = &recipe.data;
    if !folder.join(run_files::SHARDS).exists() {
        check_files(recipe)?;
    }
    // Whether the documents of dev are among those of a role.
    let joined_by_dev = |role| role == Role::Human && data.train_on_dev;
    let mut found = Vec::new();
    for role in Role::ALL {
        let shards = folder.join(run_files::SHARDS).join(role.name());
        if shards.join("manifest.json").exists() {
            found.push(Count::of_shards(&shards)?.finish(role.name(), "shards"));
        } else if let Some(synth) = &data.synth {
            let joined = if joined_by_dev(role) { synth.dev } else { 0 };
            let documents = [synth.distant, synth.human, synth.dev, synth.test][role as usize];
            let documents = documents + joined;
            let (tokens, entities) = GENERATED;
            let (role, source) = (role.name().to_owned(), "generated world");
            let labelled = documents;
            let bytes = tokens * BYTES_PER_TOKEN;
            found.push(CorpusSize { role, documents, labelled, tokens, entities, bytes, source });
        } else {
            let mut count = Count::default();
            let own = [&data.distant, &data.human, &data.dev, &data.test][role as usize];
            count.add_files(own, data.format, 1.0)?;
            if joined_by_dev(role) {
                let dev = data.dev.iter().filter(|file| !own.contains(file));
                count.add_files(&dev.cloned().collect::<Vec<_>>(), data.format, 1.0)?;
            }
            if let (Role::Distant, Some(label)) = (role, &data.label) {
                count.add_files(&label.documents, data.format, 1.0)?;
            }
            if let (Some(split), true) = (&data.split, role != Role::Distant) {
                let shares = [split.dev_share, split.test_share];
                let share = match role {
                    Role::Dev => shares[0],
                    Role::Test => shares[1],
                    _ if joined_by_dev(role) => 1.0 - shares[1],
                    _ => 1.0 - shares[0] - shares[1],
                };
                if share > 0.0 {
                    count.add_files(&split.files, data.format, share)?;
                }
            }
            found.push(count.finish(role.name(), "files"));
        }
    }
    for size in found.iter_mut().filter(|size| size.role == Role::Human.name()) {
        size.cut(data.human_documents);
    }
    for source in &data.source {
        let shards = folder.join(run_files::SHARDS).join(&source.name);
        if shards.join("manifest.json").exists() {
            found.push(Count::of_shards(&shards)?.finish(&source.name, "shards"));
        } else {
            let mut count = Count::default();
            count.add_files(&source.files, source.format.unwrap_or(data.format), 1.0)?;
            found.push(count.finish(&source.name, "files"));
        }
    }
    Ok(found.into_iter().filter(|size| size.documents > 0).collect())
}

impl CorpusSize {
    /// Leaves `most` documents; 0: all.
    fn cut(&mut self, most: usize) {
        if most > 0 && self.documents > most {
            let share = most as f64 / self.documents as f64;
            self.labelled = (self.labelled as f64 * share).round() as usize;
            self.documents = most;
        }
    }
}

/// Documents counted in shards or files, each with a weight.
#[derive(Default)]
struct Count {
    documents: f64,
    labelled: f64,
    pieces: f64,
    mentions: f64,
    entities: f64,
    /// Bytes of all documents in memory, where they were read from shards.
    bytes: Option<f64>,
}

impl Count {
    fn of_shards(folder: &Path) -> Result<Self> {
        let options = StoreOptions { verify: false, ..StoreOptions::default() };
        let store = DocumentStore::open(folder, options)?;
        let mut count = Self::default();
        for document in (0..store.len()).map(|row| store.get(row)) {
            let mentions = document.entities.iter().map(|entity| entity.mentions.len()).sum();
            let pieces = document.pieces.len() as f64;
            count.add(1.0, !document.facts.is_empty(), pieces, mentions, document.entities.len());
        }
        count.bytes = Some(store.whole_bytes() as f64);
        Ok(count)
    }

    fn add_files(&mut self, files: &[PathBuf], format: Format, weight: f64) -> Result<()> {
        for file in InputFile::all(files, format) {
            file.read(&ReadOptions::default(), &mut |document| {
                let labelled = document.facts.as_ref().is_none_or(|facts| !facts.is_empty());
                let mentions = document.entities.iter().map(|entity| entity.mentions.len()).sum();
                let pieces = PIECES_PER_WORD * document.num_words() as f64;
                self.add(weight, labelled, pieces, mentions, document.entities.len());
                Ok(())
            })?;
        }
        Ok(())
    }

    fn add(&mut self, weight: f64, labelled: bool, pieces: f64, mentions: usize, entities: usize) {
        self.documents += weight;
        self.labelled += if labelled { weight } else { 0.0 };
        self.pieces += weight * pieces;
        self.mentions += weight * mentions as f64;
        self.entities += weight * entities as f64;
    }

    fn finish(self, role: &str, source: &'static str) -> CorpusSize {
        let documents = self.documents.max(f64::MIN_POSITIVE);
        // Two markers a mention, and the pieces at both ends.
        let tokens = (self.pieces + 2.0 * self.mentions) / documents + 2.0;
        CorpusSize {
            role: role.to_owned(),
            documents: self.documents.round() as usize,
            labelled: self.labelled.round() as usize,
            tokens,
            entities: self.entities / documents,
            bytes: self.bytes.map_or(BYTES_PER_TOKEN * tokens, |bytes| bytes / documents),
            source,
        }
    }
}
