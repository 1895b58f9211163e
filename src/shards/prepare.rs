//! The stage `prepare`: documents from any source → encoded, written as shards, indexed by fact, published as one folder.
//!
//! The source runs on the calling thread and hands chunks over a short queue to a thread that encodes them (in parallel) and writes them,
//! so reading and writing overlap and memory stays bounded. Rows keep the order of the source. Not for: parsing files (`corpus`).

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rayon::prelude::*;

use super::files::Staging;
use super::store::{DocumentStore, StoreOptions, TOKENIZER};
use super::{FORMAT_VERSION, FactIndex, Manifest, ShardWriter, TokenizerEntry, WriteOptions, Written};
use crate::corpus::{Document, RelationSet};
use crate::text::{EncodedDocument, Tokenizer, encode};
use crate::{Error, Result};

/// Documents handed over at a time.
const CHUNK: usize = 1_024;
/// Chunks that may wait; with the one being filled and the one being written this bounds the memory.
const QUEUE: usize = 2;

/// What to prepare.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// The folder to make; it must not exist or be empty.
    pub output: PathBuf,
    /// The tokeniser; it is copied beside the shards.
    pub tokenizer: Tokenizer,
    /// All relations that the documents may use, in class order.
    pub relations: RelationSet,
    /// How rows are cut into files.
    pub write: WriteOptions,
}

/// What was prepared.
#[derive(Clone, Debug, PartialEq)]
pub struct PrepareReport {
    /// The manifest, as written.
    pub manifest: Manifest,
    /// Documents without any entity, which were left out.
    pub dropped: usize,
    /// Facts from an entity to itself, which were left out.
    pub self_facts: usize,
    /// Fact keys with instances in two documents.
    pub fact_keys: usize,
    /// Their instances.
    pub fact_instances: usize,
}

impl std::fmt::Display for PrepareReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let manifest = &self.manifest;
        write!(
            f,
            "{} documents in {} shard(s), {} facts of {} relations",
            manifest.documents,
            manifest.shards.len(),
            manifest.facts,
            manifest.relations.len()
        )?;
        write!(f, ", {} facts in two documents or more", self.fact_keys)?;
        if self.dropped > 0 {
            write!(f, "; {} documents without entities left out", self.dropped)?;
        }
        if self.self_facts > 0 {
            write!(f, "; {} facts from an entity to itself left out", self.self_facts)?;
        }
        Ok(())
    }
}

/// Gives every document of a corpus to the function it is called with, and passes on the first error of that function.
pub type Source<'a> = dyn FnMut(&mut dyn FnMut(Document) -> Result<()>) -> Result<()> + 'a;

/// Prepares a corpus. `progress` is told the number of documents read so far, once a chunk.
///
/// Errors: those of the source; a data error for a document that breaks its own references; a recipe error for an output that exists. An
/// output folder appears only when everything in it is complete.
pub fn prepare(options: &PrepareOptions, source: &mut Source, progress: &mut dyn FnMut(usize)) -> Result<PrepareReport> {
    let staging = Staging::new(&options.output)?;
    let writer = ShardWriter::new(staging.path(), options.write)?;
    let (sender, receiver) = sync_channel(QUEUE);
    let mut feed = Feed { sender, chunk: Vec::with_capacity(CHUNK), dropped: 0, sent: 0, progress };
    let (read, written) = thread::scope(|scope| {
        let worker = scope.spawn(move || encode_and_write(options, writer, &receiver));
        let read = source(&mut |document| feed.push(document)).and_then(|()| feed.send());
        let dropped = feed.dropped;
        drop(feed);
        let written = worker.join().unwrap_or_else(|_| Err(Error::Bug("the writing thread panicked".into())));
        (read.map(|()| dropped), written)
    });
    // Where the writer has failed, the source's error only says that nobody listens any more.
    let (written, self_facts) = written?;
    finish(options, staging, written, self_facts, read?)
}

/// The reading end: collects documents and hands them over.
struct Feed<'a> {
    sender: SyncSender<Vec<Document>>,
    chunk: Vec<Document>,
    dropped: usize,
    sent: usize,
    progress: &'a mut dyn FnMut(usize),
}

impl Feed<'_> {
    fn push(&mut self, document: Document) -> Result<()> {
        if document.entities.is_empty() {
            self.dropped += 1;
            return Ok(());
        }
        self.chunk.push(document);
        if self.chunk.len() == CHUNK { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.sent += chunk.len();
        (self.progress)(self.sent + self.dropped);
        self.sender.send(chunk).map_err(|_| Error::Bug("the writing thread has stopped".into()))
    }
}

/// The writing end. Gives what was written and the number of facts left out.
fn encode_and_write(options: &PrepareOptions, mut writer: ShardWriter, chunks: &Receiver<Vec<Document>>) -> Result<(Written, usize)> {
    let mut tokenizers = vec![options.tokenizer.clone(); rayon::current_num_threads()];
    let mut self_facts = 0;
    for chunk in chunks {
        for (encoded, document) in encode_chunk(&chunk, &mut tokenizers, &options.relations)?.into_iter().zip(&chunk) {
            self_facts += document.facts().len() - encoded.facts.len();
            writer.push(encoded)?;
        }
    }
    Ok((writer.finish()?, self_facts))
}

/// Encodes a chunk, a slice a tokeniser, in order; of several errors the first in document order is given.
fn encode_chunk(chunk: &[Document], tokenizers: &mut [Tokenizer], relations: &RelationSet) -> Result<Vec<EncodedDocument>> {
    let size = chunk.len().div_ceil(tokenizers.len()).max(1);
    let encode_slice = |(documents, tokenizer): (&[Document], &mut Tokenizer)| -> Result<Vec<EncodedDocument>> {
        documents.iter().map(|document| encode(document, tokenizer, relations)).collect()
    };
    let slices: Vec<Result<Vec<EncodedDocument>>> = chunk.par_chunks(size).zip(tokenizers).map(encode_slice).collect();
    Ok(slices.into_iter().collect::<Result<Vec<_>>>()?.concat())
}

/// Builds the fact index, writes the manifest last and publishes the folder.
fn finish(options: &PrepareOptions, staging: Staging, written: Written, self_facts: usize, dropped: usize) -> Result<PrepareReport> {
    options.tokenizer.save(&staging.path().join(TOKENIZER))?;
    let mut manifest = manifest(options, written);
    let mut facts = FactIndex::default();
    if manifest.labelled > 0 {
        let store = DocumentStore::load(staging.path(), manifest.clone(), StoreOptions { with_words: false, verify: false })?;
        facts = FactIndex::build(&store);
        manifest.fact_index = Some(facts.write(staging.path())?);
    }
    manifest.write(staging.path())?;
    staging.publish()?;
    Ok(PrepareReport { manifest, dropped, self_facts, fact_keys: facts.num_keys(), fact_instances: facts.num_instances() })
}

fn manifest(options: &PrepareOptions, written: Written) -> Manifest {
    let Written { shards, totals } = written;
    Manifest {
        format_version: FORMAT_VERSION,
        documents: shards.iter().map(|shard| shard.rows).sum(),
        labelled: totals.labelled,
        facts: totals.facts,
        relations: options.relations.clone(),
        entity_types: totals.entity_types.into_iter().collect(),
        tokenizer: TokenizerEntry::from(&options.tokenizer),
        shards,
        fact_index: None,
        max_pieces: totals.max_pieces,
        max_entities: totals.max_entities,
        max_mentions: totals.max_mentions,
        scored: None,
    }
}

#[cfg(test)]
mod tests;
